//! AMF0 values (Action Message Format 0): the language of RTMP commands and metadata. Pure.
//!
//! The decoder never recurses deeper than [`DEPTH_MAX`] and never holds more than [`ELEMENTS_MAX`] values, so a message of
//! any content costs bounded stack and memory.
//!
//! Before this: `rtmp/chunk.rs`. After this: `rtmp/command.rs`.

/// Deepest nesting of objects and arrays. Real encoders use two.
pub const DEPTH_MAX: usize = 16;
/// Values in one message, nested ones included.
pub const ELEMENTS_MAX: usize = 1024;
/// Longest string or property name, in bytes.
pub const STRING_MAX: usize = 16 << 10;

mod marker {
    pub(super) const NUMBER: u8 = 0;
    pub(super) const BOOLEAN: u8 = 1;
    pub(super) const STRING: u8 = 2;
    pub(super) const OBJECT: u8 = 3;
    pub(super) const NULL: u8 = 5;
    pub(super) const UNDEFINED: u8 = 6;
    pub(super) const ECMA_ARRAY: u8 = 8;
    pub(super) const OBJECT_END: u8 = 9;
    pub(super) const STRICT_ARRAY: u8 = 10;
    pub(super) const DATE: u8 = 11;
    pub(super) const LONG_STRING: u8 = 12;
}

/// One AMF0 value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Number(f64),
    Boolean(bool),
    /// Short or long; bytes that are not UTF-8 are replaced.
    String(String),
    /// Object or ECMA array: properties in the order they were sent.
    Object(Vec<(String, Self)>),
    Array(Vec<Self>),
    /// Milliseconds since 1970.
    Date(f64),
    Null,
    Undefined,
}

/// Why bytes are not AMF0, or more of it than we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmfError {
    #[error("AMF0 value ends too early")]
    Truncated,
    #[error("AMF0 values nested deeper than {DEPTH_MAX}")]
    TooDeep,
    #[error("more than {ELEMENTS_MAX} AMF0 values in one message")]
    TooManyElements,
    #[error("AMF0 string of {0} bytes, at most {STRING_MAX} are accepted")]
    StringTooLong(usize),
    #[error("AMF0 type {0:#04x} is not supported")]
    Marker(u8),
}

impl Value {
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) => Some(s),
            _ => None,
        }
    }

    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(n) => Some(*n),
            _ => None,
        }
    }

    /// A property of an object; the first of that name.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(properties) => properties.iter().find(|(n, _)| n == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// Appends the value as AMF0. Text beyond 65 535 bytes is written as a long string; property names are cut there.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(n) => {
                out.push(marker::NUMBER);
                out.extend(n.to_be_bytes());
            }
            Self::Boolean(b) => out.extend([marker::BOOLEAN, u8::from(*b)]),
            Self::String(s) => match u16::try_from(s.len()) {
                Ok(length) => {
                    out.push(marker::STRING);
                    out.extend(length.to_be_bytes());
                    out.extend(s.as_bytes());
                }
                Err(_) => {
                    out.push(marker::LONG_STRING);
                    out.extend((s.len() as u32).to_be_bytes());
                    out.extend(s.as_bytes());
                }
            },
            Self::Object(properties) => {
                out.push(marker::OBJECT);
                for (name, value) in properties {
                    let length = name.len().min(usize::from(u16::MAX));
                    out.extend((length as u16).to_be_bytes());
                    out.extend(name.as_bytes().iter().take(length));
                    value.encode(out);
                }
                out.extend([0, 0, marker::OBJECT_END]);
            }
            Self::Array(values) => {
                out.push(marker::STRICT_ARRAY);
                out.extend((values.len() as u32).to_be_bytes());
                for value in values {
                    value.encode(out);
                }
            }
            Self::Date(millis) => {
                out.push(marker::DATE);
                out.extend(millis.to_be_bytes());
                out.extend([0, 0]);
            }
            Self::Null => out.push(marker::NULL),
            Self::Undefined => out.push(marker::UNDEFINED),
        }
    }
}

impl From<f64> for Value {
    fn from(n: f64) -> Self {
        Self::Number(n)
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Self::String(s.to_owned())
    }
}

/// All values of a message, one after the other.
pub fn decode(bytes: &[u8]) -> Result<Vec<Value>, AmfError> {
    let mut decoder = Decoder {
        rest: bytes,
        elements: 0,
    };
    let mut values = Vec::new();
    while !decoder.rest.is_empty() {
        values.push(decoder.value(0)?);
    }
    Ok(values)
}

/// Values as one message payload.
pub fn encode(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        value.encode(&mut out);
    }
    out
}

struct Decoder<'a> {
    rest: &'a [u8],
    elements: usize,
}

impl Decoder<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, AmfError> {
        self.elements += 1;
        if self.elements > ELEMENTS_MAX {
            return Err(AmfError::TooManyElements);
        }
        let [kind] = self.take()?;
        let nested = matches!(kind, marker::OBJECT | marker::ECMA_ARRAY | marker::STRICT_ARRAY);
        if nested && depth >= DEPTH_MAX {
            return Err(AmfError::TooDeep);
        }
        Ok(match kind {
            marker::NUMBER => Value::Number(f64::from_be_bytes(self.take()?)),
            marker::BOOLEAN => Value::Boolean(self.take::<1>()? != [0]),
            marker::STRING => Value::String(self.short_string()?),
            marker::LONG_STRING => {
                let length = u32::from_be_bytes(self.take()?) as usize;
                Value::String(self.text(length)?)
            }
            marker::OBJECT => Value::Object(self.properties(depth, false)?),
            marker::ECMA_ARRAY => {
                // The count is only a hint: encoders write 0 or a wrong one.
                let _count: [u8; 4] = self.take()?;
                Value::Object(self.properties(depth, true)?)
            }
            marker::STRICT_ARRAY => {
                let count = u32::from_be_bytes(self.take()?) as usize;
                if count > ELEMENTS_MAX {
                    return Err(AmfError::TooManyElements);
                }
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.value(depth + 1)?);
                }
                Value::Array(values)
            }
            marker::DATE => {
                let millis = f64::from_be_bytes(self.take()?);
                let _time_zone: [u8; 2] = self.take()?;
                Value::Date(millis)
            }
            marker::NULL => Value::Null,
            marker::UNDEFINED => Value::Undefined,
            // References (7) among them: nothing legitimate sends one, and following them could loop.
            other => return Err(AmfError::Marker(other)),
        })
    }

    /// Name and value pairs up to the end marker, which an ECMA array at the end of its message may lack.
    fn properties(&mut self, depth: usize, end_may_lack: bool) -> Result<Vec<(String, Value)>, AmfError> {
        let mut properties = Vec::new();
        loop {
            if self.rest.is_empty() && end_may_lack {
                return Ok(properties);
            }
            let name = self.short_string()?;
            if name.is_empty() && self.rest.first() == Some(&marker::OBJECT_END) {
                let _end: [u8; 1] = self.take()?;
                return Ok(properties);
            }
            properties.push((name, self.value(depth + 1)?));
        }
    }

    fn short_string(&mut self) -> Result<String, AmfError> {
        let length = u16::from_be_bytes(self.take()?);
        self.text(usize::from(length))
    }

    fn text(&mut self, length: usize) -> Result<String, AmfError> {
        if length > STRING_MAX {
            return Err(AmfError::StringTooLong(length));
        }
        let (text, rest) = self.rest.split_at_checked(length).ok_or(AmfError::Truncated)?;
        self.rest = rest;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], AmfError> {
        let (field, rest) = self.rest.split_first_chunk().ok_or(AmfError::Truncated)?;
        self.rest = rest;
        Ok(*field)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(levels: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..levels {
            bytes.extend([marker::OBJECT, 0, 1, b'a']);
        }
        bytes.push(marker::NULL);
        for _ in 0..levels {
            bytes.extend([0, 0, marker::OBJECT_END]);
        }
        bytes
    }

    #[test]
    fn ten_thousand_levels_are_refused_without_recursing() {
        assert_eq!(decode(&nested(10_000)), Err(AmfError::TooDeep));
        assert_eq!(decode(&nested(DEPTH_MAX + 1)), Err(AmfError::TooDeep));
        assert!(decode(&nested(DEPTH_MAX)).is_ok());
        let arrays: Vec<u8> = [marker::STRICT_ARRAY, 0, 0, 0, 1].repeat(10_000);
        assert_eq!(decode(&arrays), Err(AmfError::TooDeep));
    }

    #[test]
    fn an_ecma_array_may_lie_about_its_count_and_lack_its_end() {
        let mut bytes = vec![marker::ECMA_ARRAY, 0xff, 0xff, 0xff, 0xff, 0, 1, b'w'];
        Value::Number(1280.0).encode(&mut bytes);
        let open = decode(&bytes).unwrap();
        bytes.extend([0, 0, marker::OBJECT_END]);
        assert_eq!(decode(&bytes).unwrap(), open);
        assert_eq!(open[0].get("w"), Some(&Value::Number(1280.0)));
    }

    #[test]
    fn too_much_too_long_too_short_and_references_are_typed() {
        let many = vec![marker::NULL; ELEMENTS_MAX + 1];
        assert_eq!(decode(&many), Err(AmfError::TooManyElements));
        let array = [marker::STRICT_ARRAY, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(decode(&array), Err(AmfError::TooManyElements));
        let long = [marker::LONG_STRING, 0x7f, 0xff, 0xff, 0xff];
        assert_eq!(decode(&long), Err(AmfError::StringTooLong(0x7fff_ffff)));
        assert_eq!(decode(&[marker::NUMBER, 0]), Err(AmfError::Truncated));
        assert_eq!(decode(&[marker::OBJECT]), Err(AmfError::Truncated));
        assert_eq!(decode(&[7, 0, 0]), Err(AmfError::Marker(7)));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let values = [
            Value::from("connect"),
            Value::from(1.0),
            Value::Object(vec![
                ("app".into(), "app".into()),
                ("deep".into(), Value::Array(vec![Value::Null, Value::Boolean(true)])),
                ("when".into(), Value::Date(1e12)),
            ]),
            Value::Undefined,
        ];
        assert_eq!(decode(&encode(&values)).unwrap(), values);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_typed(bytes in prop::collection::vec(0u8..14, 0..400)) {
            let _ = decode(&bytes);
        }
    }
}
