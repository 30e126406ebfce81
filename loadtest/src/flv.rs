//! FLV files, read tag by tag (Adobe FLV and F4V specification 10.1, annex E). Pure.
//!
//! After this: [`crate::clip`].

use bytes::{Buf, Bytes};

/// Why a file could not be read as FLV.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlvError {
    #[error("not an FLV file: it does not begin with \"FLV\" and version 1")]
    NotFlv,
    #[error("the FLV file ends in the middle of the tag at byte {at}")]
    Truncated { at: usize },
}

/// What a tag carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Audio,
    Video,
    Script,
    /// Encrypted or unknown: to be skipped.
    Other(u8),
}

/// One tag; `body` shares the file's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlvTag {
    pub kind: Kind,
    /// Decode time in milliseconds.
    pub timestamp_ms: u32,
    pub body: Bytes,
}

/// Iterates over a file's tags; ends after the first error.
#[derive(Debug)]
pub struct FlvReader {
    rest: Bytes,
    at: usize,
}

impl FlvReader {
    /// Checks the file header and stands before the first tag.
    pub fn new(mut file: Bytes) -> Result<Self, FlvError> {
        const HEADER: usize = 9;
        if file.len() < HEADER + 4 || !file.starts_with(b"FLV\x01") {
            return Err(FlvError::NotFlv);
        }
        let header = u32::from_be_bytes([file[5], file[6], file[7], file[8]]) as usize;
        let at = header.saturating_add(4); // PreviousTagSize0
        if header < HEADER || at > file.len() {
            return Err(FlvError::NotFlv);
        }
        file.advance(at);
        Ok(Self { rest: file, at })
    }

    fn read(&mut self) -> Result<FlvTag, FlvError> {
        const TAG_HEADER: usize = 11;
        let truncated = FlvError::Truncated { at: self.at };
        if self.rest.len() < TAG_HEADER {
            return Err(truncated);
        }
        let header = self.rest.split_to(TAG_HEADER);
        let size = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
        // The extension byte holds the timestamp's highest eight bits.
        let timestamp_ms = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
        if self.rest.len() < size {
            return Err(truncated);
        }
        let body = self.rest.split_to(size);
        // PreviousTagSize says nothing new; some writers leave out the last one.
        self.rest.advance(self.rest.len().min(4));
        self.at += TAG_HEADER + size + 4;
        let kind = match header[0] {
            8 => Kind::Audio,
            9 => Kind::Video,
            18 => Kind::Script,
            other => Kind::Other(other),
        };
        Ok(FlvTag {
            kind,
            timestamp_ms,
            body,
        })
    }
}

impl Iterator for FlvReader {
    type Item = Result<FlvTag, FlvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let tag = self.read();
        if tag.is_err() {
            self.rest.clear();
        }
        Some(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tags: &[u8]) -> Bytes {
        [b"FLV\x01\x05\0\0\0\x09\0\0\0\0", tags].concat().into()
    }

    #[test]
    fn a_timestamp_has_thirty_two_bits() {
        let tag = [9, 0, 0, 2, 0x23, 0x45, 0x67, 0x01, 0, 0, 0, 0xAA, 0xBB, 0, 0, 0, 13];
        let read: Vec<_> = FlvReader::new(file(&tag)).unwrap().collect();
        let expected = FlvTag {
            kind: Kind::Video,
            timestamp_ms: 0x0123_4567,
            body: Bytes::from_static(&[0xAA, 0xBB]),
        };
        assert_eq!(read, [Ok(expected)]);
    }

    #[test]
    fn a_cut_file_says_where() {
        let tag = [8, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3];
        let read: Vec<_> = FlvReader::new(file(&tag)).unwrap().collect();
        assert_eq!(read, [Err(FlvError::Truncated { at: 13 })]);
        let read: Vec<_> = FlvReader::new(file(&tag[..5])).unwrap().collect();
        assert_eq!(read, [Err(FlvError::Truncated { at: 13 })]);
    }

    #[test]
    fn other_files_are_refused() {
        for bad in [
            &b""[..],
            b"FLV",
            b"RIFF....AVI LIST",
            b"FLV\x01\x05\xff\xff\xff\xff\0\0\0\0",
        ] {
            assert_eq!(
                FlvReader::new(Bytes::copy_from_slice(bad)).err(),
                Some(FlvError::NotFlv)
            );
        }
    }
}
