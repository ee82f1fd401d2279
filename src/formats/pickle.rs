//! A restricted unpickler: reads a pickle into plain values and never runs anything.
//!
//! A pickle is a program for a stack machine. Where it names a class or a function, the name is kept and
//! what it would make becomes a [`Value::Object`], with its arguments as they are written; only the few
//! functions through which numpy and old protocols write plain data are understood. Nothing is looked up or
//! imported.
//!
//! Two kinds of file are read with it, each within its [`Limits`]: GEO-Bench's samples and PyTorch's checkpoints.
//!
//! All values lie in one flat list and name each other by position. So shared values cost nothing, cycles
//! are harmless and nothing recurses, dropping included. Memory is a small multiple of the input's length.

mod literal;
mod machine;
mod numpy;

use std::borrow::Cow;
use std::fmt;

pub use literal::bytes_literal;
pub use numpy::{Array, Dtype, Kind};

/// What a pickle may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Its longest length, in bytes, and how many bytes it may unpack.
    pub bytes: usize,
    /// How many values it may make, and how many may wait on its stack.
    pub values: usize,
    /// How deep values may lie in each other.
    pub depth: u16,
    /// Keep references to something outside of it as [`Value::Persistent`] instead of refusing them.
    pub persistent_ids: bool,
}

impl Limits {
    /// For a GEO-Bench sample, whose pickle has some thousand bytes.
    pub const SAMPLE: Limits = Limits { bytes: 16 << 20, values: 1 << 20, depth: 64, persistent_ids: false };
    /// For a PyTorch checkpoint, whose tensors refer to storages outside of the pickle. Optimizer states, settings
    /// and logs lie beside the weights.
    pub const CHECKPOINT: Limits =
        Limits { bytes: 256 << 20, values: 1 << 22, depth: 1000, persistent_ids: true };
}

/// Why a pickle was not read, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pickle is refused at its byte {at}: {problem}")]
pub struct Refusal {
    /// Where the instruction begins.
    pub at: usize,
    pub problem: String,
}

/// The place of a value in its [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(u32);

/// A value; those within it are named by their [`Id`].
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits.
    BigInt,
    Float(f64),
    Str(Cow<'a, str>),
    /// `bytes`, `bytearray`, and the `str` of Python 2.
    Bytes(Cow<'a, [u8]>),
    /// A list or a set.
    List(Vec<Id>),
    Tuple(Vec<Id>),
    /// In the order of writing; a later entry of the same key wins.
    Dict(Vec<(Id, Id)>),
    /// A class or function, by name only.
    Global {
        module: Id,
        name: Id,
    },
    /// What only running code could make: an instance of a class or the result of a function.
    Object {
        class: Id,
        /// A tuple: what the class or function would be called with.
        arguments: Option<Id>,
        /// What would be set on it; of most classes a dictionary of attributes.
        state: Option<Id>,
        /// Its entries, where it is a kind of dictionary.
        entries: Vec<(Id, Id)>,
    },
    /// What lies outside of the pickle, under this id.
    Persistent(Id),
    Dtype(Dtype),
    Array(Array),
}

impl Value<'_> {
    fn object(class: Id, arguments: Option<Id>) -> Self {
        Value::Object { class, arguments, state: None, entries: Vec::new() }
    }

    /// A string, that of Python 2 included.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(text),
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// A whole number. Booleans count as 0 and 1.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Bool(truth) => Some(i64::from(*truth)),
            Value::Int(number) => Some(*number),
            Value::Float(number) => numpy::whole(*number),
            _ => None,
        }
    }

    /// A number. Booleans count as 0 and 1.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
            Value::Int(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            _ => None,
        }
    }
}

/// A pickle that has been read.
#[derive(Debug)]
pub struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
}

/// Reads the pickle of a GEO-Bench sample: [`read_first`] within [`Limits::SAMPLE`].
///
/// # Errors
/// As [`read_first`].
pub fn read(pickle: &[u8]) -> Result<Pickle<'_>, Refusal> {
    read_first(pickle, &Limits::SAMPLE).map(|(pickle, _)| pickle)
}

/// Reads the pickle that `bytes` begin with, of any protocol, 0 to 5. Also gives its length in bytes.
///
/// # Errors
/// Where it is damaged, exceeds a limit or needs something outside of it (extension codes, out-of-band buffers, and
/// persistent ids unless `limits` allow them).
pub fn read_first<'a>(bytes: &'a [u8], limits: &Limits) -> Result<(Pickle<'a>, usize), Refusal> {
    if bytes.len() > limits.bytes {
        let problem = format!("it has {} bytes, more than the limit of {}", bytes.len(), limits.bytes);
        return Err(Refusal { at: 0, problem });
    }
    machine::run(bytes, limits)
}

impl<'a> Pickle<'a> {
    /// The value that the pickle holds.
    pub fn root(&self) -> View<'_, 'a> {
        View { pickle: self, id: self.root }
    }

    /// All values, also those within others or thrown away.
    pub fn all(&self) -> impl Iterator<Item = View<'_, 'a>> {
        let count = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        (0..count).map(|id| View { pickle: self, id: Id(id) })
    }
}

/// A value within its pickle.
#[derive(Clone, Copy)]
pub struct View<'p, 'a> {
    pickle: &'p Pickle<'a>,
    id: Id,
}

impl<'p, 'a> View<'p, 'a> {
    /// The value itself.
    pub fn value(self) -> &'p Value<'a> {
        &self.pickle.values[self.id.0 as usize]
    }

    /// Where the value lies.
    pub fn id(self) -> Id {
        self.id
    }

    /// A value within this one.
    pub fn at(self, id: Id) -> Self {
        View { id, ..self }
    }

    /// Module and name of a class or function.
    pub fn global(self) -> Option<(&'p str, &'p str)> {
        match self.value() {
            Value::Global { module, name } => {
                self.at(*module).value().as_str().zip(self.at(*name).value().as_str())
            }
            _ => None,
        }
    }

    /// A dictionary's entry.
    pub fn get(self, key: &str) -> Option<Self> {
        let Value::Dict(entries) = self.value() else { return None };
        let (_, value) =
            entries.iter().rev().find(|(name, _)| self.at(*name).value().as_str() == Some(key))?;
        Some(self.at(*value))
    }

    /// The items of a list, set or tuple.
    pub fn items(self) -> Option<impl ExactSizeIterator<Item = Self>> {
        match self.value() {
            Value::List(items) | Value::Tuple(items) => Some(items.iter().map(move |id| self.at(*id))),
            _ => None,
        }
    }

    /// A numpy array with its bytes.
    pub fn array(self) -> Option<(&'p Array, &'p [u8])> {
        match self.value() {
            Value::Array(array) => Some((array, self.pickle.bytes(array.data))),
            _ => None,
        }
    }

    /// The class of an object. Old protocols call a function that is told the class first.
    fn class_name(self, class: Id, arguments: Option<Id>) -> Option<(&'p str, &'p str)> {
        let (module, name) = self.at(class).global()?;
        if matches!(module, "copyreg" | "copy_reg")
            && let Some(arguments) = arguments
            && let Some(class) = self.at(arguments).items().and_then(|mut items| items.next())
            && let Some(named) = class.global()
        {
            return Some(named);
        }
        Some((module, name))
    }

    /// Shape and elements, in C order, of a whole number (shape []), a list of them ([n]) or a numpy array.
    /// Booleans count as 0 and 1, floats where they are whole.
    ///
    /// # Errors
    /// What the value is instead.
    pub fn integers(self) -> Result<(Vec<usize>, Vec<i64>), String> {
        self.numbers(Array::integers, Value::as_int)
    }

    /// Shape and elements, in C order, of a number (shape []), a list of them ([n]) or a numpy array.
    ///
    /// # Errors
    /// What the value is instead.
    pub fn floats(self) -> Result<(Vec<usize>, Vec<f64>), String> {
        self.numbers(|array, data| Some(array.floats(data)), Value::as_float)
    }

    fn numbers<T>(
        self,
        array: impl Fn(&Array, &[u8]) -> Option<Vec<T>>,
        one: impl Fn(&Value<'a>) -> Option<T>,
    ) -> Result<(Vec<usize>, Vec<T>), String> {
        let numbers = if let Some((stored, bytes)) = self.array() {
            array(stored, bytes).map(|numbers| (stored.shape.clone(), numbers))
        } else if let Some(items) = self.items() {
            items
                .map(|item| one(item.value()))
                .collect::<Option<Vec<T>>>()
                .map(|list| (vec![list.len()], list))
        } else {
            one(self.value()).map(|number| (Vec::new(), vec![number]))
        };
        numbers.ok_or_else(|| self.to_string())
    }
}

impl Pickle<'_> {
    /// The contents of a bytes object.
    fn bytes(&self, id: Id) -> &[u8] {
        match &self.values[id.0 as usize] {
            Value::Bytes(bytes) => bytes,
            _ => &[],
        }
    }
}

/// What kind of value it is, for messages.
impl fmt::Display for View<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |id: Id| self.at(id).value().as_str().unwrap_or("?");
        match self.value() {
            Value::None => f.write_str("None"),
            Value::Bool(truth) => write!(f, "the boolean {truth}"),
            Value::Int(number) => write!(f, "the integer {number}"),
            Value::BigInt => f.write_str("an integer of more than 64 bits"),
            Value::Float(number) => write!(f, "the float {number}"),
            Value::Str(text) => write!(f, "the string {text:?}"),
            Value::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Value::List(items) => write!(f, "a list of {}", items.len()),
            Value::Tuple(items) => write!(f, "a tuple of {}", items.len()),
            Value::Dict(entries) => write!(f, "a dictionary of {}", entries.len()),
            Value::Global { module, name: class } => write!(f, "the name {}.{}", name(*module), name(*class)),
            Value::Object { class, arguments, .. } => match self.class_name(*class, *arguments) {
                Some((module, name)) => write!(f, "an object of {module}.{name}"),
                None => f.write_str("an object of an unknown class"),
            },
            Value::Persistent(_) => f.write_str("something outside of the pickle"),
            Value::Dtype(_) => f.write_str("a numpy dtype"),
            Value::Array(array) => write!(f, "a numpy array of {} and shape {:?}", array.dtype, array.shape),
        }
    }
}

impl fmt::Debug for View<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
