//! Playlist compression: each playlist version is compressed once and shared by all its readers.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

/// Gzip-encodes a small text.
pub fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4 + 64), Compression::new(6));
    // Writing to memory does not fail; an empty result would still be a valid (empty) answer.
    let done = encoder.write_all(plain).and_then(|()| encoder.finish());
    done.map(Bytes::from).unwrap_or_default()
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
