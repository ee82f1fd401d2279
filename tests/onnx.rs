//! Models in ONNX files (tests/fixtures/onnx, made by its `make.py`). Tests that compute need ONNX Runtime; without one they
//! say on standard error that they were skipped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use ndarray::Array4;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use terrabench::formats::onnx::OnnxFile;
use terrabench::home::Home;
use terrabench::model::architecture::Architecture;
use terrabench::model::config::ModelConfig;
use terrabench::model::encoder::{Batch, Context, Encoder, Pooling, Want};
use terrabench::model::weights::Weights;
use terrabench::model::{self, LoadedModel};
use terrabench::onnxruntime::Surroundings;
use terrabench::record::{Record, Store};
use terrabench::task::Sensor;
use terrabench::task::bands::Band;
use terrabench::{Error, ErrorKind};

use crate::common::{demo, fixture};
use crate::golden;
use crate::reference_model::{Golden, SENTINEL2, array, images};
use crate::zoo_vit::tiny_values;

/// Whether there is an engine; says that the test is skipped where there is none.
pub fn has_engine() -> bool {
    let found = Surroundings::here().find().unwrap();
    if found.is_none() && !cfg!(feature = "tract") {
        eprintln!("skipped: no ONNX Runtime found (run cargo xtask onnxruntime, or set ORT_DYLIB_PATH)");
        return false;
    }
    true
}

/// The folder of the fixtures.
fn folder() -> PathBuf {
    fixture("onnx/patches.onnx").parent().unwrap().to_owned()
}

/// Writes a model's TOML, whose `[architecture]` is `architecture`, to a folder; bands are the first of Sentinel-2.
fn toml(at: &Path, bands: usize, architecture: &str) -> PathBuf {
    let names: Vec<String> = SENTINEL2.split(' ').take(bands).map(|band| format!("\"{band}\"")).collect();
    let text = format!(
        "name = \"Mine\"\nbackbone = \"ONNX\"\nimage = 64\n[architecture]\nkind = \"onnx\"\n{architecture}\n[sensors.s2-l1c]\nbands = [{}]\n",
        names.join(", ")
    );
    let path = at.join("model.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn config(bands: usize, architecture: &str) -> Result<ModelConfig, Error> {
    let here = tempfile::tempdir().unwrap();
    let architecture = architecture.replace("FOLDER", folder().to_str().unwrap());
    ModelConfig::load(&Home::find()?, toml(here.path(), bands, &architecture).to_str().unwrap())
}

fn load(bands: usize, architecture: &str) -> Result<LoadedModel, Error> {
    model::load(&config(bands, architecture)?, &Weights::None, false, &Device::flex())
}

/// A batch of images of Sentinel-2, with the names of their bands.
fn batch(images: &Array4<f32>) -> Batch {
    let bands: Arc<[Band]> =
        SENTINEL2.split(' ').take(images.dim().1).map(|band| band.parse().unwrap()).collect();
    let (n, c, h, w) = images.dim();
    let pixels = TensorData::new(images.iter().copied().collect::<Vec<f32>>(), [n, c, h, w]);
    Batch::single(Sensor::S2_L1C, bands, Tensor::from_data(pixels, &Device::flex()))
}

fn pooled(encoder: &dyn Encoder, batch: &Batch, pooling: Pooling) -> ndarray::ArrayD<f32> {
    array(encoder.encode(batch, Want::Pooled(pooling)).unwrap().pooled().unwrap())
}

fn refused(bands: usize, architecture: &str) -> Error {
    match load(bands, architecture) {
        Ok(_) => panic!("expected an error for {architecture}"),
        Err(error) => error,
    }
}

/// The tiny vision transformer of ../zoo/vit.
pub const VIT: &str = r#"
file = "FOLDER/vit.onnx"
pixels = "pixels"
pooled = "pooled"
tokens = { name = "tokens", leading = 1 }
maps = [
  { name = "map0", width = 48, stride = 8 },
  { name = "map1", width = 48, stride = 8 },
  { name = "map2", width = 48, stride = 8 },
  { name = "map3", width = 48, stride = 8 },
]
"#;

#[test]
fn misspelt_names_in_a_toml_are_told_with_what_was_meant() {
    let here = tempfile::tempdir().unwrap();
    let good = "name = \"Mine\"\nbackbone = \"ONNX\"\nimage = 64\n[architecture]\nkind = \"onnx\"\nfile = \"x.onnx\"\n\
                pixels = \"pixels\"\npooled = \"pooled\"\n[sensors.s2-l1c]\nbands = [\"B04\", \"B8A\"]\n";
    let path = here.path().join("mine.toml");
    let loaded = |text: &str| {
        std::fs::write(&path, text).unwrap();
        ModelConfig::load(&Home::find().unwrap(), path.to_str().unwrap())
    };
    loaded(good).unwrap();
    for (from, to, words) in [
        ("B8A", "B8a", ["sensor s2-l1c has no band B8a", "did you mean `B8A`?"]),
        ("s2-l1c", "s2-1lc", ["sensor s2-1lc is not described", "did you mean `s2-l1c`?"]),
        ("pooled =", "poled =", ["unknown field `poled`", "did you mean `pooled`?"]),
        ("backbone =", "bakcbone =", ["unknown field `bakcbone`", "did you mean `backbone`?"]),
        ("\"onnx\"", "\"onxx\"", ["unknown variant `onxx`", "did you mean `onnx`?"]),
    ] {
        let error = loaded(&good.replace(from, to)).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)) && error.contains("mine.toml"), "{error}");
    }
    let replaced =
        good.replace("image = 64", "image = 64\nimpute = [[\"zeros\", \"B99\"]]").replace("B8A", "B99");
    loaded(&replaced).unwrap();
}

#[test]
fn a_vision_transformer_gives_timms_features() {
    if !has_engine() {
        return;
    }
    let loaded = load(13, VIT).unwrap();
    let mut golden = Golden::open("zoo/vit/tiny_io.safetensors");
    let batch = batch(&images(1, [2, 13, 64, 64]));
    let vectors = [
        ("class", Pooling::Head),
        ("class", Pooling::Class),
        ("mean", Pooling::Mean),
        ("mean-all", Pooling::MeanAll),
    ];
    for (name, pooling) in vectors {
        assert_eq!(loaded.encoder.width(pooling, 13), 48);
        golden.check(&format!("{name}.s2_64"), &pooled(&*loaded.encoder, &batch, pooling), 1e-4, 1e-5);
    }
    let (tokens, grid) = loaded.encoder.encode(&batch, Want::Tokens).unwrap().tokens().unwrap();
    assert_eq!(grid, [8, 8]);
    golden.check("tokens.s2_64", &array(tokens), 1e-4, 1e-5);
    let maps = loaded.encoder.encode(&batch, Want::Maps).unwrap().maps().unwrap();
    for (layer, map) in maps.into_iter().enumerate() {
        assert_eq!(map.stride, 8);
        golden.check(&format!("map{layer}.s2_64"), &array(map.values), 1e-4, 1e-5);
    }
    let engine = loaded.weights_id.rsplit_once('+').unwrap().1;
    let hash = OnnxFile::read(&fixture("onnx/vit.onnx")).unwrap().hash(&fixture("onnx/vit.onnx")).unwrap();
    assert_eq!(loaded.weights_id, format!("onnx:{hash}+{engine}"));
    assert!(engine.starts_with("onnxruntime-1.") || engine.starts_with("tract-"), "{engine}");
}

#[test]
fn a_swin_and_a_convnext_give_timms_features() {
    if !has_engine() {
        return;
    }
    let stored = golden::floats("onnx/networks.safetensors");
    // File, seed and the maps' widths and strides.
    type Pyramid = (&'static str, u64, &'static [(usize, usize)]);
    let models: [Pyramid; 2] =
        [("swin", 2, &[(8, 4), (16, 8)]), ("convnext", 3, &[(8, 4), (16, 8), (24, 16), (32, 32)])];
    for (name, seed, levels) in models {
        let maps: Vec<String> = levels
            .iter()
            .enumerate()
            .map(|(i, (width, stride))| {
                format!("{{ name = \"map{i}\", width = {width}, stride = {stride} }}")
            })
            .collect();
        let architecture = format!(
            "file = \"FOLDER/{name}.onnx\"\npixels = \"pixels\"\npooled = \"pooled\"\nmaps = [{}]",
            maps.join(", ")
        );
        let loaded = load(3, &architecture).unwrap();
        let batch = batch(&images(seed, [2, 3, 64, 64]));
        let close = |key: &str, found: &ndarray::ArrayD<f32>| golden::close(key, found, &stored[key], 1e-4);
        close(&format!("{name}.pooled"), &pooled(&*loaded.encoder, &batch, Pooling::Head));
        let maps = loaded.encoder.encode(&batch, Want::Maps).unwrap().maps().unwrap();
        assert_eq!(maps.len(), levels.len());
        for (i, map) in maps.into_iter().enumerate() {
            close(&format!("{name}.map{i}"), &array(map.values));
        }
    }
}

/// One convolution of patches of 8 x 8 pixels and its mean, computed by hand from the rule of `make.py`.
fn patches(file: &str) -> String {
    format!(
        "file = \"FOLDER/{file}.onnx\"\npixels = \"pixels\"\npooled = \"pooled\"\nmaps = [{{ name = \"map\", width = 6, stride = 8 }}]"
    )
}

#[test]
fn a_batch_size_fixed_in_the_file_changes_no_number() {
    if !has_engine() {
        return;
    }
    let free = load(2, &patches("patches")).unwrap();
    let of_3 = load(2, &patches("patches_of_3")).unwrap();
    for n in [1, 3, 7] {
        let batch = batch(&images(9, [n, 2, 16, 24]));
        let (one, other) =
            (pooled(&*free.encoder, &batch, Pooling::Head), pooled(&*of_3.encoder, &batch, Pooling::Head));
        assert_eq!(other.shape(), [n, 6]);
        assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-6), "{one} and {other}");
        let map = |loaded: &LoadedModel| {
            array(loaded.encoder.encode(&batch, Want::Maps).unwrap().maps().unwrap().remove(0).values)
        };
        assert_eq!(map(&of_3).shape(), [n, 6, 2, 3]);
        assert!(map(&free).iter().zip(&map(&of_3)).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}

#[test]
fn float16_and_external_data_give_the_same_features() {
    if !has_engine() {
        return;
    }
    let batch = batch(&images(9, [3, 2, 16, 16]));
    let expected = pooled(&*load(2, &patches("patches")).unwrap().encoder, &batch, Pooling::Head);
    for (file, tolerance) in [("patches_half", 0.02), ("patches_external", 1e-6)] {
        let found = pooled(&*load(2, &patches(file)).unwrap().encoder, &batch, Pooling::Head);
        let largest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest < tolerance, "{file}: differs by {largest}");
        assert!(expected.iter().any(|value| value.abs() > 0.5), "{expected}");
    }
}

#[test]
fn the_identity_covers_external_data() {
    let here = tempfile::tempdir().unwrap();
    let copied = |name: &str| {
        let to = here.path().join(name);
        std::fs::copy(folder().join(name), &to).unwrap();
        to
    };
    let (file, data) = (copied("patches_external.onnx"), copied("patches_external.data"));
    let hash = || OnnxFile::read(&file).unwrap().hash(&file).unwrap();
    let before = hash();
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    assert_ne!(before, hash());
    std::fs::remove_file(&data).unwrap();
    let error = OnnxFile::read(&file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("patches_external.data: no such file"), "{error}");
    assert!(error.remedy().contains("copy it beside the ONNX file"), "{error}");
}

/// All extra inputs of extras.onnx.
const EXTRAS: &str = r#"
file = "FOLDER/extras.onnx"
pixels = "pixels"
pooled = "pooled"
[[architecture.inputs]]
name = "wavelengths"
value = "wavelengths-nm"
[[architecture.inputs]]
name = "gsd"
value = "gsd-m"
[[architecture.inputs]]
name = "day"
value = "day-of-year"
offset = -1
[[architecture.inputs]]
name = "place"
value = "latitude-longitude"
unknown = 0.0
"#;

#[test]
fn extra_inputs_get_bands_date_and_place() {
    if !has_engine() {
        return;
    }
    let loaded = load(2, EXTRAS).unwrap();
    let mut batch = batch(&images(9, [2, 2, 16, 16]));
    batch.inputs[0].context =
        Context { days: vec![Some(31.0), Some(1.5)], places: vec![Some([11.5, 48.25]), None], gsd_m: None };
    let found = pooled(&*loaded.encoder, &batch, Pooling::Head);
    // B01 and B02 of Sentinel-2; the finer of their ground sampling distances; day of the year from 0; place.
    let expected = [[442.7, 492.7, 10.0, 31.0, 48.25, 11.5], [442.7, 492.7, 10.0, 1.0, 0.0, 0.0]];
    for (row, expected) in found.outer_iter().zip(expected) {
        for (value, expected) in row.iter().skip(2).zip(expected) {
            assert!((value - expected).abs() < 1e-3, "{row}");
        }
    }
    batch.inputs[0].context.days[1] = None;
    let error = loaded.encoder.encode(&batch, Want::Pooled(Pooling::Head)).unwrap_err().to_string();
    assert!(error.contains("input `day` takes the date, which is not known for images of s2-l1c"), "{error}");
    assert!(error.contains("help: add `unknown = NUMBER`"), "{error}");
}

/// A model of two sensors, of which the file leaves open how long the vector is.
const FUSED: &str = r#"
file = "FOLDER/fused.onnx"
pixels = { s1 = "radar", s2-l1c = "optical" }
pooled = "pooled"
width = 8
[[architecture.inputs]]
name = "wavelengths"
value = "wavelengths-um"
sensor = "s2-l1c"
[sensors.s1]
bands = ["VV", "VH"]
"#;

#[test]
fn a_model_of_two_sensors_takes_an_image_of_each() {
    if !has_engine() {
        return;
    }
    let config = config(3, FUSED).unwrap();
    assert!(config.fuses(&[Sensor::S2_L1C, Sensor::S1]) && !config.fuses(&[Sensor::S1, Sensor::S2_L2A]));
    let loaded = model::load(&config, &Weights::None, false, &Device::flex()).unwrap();
    let optical = images(1, [2, 3, 8, 8]);
    let mut both = batch(&optical);
    let radar = images(2, [2, 2, 8, 8]);
    let mut of_radar = batch(&radar).inputs.remove(0);
    of_radar.sensor = Sensor::S1;
    both.inputs.push(of_radar);
    let found = pooled(&*loaded.encoder, &both, Pooling::Head);
    let mean = |images: &Array4<f32>, image: usize, band: usize| {
        images.index_axis(ndarray::Axis(0), image).index_axis(ndarray::Axis(0), band).mean().unwrap()
    };
    for image in 0..2 {
        for band in 0..2 {
            assert!((found[[image, band]] - mean(&radar, image, band)).abs() < 1e-5);
        }
        for band in 0..3 {
            assert!((found[[image, 2 + band]] - mean(&optical, image, band)).abs() < 1e-5);
        }
        for (place, wavelength) in [0.4427, 0.4927, 0.5598].into_iter().enumerate() {
            assert!((found[[image, 5 + place]] - wavelength).abs() < 1e-5, "{found}");
        }
    }
    both.inputs.remove(1);
    let error = loaded.encoder.encode(&both, Want::Pooled(Pooling::Head)).unwrap_err().to_string();
    assert!(error.contains("the task has none for `radar`: found s2-l1c"), "{error}");
    let error = refused(3, &FUSED.replace("width = 8", "")).to_string();
    assert!(
        error.contains("leaves open how long a vector of its output is: pooled: float32 [batch, width]"),
        "{error}"
    );
    let error = refused(3, &FUSED.replace("[sensors.s1]", "[sensors.s3-olci]")).to_string();
    assert!(error.contains("sensor s3-olci has no band VV"), "{error}");
}

#[test]
fn maps_may_be_tokens_row_by_row() {
    if !has_engine() {
        return;
    }
    let maps = "maps = [{ name = \"tokens\", width = 48, stride = 8, leading = 1 }]";
    let loaded = load(13, &format!("file = \"FOLDER/vit.onnx\"\npixels = \"pixels\"\n{maps}")).unwrap();
    let whole = load(13, VIT).unwrap();
    let batch = batch(&images(1, [2, 13, 64, 64]));
    let map = loaded.encoder.encode(&batch, Want::Maps).unwrap().maps().unwrap().remove(0);
    let (tokens, grid) = whole.encoder.encode(&batch, Want::Tokens).unwrap().tokens().unwrap();
    let [n, _, d] = tokens.dims();
    let expected = tokens.swap_dims(1, 2).reshape([n, d, grid[0], grid[1]]);
    golden::close("map", &array(map.values), &array(expected), 1e-6);
    let error = loaded.encoder.encode(&batch, Want::Pooled(Pooling::Head)).unwrap_err().to_string();
    assert!(error.contains("names no output with one vector per image"), "{error}");
    let wrong = load(13, &VIT.replace("leading = 1", "leading = 2")).unwrap();
    let error = wrong.encoder.encode(&batch, Want::Tokens).unwrap_err().to_string();
    assert!(
        error.contains("output `tokens`: 63 tokens after the first 2 do not fill a grid of 64 x 64 pixels"),
        "{error}"
    );
}

#[test]
fn engines_and_devices_that_are_not_there_are_explained() {
    let here = tempfile::tempdir().unwrap();
    let text = patches("patches").replace("FOLDER", folder().to_str().unwrap());
    let model = toml(here.path(), 2, &text);
    let run = |model: &str, device: &str, library: Option<&Path>, path: Option<&Path>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terrabench"));
        command.args(["bench", "geobench", "--demo", "--task", "m-eurosat", "--model", model]);
        command.args(["--device", device, "--out"]).arg(here.path().join("out"));
        command.env("TERRABENCH_CACHE", demo::cache("geobench", here.path().join("cache")));
        if let Some(library) = library {
            command.env("ORT_DYLIB_PATH", library);
        }
        if let Some(path) = path {
            command.env("PATH", path).env_remove("ORT_DYLIB_PATH");
        }
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let of_model = model.to_str().unwrap();
    let said = run(of_model, "flex", Some(&here.path().join("nothing.so")), None);
    assert!(
        said.contains("ORT_DYLIB_PATH names") && said.contains("there is no ONNX Runtime library"),
        "{said}"
    );
    let other = here.path().join("libonnxruntime.so");
    std::fs::write(&other, "not a library").unwrap();
    let said = run(of_model, "flex", Some(&other), None);
    assert!(said.contains("expected an ONNX Runtime library, but it cannot be loaded"), "{said}");
    assert!(said.contains("help: set ORT_DYLIB_PATH"), "{said}");
    let said = run("demo", "onnx:cuda", None, None);
    assert!(said.contains("device `onnx:cuda` computes models of kind `onnx` only"), "{said}");
    if Surroundings::here().provisioned().is_none() && !cfg!(feature = "tract") {
        let said = run(of_model, "flex", None, Some(here.path()));
        assert!(said.contains("models of kind `onnx` need ONNX Runtime, and none was found"), "{said}");
        assert!(said.contains("cargo xtask onnxruntime"), "{said}");
    }
    let found = Surroundings::here().find().unwrap();
    if found.is_some_and(|found| !found.has_cuda()) {
        let said = run(of_model, "onnx:cuda:0", None, None);
        assert!(
            said.contains("it cannot use a GPU") && said.contains("cargo xtask onnxruntime --cuda"),
            "{said}"
        );
    }
}

#[test]
fn operators_that_the_engine_lacks_are_named() {
    if !has_engine() {
        return;
    }
    for (file, operator) in [("unknown", "com.example.Wavelet"), ("unknown_onnx", "Wavelet")] {
        let error =
            refused(2, &format!("file = \"FOLDER/{file}.onnx\"\npixels = \"pixels\"\npooled = \"pooled\""));
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(
            error.to_string().contains(&format!("lacks the operator {operator} that this file uses")),
            "{error}"
        );
        assert!(error.remedy().contains("docs/onnx.md"), "{error}");
    }
}

#[test]
fn wrong_names_shapes_and_types_are_explained() {
    let problem = |architecture: &str| {
        let error = refused(13, architecture);
        assert!(!error.remedy().is_empty(), "{error}");
        error.to_string()
    };
    let changed = |from: &str, to: &str| problem(&VIT.replacen(from, to, 1));
    let message = changed("pixels = \"pixels\"", "pixels = \"pixel\"");
    assert!(message.contains("vit.onnx: pixels: the file has no input `pixel`"), "{message}");
    assert!(message.contains("pixels: float32 [batch, 13, 64, 64]"), "{message}");
    assert!(message.contains("help: did you mean `pixels`?"), "{message}");
    let message = changed("pooled = \"pooled\"", "pooled = \"features\"");
    assert!(
        message.contains("pooled: the file has no output `features`; it has pooled: float32 [batch, 48]"),
        "{message}"
    );
    let message = changed("pooled = \"pooled\"", "pooled = \"tokens\"");
    assert!(message.contains("expected [n, d], found tokens: float32 [batch, "), "{message}");
    let message = changed("pooled = \"pooled\"", "pooled = \"pooled\"\nwidth = 64");
    assert!(
        message.contains("width: expected that of the file's output pooled") && message.contains("found 64"),
        "{message}"
    );
    let message = problem(&patches("patches").replace("width = 6", "width = 96"));
    assert!(
        message.contains("expected [n, 96, rows, columns] or [n, tokens, 96], found map: float32"),
        "{message}"
    );
    let message = problem(&EXTRAS.replace("wavelengths-nm", "days"));
    let expected = "expected an input [n] or [n, 1] for `wavelengths`, found wavelengths: float32 [2]";
    assert!(message.contains(expected), "{message}");
    let place = EXTRAS.find("[[architecture.inputs]]\nname = \"place\"").unwrap();
    let message = problem(&EXTRAS[..place]);
    assert!(
        message
            .contains("the file has an input that the model's TOML does not name: place: float32 [batch, 2]"),
        "{message}"
    );
}

#[test]
fn images_that_the_file_does_not_take_are_errors() {
    if !has_engine() {
        return;
    }
    let loaded = load(13, VIT).unwrap();
    let refused = |batch: &Batch, want| {
        let error = loaded.encoder.encode(batch, want).unwrap_err();
        assert!(!error.remedy().is_empty(), "{error}");
        error.to_string()
    };
    let head = Want::Pooled(Pooling::Head);
    let message = refused(&batch(&images(1, [1, 13, 32, 32])), head);
    assert!(message.contains("pixels: float32 [batch, 13, 64, 64], found [n, 13, 32, 32]"), "{message}");
    assert!(message.contains("set `image = 64`"), "{message}");
    let message = refused(&batch(&images(1, [1, 2, 64, 64])), head);
    assert!(message.contains("expected 13 bands, found 2"), "{message}");
    let mut other = batch(&images(1, [1, 13, 64, 64]));
    other.inputs[0].sensor = Sensor::S1;
    let message = refused(&other, head);
    assert!(message.contains("expected sensor s2-l1c, found s1"), "{message}");
    let two = Batch { inputs: vec![other.inputs[0].clone(), other.inputs[0].clone()] };
    assert!(refused(&two, head).contains("expected sensor s2-l1c"));
    let wide = load(13, &VIT.replacen("width = 48", "width = 96", 1)).unwrap();
    let error = wide.encoder.encode(&batch(&images(1, [2, 13, 64, 64])), Want::Maps).unwrap_err().to_string();
    let expected =
        "output `map0`: expected [n, 96, 8, 8] for 64 x 64 pixels and stride 8, found [2, 48, 8, 8]";
    assert!(error.contains(expected), "{error}");
    let alone = load(2, &patches("patches")).unwrap();
    let small = batch(&images(1, [1, 2, 16, 16]));
    let error = alone.encoder.encode(&small, Want::Tokens).unwrap_err().to_string();
    assert!(error.contains("names no output with patch tokens"), "{error}");
    let error = alone.encoder.encode(&small, Want::Pooled(Pooling::Class)).unwrap_err().to_string();
    assert!(error.contains("expected pooling head, found class"), "{error}");
}

#[test]
fn missing_and_damaged_files_are_errors() {
    let file = |path: &Path| format!("file = {path:?}\npixels = \"pixels\"\npooled = \"pooled\"");
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("m.onnx");
    let error = refused(2, &file(&path));
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("m.onnx") && error.remedy().contains("set `file`"), "{error}");
    let whole = std::fs::read(fixture("onnx/patches.onnx")).unwrap();
    for (bytes, found) in [
        (&b""[..], "an empty file"),
        (&whole[..2000], "a file that ends early"),
        (&b"PK\x03\x04 an archive"[..], "expected an ONNX file"),
        (&b"\x08\x08"[..], "a file without a graph"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = refused(2, &file(&path));
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(error.to_string().contains(found), "{error}");
    }
    // Any damage is an error or gives numbers, never a panic.
    for at in (0..whole.len()).step_by(whole.len() / 200) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        let _ = OnnxFile::parse(&bytes);
    }
    for end in 0..whole.len().min(400) {
        assert!(OnnxFile::parse(&whole[..end]).is_err(), "cut after {end} bytes");
    }
    std::fs::write(&path, &whole).unwrap();
    let error = refused(2, &format!("{}\nengine = \"jax\"", file(&path)));
    assert!(error.to_string().contains("unknown variant `jax`"), "{error}");
    let error = config(2, "file = \"FOLDER/patches.onnx\"\npixels = \"pixels\"").unwrap_err().to_string();
    assert!(error.contains("expected `pooled`, `tokens` or `maps`"), "{error}");
}

#[test]
fn headers_list_inputs_outputs_operators_and_opsets() {
    let header = OnnxFile::read(&fixture("onnx/patches.onnx")).unwrap();
    let shown: Vec<String> = header.inputs.iter().chain(&header.outputs).map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "pixels: float32 [batch, 2, height, width]",
            "pooled: float32 [batch, 6]",
            "map: float32 [batch, 6, rows, columns]"
        ]
    );
    let operators: Vec<String> = header.operators.iter().map(ToString::to_string).collect();
    assert_eq!(operators, ["Conv", "ReduceMean"]);
    assert_eq!(header.opsets, BTreeMap::from([(String::new(), 17)]));
    assert!(header.external.is_empty());
    let half = OnnxFile::read(&fixture("onnx/patches_half.onnx")).unwrap();
    assert_eq!(half.inputs[0].to_string(), "pixels: float16 [batch, 2, height, width]");
    let external = OnnxFile::read(&fixture("onnx/patches_external.onnx")).unwrap();
    assert_eq!(external.external.iter().collect::<Vec<_>>(), [Path::new("patches_external.data")]);
}

#[test]
fn threads_do_not_change_numbers() {
    if !has_engine() {
        return;
    }
    let batch = batch(&images(1, [5, 13, 64, 64]));
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let loaded = pool.install(|| load(13, VIT)).unwrap();
        pooled(&*loaded.encoder, &batch, Pooling::Head)
    };
    assert_eq!(on(1), on(4));
}

/// Writes the tiny vision transformer as a model of this program: its TOML and its weights.
fn native(folder: &Path) -> (PathBuf, PathBuf) {
    let bands: Vec<String> = SENTINEL2.split(' ').map(|band| format!("\"{band}\"")).collect();
    let text = format!(
        "name = \"Mine\"\nbackbone = \"ONNX\"\nimage = 64\n[architecture]\nkind = \"vit\"\nwidth = 48\ndepth = 4\nheads = 3\n\
         mlp-ratio = 4\npatch = 8\npositions = 8\nmap-layers = [0, 1, 2, 3]\n[sensors.s2-l1c]\nbands = [{}]\n",
        bands.join(", ")
    );
    let (toml, weights) = (folder.join("native.toml"), folder.join("vit.safetensors"));
    std::fs::write(&toml, text).unwrap();
    let config = ModelConfig::load(&Home::find().unwrap(), toml.to_str().unwrap()).unwrap();
    let network = Architecture::new(&config.architecture, &config.sensors, &Device::flex()).unwrap();
    let bytes: BTreeMap<String, (Vec<usize>, Vec<u8>)> = network
        .parameters()
        .into_iter()
        .map(|(name, shape)| {
            let values = tiny_values(&name, &shape);
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (name, (shape, bytes))
        })
        .collect();
    let views = bytes.iter().map(|(name, (shape, bytes))| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    std::fs::write(&weights, safetensors::serialize(views, None).unwrap()).unwrap();
    (toml, weights)
}

/// Runs a benchmark of generated data and returns its records by protocol.
fn bench(folder: &Path, out: &str, args: &[&str]) -> BTreeMap<String, Record> {
    let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
        .arg("bench")
        .args(args)
        .arg("--out")
        .arg(folder.join(out))
        .env("TERRABENCH_CACHE", demo::cache("geobench", folder.join("cache")))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let suite = format!("{}-demo", args[0]);
    let records = Store::open(folder.join(out).join(suite)).unwrap().all().unwrap();
    records.into_iter().map(|record| (record.cell.protocol.clone(), record)).collect()
}

#[test]
fn records_are_those_of_the_same_model_without_onnx() {
    if !has_engine() {
        return;
    }
    let here = tempfile::tempdir().unwrap();
    let here = here.path();
    let (native, weights) = native(here);
    let onnx = toml(here, 13, &VIT.replace("FOLDER", folder().to_str().unwrap()));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let task = ["geobench", "--demo", "--task", "m-eurosat", "--protocol", "knn", "--protocol", "logistic"];
    let with =
        |more: &[&str]| -> Vec<String> { task.iter().chain(more).map(|arg| (*arg).to_owned()).collect() };
    let run =
        |out: &str, args: &[String]| bench(here, out, &args.iter().map(String::as_str).collect::<Vec<_>>());
    let expected = run("native", &with(&["--model", &text(&native), "--weights", &text(&weights)]));
    let found = run("onnx", &with(&["--model", &text(&onnx)]));
    assert_eq!(found.len(), 2);
    for (protocol, record) in &found {
        let other = &expected[protocol];
        // The model's features differ by rounding: scores, intervals, what validation chose and everything that the
        // record says of the data are the same.
        let said = |record: &Record| {
            let made = &record.provenance;
            (
                (record.cell.clone(), record.value, record.interval, record.scores.clone()),
                (record.samples.clone(), record.notes.clone(), record.metric),
                (made.data.clone(), made.bands.clone(), made.normalization.clone(), made.image_size),
            )
        };
        assert_eq!(said(record), said(other), "{protocol}");
        assert!(record.provenance.weights.starts_with("onnx:"), "{}", record.provenance.weights);
        assert_ne!(record.fingerprint, other.fingerprint);
    }
    // A second run finds the records; the file may have moved meanwhile.
    let moved = here.join("moved");
    std::fs::create_dir(&moved).unwrap();
    std::fs::copy(fixture("onnx/vit.onnx"), moved.join("renamed.onnx")).unwrap();
    let again = toml(&moved, 13, &VIT.replace("FOLDER/vit.onnx", "renamed.onnx"));
    assert_eq!(run("onnx", &with(&["--model", &text(&again)])), found);
}

#[test]
fn protocols_that_train_the_model_are_refused_and_upernet_takes_its_maps() {
    if !has_engine() {
        return;
    }
    let here = tempfile::tempdir().unwrap();
    // The file takes 13 bands; surface reflectance has no B10.
    let surface = format!("[sensors.s2-l2a]\nbands = [\"{}\"]\n", SENTINEL2.replace(' ', "\", \""));
    let onnx = toml(here.path(), 13, &VIT.replace("FOLDER", folder().to_str().unwrap()));
    let text = std::fs::read_to_string(&onnx).unwrap().replacen(
        "image",
        "impute = [[\"zeros\", \"B10\"]]\nimage",
        1,
    );
    std::fs::write(&onnx, text + &surface).unwrap();
    let model = onnx.to_str().unwrap();
    let refused = [("geobench", "finetune"), ("demo", "upernet-finetune")];
    for (suite, protocol) in refused {
        let output = Command::new(env!("CARGO_BIN_EXE_terrabench"))
            .args(["bench", suite, "--demo", "--protocol", protocol, "--model", model, "--out"])
            .arg(here.path().join("refused"))
            .env("TERRABENCH_CACHE", demo::cache(suite, here.path().join("cache")))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        assert!(
            said.contains("trains the model with gradients, but a model of kind `onnx` gives only features"),
            "{said}"
        );
    }
    let args = [
        "demo",
        "--demo",
        "--task",
        "demo-tree-height",
        "--protocol",
        "upernet",
        "--epochs",
        "1",
        "--limit",
        "6",
    ];
    let records = bench(here.path(), "upernet", &[&args[..], &["--model", model]].concat());
    assert!(records["upernet"].value.is_finite() && records["upernet"].short);
}
