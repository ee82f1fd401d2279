//! Reading EuroSAT-S2 tiles (13 bands, 64 x 64, uint16) to float32 arrays from GeoTIFF and packed, one thread, warm file
//! cache; and packing them. `--tiles N` (else 1,000: real tiles, again and again), `--rounds N` (else 7). With
//! `--peer PYTHON`, which needs rasterio and pyproj, the same files as the reference reads them: benches/peers/geotiff.py.
//! All take their passes in turn.

mod common;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use common::{median, option};
use terrabench::data::packed::pack;
use terrabench::data::{self, Dataset, Split};
use terrabench::home::Home;
use terrabench::progress::Silent;
use terrabench::task::Suite;

fn main() -> anyhow::Result<()> {
    let real = std::env::var_os("TERRABENCH_REAL").map(PathBuf::from);
    let real = real.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/real"));
    let real = real.join("copernicus-bench");
    if !real.is_dir() {
        eprintln!("skipped: no real pixels at {} (set TERRABENCH_REAL)", real.display());
        return Ok(());
    }
    let number = |name: &str, usual: usize| option(name).map_or(Ok(usual), |text| text.parse());
    let (tiles, rounds) = (number("--tiles", 1000)?, number("--rounds", 7)?);
    anyhow::ensure!(tiles > 0 && rounds > 0, "needs at least one tile and one round");
    let suite = Suite::load(&Home::find()?, "copernicus-bench")?;
    let task = suite.task("eurosat-s2")?;
    let folder = tempfile::tempdir()?;
    repeated(data::open(&suite, task, &real, "default")?.as_ref(), &real, folder.path(), tiles)?;

    let [mut packing, mut geotiff, mut packed, mut pixels, mut reference] = [const { Vec::new() }; 5];
    for _ in 0..rounds {
        let to = tempfile::tempdir()?;
        let start = Instant::now();
        let done = pack(&suite, task, folder.path(), to.path(), &Silent)?;
        packing.push(done.samples as f64 / start.elapsed().as_secs_f64());
        let open = |root| data::open(&suite, task, root, "default");
        geotiff.push(rate(open(folder.path())?.as_ref())?);
        packed.push(rate(open(to.path())?.as_ref())?);
        if let Some(python) = option("--peer") {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/geotiff.py");
            let files = folder.path().join("eurosat_s2");
            let output = Command::new(python).arg(script).arg(files).arg("1").output()?;
            anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout)?;
            let rates = text.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
            pixels.extend(rates.first());
            reference.extend(rates.get(1));
        }
    }
    println!("{tiles} tiles, {rounds} rounds: median (range) in tiles/s");
    let packing = report("terrabench, packing and reading back, all cores", &mut packing);
    println!("{:>48}  1,000 tiles in {:.2} s", "", 1000.0 / packing);
    let geotiff = report("terrabench, GeoTIFF", &mut geotiff);
    let packed = report("terrabench, packed", &mut packed);
    if !reference.is_empty() {
        let pixels = report("rasterio, pixels only", &mut pixels);
        let reference = report("rasterio, pixels and place (the reference)", &mut reference);
        for (name, rate) in [("GeoTIFF", geotiff), ("packed", packed)] {
            let (times, pixels) = (rate / reference, rate / pixels);
            println!("{name}: {times:.1} times the reference, {pixels:.1} times its pixels only");
        }
    }
    println!("packed: {:.2} times GeoTIFF", packed / geotiff);
    Ok(())
}

/// Sorts `rates`, prints their median and range, and returns the median.
fn report(name: &str, rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    let (least, most) = (rates[0], rates[rates.len() - 1]);
    println!("{name:>48}: {:7.0} ({least:.0} to {most:.0})", median(rates));
    median(rates)
}

/// A data set of `tiles` train tiles with the pixels of the few that are here.
fn repeated(few: &dyn Dataset, from: &Path, to: &Path, tiles: usize) -> anyhow::Result<()> {
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
fn rate(dataset: &dyn Dataset) -> anyhow::Result<f64> {
    let (bands, count) = (dataset.bands()?, dataset.samples(Split::Train).len());
    let pass = || -> anyhow::Result<f64> {
        let start = Instant::now();
        for index in 0..count {
            black_box(dataset.read(Split::Train, index, &bands)?);
        }
        Ok(count as f64 / start.elapsed().as_secs_f64())
    };
    pass()?;
    pass()
}
