//! Writes pickles: the subset of protocol 4 that GEO-Bench's attributes need.
//!
//! Nothing is memoised, so a repeated string is written again.
//! Opcodes: Python's `pickletools`.

use std::fmt::Write;

/// A Python value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i32),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    /// Entries in this order.
    Dict(Vec<(Value, Value)>),
    /// A class or function: module and name.
    Global(&'static str, &'static str),
    /// The result of calling a function or class with these arguments.
    Call(Box<Value>, Vec<Value>),
    /// The result of `class.__new__(class)`.
    New(Box<Value>),
    /// An object after `__setstate__`, or with these attributes if the state is a dict.
    WithState(Box<Value>, Box<Value>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl Value {
    /// Makes a dict with string keys.
    pub fn dict<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        Value::Dict(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// Makes an instance of a class with these attributes, without calling `__init__`.
    pub fn object<'a>(
        module: &'static str,
        class: &'static str,
        attributes: impl IntoIterator<Item = (&'a str, Value)>,
    ) -> Self {
        let instance = Value::New(Box::new(Value::Global(module, class)));
        Value::WithState(Box::new(instance), Box::new(Value::dict(attributes)))
    }

    /// Makes a one-dimensional numpy array of 64-bit integers.
    pub fn int64_array(values: &[i64]) -> Self {
        let reconstruct = Value::Global("numpy.core.multiarray", "_reconstruct");
        let array = Value::Call(
            Box::new(reconstruct),
            vec![
                Value::Global("numpy", "ndarray"),
                Value::Tuple(vec![Value::Int(0)]),
                Value::Bytes(b"b".to_vec()),
            ],
        );
        let dtype = Value::WithState(
            Box::new(Value::Call(
                Box::new(Value::Global("numpy", "dtype")),
                vec!["i8".into(), Value::Bool(false), Value::Bool(true)],
            )),
            Box::new(Value::Tuple(vec![
                Value::Int(3),
                "<".into(),
                Value::None,
                Value::None,
                Value::None,
                Value::Int(-1),
                Value::Int(-1),
                Value::Int(0),
            ])),
        );
        let state = vec![
            Value::Int(1),
            Value::Tuple(vec![Value::Int(values.len() as i32)]),
            dtype,
            Value::Bool(false),
            Value::Bytes(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        ];
        Value::WithState(Box::new(array), Box::new(Value::Tuple(state)))
    }

    /// Encodes this value as a pickle.
    pub fn pickle(&self) -> Vec<u8> {
        let mut body = Vec::new();
        self.write(&mut body);
        body.push(b'.'); // STOP
        let mut pickle = vec![0x80, 4, 0x95]; // PROTO 4, FRAME
        pickle.extend((body.len() as u64).to_le_bytes());
        pickle.append(&mut body);
        pickle
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::None => out.push(b'N'),
            Value::Bool(true) => out.push(0x88),
            Value::Bool(false) => out.push(0x89),
            Value::Int(value) => match u8::try_from(*value) {
                Ok(byte) => out.extend([b'K', byte]), // BININT1
                Err(_) => {
                    out.push(b'J'); // BININT
                    out.extend(value.to_le_bytes());
                }
            },
            Value::Float(value) => {
                out.push(b'G'); // BINFLOAT
                out.extend(value.to_be_bytes());
            }
            Value::Text(text) => sized(out, (0x8c, b'X'), text.as_bytes()), // SHORT_BINUNICODE, BINUNICODE
            Value::Bytes(bytes) => sized(out, (b'C', b'B'), bytes),         // SHORT_BINBYTES, BINBYTES
            Value::Tuple(items) if items.is_empty() => out.push(b')'),
            Value::Tuple(items) => {
                out.push(b'('); // MARK
                items.iter().for_each(|item| item.write(out));
                out.push(b't');
            }
            Value::List(items) => {
                out.extend(b"]("); // EMPTY_LIST, MARK
                items.iter().for_each(|item| item.write(out));
                out.push(b'e'); // APPENDS
            }
            Value::Dict(entries) => {
                out.extend(b"}("); // EMPTY_DICT, MARK
                for (key, value) in entries {
                    key.write(out);
                    value.write(out);
                }
                out.push(b'u'); // SETITEMS
            }
            Value::Global(module, name) => {
                Value::from(*module).write(out);
                Value::from(*name).write(out);
                out.push(0x93); // STACK_GLOBAL
            }
            Value::Call(callable, arguments) => {
                callable.write(out);
                Value::Tuple(arguments.clone()).write(out);
                out.push(b'R'); // REDUCE
            }
            Value::New(class) => {
                class.write(out);
                out.extend([b')', 0x81]); // EMPTY_TUPLE, NEWOBJ
            }
            Value::WithState(object, state) => {
                object.write(out);
                state.write(out);
                out.push(b'b'); // BUILD
            }
        }
    }
}

/// Writes the short opcode with a one-byte length if that suffices, otherwise the long one with four bytes.
fn sized(out: &mut Vec<u8>, (short, long): (u8, u8), bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(length) => out.extend([short, length]),
        Err(_) => {
            out.push(long);
            out.extend((bytes.len() as u32).to_le_bytes());
        }
    }
    out.extend(bytes);
}

/// Python's `repr` of a bytes object.
pub fn repr(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    let mut text = format!("b{quote}");
    for byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            byte if char::from(*byte) == quote => {
                text.push('\\');
                text.push(quote);
            }
            0x20..=0x7e => text.push(char::from(*byte)),
            // Writing to a String cannot fail.
            byte => _ = write!(text, "\\x{byte:02x}"),
        }
    }
    text.push(quote);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    // Written by hand after `pickletools`; Python unpickles it to
    // {"a": (1, -1, 2.5), "b": [None, True, b"xyz"]}.
    #[test]
    fn a_pickle_has_the_bytes_of_protocol_4() {
        let value = Value::dict([
            ("a", Value::Tuple(vec![Value::Int(1), Value::Int(-1), Value::Float(2.5)])),
            ("b", Value::List(vec![Value::None, Value::Bool(true), Value::Bytes(b"xyz".to_vec())])),
        ]);
        let body = b"}(\x8c\x01a(K\x01J\xff\xff\xff\xffG\x40\x04\0\0\0\0\0\0t\x8c\x01b](N\x88C\x03xyzeu.";
        let mut expected = vec![0x80, 4, 0x95, body.len() as u8, 0, 0, 0, 0, 0, 0, 0];
        expected.extend(body);
        assert_eq!(value.pickle(), expected);
    }

    #[test]
    fn long_texts_have_long_lengths() {
        let pickle = Value::Text("x".repeat(300)).pickle();
        assert_eq!(pickle[11..16], [b'X', 44, 1, 0, 0]);
    }

    #[test]
    fn bytes_are_written_as_python_writes_them() {
        assert_eq!(repr(b"a\x80\\\n\x00~\x7f"), r"b'a\x80\\\n\x00~\x7f'");
        assert_eq!(repr(b"it's"), "b\"it's\"");
        assert_eq!(repr(b"'\""), "b'\\'\"'");
    }
}
