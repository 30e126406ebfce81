//! Playlist compression: each playlist version is compressed once and shared by all its readers; and what versions have in
//! common, as [`Piece`]s, once for all of them.

use std::{
    io::Write as _,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use flate2::{
    Compression, Crc,
    write::{DeflateEncoder, GzEncoder},
};

/// Effort of compression, 0 to 9.
const LEVEL: u32 = 6;
/// A member's header: deflate, no name, no time, unknown system (RFC 1952 section 2.3).
const HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// A last block without anything in it (RFC 1951 section 3.2.6).
const LAST_BLOCK: &[u8] = &[3, 0];

/// Gzip-encodes a small text.
pub fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4 + 64), Compression::new(LEVEL));
    // Writing to memory does not fail; an empty result would still be a valid (empty) answer.
    let done = encoder.write_all(plain).and_then(|()| encoder.finish());
    done.map(Bytes::from).unwrap_or_default()
}

/// A piece of a text that is compressed by itself. Texts made of the same pieces share the work; cloning is cheap.
#[derive(Debug, Clone)]
pub struct Piece(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    plain: Bytes,
    packed: OnceLock<Packed>,
}

/// Deflate blocks that end at a byte and refer to nothing before them.
#[derive(Debug)]
struct Packed {
    blocks: Bytes,
    crc: Crc,
}

impl Piece {
    pub fn new(plain: impl Into<Bytes>) -> Self {
        Self(Arc::new(Inner {
            plain: plain.into(),
            packed: OnceLock::new(),
        }))
    }

    pub fn plain(&self) -> &Bytes {
        &self.0.plain
    }

    fn packed(&self) -> &Packed {
        self.0.packed.get_or_init(|| {
            let plain = &self.0.plain;
            let mut crc = Crc::new();
            crc.update(plain);
            let mut encoder = DeflateEncoder::new(Vec::with_capacity(plain.len() / 4 + 64), Compression::new(LEVEL));
            // As above; a flush ends the last block at a byte. The end that the encoder would write is left out.
            let done = encoder.write_all(plain).and_then(|()| encoder.flush());
            let blocks = done
                .map(|()| Bytes::copy_from_slice(encoder.get_ref()))
                .unwrap_or_default();
            Packed { blocks, crc }
        })
    }
}

/// Gzip-encodes a text made of pieces: one member, in chunks that follow one another.
pub fn gzip_pieces(pieces: &[Piece]) -> Vec<Bytes> {
    let mut chunks = vec![Bytes::from_static(HEADER)];
    let mut crc = Crc::new();
    for packed in pieces.iter().map(Piece::packed) {
        crc.combine(&packed.crc);
        chunks.push(packed.blocks.clone());
    }
    let mut end = LAST_BLOCK.to_vec();
    end.extend(crc.sum().to_le_bytes());
    end.extend(crc.amount().to_le_bytes());
    chunks.push(end.into());
    chunks
}

/// Whether a request's `Accept-Encoding` admits gzip (RFC 9110 section 12.5.3): named, or `*`, with a weight above zero.
pub fn accepted(header: Option<&str>) -> bool {
    let mut star = false;
    for item in header.unwrap_or_default().split(',') {
        let mut fields = item.split(';').map(str::trim);
        let coding = fields.next().unwrap_or_default();
        let refused = fields.any(|f| {
            f.strip_prefix("q=")
                .and_then(|q| q.trim().parse::<f32>().ok())
                .is_some_and(|q| q <= 0.0)
        });
        if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
            return !refused;
        }
        if coding == "*" {
            star = !refused;
        }
    }
    star
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_was_compressed_comes_back() {
        let text = b"#EXTM3U\n".repeat(100);
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&gzip(&text)[..])
            .read_to_end(&mut back)
            .unwrap();
        assert_eq!(back, text);
    }

    #[test]
    fn pieces_make_one_member_that_any_reader_takes() {
        let pieces: Vec<Piece> = [
            b"#EXTM3U\n".repeat(500),
            vec![],
            b"x".to_vec(),
            b"#EXTINF:2,\n".repeat(9000),
        ]
        .into_iter()
        .map(Piece::new)
        .collect();
        for count in 0..=pieces.len() {
            let some = &pieces[..count];
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&gzip_pieces(some).concat()[..])
                .read_to_end(&mut back)
                .unwrap();
            assert_eq!(
                back,
                some.iter().flat_map(|piece| piece.plain().to_vec()).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn weights_of_zero_refuse() {
        for (header, yes) in [
            (None, false),
            (Some("gzip, deflate, br"), true),
            (Some("br;q=1.0, GZIP;q=0.5"), true),
            (Some("gzip;q=0"), false),
            (Some("gzip; q=0.000, *"), false),
            (Some("*"), true),
            (Some("*;q=0"), false),
            (Some("identity"), false),
        ] {
            assert_eq!(accepted(header), yes, "{header:?}");
        }
    }
}
