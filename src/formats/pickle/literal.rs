//! Python's bytes and string literals.

use super::Refusal;

/// Decodes a literal as Python's `repr` writes it for a bytes object: `b'…'` or `b"…"` with escapes.
///
/// # Errors
/// If the text is not such a literal.
pub fn bytes_literal(text: &str) -> Result<Vec<u8>, Refusal> {
    let refuse = |problem: &str| Refusal { at: 0, problem: format!("not a bytes literal: {problem}") };
    if !text.is_ascii() {
        return Err(refuse("it contains non-ASCII characters"));
    }
    let quoted = text.trim_ascii().strip_prefix(['b', 'B']).ok_or_else(|| refuse("it lacks the prefix b"))?;
    unquote(quoted.as_bytes()).map_err(refuse)
}

/// Decodes the escapes between a pair of quotes.
pub(crate) fn unquote(quoted: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (quote, mut rest) = match quoted {
        [quote @ (b'\'' | b'"'), inner @ .., last] if quote == last => (*quote, inner),
        _ => return Err("it is not enclosed in a pair of quotes"),
    };
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some(plain) = rest.iter().position(|byte| *byte == b'\\' || *byte == quote) {
        bytes.extend_from_slice(&rest[..plain]);
        if rest[plain] == quote {
            return Err("a quote ends it early");
        }
        let escape = &rest[plain + 1..];
        let (byte, length) = unescape(escape)?;
        bytes.extend(byte);
        rest = &escape[length..];
    }
    bytes.extend_from_slice(rest);
    Ok(bytes)
}

/// Decodes what follows a backslash. Returns the byte it stands for, if any, and how many bytes it takes.
fn unescape(escape: &[u8]) -> Result<(Option<u8>, usize), &'static str> {
    let letter = match escape {
        [] => return Err("it ends within an escape"),
        [b'x', high, low, ..] => {
            let (high, low) = hex(*high).zip(hex(*low)).ok_or("\\x lacks its two hexadecimal digits")?;
            return Ok((Some(high << 4 | low), 3));
        }
        [b'x', ..] => return Err("\\x lacks its two hexadecimal digits"),
        [b'0'..=b'7', ..] => {
            let digits = escape.iter().take(3).take_while(|byte| matches!(byte, b'0'..=b'7'));
            let value = digits.clone().fold(0_u16, |value, digit| value << 3 | u16::from(digit - b'0'));
            let byte = u8::try_from(value).map_err(|_| "an octal escape exceeds \\377")?;
            return Ok((Some(byte), digits.count()));
        }
        [letter, ..] => *letter,
    };
    Ok(match letter {
        b'\n' => (None, 1),
        b'\\' | b'\'' | b'"' => (Some(letter), 1),
        b'a' => (Some(0x07), 1),
        b'b' => (Some(0x08), 1),
        b't' => (Some(b'\t'), 1),
        b'n' => (Some(b'\n'), 1),
        b'v' => (Some(0x0b), 1),
        b'f' => (Some(0x0c), 1),
        b'r' => (Some(b'\r'), 1),
        // Python keeps the backslash of an unknown escape.
        _ => (Some(b'\\'), 0),
    })
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Decodes a line in "raw unicode escape": Latin-1 except for \uXXXX and \UXXXXXXXX.
pub(crate) fn raw_unicode(line: &[u8]) -> Result<String, &'static str> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((byte, behind)) = rest.split_first() {
        let digits = match (byte, behind.first()) {
            (b'\\', Some(b'u')) => behind.get(1..5),
            (b'\\', Some(b'U')) => behind.get(1..9),
            _ => {
                text.push(char::from(*byte));
                rest = behind;
                continue;
            }
        };
        let digits = digits.ok_or("a \\u escape lacks digits")?;
        let code = digits
            .iter()
            .try_fold(0_u32, |code, digit| Some(code << 4 | u32::from(hex(*digit)?)))
            .ok_or("a \\u escape lacks digits")?;
        text.push(char::from_u32(code).ok_or("a \\u escape is not a valid character")?);
        rest = &behind[1 + digits.len()..];
    }
    Ok(text)
}
