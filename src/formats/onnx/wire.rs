//! The wire format of protocol buffers [protobuf.dev/programming-guides/encoding], as far as ONNX files use it.

/// The fields of a message, in the order in which they are stored.
pub struct Message<'b>(pub &'b [u8]);

/// One field.
pub struct Field<'b> {
    /// The number that identifies the field in its message.
    pub number: u64,
    /// What it contains.
    pub value: Value<'b>,
}

/// What a field contains.
pub enum Value<'b> {
    /// An integer.
    Integer(u64),
    /// A text, a message or a list of numbers.
    Bytes(&'b [u8]),
    /// A number of a fixed size, which no field that is read here has.
    Fixed,
}

impl<'b> Iterator for Message<'b> {
    type Item = Result<Field<'b>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'b> Message<'b> {
    fn field(&mut self) -> Result<Field<'b>, String> {
        let key = self.integer()?;
        let value = match key & 7 {
            0 => Value::Integer(self.integer()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.integer()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            kind => return Err(format!("bytes of another format (wire type {kind})")),
        };
        match key >> 3 {
            0 => Err("bytes of another format (field 0)".to_owned()),
            number => Ok(Field { number, value }),
        }
    }

    /// Reads an integer: seven bits per byte, the lowest first.
    fn integer(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for place in 0..10 {
            let (byte, rest) = self.0.split_first().ok_or_else(ends_early)?;
            self.0 = rest;
            number |= u64::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("bytes of another format (an integer of more than 10 bytes)".to_owned())
    }

    fn take(&mut self, length: u64) -> Result<&'b [u8], String> {
        let length = usize::try_from(length).map_err(|_| ends_early())?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(ends_early)?;
        self.0 = rest;
        Ok(taken)
    }
}

fn ends_early() -> String {
    "a file that ends early".to_owned()
}

/// Converts bytes to text.
pub fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a name that is not UTF-8".to_owned())
}
