//! A restricted unpickler: reads a pickle into plain values and never runs anything.
//!
//! A pickle is a program for a stack machine. Where it names a class or a function, the name is kept and
//! what it would make becomes an opaque [`Value::Object`]; only the few functions through which numpy and
//! old protocols write plain data are understood. Nothing is looked up or imported.
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

/// The longest pickle that is read, in bytes. A GEO-Bench sample's has some thousands.
pub const MAX_BYTES: usize = 16 << 20;
/// How many values a pickle may make, and how many may wait on its stack.
pub const MAX_VALUES: usize = 1 << 20;
/// How deep values may lie in each other.
pub const MAX_DEPTH: u16 = 64;

/// Why a pickle was not read, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pickle is refused at its byte {at}: {problem}")]
pub struct Refusal {
    /// Where the instruction begins.
    pub at: usize,
    pub problem: String,
}

/// The place of a value in its [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    },
    Dtype(Dtype),
    Array(Array),
}

impl Value<'_> {
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

/// Reads a pickle of any protocol, 0 to 5.
///
/// # Errors
/// Where it is damaged, exceeds a limit of this module or needs something outside of it (persistent ids,
/// extension codes, out-of-band buffers).
pub fn read(pickle: &[u8]) -> Result<Pickle<'_>, Refusal> {
    if pickle.len() > MAX_BYTES {
        let problem = format!("it has {} bytes, more than the limit of {MAX_BYTES}", pickle.len());
        return Err(Refusal { at: 0, problem });
    }
    machine::run(pickle)
}

impl<'a> Pickle<'a> {
    /// The value that the pickle holds.
    pub fn root(&self) -> View<'_, 'a> {
        View { pickle: self, id: self.root }
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

    /// A value within this one.
    pub fn at(self, id: Id) -> Self {
        View { id, ..self }
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
        let numbers = if let Value::Array(stored) = self.value() {
            array(stored, self.pickle.bytes(stored.data)).map(|numbers| (stored.shape.clone(), numbers))
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
            Value::Object { class } => match self.at(*class).value() {
                Value::Global { module, name: class } => {
                    write!(f, "an object of {}.{}", name(*module), name(*class))
                }
                _ => f.write_str("an object of an unknown class"),
            },
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
