//! Reading EuroSAT-S2 tiles (13 bands, 64 x 64, uint16) to float32 arrays from GeoTIFF and packed, one thread, warm file
//! cache; and packing 1,000 of them. With `--peer PYTHON` the same from GeoTIFF as the reference does it:
//! benches/peers/geotiff.py, which needs rasterio and pyproj.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use terrabench::data::packed::pack;
use terrabench::data::{self, Dataset, Split};
use terrabench::home::Home;
use terrabench::progress::Silent;
use terrabench::suite::Suite;

const TILES: usize = 1000;

fn main() -> anyhow::Result<()> {
    let real = std::env::var_os("TERRABENCH_REAL").map(PathBuf::from);
    let real = real.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/real"));
    let real = real.join("copernicus-bench");
    if !real.is_dir() {
        eprintln!("skipped: no real pixels at {} (set TERRABENCH_REAL)", real.display());
        return Ok(());
    }
    let suite = Suite::load(&Home::find()?, "copernicus-bench")?;
    let task = suite.task("eurosat-s2")?;
    let (folder, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
    repeated(data::open(&suite, task, &real, "default")?.as_ref(), &real, folder.path())?;

    let start = Instant::now();
    let packed = pack(&suite, task, folder.path(), to.path(), &Silent)?;
    let (seconds, megabytes) = (start.elapsed().as_secs_f64(), packed.bytes as f64 / 1e6);
    println!("packed {} tiles in {seconds:.2} s, read back and compared; {megabytes:.1} MB", packed.samples);
    for (name, root) in [("GeoTIFF", folder.path()), ("packed", to.path())] {
        let dataset = data::open(&suite, task, root, "default")?;
        println!("terrabench, {name}: {:.0} tiles/s (1 thread, best of 5 passes)", rate(dataset.as_ref())?);
    }
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(python) = arguments.iter().position(|a| a == "--peer").and_then(|at| arguments.get(at + 1)) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/geotiff.py");
        Command::new(python).arg(script).arg(real.join("eurosat_s2")).status()?;
    }
    Ok(())
}

/// A data set of [`TILES`] train tiles with the pixels of the few that are here.
fn repeated(few: &dyn Dataset, from: &Path, to: &Path) -> anyhow::Result<()> {
    let root = to.join("eurosat_s2");
    let mut list = String::new();
    let files = few.files(Split::Train);
    for tile in 0..TILES {
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

/// Train tiles a second, the best of five passes.
fn rate(dataset: &dyn Dataset) -> anyhow::Result<f64> {
    let (bands, count) = (dataset.bands()?, dataset.samples(Split::Train).len());
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        for index in 0..count {
            black_box(dataset.read(Split::Train, index, &bands)?);
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(count as f64 / best)
}
