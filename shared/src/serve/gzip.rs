//! Playlist compression: each playlist version is compressed once and shared by all its readers; and what versions have in
//! common, as [`Piece`]s, once for all of them.

use std::{
    io::{Read as _, Write as _},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use flate2::{
    Compression, Crc,
    read::MultiGzDecoder,
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

    /// One piece instead of several that follow one another. If all of them were compressed, so is it, by what that took.
    /// They stay what they are, and hold its memory instead of their own.
    pub fn join(pieces: &mut [Self]) -> Self {
        let plain: Bytes = concat(pieces.iter().map(|piece| piece.plain()));
        let packed: Option<Vec<&Packed>> = pieces.iter().map(|piece| piece.0.packed.get()).collect();
        let packed = packed.map(|packed| Packed {
            blocks: concat(packed.iter().map(|packed| &packed.blocks)),
            crc: combined(packed.iter().map(|packed| &packed.crc)),
        });
        let (mut at, mut packed_at) = (0, 0);
        for piece in pieces {
            let end = at + piece.plain().len();
            let own = Self::new(plain.slice(at..end));
            at = end;
            if let Some((whole, part)) = packed.as_ref().zip(piece.0.packed.get()) {
                let end = packed_at + part.blocks.len();
                let _ = own.0.packed.set(Packed {
                    blocks: whole.blocks.slice(packed_at..end),
                    crc: combined([&part.crc]),
                });
                packed_at = end;
            }
            *piece = own;
        }
        let joined = Self::new(plain);
        if let Some(packed) = packed {
            let _ = joined.0.packed.set(packed);
        }
        joined
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
    chunks.extend(pieces.iter().map(|piece| piece.packed().blocks.clone()));
    let crc = combined(pieces.iter().map(|piece| &piece.packed().crc));
    let mut end = LAST_BLOCK.to_vec();
    end.extend(crc.sum().to_le_bytes());
    end.extend(crc.amount().to_le_bytes());
    chunks.push(end.into());
    chunks
}

fn concat<'a>(chunks: impl Iterator<Item = &'a Bytes>) -> Bytes {
    chunks
        .fold(Vec::new(), |mut all, chunk| {
            all.extend_from_slice(chunk);
            all
        })
        .into()
}

/// The check sum of texts that follow one another.
fn combined<'a>(crcs: impl IntoIterator<Item = &'a Crc>) -> Crc {
    crcs.into_iter().fold(Crc::new(), |mut all, crc| {
        all.combine(crc);
        all
    })
}

/// Gzip-decodes what somebody else encoded. `None`: it is broken, or more than `limit` bytes.
pub fn gunzip(encoded: &[u8], limit: usize) -> Option<Bytes> {
    let mut plain = Vec::new();
    let at_most = u64::try_from(limit).ok()?.saturating_add(1);
    MultiGzDecoder::new(encoded)
        .take(at_most)
        .read_to_end(&mut plain)
        .ok()?;
    (plain.len() <= limit).then(|| plain.into())
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
    use super::*;

    #[test]
    fn a_bomb_does_not_go_off() {
        let bomb = gzip(&vec![0; 10 << 20]);
        assert!(bomb.len() < 20_000);
        assert_eq!(gunzip(&bomb, 1 << 20), None);
        assert_eq!(gunzip(&bomb, 10 << 20).map(|plain| plain.len()), Some(10 << 20));
        assert_eq!(gunzip(b"not gzip", 100), None);
        assert_eq!(gunzip(&bomb[..100], 10 << 20), None, "cut short");
    }

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
    fn joined_pieces_are_compressed_as_they_were() {
        let mut pieces = [b"#EXTM3U\n".repeat(500), b"#EXTINF:2,\n".repeat(9000)].map(Piece::new);
        let text = pieces.each_ref().map(|piece| piece.plain().to_vec()).concat();
        let unpacked = gunzip(&gzip_pieces(&[Piece::join(&mut pieces)]).concat(), 1 << 20);
        assert_eq!(unpacked.as_deref(), Some(&text[..]), "not compressed before");
        let apart = gzip_pieces(&pieces).concat();
        let joined = Piece::join(&mut pieces);
        assert!(joined.0.packed.get().is_some(), "nothing is compressed twice");
        let second = joined.plain().as_ptr().wrapping_add(pieces[0].plain().len());
        assert_eq!(pieces[1].plain().as_ptr(), second, "nor held twice");
        assert_eq!(gzip_pieces(&[joined]).concat(), apart);
        assert_eq!(
            gzip_pieces(&pieces).concat(),
            apart,
            "and the pieces are what they were"
        );
        assert_eq!(gunzip(&apart, 1 << 20).as_deref(), Some(&text[..]));
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
