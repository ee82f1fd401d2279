//! A restricted unpickler: reads a pickle into plain values and never executes anything.
//!
//! A pickle is a program for a stack machine. If it names a class or a function, only the name is kept, and the
//! object it would create becomes a [`Value::Object`] with its arguments as written. Only the few functions
//! through which numpy and old protocols write plain data are interpreted. Nothing is looked up or imported.
//!
//! Two kinds of files are read this way, each within its [`Limits`]: GEO-Bench samples and PyTorch checkpoints.
//!
//! All values are stored in one flat list and refer to each other by index. Shared values therefore cost
//! nothing, cycles are harmless and nothing recurses, not even dropping. Memory use is a small multiple of the
//! input's length.

mod literal;
mod machine;
mod numpy;

use std::borrow::Cow;
use std::fmt;

pub use literal::bytes_literal;
pub use numpy::{Array, Dtype, Kind};

/// Upper bounds on what reading one pickle may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum length of the pickle, in bytes; also the maximum number of bytes it may unpack.
    pub bytes: usize,
    /// Maximum number of values it may create, and maximum number on its stack.
    pub values: usize,
    /// Maximum nesting depth of values.
    pub depth: u16,
    /// Whether to keep references to data outside the pickle as [`Value::Persistent`] instead of refusing them.
    pub persistent_ids: bool,
}

impl Limits {
    /// Limits for a GEO-Bench sample, whose pickle takes a few thousand bytes.
    pub const SAMPLE: Limits = Limits { bytes: 16 << 20, values: 1 << 20, depth: 64, persistent_ids: false };
    /// Limits for a PyTorch checkpoint, whose tensors refer to storages outside the pickle. Optimizer states,
    /// settings and logs are stored beside the weights.
    pub const CHECKPOINT: Limits =
        Limits { bytes: 256 << 20, values: 1 << 22, depth: 1000, persistent_ids: true };
}

/// Why and where a pickle was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid or unsupported pickle at byte {at}: {problem}")]
pub struct Refusal {
    /// Byte offset of the offending instruction.
    pub at: usize,
    /// What is wrong, without the offset.
    pub problem: String,
}

/// Index of a value in its [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(u32);

/// One value; nested values are referred to by their [`Id`].
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Python's `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer that fits 64 bits.
    Int(i64),
    /// An integer of more than 64 bits; its digits are not kept.
    BigInt,
    /// A float.
    Float(f64),
    /// A string of Python 3.
    Str(Cow<'a, str>),
    /// `bytes`, `bytearray`, or a Python 2 `str`.
    Bytes(Cow<'a, [u8]>),
    /// A list or a set.
    List(Vec<Id>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A dictionary, in the order of writing; a later entry with the same key wins.
    Dict(Vec<(Id, Id)>),
    /// A class or function, by name only.
    Global {
        /// Index of the module's name.
        module: Id,
        /// Index of the name within the module.
        name: Id,
    },
    /// Anything that only running code could create: an instance of a class or the result of a function.
    Object {
        /// The class or function, usually a [`Value::Global`].
        class: Id,
        /// The arguments the class or function would be called with, a tuple.
        arguments: Option<Id>,
        /// The state that would be set on it; for most classes a dictionary of attributes.
        state: Option<Id>,
        /// Its entries, if it is some kind of dictionary.
        entries: Vec<(Id, Id)>,
    },
    /// Data outside the pickle, referred to by this id.
    Persistent(Id),
    /// A numpy dtype.
    Dtype(Dtype),
    /// A numpy array.
    Array(Array),
}

impl Value<'_> {
    fn object(class: Id, arguments: Option<Id>) -> Self {
        Value::Object { class, arguments, state: None, entries: Vec::new() }
    }

    /// Returns a string, including Python 2 strings that are valid UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(text),
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Returns an integer; whole floats count, booleans count as 0 and 1.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Bool(truth) => Some(i64::from(*truth)),
            Value::Int(number) => Some(*number),
            Value::Float(number) => numpy::whole(*number),
            _ => None,
        }
    }

    /// Returns a number; booleans count as 0 and 1.
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
/// Like [`read_first`].
pub fn read(pickle: &[u8]) -> Result<Pickle<'_>, Refusal> {
    read_first(pickle, &Limits::SAMPLE).map(|(pickle, _)| pickle)
}

/// Reads the pickle at the start of `bytes`, of any protocol from 0 to 5. Also returns its length in bytes.
///
/// # Errors
/// If the pickle is damaged, exceeds a limit, or needs something outside it (extension codes, out-of-band
/// buffers, and persistent ids unless `limits` allows them).
pub fn read_first<'a>(bytes: &'a [u8], limits: &Limits) -> Result<(Pickle<'a>, usize), Refusal> {
    if bytes.len() > limits.bytes {
        let problem = format!("it has {} bytes, more than the limit of {}", bytes.len(), limits.bytes);
        return Err(Refusal { at: 0, problem });
    }
    machine::run(bytes, limits)
}

impl<'a> Pickle<'a> {
    /// Returns the pickle's top-level value.
    pub fn root(&self) -> View<'_, 'a> {
        View { pickle: self, id: self.root }
    }

    /// Iterates over all values, including nested and discarded ones.
    pub fn all(&self) -> impl Iterator<Item = View<'_, 'a>> {
        let count = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        (0..count).map(|id| View { pickle: self, id: Id(id) })
    }
}

/// A value together with its pickle.
#[derive(Clone, Copy)]
pub struct View<'p, 'a> {
    pickle: &'p Pickle<'a>,
    id: Id,
}

impl<'p, 'a> View<'p, 'a> {
    /// Returns the value itself.
    pub fn value(self) -> &'p Value<'a> {
        &self.pickle.values[self.id.0 as usize]
    }

    /// Returns the value's index.
    pub fn id(self) -> Id {
        self.id
    }

    /// Returns the view of another value of the same pickle, usually one nested in this one.
    pub fn at(self, id: Id) -> Self {
        View { id, ..self }
    }

    /// Returns the module and name of a class or function.
    pub fn global(self) -> Option<(&'p str, &'p str)> {
        match self.value() {
            Value::Global { module, name } => {
                self.at(*module).value().as_str().zip(self.at(*name).value().as_str())
            }
            _ => None,
        }
    }

    /// Looks up an entry of a dictionary.
    pub fn get(self, key: &str) -> Option<Self> {
        let Value::Dict(entries) = self.value() else { return None };
        let (_, value) =
            entries.iter().rev().find(|(name, _)| self.at(*name).value().as_str() == Some(key))?;
        Some(self.at(*value))
    }

    /// Iterates over the items of a list, set or tuple.
    pub fn items(self) -> Option<impl ExactSizeIterator<Item = Self>> {
        match self.value() {
            Value::List(items) | Value::Tuple(items) => Some(items.iter().map(move |id| self.at(*id))),
            _ => None,
        }
    }

    /// Returns a numpy array and its raw bytes.
    pub fn array(self) -> Option<(&'p Array, &'p [u8])> {
        match self.value() {
            Value::Array(array) => Some((array, self.pickle.bytes(array.data))),
            _ => None,
        }
    }

    /// Names the class of an object. Old protocols call a helper function whose first argument is the class.
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

    /// Returns shape and elements, in C order, of an integer (shape `[]`), a list of integers (`[n]`) or a
    /// numpy array. Booleans count as 0 and 1; floats are accepted if they are whole.
    ///
    /// # Errors
    /// If the value is anything else; the error describes it.
    pub fn integers(self) -> Result<(Vec<usize>, Vec<i64>), String> {
        self.numbers(Array::integers, Value::as_int)
    }

    /// Returns shape and elements, in C order, of a number (shape `[]`), a list of numbers (`[n]`) or a numpy
    /// array.
    ///
    /// # Errors
    /// If the value is anything else; the error describes it.
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
    /// Returns the contents of a bytes object; empty for any other value.
    fn bytes(&self, id: Id) -> &[u8] {
        match &self.values[id.0 as usize] {
            Value::Bytes(bytes) => bytes,
            _ => &[],
        }
    }
}

/// Describes the kind of value, for error messages.
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
            Value::Persistent(_) => f.write_str("a reference to data outside the pickle"),
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
