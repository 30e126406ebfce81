//! Header blocks (HPACK, RFC 7541): answers' are read, requests' are written. Pure.
//!
//! Before this: [`super::session`], which has put a block together. Own code, because the small crates there are either
//! index past the end of broken input or build their Huffman tables for every string they read.

mod huffman;
mod table;

use table::{ENTRY_OVERHEAD, Table};
pub(super) use table::{Field, Known};

/// All fields of one answer together, in bytes as HPACK counts them: what HTTP/2 calls the header list's size. A block
/// of a few bytes may point to the same large entry over and over.
pub(super) const MAX_LIST_BYTES: usize = 64 * 1024;
/// Octets of one number behind its first: more than any length or index needs.
const MAX_NUMBER_OCTETS: u32 = 4;

/// A block that can't be read, which ends its connection: whatever follows could not be read either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

const CUT: Malformed = Malformed("a header block that ends in the middle of a field");

/// Reads one connection's header blocks, in the order they came in.
#[derive(Debug)]
pub(super) struct Decoder {
    table: Table,
}

impl Decoder {
    pub(super) const fn new() -> Self {
        Self { table: Table::new() }
    }

    /// Hands out the fields. Unless `all` is wanted, fields whose names are not [`Known`] may be missing.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        all: bool,
        mut each: impl FnMut(Field<'_>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut input = Input(block);
        let (mut name, mut value) = (Vec::new(), Vec::new());
        let (mut size, mut begun) = (0, false);
        while let Some(kind) = input.peek() {
            if kind & 0xe0 == 0x20 {
                let max_bytes = input.number(5)?;
                if begun || !self.table.resize(max_bytes) {
                    return Err(Malformed(
                        "a header table larger than agreed, or of another size amid a block",
                    ));
                }
                continue;
            }
            begun = true;
            if kind & 0x80 != 0 {
                let field = self.table.get(input.number(7)?).ok_or(UNKNOWN)?;
                size += field.size();
                if all || field.known != Known::Other {
                    each(field)?;
                }
            } else {
                let is_kept = kind & 0x40 != 0;
                let index = input.number(if is_kept { 6 } else { 4 })?;
                name.clear();
                let known = if index == 0 {
                    input.string()?.decode(&mut name)?;
                    Known::of(&name)
                } else {
                    let named = self.table.get(index).ok_or(UNKNOWN)?;
                    if all || is_kept {
                        name.extend_from_slice(named.name);
                    }
                    named.known
                };
                let coded = input.string()?;
                if all || is_kept || known != Known::Other {
                    value.clear();
                    coded.decode(&mut value)?;
                    let (name, value) = (&name[..], &value[..]);
                    let field = Field { known, name, value };
                    each(field)?;
                    if is_kept {
                        self.table.insert(field);
                    }
                }
                size += name.len() + coded.bytes.len() + ENTRY_OVERHEAD;
            }
            if size > MAX_LIST_BYTES {
                return Err(Malformed("the head of an answer has no end"));
            }
        }
        Ok(())
    }
}

const UNKNOWN: Malformed = Malformed("a header field that no table has");

/// A string as it was sent.
#[derive(Clone, Copy)]
struct Coded<'a> {
    is_huffman: bool,
    bytes: &'a [u8],
}

impl Coded<'_> {
    fn decode(self, into: &mut Vec<u8>) -> Result<(), Malformed> {
        if self.is_huffman {
            return huffman::decode(self.bytes, into);
        }
        into.extend_from_slice(self.bytes);
        Ok(())
    }
}

/// What is left of a block.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn octet(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(CUT)?;
        self.0 = rest;
        Ok(*first)
    }

    /// RFC 7541 section 5.1; `bits` is the prefix's length.
    fn number(&mut self, bits: u32) -> Result<usize, Malformed> {
        let most = (1usize << bits) - 1;
        let mut number = usize::from(self.octet()?) & most;
        if number < most {
            return Ok(number);
        }
        for nth in 0..MAX_NUMBER_OCTETS {
            let octet = self.octet()?;
            number += usize::from(octet & 0x7f) << (7 * nth);
            if octet & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed("a number in a header block that has no end"))
    }

    /// RFC 7541 section 5.2.
    fn string(&mut self) -> Result<Coded<'a>, Malformed> {
        let is_huffman = self.peek().ok_or(CUT)? & 0x80 != 0;
        let length = self.number(7)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(CUT)?;
        self.0 = rest;
        Ok(Coded { is_huffman, bytes })
    }
}

/// Appends the header block of a GET. Everything is spelled out: the server's table stays empty, so that nothing has to
/// be agreed about its size.
pub(super) fn write_get(secure: bool, authority: &str, path: &str, gzip: bool, into: &mut Vec<u8>) {
    const METHOD_GET: u8 = 0x80 | 2;
    const SCHEME_HTTP: u8 = 0x80 | 6;
    const SCHEME_HTTPS: u8 = 0x80 | 7;
    const AUTHORITY: u8 = 1;
    const PATH: u8 = 4;
    /// Number 16 does not fit into the prefix of four bits.
    const ACCEPT_ENCODING: [u8; 2] = [0x0f, 16 - 0x0f];
    into.extend_from_slice(&[METHOD_GET, if secure { SCHEME_HTTPS } else { SCHEME_HTTP }]);
    into.push(AUTHORITY);
    write_string(authority, into);
    into.push(PATH);
    write_string(path, into);
    if gzip {
        into.extend_from_slice(&ACCEPT_ENCODING);
        write_string("gzip", into);
    }
}

fn write_string(text: &str, into: &mut Vec<u8>) {
    const MOST: usize = 0x7f;
    if text.len() < MOST {
        into.push(text.len() as u8);
    } else {
        into.push(MOST as u8);
        let mut rest = text.len() - MOST;
        while rest >= 0x80 {
            into.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        into.push(rest as u8);
    }
    into.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(decoder: &mut Decoder, block: &[u8], all: bool) -> Result<Vec<(String, String)>, Malformed> {
        let mut fields = vec![];
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        decoder.decode(block, all, |field| {
            fields.push((text(field.name), text(field.value)));
            Ok(())
        })?;
        Ok(fields)
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    /// RFC 7541, appendix C.6: three answers with Huffman codes, though with the default table, which forgets nothing.
    #[test]
    fn the_answers_of_the_rfc_read_as_they_should() {
        let mut decoder = Decoder::new();
        let first = hex(
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        );
        let date = "Mon, 21 Oct 2013 20:13:21 GMT";
        let mut wanted = pairs(&[
            (":status", "302"),
            ("cache-control", "private"),
            ("date", date),
            ("location", "https://www.example.com"),
        ]);
        assert_eq!(read(&mut decoder, &first, true), Ok(wanted.clone()));
        assert_eq!(decoder.table.bytes(), 222);
        wanted[0].1 = "307".to_owned();
        assert_eq!(
            read(&mut decoder, &hex("4883 640e ff c1 c0 bf").to_vec(), true),
            Ok(wanted[..].to_vec())
        );
    }

    #[test]
    fn what_nobody_wants_is_passed_over_but_kept_where_it_is_to_be_kept() {
        let mut decoder = Decoder::new();
        let block = [b"\x88\x40\x01a\x01b\x00\x01c\x01d".as_slice(), b"\x0f\x0d\x012"].concat();
        let few = read(&mut decoder, &block, false).unwrap();
        assert_eq!(few[0], (":status".to_owned(), "200".to_owned()));
        assert!(few.iter().all(|(name, _)| name != "c"));
        assert_eq!(few.last().map(|(_, value)| value.as_str()), Some("2"));
        assert_eq!(read(&mut decoder, &[0x80 | 62], true), Ok(pairs(&[("a", "b")])));
    }

    #[test]
    fn a_small_block_that_means_much_is_cut_off() {
        let mut decoder = Decoder::new();
        let large = [b"\x40\x01a\x7f\x81\x1d".as_slice(), &[b'x'; 3840]].concat();
        assert!(read(&mut decoder, &large, true).is_ok());
        assert!(read(&mut decoder, &[0x80 | 62; 100], false).is_err());
    }

    #[test]
    fn the_sender_may_shrink_its_table_first_thing_in_a_block_and_only_then() {
        let mut decoder = Decoder::new();
        assert!(read(&mut decoder, b"\x40\x01a\x01b", true).is_ok());
        assert!(read(&mut decoder, b"\x20\x3f\xe1\x1f\x88", true).is_ok());
        assert_eq!(decoder.table.bytes(), 0);
        assert!(read(&mut decoder, b"\x88\x20", true).is_err());
        assert!(
            read(&mut decoder, b"\x3f\xe2\x1f", true).is_err(),
            "4097 bytes are too many"
        );
    }

    #[test]
    fn a_request_reads_back() {
        let path = format!("/{}", "x".repeat(300));
        let mut block = vec![];
        write_get(true, "host:8443", &path, true, &mut block);
        let mut wanted = pairs(&[(":method", "GET"), (":scheme", "https"), (":authority", "host:8443")]);
        wanted.extend(pairs(&[(":path", &path), ("accept-encoding", "gzip")]));
        assert_eq!(read(&mut Decoder::new(), &block, true), Ok(wanted));
    }

    proptest! {
        #[test]
        fn garbage_never_panics_nor_fills_memory(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..20), all in any::<bool>()) {
            let mut decoder = Decoder::new();
            for block in blocks {
                let _ = decoder.decode(&block, all, |_| Ok(()));
                prop_assert!(decoder.table.bytes() <= 4096);
            }
        }
    }
}
