//! tract as an engine [github.com/sonos/tract]: in Rust, on the CPU, for programs built with the cargo feature `tract`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::prelude::{
    DatumType, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, TValue, TVec,
    Tensor, TractResult, TypedRunnableModel,
};

use super::arrays::{HostArray, Numbers};
use super::engine::{Engine, Provider, caught, refused};
use crate::formats::onnx::{Element, OnnxFile};
use crate::{Error, Result};

/// The version in Cargo.toml.
pub const VERSION: &str = "0.23.9";

/// Shapes of all inputs, for which a model is prepared.
type Shapes = Vec<(String, Vec<usize>)>;

/// An ONNX file opened with tract.
pub struct Tract {
    model: InferenceModel,
    /// Names of the outputs, in the file's order.
    outputs: Vec<String>,
    /// The model prepared for each set of shapes that it met.
    prepared: Mutex<HashMap<Shapes, Arc<TypedRunnableModel>>>,
    path: PathBuf,
    header: OnnxFile,
}

impl Tract {
    /// Opens the ONNX file at `path`, whose header is `header`.
    ///
    /// # Errors
    /// If it uses an operator that tract lacks, cannot be read, or is to be computed on a GPU.
    pub fn open(path: &Path, header: &OnnxFile, provider: Provider) -> Result<Self> {
        if provider != Provider::Cpu {
            return Err(Error::device("the engine tract computes on the CPU only")
                .help("use --device flex, or run `cargo xtask onnxruntime --cuda` for ONNX Runtime"));
        }
        let mut values = header.inputs.iter().chain(&header.outputs);
        if let Some(value) = values.find(|value| value.element == Element::Bf16) {
            return Err(refused(path, &called(), header, &[], &format!("it has no bfloat16: {value}")));
        }
        let read = || tract_onnx::onnx().model_for_path(path).map_err(|error| format!("{error:#}"));
        let model = caught(read)
            .and_then(|model| model)
            .map_err(|problem| refused(path, &called(), header, &[], &problem))?;
        let mut lacking: Vec<String> =
            model.nodes().iter().filter_map(|node| lacks(&node.op.name())).collect();
        lacking.sort();
        lacking.dedup();
        if !lacking.is_empty() {
            let with_domain = |name: &String| {
                let known = header.operators.iter().find(|operator| operator.name == *name);
                known.map_or(name.clone(), ToString::to_string)
            };
            let lacking: Vec<String> = lacking.iter().map(with_domain).collect();
            return Err(refused(path, &called(), header, &lacking, ""));
        }
        Ok(Tract {
            model,
            outputs: header.outputs.iter().map(|output| output.name.clone()).collect(),
            prepared: Mutex::default(),
            path: path.to_owned(),
            header: header.clone(),
        })
    }

    /// Returns the model prepared for inputs of these shapes.
    fn prepared(&self, inputs: &[(&str, HostArray)]) -> Result<Arc<TypedRunnableModel>> {
        let shapes: Shapes =
            inputs.iter().map(|(name, array)| ((*name).to_owned(), array.shape.clone())).collect();
        let prepared = || self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = prepared().get(&shapes) {
            return Ok(Arc::clone(plan));
        }
        let prepare = || -> TractResult<Arc<TypedRunnableModel>> {
            let mut model = self.model.clone();
            for (place, name) in self.input_names()?.iter().enumerate() {
                if let Some((_, array)) = inputs.iter().find(|(input, _)| input == name) {
                    let fact = InferenceFact::dt_shape(datum(&array.numbers)?, array.shape.as_slice());
                    model.set_input_fact(place, fact)?;
                }
            }
            model.into_optimized()?.into_runnable()
        };
        let plan = caught(prepare).and_then(|plan| plan.map_err(|error| format!("{error:#}")));
        let plan =
            plan.map_err(|problem| refused(&self.path, &called(), &self.header, &[], &first_line(&problem)))?;
        prepared().insert(shapes, Arc::clone(&plan));
        Ok(plan)
    }

    /// Lists the names of the inputs in tract's order.
    fn input_names(&self) -> TractResult<Vec<String>> {
        let outlets = self.model.input_outlets()?.iter();
        Ok(outlets.map(|outlet| self.model.node(outlet.node).name.clone()).collect())
    }
}

/// What the engine is called in messages.
fn called() -> String {
    format!("tract {VERSION}")
}

/// Returns the operator that an unimplemented one stands for.
fn lacks(name: &str) -> Option<String> {
    Some(name.strip_prefix("Unimplemented(")?.strip_suffix(')')?.to_owned())
}

fn first_line(said: &str) -> String {
    said.lines().next().unwrap_or_default().to_owned()
}

fn datum(numbers: &Numbers) -> TractResult<DatumType> {
    Ok(match numbers {
        Numbers::F32(_) => DatumType::F32,
        Numbers::F16(_) => DatumType::F16,
        Numbers::Bf16(_) => anyhow::bail!("tract has no bfloat16"),
        Numbers::F64(_) => DatumType::F64,
        Numbers::I32(_) => DatumType::I32,
        Numbers::I64(_) => DatumType::I64,
    })
}

impl Engine for Tract {
    fn prefers_single_images(&self) -> bool {
        true
    }

    fn run(&self, inputs: Vec<(&str, HostArray)>, outputs: &[&str]) -> Result<Vec<HostArray>> {
        let plan = self.prepared(&inputs)?;
        let work = || -> TractResult<Vec<HostArray>> {
            let mut ordered: TVec<TValue> = TVec::new();
            for name in self.input_names()? {
                if let Some((_, array)) = inputs.iter().find(|(input, _)| *input == name) {
                    ordered.push(tensor(array)?.into());
                }
            }
            let found = plan.run(ordered)?;
            let output = |name: &&str| {
                let place = self.outputs.iter().position(|output| output == name);
                place.and_then(|place| found.get(place)).map(|value| array(value))
            };
            outputs.iter().filter_map(output).collect()
        };
        caught(work).and_then(|found| found.map_err(|error| format!("{error:#}"))).map_err(|problem| {
            let problem = format!("tract cannot compute this model: {}", first_line(&problem));
            Error::unsupported(&self.path, problem).help("use ONNX Runtime: cargo xtask onnxruntime")
        })
    }
}

fn tensor(HostArray { shape, numbers }: &HostArray) -> TractResult<Tensor> {
    match numbers {
        Numbers::F32(values) => Tensor::from_shape(shape, values),
        Numbers::F16(values) => Tensor::from_shape(shape, values),
        Numbers::Bf16(_) => anyhow::bail!("tract has no bfloat16"),
        Numbers::F64(values) => Tensor::from_shape(shape, values),
        Numbers::I32(values) => Tensor::from_shape(shape, values),
        Numbers::I64(values) => Tensor::from_shape(shape, values),
    }
}

/// Copies an output as float32.
fn array(value: &Tensor) -> TractResult<HostArray> {
    let numbers = value.cast_to::<f32>()?;
    let numbers = Numbers::F32(numbers.try_as_plain_ram()?.as_slice::<f32>()?.to_vec());
    Ok(HostArray { shape: value.shape().to_vec(), numbers })
}
