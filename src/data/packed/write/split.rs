//! Packing one split.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use crate::data::decoding::Decoding;
use crate::data::packed::{
    ATTRIBUTE, Extents, FORMAT, Header, Labels, METADATA_WIDTH, SIZES_WIDTH, dated_images as dated_images_of,
};
use crate::data::{Dataset, RawBand, RawImage, RawSample, Split, Target, loader};
use crate::error::AtPath;
use crate::formats::hdf5::{Chunked, Column, Dtype, Growing, Rows};
use crate::progress::Progress;
use crate::task::{Suite, TargetKind, Task};
use crate::{Error, Result, stop};

/// Labels per compressed chunk, in numbers, for targets other than masks and maps.
const LABEL_CHUNK: usize = 1 << 14;

/// Suffix of unfinished files.
pub const UNFINISHED: &str = ".tmp";

const ROOM: &str = "make room on the disk, or name another folder with --to, and prepare again: it goes on after the \
                    splits that are whole";

/// Location of a sample in the source: partition, split and index in it.
pub type SamplePlace = (usize, Split, usize);

/// The samples of a split.
pub struct Source<'a> {
    pub suite: &'a Suite,
    pub task: &'a Task,
    pub decoding: &'a Decoding,
    pub partitions: &'a [(String, Box<dyn Dataset>)],
    /// Location of each row's sample.
    pub places: &'a [SamplePlace],
}

/// A sample's pixels and label as stored.
struct Encoded {
    image: Vec<u8>,
    label: Vec<u8>,
    /// Day, longitude and latitude of each image, if they are packed.
    metadata: Vec<u8>,
    /// Rows and columns of image and label, if samples differ in size.
    sizes: Vec<u8>,
}

/// Writes a split's file and returns its size in bytes. Keeps an existing complete file of the same samples.
pub fn write(source: &Source, path: &Path, what: &str, progress: &dyn Progress) -> Result<u64> {
    let Source { suite, task, decoding, partitions, places } = source;
    let read = |&(partition, split, place): &SamplePlace| {
        let dataset = &partitions[partition].1;
        if let Some(name) = dataset.samples(split).get(place) {
            stop::note_sample(format_args!("{} {split} {name}", task.name));
        }
        dataset.read_raw(split, place)
    };
    let Some(first) = places.first() else {
        return Err(Error::damaged(path, format!("{}: nothing to pack: a split has no samples", task.name)));
    };
    let bands = partitions.first().map(|(_, dataset)| dataset.bands()).transpose()?.unwrap_or_default();
    let first = read(first)?;
    let bands = alike(suite, task, &first, &bands)?;
    let header = header(task, decoding, &first, bands, places.len())?;
    let dtype =
        Dtype::named(&header.dtype).ok_or_else(|| Error::damaged(path, format!("type {}", header.dtype)))?;
    let (names, contents) = named(partitions, places)?;
    let (names, about) = (serde_json::to_vec(&names).at(path)?, serde_json::to_string(&header).at(path)?);
    if same_samples(path, &about, &names, &contents) && read_through(path).is_ok() {
        return Ok(std::fs::metadata(path).at(path)?.len());
    }

    let folder = path.parent().unwrap_or(Path::new("."));
    // Removed when it goes out of scope, unless renamed before.
    let temporary = tempfile::Builder::new().prefix(".").suffix(UNFINISHED).tempfile_in(folder).at(path)?;
    let unfinished = temporary.path().to_owned();
    let _removed = stop::at_exit(move || drop(std::fs::remove_file(unfinished)));
    let width = header.label_width.max(1);
    // Masks and maps are read one by one; other targets are read all at once.
    let chunk = match header.label {
        TargetKind::Mask | TargetKind::ValueMap => width,
        _ => LABEL_CHUNK.div_ceil(width).min(places.len()) * width,
    };
    let mut columns = vec![
        Column { name: "images", dtype, chunk: header.image_width() },
        Column { name: "labels", dtype: Dtype::Int32, chunk },
    ];
    let metadata_width = header.dated_images * METADATA_WIDTH;
    if metadata_width > 0 {
        let chunk = metadata_width * places.len();
        columns.push(Column { name: "metadata", dtype: Dtype::Float64, chunk });
    }
    if header.is_of_many_sizes {
        let chunk = SIZES_WIDTH * places.len();
        columns.push(Column { name: "sizes", dtype: Dtype::Int32, chunk });
    }
    let known = [("names", names.as_slice()), ("contents", contents.as_slice())];
    let unwritten = |error: Error| match error.path() {
        Some(_) => Error::io(path, format!("cannot be written: {}", error.problem())).help(ROOM),
        None => error,
    };
    let growing =
        Growing::create(temporary.path(), (ATTRIBUTE, &about), &known, &columns).map_err(unwritten)?;
    let (mut images, mut labels) = (growing.column("images")?, growing.column("labels")?);
    let step = progress.begin(what, places.len());
    let encode = |row: usize| encoded(&header, dtype, &read(&places[row])?);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let sums = loader::ordered(places.len(), threads, 4 * threads, encode, |samples| {
        let (mut sums, mut waiting) = (Vec::with_capacity(places.len()), Vec::new());
        let mut all_metadata = Vec::with_capacity(metadata_width * places.len() * size_of::<f64>());
        let (mut all_sizes, mut waiting_pixels) = (Vec::new(), Vec::new());
        let image_chunk = header.image_width() * dtype.size();
        for sample in samples {
            let Encoded { image, label, metadata, sizes } = sample?;
            all_metadata.extend(metadata);
            all_sizes.extend(sizes);
            sums.push((blake3::hash(&image), blake3::hash(&label)));
            // Only whole chunks can be appended, and an image of another size is none.
            waiting_pixels.extend(image);
            let rest = waiting_pixels.split_off(waiting_pixels.len() / image_chunk * image_chunk);
            if !waiting_pixels.is_empty() {
                images.append(&waiting_pixels).map_err(unwritten)?;
            }
            waiting_pixels = rest;
            waiting.extend(label);
            if waiting.len() >= 4 * chunk {
                let rest = waiting.split_off(waiting.len() / (4 * chunk) * (4 * chunk));
                labels.append(&waiting).map_err(unwritten)?;
                waiting = rest;
            }
            step.advance(1);
        }
        if !waiting.is_empty() {
            labels.append(&waiting).map_err(unwritten)?;
        }
        if !waiting_pixels.is_empty() {
            images.append(&waiting_pixels).map_err(unwritten)?;
        }
        if header.is_of_many_sizes {
            growing.column("sizes")?.append(&all_sizes).map_err(unwritten)?;
        }
        if metadata_width > 0 {
            growing.column("metadata")?.append(&all_metadata).map_err(unwritten)?;
        }
        Ok::<_, Error>(sums)
    })?;
    drop((images, labels, step));
    growing.close().map_err(unwritten)?;
    read_back(&header, temporary.path(), &sums)?;

    let bytes = temporary.as_file().metadata().at(path)?.len();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        temporary.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).at(path)?;
    }
    temporary.as_file().sync_all().at(path).map_err(unwritten)?;
    temporary.persist(path).at(path)?;
    Ok(bytes)
}

/// Encodes the names and the hashes of the samples.
fn named<'a>(
    partitions: &'a [(String, Box<dyn Dataset>)],
    places: &[SamplePlace],
) -> Result<(Vec<&'a String>, Vec<u8>)> {
    let mut names = Vec::with_capacity(places.len());
    let mut contents = Vec::with_capacity(32 * places.len());
    let mut hashes: HashMap<(usize, Split), Vec<blake3::Hash>> = HashMap::new();
    for &(partition, split, place) in places {
        let dataset = &partitions[partition].1;
        let of_split = match hashes.entry((partition, split)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(dataset.contents(split)?),
        };
        names.push(&dataset.samples(split)[place]);
        contents.extend(of_split[place].as_bytes());
    }
    Ok((names, contents))
}

/// Whether the file at `path` claims to contain these samples.
fn same_samples(path: &Path, about: &str, names: &[u8], contents: &[u8]) -> bool {
    let holds = |dataset: &str, expected: &[u8]| {
        let found = Rows::open(path, dataset).and_then(|rows| rows.bytes(0, expected.len()));
        found.is_ok_and(|found| found == expected)
    };
    Rows::attribute(path, ATTRIBUTE).is_ok_and(|found| found == about)
        && holds("names", names)
        && holds("contents", contents)
}

/// Returns the number of images per sample whose days and places are in a split's file.
pub fn dated_images(path: &Path) -> Result<usize> {
    let header: Header = serde_json::from_str(&Rows::attribute(path, ATTRIBUTE)?).at(path)?;
    Ok(header.dated_images)
}

/// Reads all samples of a split's file to test their checksums.
pub fn read_through(path: &Path) -> Result<()> {
    let header: Header = serde_json::from_str(&Rows::attribute(path, ATTRIBUTE)?).at(path)?;
    of_each(&header, path, |_| (), |_, (), ()| Ok(()))
}

/// Compares all samples of a split's file with what was written.
fn read_back(header: &Header, path: &Path, sums: &[(blake3::Hash, blake3::Hash)]) -> Result<()> {
    of_each(header, path, blake3::hash, |row, image, label| match (image, label) == sums[row] {
        true => Ok(()),
        false => Err(Error::damaged(path, format!("sample {row} differs when read back"))
            .help("the disk may be failing; nothing of this split was kept")),
    })
}

/// Applies `of` to each row's image and label and passes the row number and the results to `check`.
fn of_each<T: Send>(
    header: &Header,
    path: &Path,
    of: impl Fn(&[u8]) -> T + Sync,
    check: impl Fn(usize, T, T) -> Result<()> + Sync,
) -> Result<()> {
    let (images, labels) = (Chunked::open(path, "images")?, Labels::open(path, header.label)?);
    let extents = Extents::open(path, header)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let read = |row: usize| {
        let (first, width) = extents.image(row);
        check(row, images.read(first, width, &of)?, labels.read(extents.label(row, header.label), &of)?)
    };
    loader::ordered(header.samples, threads, 4 * threads, read, |checked| checked.collect())
}

/// Returns the full names of the bands that are packed into one array: those with the type and size of the first band that
/// models use. Other bands (such as a cloud probability of 8 bits) are left out; no model uses them. If the task lists
/// several images, all their bands are packed.
///
/// # Errors
/// If all bands must be packed and one differs in type or size.
fn alike(suite: &Suite, task: &Task, first: &RawSample, bands: &[Vec<String>]) -> Result<Vec<String>> {
    let mut names = task.full_names(bands);
    let stored: Vec<(String, &RawBand)> = first.bands().collect();
    let taken = stored.iter().find(|(_, band)| suite.bands.values().any(|name| *name == band.name));
    if let Some((like_name, like)) = taken.or(stored.first()) {
        let fits = |name: &String| {
            let of_name = stored.iter().find(|(stored, _)| stored == name);
            of_name
                .is_some_and(|(_, band)| band.dtype == like.dtype && band.pixels.dim() == like.pixels.dim())
        };
        if let (false, Some(other)) = (task.images.is_empty(), names.iter().find(|name| !fits(name))) {
            let problem = format!(
                "{}: cannot be packed: band {other} and band {like_name} differ in type or size",
                first.name
            );
            return Err(Error::mismatch(problem).help("use the task's unpacked files"));
        }
        names.retain(fits);
    }
    Ok(names)
}

fn header(
    task: &Task,
    decoding: &Decoding,
    first: &RawSample,
    bands: Vec<String>,
    samples: usize,
) -> Result<Header> {
    let unusable = |problem: String| Error::mismatch(format!("{}: cannot be packed: {problem}", first.name));
    let band = first.bands().find(|(name, _)| bands.first() == Some(name)).map(|(_, band)| band);
    let band = band.ok_or_else(|| unusable("no bands".to_owned()))?;
    let (rows, columns) = band.pixels.dim();
    let label_width = match &first.target {
        Target::Class(_) => 1,
        Target::Labels(labels) => labels.len(),
        Target::Mask(mask) => mask.len(),
        Target::Value(_) => 1,
        Target::ValueMap(map) => map.len(),
    };
    Ok(Header {
        format: FORMAT,
        task: task.name.clone(),
        samples,
        bands,
        dtype: band.dtype.clone(),
        rows,
        columns,
        label: task.target,
        label_width,
        label_dtype: first.label_dtype.clone(),
        decoding: Some(decoding.hash()),
        dated_images: dated_images_of(task),
        is_of_many_sizes: task.resample.is_some(),
    })
}

fn encoded(header: &Header, dtype: Dtype, sample: &RawSample) -> Result<Encoded> {
    let unusable = |problem: String| {
        Error::mismatch(format!("{}: cannot be packed: {problem}", sample.name))
            .help("all samples of a task must have the same bands, size and type as its first sample")
    };
    let mut image = Vec::with_capacity(header.image_width() * dtype.size());
    let bands: Vec<(String, &RawBand)> = sample.bands().collect();
    let first = bands.first().map(|(_, band)| band.pixels.dim());
    let size = match first {
        Some(first) if header.is_of_many_sizes => first,
        _ => (header.rows, header.columns),
    };
    for name in &header.bands {
        let band = bands.iter().find(|(stored, _)| stored == name).map(|(_, band)| band);
        let band = band.ok_or_else(|| unusable(format!("band {name} is missing")))?;
        if band.dtype != header.dtype || band.pixels.dim() != size {
            let (rows, columns) = band.pixels.dim();
            return Err(unusable(format!(
                "band {name} has type {} and {rows} x {columns} pixels",
                band.dtype
            )));
        }
        for pixel in &band.pixels {
            let fits = dtype.encode(*pixel, &mut image);
            fits.ok_or_else(|| {
                unusable(format!("band {name}: {pixel} cannot be stored exactly as {dtype}"))
            })?;
        }
    }
    let numbers: Vec<i32> = match &sample.target {
        Target::Class(class) => vec![i32::try_from(*class).map_err(|_| unusable(format!("class {class}")))?],
        Target::Labels(labels) => labels.iter().map(|label| i32::from(*label)).collect(),
        Target::Mask(mask) => mask.iter().copied().collect(),
        // Stored bit for bit: the column holds 32 bits.
        Target::Value(value) => vec![value.to_bits().cast_signed()],
        Target::ValueMap(map) => map.iter().map(|value| value.to_bits().cast_signed()).collect(),
    };
    let label_size = match &sample.target {
        Target::Mask(mask) => Some(mask.dim()),
        Target::ValueMap(map) => Some(map.dim()),
        Target::Class(_) | Target::Labels(_) | Target::Value(_) => None,
    };
    let label_fits = match label_size {
        Some(label_size) if header.is_of_many_sizes => label_size.0 > 0 && label_size.1 > 0,
        Some(label_size) => label_size == size && numbers.len() == header.label_width,
        None => numbers.len() == header.label_width,
    };
    if !label_fits {
        return Err(unusable(format!("unexpected label length {}", numbers.len())));
    }
    let mut sizes = Vec::new();
    if header.is_of_many_sizes {
        let (label_rows, label_columns) = label_size.unwrap_or((1, 1));
        for side in [size.0, size.1, label_rows, label_columns] {
            let side = i32::try_from(side).map_err(|_| unusable(format!("a side of {side} pixels")))?;
            sizes.extend(side.to_le_bytes());
        }
    }
    let of_image = |image: &RawImage| {
        let [longitude, latitude] = image.place.unwrap_or([f32::NAN; 2]).map(f64::from);
        [image.day.unwrap_or(f64::NAN), longitude, latitude]
    };
    let metadata: Vec<f64> = sample.images.iter().take(header.dated_images).flat_map(of_image).collect();
    if metadata.len() != header.dated_images * METADATA_WIDTH {
        return Err(unusable(format!("expected {} images", header.dated_images)));
    }
    Ok(Encoded {
        image,
        label: numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        metadata: metadata.iter().flat_map(|number| number.to_le_bytes()).collect(),
        sizes,
    })
}
