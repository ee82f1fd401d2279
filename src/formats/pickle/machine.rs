//! The stack machine that executes pickle opcodes [Python, Lib/pickletools.py describes every instruction].

use std::borrow::Cow;

use super::literal::{raw_unicode, unquote};
use super::numpy::{Array, Dtype, MAX_DIMENSIONS};
use super::{Id, Limits, Pickle, Refusal, Value};

/// Runs the program at the start of `input`. Also returns its length.
pub(crate) fn run<'a>(input: &'a [u8], limits: &Limits) -> Result<(Pickle<'a>, usize), Refusal> {
    let mut machine = Machine::new(input, limits);
    match machine.run() {
        Ok(root) => Ok((Pickle { values: machine.values, root }, machine.at)),
        Err(problem) => Err(Refusal { at: machine.start, problem }),
    }
}

struct Machine<'a> {
    input: &'a [u8],
    limits: Limits,
    /// Offset of the next byte to read.
    at: usize,
    /// Offset of the current instruction.
    start: usize,
    values: Vec<Value<'a>>,
    /// For each value, how deeply others were nested in it when they were added.
    depths: Vec<u16>,
    stack: Vec<Id>,
    /// Stack heights in ascending order, none above the current height.
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
    /// How many more bytes calls may copy.
    copies: usize,
}

type Step<T = ()> = Result<T, String>;

/// Result of a call.
enum Made<'a> {
    New(Value<'a>),
    Known(Id),
}

impl<'a> Machine<'a> {
    fn new(input: &'a [u8], limits: &Limits) -> Self {
        // A GEO-Bench sample's pickle creates about one value per four bytes.
        let expected = (input.len() / 4).min(1 << 16);
        Machine {
            input,
            limits: *limits,
            at: 0,
            start: 0,
            values: Vec::with_capacity(expected),
            depths: Vec::with_capacity(expected),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            copies: limits.bytes,
        }
    }

    fn run(&mut self) -> Step<Id> {
        loop {
            self.start = self.at;
            match self.byte()? {
                b'.' => return self.pop(),
                instruction => self.step(instruction)?,
            }
        }
    }

    fn step(&mut self, instruction: u8) -> Step {
        match instruction {
            // PROTO and FRAME: nothing here depends on them.
            0x80 => match self.byte()? {
                0..=5 => Ok(()),
                protocol => Err(format!("expected protocol 0 to 5, got {protocol}")),
            },
            0x95 => self.take(8).map(drop),

            // MARK, POP (which removes a mark if one is on top), POP_MARK, DUP, then PUT and GET of the memo.
            b'(' => {
                self.marks.push(self.stack.len());
                self.within(self.marks.len(), "marks")
            }
            b'0' if self.marks.last() == Some(&self.stack.len()) => self.above_mark().map(drop),
            b'0' => self.pop().map(drop),
            b'1' => self.above_mark().map(drop),
            b'2' => self.top().and_then(|top| self.put_on_stack(top)),
            b'p' => self.line_index().and_then(|index| self.remember(index)),
            b'q' => self.length::<1>().and_then(|index| self.remember(index)),
            b'r' => self.length::<4>().and_then(|index| self.remember(index)),
            0x94 => self.remember(self.memo.len()),
            b'g' => self.line_index().and_then(|index| self.recall(index)),
            b'h' => self.length::<1>().and_then(|index| self.recall(index)),
            b'j' => self.length::<4>().and_then(|index| self.recall(index)),

            // Constants and numbers.
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' => self.array().and_then(|[byte]| self.push(Value::Int(byte.into()))),
            b'M' => self.array().and_then(|bytes| self.push(Value::Int(u16::from_le_bytes(bytes).into()))),
            b'J' => self.array().and_then(|bytes| self.push(Value::Int(i32::from_le_bytes(bytes).into()))),
            b'G' => self.array().and_then(|bytes| self.push(Value::Float(f64::from_be_bytes(bytes)))),
            0x8a => self.length::<1>().and_then(|length| self.long(length)),
            0x8b => self.length::<4>().and_then(|length| self.long(length)),
            b'I' => match self.line()? {
                "00" => self.push(Value::Bool(false)),
                "01" => self.push(Value::Bool(true)),
                digits => self.decimal(digits),
            },
            b'L' => self.line().and_then(|line| self.decimal(line.strip_suffix('L').unwrap_or(line))),
            b'F' => {
                let line = self.line()?;
                let number = line.trim().parse().map_err(|_| format!("`{line}` is not a number"))?;
                self.push(Value::Float(number))
            }

            // Strings and bytes.
            0x8c => self.length::<1>().and_then(|length| self.text(length)),
            b'X' => self.length::<4>().and_then(|length| self.text(length)),
            0x8d => self.length::<8>().and_then(|length| self.text(length)),
            b'U' | b'C' => self.length::<1>().and_then(|length| self.bytes(length)),
            b'T' | b'B' => self.length::<4>().and_then(|length| self.bytes(length)),
            0x8e | 0x96 => self.length::<8>().and_then(|length| self.bytes(length)),
            b'V' => {
                let text = raw_unicode(self.line_bytes()?)?;
                self.push(Value::Str(Cow::Owned(text)))
            }
            b'S' => {
                let bytes = unquote(self.line_bytes()?.trim_ascii())?;
                self.push(Value::Bytes(Cow::Owned(bytes)))
            }

            // Lists and sets, tuples, dictionaries: empty, from the items above the mark, plus one item, plus
            // several.
            b']' | 0x8f => self.push(Value::List(Vec::new())),
            b'l' | 0x91 => self.above_mark().and_then(|items| self.push(Value::List(items))),
            b'a' => self.pop().and_then(|item| self.append(&[item])),
            b'e' | 0x90 => self.above_mark().and_then(|items| self.append(&items)),
            b')' => self.push(Value::Tuple(Vec::new())),
            b't' => self.above_mark().and_then(|items| self.push(Value::Tuple(items))),
            0x85 => self.pops::<1>().and_then(|items| self.push(Value::Tuple(items.to_vec()))),
            0x86 => self.pops::<2>().and_then(|items| self.push(Value::Tuple(items.to_vec()))),
            0x87 => self.pops::<3>().and_then(|items| self.push(Value::Tuple(items.to_vec()))),
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => self.above_mark().and_then(|items| self.push(Value::Dict(entries(&items)?))),
            b's' => self.pops::<2>().and_then(|entry| self.insert(&entry)),
            b'u' => self.above_mark().and_then(|items| self.insert(&items)),

            // Names, and the objects that running them would create: GLOBAL, STACK_GLOBAL, REDUCE, NEWOBJ,
            // NEWOBJ_EX, INST, OBJ, BUILD.
            b'c' => self.named().and_then(|class| self.put_on_stack(class)),
            0x93 => {
                let [module, name] = self.pops()?;
                if self.value(module).as_str().is_none() || self.value(name).as_str().is_none() {
                    return Err("the name of a class is not a string".to_owned());
                }
                self.push(Value::Global { module, name })
            }
            b'R' => {
                let [callable, arguments] = self.pops()?;
                self.call(callable, arguments)
            }
            0x81 => {
                self.pops().and_then(|[class, arguments]| self.push(Value::object(class, Some(arguments))))
            }
            0x92 => self
                .pops()
                .and_then(|[class, arguments, _named]| self.push(Value::object(class, Some(arguments)))),
            b'i' => {
                let class = self.named()?;
                self.above_mark()?;
                self.push(Value::object(class, None))
            }
            b'o' => match self.above_mark()?.first() {
                Some(class) => self.push(Value::object(*class, None)),
                None => Err("an object has no class".to_owned()),
            },
            b'b' => self.pop().and_then(|state| self.build(state)),

            b'P' if self.limits.persistent_ids => {
                let id = self.line()?;
                let id = self.add(Value::Str(Cow::Borrowed(id)))?;
                self.push(Value::Persistent(id))
            }
            b'Q' if self.limits.persistent_ids => self.pop().and_then(|id| self.push(Value::Persistent(id))),
            b'P' | b'Q' => Err("a persistent id refers to data outside the pickle".to_owned()),
            0x82..=0x84 => Err("an extension code refers to data outside the pickle".to_owned()),
            0x97 | 0x98 => Err("an out-of-band buffer is stored outside the pickle".to_owned()),
            _ => Err(format!("unknown instruction {instruction:#04x}")),
        }
    }

    // Reading the program.

    fn take(&mut self, length: usize) -> Step<&'a [u8]> {
        let rest = &self.input[self.at..];
        let taken = rest
            .get(..length)
            .ok_or_else(|| format!("truncated: expected {length} more bytes, found {}", rest.len()))?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Step<u8> {
        self.array().map(|[byte]| byte)
    }

    /// Reads a length or index stored in N little-endian bytes.
    fn length<const N: usize>(&mut self) -> Step<usize> {
        let bytes = self.take(N)?;
        let length = bytes.iter().rev().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        usize::try_from(length)
            .map_err(|_| format!("a length of {length} bytes exceeds this platform's limit"))
    }

    fn line_bytes(&mut self) -> Step<&'a [u8]> {
        let rest = &self.input[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or("truncated within a line")?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    fn line(&mut self) -> Step<&'a str> {
        let line = std::str::from_utf8(self.line_bytes()?).map_err(|_| "a line is not valid UTF-8")?;
        Ok(line.trim_end_matches('\r'))
    }

    fn line_index(&mut self) -> Step<usize> {
        let line = self.line()?;
        line.parse().map_err(|_| format!("`{line}` is not an index"))
    }

    // Values.

    fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id.0 as usize]
    }

    /// Adds a value without putting it on the stack.
    fn add(&mut self, value: Value<'a>) -> Step<Id> {
        self.within(self.values.len() + 1, "values")?;
        let depth = match &value {
            Value::List(items) | Value::Tuple(items) => self.depth_around(items)?,
            Value::Dict(entries) => entries.iter().try_fold(0, |depth, (key, item)| {
                self.depth_around(&[*key, *item]).map(|around| depth.max(around))
            })?,
            _ => 0,
        };
        let id = u32::try_from(self.values.len()).map(Id).map_err(|_| "too many values")?;
        self.values.push(value);
        self.depths.push(depth);
        Ok(id)
    }

    fn push(&mut self, value: Value<'a>) -> Step {
        self.add(value).and_then(|id| self.put_on_stack(id))
    }

    /// Returns the depth of a container of these items.
    fn depth_around(&self, items: &[Id]) -> Step<u16> {
        let deepest = items.iter().map(|id| self.depths[id.0 as usize] + 1).max().unwrap_or(0);
        if deepest > self.limits.depth {
            return Err(format!("values are nested more than {} levels deep", self.limits.depth));
        }
        Ok(deepest)
    }

    fn within(&self, count: usize, what: &str) -> Step {
        if count > self.limits.values {
            return Err(format!("more than the limit of {} {what}", self.limits.values));
        }
        Ok(())
    }

    // The stack and the memo.

    fn put_on_stack(&mut self, id: Id) -> Step {
        self.stack.push(id);
        self.within(self.stack.len(), "values on the stack")
    }

    /// Returns how many values are above the topmost mark.
    fn height(&self) -> usize {
        self.stack.len() - self.marks.last().unwrap_or(&0)
    }

    fn top(&self) -> Step<Id> {
        let top = self.stack.last().filter(|_| self.height() > 0);
        top.copied().ok_or_else(|| "the stack is empty".to_owned())
    }

    fn pop(&mut self) -> Step<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Pops the N topmost values; the topmost comes last.
    fn pops<const N: usize>(&mut self) -> Step<[Id; N]> {
        let mut values = [Id(0); N];
        for value in values.iter_mut().rev() {
            *value = self.pop()?;
        }
        Ok(values)
    }

    /// Pops the topmost mark and all values above it.
    fn above_mark(&mut self) -> Step<Vec<Id>> {
        let height = self.marks.pop().ok_or("the stack has no mark")?;
        Ok(self.stack.split_off(height))
    }

    fn remember(&mut self, index: usize) -> Step {
        self.within(index, "remembered values")?;
        let top = self.top()?;
        if index >= self.memo.len() {
            self.memo.resize(index + 1, None);
        }
        self.memo[index] = Some(top);
        Ok(())
    }

    fn recall(&mut self, index: usize) -> Step {
        let known = self.memo.get(index).copied().flatten();
        self.put_on_stack(known.ok_or_else(|| format!("the memo has no value at index {index}"))?)
    }

    // Instructions with an implementation of their own.

    fn text(&mut self, length: usize) -> Step {
        let bytes = self.take(length)?;
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => {
                self.copied(bytes.len())?;
                Cow::Owned(without_surrogates(bytes).ok_or("a string is not valid UTF-8")?)
            }
        };
        self.push(Value::Str(text))
    }

    fn bytes(&mut self, length: usize) -> Step {
        let bytes = self.take(length)?;
        self.push(Value::Bytes(Cow::Borrowed(bytes)))
    }

    /// Counts copied bytes against the limit.
    fn copied(&mut self, bytes: usize) -> Step {
        let left = self.copies.checked_sub(bytes);
        self.copies = left.ok_or_else(|| format!("it unpacks to more than {} bytes", self.limits.bytes))?;
        Ok(())
    }

    /// Reads a little-endian integer in two's complement.
    fn long(&mut self, length: usize) -> Step {
        let bytes = self.take(length)?;
        let sign = if bytes.last().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
        let mut word = [sign; 8];
        self.push(match word.get_mut(..length) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(word))
            }
            None => Value::BigInt,
        })
    }

    fn decimal(&mut self, digits: &str) -> Step {
        let digits = digits.trim();
        let unsigned = digits.trim_start_matches(['-', '+']);
        if unsigned.is_empty() || !unsigned.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(format!("`{digits}` is not an integer"));
        }
        self.push(digits.parse().map_or(Value::BigInt, Value::Int))
    }

    fn append(&mut self, items: &[Id]) -> Step {
        let list = self.top()?;
        let depth = self.depth_around(items)?;
        match &mut self.values[list.0 as usize] {
            Value::List(known) => known.extend_from_slice(items),
            // A subclass of list or set.
            Value::Object { .. } => return Ok(()),
            _ => return Err("items appended to a value that is not a list or set".to_owned()),
        }
        self.deepen(list, depth);
        Ok(())
    }

    fn insert(&mut self, items: &[Id]) -> Step {
        let dict = self.top()?;
        let depth = self.depth_around(items)?;
        let entries = entries(items)?;
        match &mut self.values[dict.0 as usize] {
            Value::Dict(known) => known.extend(entries),
            // A subclass of dict.
            Value::Object { entries: known, .. } => {
                known.extend(entries);
                return Ok(());
            }
            _ => return Err("entries added to a value that is not a dictionary".to_owned()),
        }
        self.deepen(dict, depth);
        Ok(())
    }

    fn deepen(&mut self, id: Id, depth: u16) {
        let known = &mut self.depths[id.0 as usize];
        *known = depth.max(*known);
    }

    /// Reads a class name, written as two lines.
    fn named(&mut self) -> Step<Id> {
        let (module, name) = (self.line()?, self.line()?);
        let module = self.add(Value::Str(Cow::Borrowed(module)))?;
        let name = self.add(Value::Str(Cow::Borrowed(name)))?;
        self.add(Value::Global { module, name })
    }

    /// Returns the module and name of a class or function.
    fn name_of(&self, class: Id) -> Option<(&str, &str)> {
        match self.value(class) {
            Value::Global { module, name } => self.value(*module).as_str().zip(self.value(*name).as_str()),
            _ => None,
        }
    }

    /// Pushes the result of calling `callable` if it is plain data, or else an object that records the call.
    fn call(&mut self, callable: Id, tuple: Id) -> Step {
        let arguments = match self.value(tuple) {
            Value::Tuple(arguments) => arguments.as_slice(),
            _ => return Err("the arguments of a call are not a tuple".to_owned()),
        };
        match self.plain(callable, arguments)? {
            None => self.push(Value::object(callable, Some(tuple))),
            Some(Made::Known(id)) => self.put_on_stack(id),
            Some(Made::New(value)) => {
                if let Value::Bytes(bytes) = &value {
                    self.copied(bytes.len())?;
                }
                self.push(value)
            }
        }
    }

    /// Interprets the functions through which plain data is written; `None` for any other.
    fn plain(&self, function: Id, arguments: &[Id]) -> Step<Option<Made<'a>>> {
        let Some((module, name)) = self.name_of(function) else { return Ok(None) };
        let made = match (module, name, arguments) {
            // An array, whose contents follow as its state.
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct", [class, ..]) => {
                Some(Made::New(Value::object(*class, None)))
            }
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar", [dtype, data]) => {
                match (self.value(*dtype), self.value(*data)) {
                    (Value::Dtype(dtype), Value::Bytes(data)) => dtype.scalar(data).map(Made::New),
                    _ => None,
                }
            }
            // An array in protocol 5.
            (
                "numpy.core.numeric" | "numpy._core.numeric",
                "_frombuffer",
                [data, dtype, shape, order, ..],
            ) => {
                let fortran = match self.value(*order).as_str() {
                    Some("C") => false,
                    Some("F") => true,
                    _ => return Ok(None),
                };
                self.numpy_array(*dtype, *shape, fortran, *data)?.map(|array| Made::New(Value::Array(array)))
            }
            ("numpy", "dtype", [notation, ..]) => {
                let dtype = self.value(*notation).as_str().and_then(Dtype::parse);
                dtype.map(|dtype| Made::New(Value::Dtype(dtype)))
            }
            // Bytes in protocols 0 to 2: a string in which each character is a byte.
            ("_codecs", "encode", [text, encoding])
            | ("__builtin__" | "builtins", "bytearray", [text, encoding]) => {
                match (self.value(*text), self.value(*encoding).as_str()) {
                    (Value::Str(text), Some("latin1" | "latin-1")) => {
                        let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
                        let bytes = bytes.map_err(|_| "a bytes object is not encoded as Latin-1")?;
                        Some(Made::New(Value::Bytes(Cow::Owned(bytes))))
                    }
                    _ => None,
                }
            }
            ("__builtin__" | "builtins", "bytes" | "bytearray", []) => {
                Some(Made::New(Value::Bytes(Cow::Borrowed(&[]))))
            }
            ("__builtin__" | "builtins", "bytes" | "bytearray", [bytes]) => {
                matches!(self.value(*bytes), Value::Bytes(_)).then_some(Made::Known(*bytes))
            }
            ("__builtin__" | "builtins", "set" | "frozenset", []) => Some(Made::New(Value::List(Vec::new()))),
            ("__builtin__" | "builtins", "set" | "frozenset", [items]) => {
                matches!(self.value(*items), Value::List(_)).then_some(Made::Known(*items))
            }
            ("collections", "OrderedDict", []) => Some(Made::New(Value::Dict(Vec::new()))),
            // The form Python 2 wrote: a list of pairs.
            ("collections", "OrderedDict", [pairs]) => {
                self.pairs(*pairs).map(|pairs| Made::New(Value::Dict(pairs)))
            }
            _ => None,
        };
        Ok(made)
    }

    /// Sets the topmost value's state and turns it into plain data if possible.
    fn build(&mut self, state: Id) -> Step {
        let object = self.top()?;
        if let Value::Object { state: known, .. } = &mut self.values[object.0 as usize] {
            *known = Some(state);
        }
        let parts = match self.value(state) {
            Value::Tuple(parts) => parts.as_slice(),
            _ => return Ok(()),
        };
        let built = match (self.value(object), parts) {
            (Value::Object { class, .. }, [_version, shape, dtype, fortran, data])
                if self.name_of(*class) == Some(("numpy", "ndarray")) =>
            {
                let fortran = self.value(*fortran).as_int() == Some(1);
                self.numpy_array(*dtype, *shape, fortran, *data)?.map(Value::Array)
            }
            (Value::Dtype(dtype), [_version, order, ..]) => {
                let big_endian = self.value(*order).as_str() == Some(">");
                Some(Value::Dtype(Dtype { big_endian, ..*dtype }))
            }
            _ => None,
        };
        if let Some(value) = built {
            self.values[object.0 as usize] = value;
        }
        Ok(())
    }

    /// Returns the items of a list of pairs.
    fn pairs(&self, list: Id) -> Option<Vec<(Id, Id)>> {
        let Value::List(items) = self.value(list) else { return None };
        let pair = |item: &Id| match self.value(*item) {
            Value::List(pair) | Value::Tuple(pair) => <[Id; 2]>::try_from(pair.as_slice()).ok(),
            _ => None,
        };
        items.iter().map(|item| pair(item).map(|[key, value]| (key, value))).collect()
    }

    /// Returns `None` for arrays of anything but numbers.
    fn numpy_array(&self, dtype: Id, shape: Id, fortran: bool, data: Id) -> Step<Option<Array>> {
        let (Value::Dtype(dtype), Value::Tuple(shape), Value::Bytes(bytes)) =
            (self.value(dtype), self.value(shape), self.value(data))
        else {
            return Ok(None);
        };
        if shape.len() > MAX_DIMENSIONS {
            return Err(format!("a numpy array has {} dimensions (limit {MAX_DIMENSIONS})", shape.len()));
        }
        let shape: Option<Vec<usize>> = shape
            .iter()
            .map(|extent| self.value(*extent).as_int().and_then(|extent| usize::try_from(extent).ok()))
            .collect();
        let shape = shape.ok_or("the shape of a numpy array is not a list of sizes")?;
        Array::new(*dtype, shape, fortran, data, bytes.len()).map(Some)
    }
}

/// Decodes text in which Python wrote lone surrogates, for example from file names; each becomes U+FFFD.
fn without_surrogates(bytes: &[u8]) -> Option<String> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, behind)) = rest.split_first() {
        if let [0xed, 0xa0..=0xbf, _, ..] = rest {
            text.extend("\u{fffd}".as_bytes());
            rest = &rest[3..];
        } else {
            text.push(*first);
            rest = behind;
        }
    }
    String::from_utf8(text).ok()
}

/// Pairs up alternating keys and values.
fn entries(items: &[Id]) -> Step<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a dictionary key has no value".to_owned());
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}
