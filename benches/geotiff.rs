//! Reading EuroSAT-S2 tiles (13 bands, 64 x 64, uint16) to float32 arrays from GeoTIFF and packed, one thread, warm file
//! cache; and packing them. `--tiles N` (else 1,000: real tiles, again and again), `--rounds N` (else 7). With
//! `--peer PYTHON`, which needs rasterio and pyproj, the same files as the reference reads them: benches/peers/geotiff.py.
//! All take their passes in turn; before timing, both sides must have read the same sum of all pixels.

mod common;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use common::measured::{Comparison, Peer, skip};
use common::{Missing, Script, number};
use terrabench::data::packed::pack;
use terrabench::data::{self, Dataset, Split};
use terrabench::home::Home;
use terrabench::progress::Silent;
use terrabench::task::Suite;

const GROUP: &str = "Readers";

fn main() -> Result<()> {
    let real = std::env::var_os("TERRABENCH_REAL").map(PathBuf::from);
    let real = real.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/real"));
    let real = real.join("copernicus-bench");
    let (tiles, rounds) = (number("--tiles", 1000)?, number("--rounds", 7)?);
    let what = |how: &str| format!("EuroSAT-S2, 13 channels, {tiles} tiles {how}");
    if !real.is_dir() {
        let why = format!("no real pixels at {} (set TERRABENCH_REAL)", real.display());
        return skip(GROUP, what("from GeoTIFF, one thread"), why);
    }
    ensure!(tiles > 0 && rounds > 0, "needs at least one tile and one round");
    let suite = Suite::load(&Home::find()?, "copernicus-bench")?;
    let task = suite.task("eurosat-s2")?;
    let folder = tempfile::tempdir()?;
    repeated(data::open(&suite, task, &real, "default")?.as_ref(), &real, folder.path(), tiles)?;
    let open = |root: &Path| data::open(&suite, task, root, "default");

    let folder_of_tiles = folder.path().join("eurosat_s2");
    let mut note = String::new();
    let peer = match Script::asked("--peer", "geotiff.py")
        .map(|peer| peer.with("--folder", folder_of_tiles.display()))
    {
        None => None,
        Some(peer) => match peer.columns::<2>(0) {
            Ok([sums, _]) => {
                let ours = sum(open(folder.path())?.as_ref())?;
                ensure!(sums == [ours], "the sum of all pixels is {ours}, rasterio's {sums:?}");
                note = "the same sum of all pixels".into();
                Some(peer)
            }
            Err(error) => {
                note = format!("no peer: {}", error.downcast::<Missing>()?);
                None
            }
        },
    };
    let [mut packing, mut geotiff, mut packed, mut pixels, mut reference] = [const { Vec::new() }; 5];
    for _ in 0..rounds {
        let to = tempfile::tempdir()?;
        let start = Instant::now();
        let done = pack(&suite, task, folder.path(), to.path(), &Silent)?;
        packing.push(done.samples as f64 / start.elapsed().as_secs_f64());
        geotiff.push(rate(open(folder.path())?.as_ref())?);
        packed.push(rate(open(to.path())?.as_ref())?);
        if let Some(peer) = &peer {
            let [alone, with_place] = peer.columns(1)?;
            pixels.extend(alone);
            reference.extend(with_place);
        }
    }
    let peers: Vec<Peer> = [
        ("rasterio and pyproj, pixels and place (the reference)", reference),
        ("rasterio, pixels only", pixels),
    ]
    .into_iter()
    .filter(|(_, values)| !values.is_empty())
    .map(|(name, values)| Peer { name: name.into(), values })
    .collect();
    for (how, ours) in [("from GeoTIFF, one thread", geotiff), ("packed, one thread", packed)] {
        let comparison = Comparison::new(GROUP, what(how), "tiles/s").goal(10.0);
        Comparison { ours, peers: peers.clone(), note: note.clone(), ..comparison }.tell()?;
    }
    Comparison {
        ours: packing,
        ..Comparison::new(GROUP, what("packed, read back and compared, all cores"), "tiles/s")
    }
    .tell()
}

/// The sum of all pixels of the train tiles.
fn sum(dataset: &dyn Dataset) -> Result<f64> {
    let bands = dataset.bands()?;
    let mut sum = 0.0;
    for index in 0..dataset.samples(Split::Train).len() {
        let sample = dataset.read(Split::Train, index, &bands)?;
        sum +=
            sample.images.iter().flat_map(|image| &image.pixels).map(|value| f64::from(*value)).sum::<f64>();
    }
    Ok(sum)
}

/// A data set of `tiles` train tiles with the pixels of the few that are here.
fn repeated(few: &dyn Dataset, from: &Path, to: &Path, tiles: usize) -> Result<()> {
    let root = to.join("eurosat_s2");
    let mut list = String::new();
    let files = few.files(Split::Train);
    for tile in 0..tiles {
        let file = &files[tile % files.len()];
        let class =
            file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let folder = root.join("all_imgs").join(&class);
        std::fs::create_dir_all(&folder)?;
        std::fs::copy(file, folder.join(format!("{class}_{tile}.tif")))?;
        list += &format!("{class}_{tile}.jpg\n");
    }
    std::fs::write(root.join("eurosat-train.txt"), list)?;
    for split in ["val", "test"] {
        let name = format!("eurosat-{split}.txt");
        let few = std::fs::read_to_string(from.join("eurosat_s2").join(&name))?;
        for line in few.lines() {
            let class = line.split('_').next().unwrap_or_default();
            let tile = Path::new("all_imgs").join(class).join(line.replace(".jpg", ".tif"));
            std::fs::create_dir_all(root.join("all_imgs").join(class))?;
            std::fs::copy(from.join("eurosat_s2").join(&tile), root.join(&tile))?;
        }
        std::fs::write(root.join(name), few)?;
    }
    Ok(())
}

/// Train tiles a second in one pass, after one to warm up.
fn rate(dataset: &dyn Dataset) -> Result<f64> {
    let (bands, count) = (dataset.bands()?, dataset.samples(Split::Train).len());
    let pass = || -> Result<f64> {
        let start = Instant::now();
        for index in 0..count {
            black_box(dataset.read(Split::Train, index, &bands)?);
        }
        Ok(count as f64 / start.elapsed().as_secs_f64())
    };
    pass()?;
    pass()
}
