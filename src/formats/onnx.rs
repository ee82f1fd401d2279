//! ONNX files [github.com/onnx/onnx, onnx/onnx.proto]: what a model takes and gives, which operators it uses, and which
//! other files hold its weights. The weights themselves are not read, and nothing is computed.

mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use self::wire::{Field, Message, Value};
use crate::error::AtPath;
use crate::{Error, Result};

/// The header of an ONNX file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnnxFile {
    /// The inputs that a caller passes, in the file's order.
    pub inputs: Vec<OnnxValue>,
    /// The outputs, in the file's order.
    pub outputs: Vec<OnnxValue>,
    /// Version of each set of operators by its domain; the empty domain is ONNX's own.
    pub opsets: BTreeMap<String, u64>,
    /// The operators in use, without those that the file itself defines.
    pub operators: BTreeSet<Operator>,
    /// Files with external data, relative to the folder of the ONNX file.
    pub external: BTreeSet<PathBuf>,
}

/// An operator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operator {
    /// Empty for ONNX's own operators.
    pub domain: String,
    /// Name, such as `LayerNormalization`.
    pub name: String,
}

impl fmt::Display for Operator {
    /// Formats the name with its domain, if it has one: `com.microsoft.FusedMatMul`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.domain.as_str() {
            "" => f.write_str(&self.name),
            domain => write!(f, "{domain}.{}", self.name),
        }
    }
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxValue {
    /// Its name.
    pub name: String,
    /// The type of its numbers.
    pub element: Element,
    /// Its dimensions; `None` if the file does not state them.
    pub shape: Option<Vec<Dimension>>,
}

impl fmt::Display for OnnxValue {
    /// Formats name, type and shape: `pixels: float32 [batch, 13, 64, 64]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ", self.name, self.element)?;
        match &self.shape {
            None => f.write_str("of unknown shape"),
            Some(shape) => {
                let shape: Vec<String> = shape.iter().map(Dimension::to_string).collect();
                write!(f, "[{}]", shape.join(", "))
            }
        }
    }
}

/// A dimension of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimension {
    /// Always this size.
    Fixed(usize),
    /// Any size. Dimensions of the same name have the same size; the name may be empty.
    Free(String),
}

impl Dimension {
    /// Returns the size if it is fixed.
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Dimension::Fixed(size) => Some(*size),
            Dimension::Free(_) => None,
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dimension::Fixed(size) => size.fmt(f),
            Dimension::Free(name) if name.is_empty() => f.write_str("?"),
            Dimension::Free(name) => f.write_str(name),
        }
    }
}

/// The type of the numbers of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point.
    F16,
    /// 16-bit floating point with the exponent of float32.
    Bf16,
    /// 64-bit floating point.
    F64,
    /// 32-bit integers.
    I32,
    /// 64-bit integers.
    I64,
    /// Any other type, by its number in the ONNX format; 0 for something that is not a tensor.
    Other(u64),
}

impl Element {
    fn of(number: u64) -> Self {
        match number {
            1 => Element::F32,
            6 => Element::I32,
            7 => Element::I64,
            10 => Element::F16,
            11 => Element::F64,
            16 => Element::Bf16,
            other => Element::Other(other),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Element::F32 => "float32",
            Element::F16 => "float16",
            Element::Bf16 => "bfloat16",
            Element::F64 => "float64",
            Element::I32 => "int32",
            Element::I64 => "int64",
            Element::Other(0) => "not a tensor",
            Element::Other(2) => "uint8",
            Element::Other(3) => "int8",
            Element::Other(4) => "uint16",
            Element::Other(5) => "int16",
            Element::Other(8) => "string",
            Element::Other(9) => "bool",
            Element::Other(12) => "uint32",
            Element::Other(13) => "uint64",
            Element::Other(number) => return write!(f, "type {number}"),
        })
    }
}

impl OnnxFile {
    /// Reads the header of the ONNX file at `path`, and checks that the files with its external data exist.
    ///
    /// # Errors
    /// If a file cannot be read, is not an ONNX file, or names external data outside its folder.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path)
            .at(path)
            .map_err(|error| error.help("set `file` in the model's TOML to the path of an ONNX file"))?;
        let file = Self::parse(&bytes).map_err(|problem| {
            Error::damaged(path, format!("expected an ONNX file, found {problem}"))
                .help("export or copy the file again; `onnx.checker.check_model(FILE)` in Python examines it")
        })?;
        for name in &file.external {
            let data = external_path(path, name)?;
            if !data.is_file() {
                let problem = format!("no such file; {} keeps its weights in it", path.display());
                return Err(Error::not_found(data, problem)
                    .help("copy it beside the ONNX file, under the name with which it was exported"));
            }
        }
        Ok(file)
    }

    /// Parses the bytes of an ONNX file; on failure says what was found.
    ///
    /// # Errors
    /// If the bytes are not an ONNX model.
    pub fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        if bytes.is_empty() {
            return Err("an empty file".to_owned());
        }
        let (mut file, mut own, mut graph) = (OnnxFile::default(), BTreeSet::new(), None);
        for field in Message(bytes) {
            match field? {
                Field { number: 7, value: Value::Bytes(bytes) } => graph = Some(bytes),
                Field { number: 8, value: Value::Bytes(bytes) } => {
                    let (domain, version) = opset(bytes)?;
                    file.opsets.insert(domain, version);
                }
                Field { number: 25, value: Value::Bytes(bytes) } => {
                    own.insert(function(bytes, &mut file)?);
                }
                _ => {}
            }
        }
        let graph = graph.ok_or("a file without a graph")?;
        let mut stored = BTreeSet::new();
        of_graph(graph, &mut file, Some(&mut stored), 0)?;
        // Old files list their weights among the inputs too.
        file.inputs.retain(|input| !stored.contains(&input.name));
        file.operators.retain(|operator| !own.contains(operator));
        Ok(file)
    }

    /// Hashes the ONNX file at `path` with the files of its external data; returns hexadecimal. Without external data this
    /// is the BLAKE3 hash of the file, otherwise that of the hashes of all files (32 bytes each), external ones by name.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn hash(&self, path: &Path) -> Result<String> {
        let of_file = |path: &Path| -> Result<blake3::Hash> {
            let file = std::fs::File::open(path).at(path)?;
            Ok(blake3::Hasher::new().update_reader(file).at(path)?.finalize())
        };
        let main = of_file(path)?;
        if self.external.is_empty() {
            return Ok(main.to_hex().to_string());
        }
        let mut all = blake3::Hasher::new();
        all.update(main.as_bytes());
        for name in &self.external {
            all.update(of_file(&external_path(path, name)?)?.as_bytes());
        }
        Ok(all.finalize().to_hex().to_string())
    }
}

/// Returns the path of external data, which must be in the folder of the ONNX file at `path` or below it.
fn external_path(path: &Path, name: &Path) -> Result<PathBuf> {
    if !name.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        let problem = format!("expected external data in its own folder, found {}", name.display());
        return Err(Error::damaged(path, problem)
            .help("save the model again, with onnx.save_model(…, save_as_external_data=True)"));
    }
    Ok(path.parent().unwrap_or(Path::new("")).join(name))
}

/// Parses the domain and version of a set of operators.
fn opset(bytes: &[u8]) -> std::result::Result<(String, u64), String> {
    let (mut domain, mut version) = (String::new(), 0);
    for field in Message(bytes) {
        match field? {
            Field { number: 1, value: Value::Bytes(text) } => domain = wire::text(text)?,
            Field { number: 2, value: Value::Integer(number) } => version = number,
            _ => {}
        }
    }
    Ok((domain, version))
}

/// Parses a function that the file defines: collects what its nodes use, and returns the operator that it defines.
fn function(bytes: &[u8], file: &mut OnnxFile) -> std::result::Result<Operator, String> {
    let (mut domain, mut name) = (String::new(), String::new());
    for field in Message(bytes) {
        match field? {
            Field { number: 1, value: Value::Bytes(text) } => name = wire::text(text)?,
            Field { number: 10, value: Value::Bytes(text) } => domain = wire::text(text)?,
            Field { number: 7, value: Value::Bytes(node) } => of_node(node, file, 0)?,
            _ => {}
        }
    }
    Ok(Operator { domain, name })
}

/// Maximum depth of graphs inside operators such as `If`.
const DEPTH: usize = 32;

/// Collects operators and external data of a graph. `stored`, given for the main graph only, collects the names of weights;
/// then inputs and outputs are collected too.
fn of_graph(
    bytes: &[u8],
    file: &mut OnnxFile,
    mut stored: Option<&mut BTreeSet<String>>,
    depth: usize,
) -> std::result::Result<(), String> {
    if depth > DEPTH {
        return Err(format!("graphs nested more than {DEPTH} times"));
    }
    for field in Message(bytes) {
        match field? {
            Field { number: 1, value: Value::Bytes(node) } => of_node(node, file, depth)?,
            Field { number: 5, value: Value::Bytes(weights) } => {
                let name = of_tensor(weights, file)?;
                if let Some(stored) = &mut stored {
                    stored.insert(name);
                }
            }
            Field { number: 11, value: Value::Bytes(input) } if stored.is_some() => {
                file.inputs.push(value(input)?);
            }
            Field { number: 12, value: Value::Bytes(output) } if stored.is_some() => {
                file.outputs.push(value(output)?);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Collects the operator of a node, and what its attributes contain.
fn of_node(bytes: &[u8], file: &mut OnnxFile, depth: usize) -> std::result::Result<(), String> {
    let (mut domain, mut name) = (String::new(), String::new());
    for field in Message(bytes) {
        match field? {
            Field { number: 4, value: Value::Bytes(text) } => name = wire::text(text)?,
            Field { number: 7, value: Value::Bytes(text) } => domain = wire::text(text)?,
            Field { number: 5, value: Value::Bytes(attribute) } => of_attribute(attribute, file, depth)?,
            _ => {}
        }
    }
    // Both names stand for ONNX's own operators.
    if domain == "ai.onnx" {
        domain.clear();
    }
    file.operators.insert(Operator { domain, name });
    Ok(())
}

fn of_attribute(bytes: &[u8], file: &mut OnnxFile, depth: usize) -> std::result::Result<(), String> {
    for field in Message(bytes) {
        match field? {
            Field { number: 5 | 10, value: Value::Bytes(tensor) } => drop(of_tensor(tensor, file)?),
            Field { number: 6 | 11, value: Value::Bytes(graph) } => of_graph(graph, file, None, depth + 1)?,
            _ => {}
        }
    }
    Ok(())
}

/// Collects the file that a tensor's data are in, and returns its name.
fn of_tensor(bytes: &[u8], file: &mut OnnxFile) -> std::result::Result<String, String> {
    let (mut name, mut location, mut external) = (String::new(), None, false);
    for field in Message(bytes) {
        match field? {
            Field { number: 8, value: Value::Bytes(text) } => name = wire::text(text)?,
            Field { number: 13, value: Value::Bytes(entry) } => {
                let (key, value) = entry_of(entry)?;
                if key == "location" {
                    location = Some(value);
                }
            }
            Field { number: 14, value: Value::Integer(place) } => external = place == 1,
            _ => {}
        }
    }
    if let (true, Some(location)) = (external, location) {
        file.external.insert(location.into());
    }
    Ok(name)
}

/// Parses a key and a value.
fn entry_of(bytes: &[u8]) -> std::result::Result<(String, String), String> {
    let (mut key, mut value) = (String::new(), String::new());
    for field in Message(bytes) {
        match field? {
            Field { number: 1, value: Value::Bytes(text) } => key = wire::text(text)?,
            Field { number: 2, value: Value::Bytes(text) } => value = wire::text(text)?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// Parses an input or output.
fn value(bytes: &[u8]) -> std::result::Result<OnnxValue, String> {
    let mut value = OnnxValue { name: String::new(), element: Element::Other(0), shape: None };
    for field in Message(bytes) {
        match field? {
            Field { number: 1, value: Value::Bytes(text) } => value.name = wire::text(text)?,
            Field { number: 2, value: Value::Bytes(kind) } => {
                for field in Message(kind) {
                    if let Field { number: 1, value: Value::Bytes(tensor) } = field? {
                        (value.element, value.shape) = tensor_type(tensor)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(value)
}

/// Parses the type of a tensor.
fn tensor_type(bytes: &[u8]) -> std::result::Result<(Element, Option<Vec<Dimension>>), String> {
    let (mut element, mut shape) = (Element::Other(0), None);
    for field in Message(bytes) {
        match field? {
            Field { number: 1, value: Value::Integer(number) } => element = Element::of(number),
            Field { number: 2, value: Value::Bytes(dimensions) } => {
                let all = shape.get_or_insert_with(Vec::new);
                for field in Message(dimensions) {
                    if let Field { number: 1, value: Value::Bytes(bytes) } = field? {
                        all.push(dimension(bytes)?);
                    }
                }
            }
            _ => {}
        }
    }
    Ok((element, shape))
}

fn dimension(bytes: &[u8]) -> std::result::Result<Dimension, String> {
    let mut dimension = Dimension::Free(String::new());
    for field in Message(bytes) {
        match field? {
            // Some exporters write -1 or 0 for a free dimension.
            Field { number: 1, value: Value::Integer(size) } if (1..=1 << 40).contains(&size) => {
                let size = usize::try_from(size).map_err(|_| format!("a dimension of {size}"))?;
                dimension = Dimension::Fixed(size);
            }
            Field { number: 2, value: Value::Bytes(text) } => dimension = Dimension::Free(wire::text(text)?),
            _ => {}
        }
    }
    Ok(dimension)
}
