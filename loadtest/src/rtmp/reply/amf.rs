//! The AMF0 of server commands, read for the few values that matter (AMF0 specification, section 2).

use super::{Command, ReplyError};

/// Deepest nesting of objects and arrays that is followed.
const MAX_DEPTH: u8 = 8;

/// Walks over a command's values, keeping the interesting ones.
pub(super) struct CommandReader<'a> {
    rest: &'a [u8],
    command: Command,
}

enum Value<'a> {
    Number(f64),
    Text(&'a str),
    Other,
}

impl<'a> CommandReader<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<Command, ReplyError> {
        let mut reader = Self {
            rest: body,
            command: Command::default(),
        };
        reader.walk().ok_or(ReplyError::Command)?;
        Ok(reader.command)
    }

    fn walk(&mut self) -> Option<()> {
        let Value::Text(name) = self.value(0)? else { return None };
        self.command.name = name.to_owned();
        let Value::Number(transaction) = self.value(0)? else {
            return None;
        };
        self.command.transaction = transaction;
        while !self.rest.is_empty() {
            if let Value::Number(number) = self.value(0)? {
                self.command.number.get_or_insert(number);
            }
        }
        Some(())
    }

    fn value(&mut self, depth: u8) -> Option<Value<'a>> {
        if depth > MAX_DEPTH {
            return None;
        }
        let &[marker] = self.take(1)? else { return None };
        Some(match marker {
            0x00 => Value::Number(f64::from_be_bytes(self.take(8)?.try_into().ok()?)),
            0x01 => self.take(1).map(|_| Value::Other)?,
            0x02 => {
                let len = self.u16()?;
                Value::Text(std::str::from_utf8(self.take(len.into())?).ok()?)
            }
            0x03 => self.properties(depth)?,
            0x05 | 0x06 => Value::Other,
            0x08 => {
                self.take(4)?;
                self.properties(depth)?
            }
            0x0A => {
                let count = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
                for _ in 0..count {
                    self.value(depth + 1)?; // each takes at least a byte: bounded by the body
                }
                Value::Other
            }
            0x0B => self.take(10).map(|_| Value::Other)?,
            _ => return None,
        })
    }

    fn properties(&mut self, depth: u8) -> Option<Value<'a>> {
        loop {
            let len = self.u16()?;
            let name = self.take(len.into())?;
            if name.is_empty() && self.rest.first() == Some(&0x09) {
                self.take(1)?;
                return Some(Value::Other);
            }
            if let (Value::Text(text), 0) = (self.value(depth + 1)?, depth) {
                match name {
                    b"level" => text.clone_into(&mut self.command.level),
                    b"code" => text.clone_into(&mut self.command.code),
                    b"description" => text.clone_into(&mut self.command.description),
                    _ => {}
                }
            }
        }
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(values: &[&[u8]]) -> Result<Command, ReplyError> {
        let head: &[u8] = &[
            2, 0, 7, b'_', b'r', b'e', b's', b'u', b'l', b't', 0, 0x40, 0x10, 0, 0, 0, 0, 0, 0,
        ];
        CommandReader::read(&[&[head], values].concat().concat())
    }

    #[test]
    fn a_stream_id_is_found_behind_a_null() {
        let read = command(&[&[5], &[0, 0x3F, 0xF0, 0, 0, 0, 0, 0, 0]]).unwrap();
        assert_eq!(
            (read.name.as_str(), read.transaction, read.number),
            ("_result", 4.0, Some(1.0))
        );
    }

    #[test]
    fn hostile_nesting_and_cut_values_are_errors_not_crashes() {
        let nested = [3, 0, 1, b'a'].repeat(10_000);
        let arrays = [0x0A, 0, 0, 0, 1].repeat(10_000);
        let endless = [0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 5];
        for bad in [
            &nested[..],
            &arrays,
            &endless,
            &[0, 1],
            &[2, 0, 9, b'x'],
            &[0x0D],
            &[3, 0, 1],
        ] {
            assert_eq!(command(&[bad]), Err(ReplyError::Command));
        }
    }
}
