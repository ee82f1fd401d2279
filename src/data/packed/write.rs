//! Packing: from any data set to the files of [`super`].

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::{ATTRIBUTE, FORMAT, Header, INDEX, Index, Packed as Reader};
use crate::data::hdf5::{Chunked, Column, Dtype, Growing};
use crate::data::{self, Dataset, Label, RawSample, Split, loader};
use crate::error::AtPath;
use crate::files::{remove, write_atomically};
use crate::progress::Progress;
use crate::suite::{LabelKind, Suite, Task};
use crate::{Error, Result};

/// Labels that are compressed together, in numbers, where they are no masks.
const LABEL_CHUNK: usize = 1 << 14;

/// What was packed.
#[derive(Debug, Clone)]
pub struct Packed {
    pub folder: PathBuf,
    pub samples: usize,
    /// Of the packed files.
    pub bytes: u64,
    /// It was there before, of the same source.
    pub reused: bool,
}

/// Where a sample stands in the source: a partition's split and a place in it.
type Place = (usize, Split, usize);

/// Packs all partitions of a task of the suite's folder `root` into `<to>/<task>`, and reads all of it back. What is
/// there already of the same source is left alone.
///
/// Files are written under hidden names and renamed when they are whole; the index is written last. Memory: a few
/// samples.
///
/// # Errors
/// Where the source cannot be read, its samples differ in size or type, the disk is full, or what is read back is not
/// what was written.
pub fn pack(suite: &Suite, task: &Task, root: &Path, to: &Path, progress: &dyn Progress) -> Result<Packed> {
    let source = data::task_folder(suite, task, root)
        .ok_or_else(|| Error::file(root, format!("the data of {} is not there", task.name)))
        .map_err(|error| error.help(crate::remedy::get_data(suite, &[&task.name], Some(root))))?;
    let folder = to.join(&task.name);
    if same(&source, &folder) {
        return Err(Error::file(&folder, "is the source itself").help("name another folder with --to"));
    }
    let names = data::partitions(suite, &source)?;
    let partitions = names
        .iter()
        .map(|name| Ok((name.clone(), data::open(suite, task, root, name)?)))
        .collect::<Result<Vec<(String, Box<dyn Dataset>)>>>()?;
    let fingerprints = partitions
        .iter()
        .map(|(name, dataset)| Ok((name.clone(), dataset.fingerprint(&Split::ALL)?)))
        .collect::<Result<BTreeMap<String, String>>>()?;
    if let Some(known) = reusable(task, &folder, &fingerprints)? {
        return Ok(known);
    }
    std::fs::create_dir_all(&folder).at(&folder)?;
    // Whatever was there does not count any more from here on.
    let index_path = folder.join(INDEX);
    remove(&index_path)?;

    let mut index = Index {
        format: FORMAT,
        suite: suite.name.clone(),
        task: task.name.clone(),
        fingerprints,
        partitions: names.iter().map(|name| (name.clone(), BTreeMap::new())).collect(),
        statistics: BTreeMap::new(),
        statistics_content: None,
        sizes: BTreeMap::new(),
        checksum: None,
    };
    let mut samples = 0;
    for split in Split::ALL {
        let places = places(&partitions, split)?;
        for (name, rows) in names.iter().zip(places.rows) {
            index.partitions.entry(name.clone()).or_default().insert(split, rows);
        }
        samples += places.of_rows.len();
        let path = folder.join(format!("{split}.h5"));
        let bytes =
            write(suite, task, &partitions, &places.of_rows, &path, &format!("pack {split}"), progress)?;
        index.sizes.insert(split, bytes);
    }
    if let Some((_, first)) = partitions.first()
        && let Some((name, content)) = first.statistics_content()?
    {
        index.statistics_content = Some((name, content.to_hex().to_string()));
        for band in first.bands()? {
            // Official statistics of bands that no model takes may be useless.
            if let Ok(of) = first.statistics(std::slice::from_ref(&band)) {
                let numbers = of.first().map(|of| [format!("{:?}", of.mean), format!("{:?}", of.std)]);
                index.statistics.extend(numbers.map(|numbers| (band, numbers)));
            }
        }
    }
    index.checksum = Some(index.hash().at(&index_path)?);
    write_atomically(&index_path, &serde_json::to_vec(&index).at(&index_path)?)?;
    let bytes = index.sizes.values().sum();
    Ok(Packed { folder, samples, bytes, reused: false })
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// What is there already, if it is whole and of the same source.
fn reusable(task: &Task, folder: &Path, fingerprints: &BTreeMap<String, String>) -> Result<Option<Packed>> {
    if !folder.join(INDEX).is_file() {
        return Ok(None);
    }
    let Ok(index) = super::index(folder) else { return Ok(None) };
    let whole = index.fingerprints == *fingerprints
        && index.partitions.keys().all(|name| Reader::open(task, folder, name).is_ok());
    let samples = index.partitions.values().flat_map(BTreeMap::values).map(Vec::len).max().unwrap_or(0);
    let bytes = index.sizes.values().sum();
    Ok(whole.then(|| Packed { folder: folder.to_owned(), samples, bytes, reused: true }))
}

/// The distinct samples of a split over all partitions.
struct Places {
    /// Where each row of the file comes from.
    of_rows: Vec<Place>,
    /// Of each partition, the rows in its order.
    rows: Vec<Vec<usize>>,
}

fn places(partitions: &[(String, Box<dyn Dataset>)], split: Split) -> Result<Places> {
    let mut known: HashMap<(String, blake3::Hash), usize> = HashMap::new();
    let mut places = Places { of_rows: Vec::new(), rows: Vec::new() };
    for (partition, (_, dataset)) in partitions.iter().enumerate() {
        let contents = dataset.contents(split)?;
        let mut rows = Vec::with_capacity(contents.len());
        for (place, (name, content)) in dataset.samples(split).iter().zip(contents).enumerate() {
            let row = *known.entry((name.clone(), content)).or_insert_with(|| {
                places.of_rows.push((partition, split, place));
                places.of_rows.len() - 1
            });
            rows.push(row);
        }
        places.rows.push(rows);
    }
    Ok(places)
}

/// A sample's numbers as they are stored.
struct Encoded {
    image: Vec<u8>,
    label: Vec<u8>,
}

/// Writes a split's file and returns its size.
fn write(
    suite: &Suite,
    task: &Task,
    partitions: &[(String, Box<dyn Dataset>)],
    places: &[Place],
    path: &Path,
    what: &str,
    progress: &dyn Progress,
) -> Result<u64> {
    let read = |&(partition, split, place): &Place| partitions[partition].1.read_raw(split, place);
    let Some(first) = places.first() else {
        return Err(Error::file(
            path,
            format!("{}: a split has no samples, so there is nothing to pack", task.name),
        ));
    };
    let bands = partitions.first().map(|(_, dataset)| dataset.bands()).transpose()?.unwrap_or_default();
    let first = read(first)?;
    let header = header(task, &first, alike(suite, &first, bands), places.len())?;
    let dtype =
        Dtype::named(&header.dtype).ok_or_else(|| Error::file(path, format!("type {}", header.dtype)))?;

    let mut names = Vec::with_capacity(places.len());
    let mut contents = Vec::with_capacity(32 * places.len());
    let mut hashes: HashMap<(usize, Split), Vec<blake3::Hash>> = HashMap::new();
    for &(partition, split, place) in places {
        let dataset = &partitions[partition].1;
        let of_split = match hashes.entry((partition, split)) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => new.insert(dataset.contents(split)?),
        };
        names.push(&dataset.samples(split)[place]);
        contents.extend(of_split[place].as_bytes());
    }

    let folder = path.parent().unwrap_or(Path::new("."));
    // Removed when it goes out of scope, unless it is renamed.
    let temporary = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(folder).at(path)?;
    let (names, about) = (serde_json::to_vec(&names).at(path)?, serde_json::to_string(&header).at(path)?);
    let width = header.label_width.max(1);
    // Masks are read one by one, other labels all at once.
    let chunk = match header.label {
        LabelKind::Mask => width,
        _ => LABEL_CHUNK.div_ceil(width).min(places.len()) * width,
    };
    let columns = [
        Column { name: "images", dtype, chunk: header.image_width() },
        Column { name: "labels", dtype: Dtype::Int32, chunk },
    ];
    let known = [("names", names.as_slice()), ("contents", contents.as_slice())];
    let growing = Growing::create(temporary.path(), (ATTRIBUTE, &about), &known, &columns)?;
    let (mut images, mut labels) = (growing.column("images")?, growing.column("labels")?);
    let step = progress.begin(what, places.len());
    let encode = |row: usize| encoded(&header, dtype, &read(&places[row])?);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let sums = loader::ordered(places.len(), threads, 4 * threads, encode, |samples| {
        let (mut sums, mut waiting) = (Vec::with_capacity(places.len()), Vec::new());
        for sample in samples {
            let Encoded { image, label } = sample?;
            images.append(&image)?;
            sums.push((blake3::hash(&image), blake3::hash(&label)));
            waiting.extend(label);
            if waiting.len() >= 4 * chunk {
                let rest = waiting.split_off(4 * chunk);
                labels.append(&waiting)?;
                waiting = rest;
            }
            step.advance(1);
        }
        if !waiting.is_empty() {
            labels.append(&waiting)?;
        }
        Ok::<_, Error>(sums)
    })?;
    drop((images, labels, step));
    growing.close()?;
    verify(&header, temporary.path(), &sums)?;

    let bytes = temporary.as_file().metadata().at(path)?.len();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        temporary.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).at(path)?;
    }
    temporary.as_file().sync_all().at(path)?;
    temporary.persist(path).at(path)?;
    Ok(bytes)
}

/// Reads everything back.
fn verify(header: &Header, path: &Path, sums: &[(blake3::Hash, blake3::Hash)]) -> Result<()> {
    let (images, labels) = (Chunked::open(path, "images")?, Chunked::open(path, "labels")?);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let check = |row: usize| {
        let found = |column: &Chunked, width: usize| Ok(blake3::hash(&column.bytes(row * width, width)?));
        let found = (found(&images, header.image_width())?, found(&labels, header.label_width)?);
        match found == sums[row] {
            true => Ok(()),
            false => Err(images
                .error(format!("sample {row} reads back as something else than was written"))
                .help("the disk may be failing; nothing was kept")),
        }
    };
    loader::ordered(sums.len(), threads, 4 * threads, check, |checked| checked.collect())
}

/// The bands that go together into one array: those of the type and size of the first one that models take. What else
/// the source holds (a cloud probability of 8 bits) is left out; no model takes it.
fn alike(suite: &Suite, first: &RawSample, mut bands: Vec<String>) -> Vec<String> {
    let taken = first.bands.iter().find(|band| suite.bands.values().any(|name| *name == band.name));
    if let Some(like) = taken.or(first.bands.first()) {
        let fits = |name: &String| {
            let of_name = first.bands.iter().find(|band| band.name == *name);
            of_name.is_some_and(|band| band.dtype == like.dtype && band.pixels.dim() == like.pixels.dim())
        };
        bands.retain(fits);
    }
    bands
}

fn header(task: &Task, first: &RawSample, bands: Vec<String>, samples: usize) -> Result<Header> {
    let unusable =
        |problem: String| Error::request(format!("{}: {problem}, so that it cannot be packed", first.name));
    let band = first.bands.iter().find(|band| bands.first() == Some(&band.name));
    let band = band.ok_or_else(|| unusable("it has no bands".to_owned()))?;
    let (rows, columns) = band.pixels.dim();
    let label_width = match &first.label {
        Label::Class(_) => 1,
        Label::MultiLabel(labels) => labels.len(),
        Label::Mask(mask) => mask.len(),
    };
    Ok(Header {
        format: FORMAT,
        task: task.name.clone(),
        samples,
        bands,
        dtype: band.dtype.clone(),
        rows,
        columns,
        label: task.label,
        label_width,
        label_dtype: first.label_dtype.clone(),
    })
}

fn encoded(header: &Header, dtype: Dtype, sample: &RawSample) -> Result<Encoded> {
    let unusable = |problem: String| {
        Error::request(format!("{}: {problem}, so that it cannot be packed", sample.name))
            .help("all samples of a task must have the bands, the size and the type of its first one")
    };
    let mut image = Vec::with_capacity(header.image_width() * dtype.size());
    for name in &header.bands {
        let band = sample.bands.iter().find(|band| band.name == *name);
        let band = band.ok_or_else(|| unusable(format!("band {name} is missing")))?;
        if band.dtype != header.dtype || band.pixels.dim() != (header.rows, header.columns) {
            let (rows, columns) = band.pixels.dim();
            return Err(unusable(format!("band {name} is {} of {rows} x {columns} pixels", band.dtype)));
        }
        for pixel in &band.pixels {
            let fits = dtype.encode(*pixel, &mut image);
            fits.ok_or_else(|| unusable(format!("band {name}: {pixel} is no {dtype} that is kept exactly")))?;
        }
    }
    let numbers: Vec<i32> = match &sample.label {
        Label::Class(class) => vec![i32::try_from(*class).map_err(|_| unusable(format!("class {class}")))?],
        Label::MultiLabel(labels) => labels.iter().map(|label| i32::from(*label)).collect(),
        Label::Mask(mask) => mask.iter().copied().collect(),
    };
    let mask_fits =
        !matches!(&sample.label, Label::Mask(mask) if mask.dim() != (header.rows, header.columns));
    if numbers.len() != header.label_width || !mask_fits {
        return Err(unusable(format!("its label has {} numbers", numbers.len())));
    }
    Ok(Encoded { image, label: numbers.iter().flat_map(|number| number.to_le_bytes()).collect() })
}
