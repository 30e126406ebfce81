//! The handshake's fields and extensions (draft-sharabayko-srt-01, section 3.2.1), read and written. Pure.
//!
//! Before this: `srt/wire.rs`. After this: the origin's `srt/handshake.rs`, the harness's `srt/caller.rs`.

use super::{reject::Reject, sequence::Sequence};

/// Longest stream id, in bytes (section 3.2.1.3).
pub const STREAM_ID_MAX: usize = 512;

/// In the extension field of an induction that speaks HSv5.
pub const MAGIC: u16 = 0x4a17;
/// Extension field of a conclusion: which kinds follow.
const FIELD_HS: u16 = 1;
const FIELD_KM: u16 = 2;
const FIELD_CONFIG: u16 = 4;
/// Extension types (table 5).
const HS_REQUEST: u16 = 1;
const HS_RESPONSE: u16 = 2;
const KM_REQUEST: u16 = 3;
const KM_RESPONSE: u16 = 4;
const STREAM_ID: u16 = 5;
const CONGESTION: u16 = 6;
const FILTER: u16 = 7;
const GROUP: u16 = 8;

const CONTENT_BYTES: usize = 48;

/// A handshake packet's fixed fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    pub version: u32,
    /// Key length in eights of a byte, as advertised; encoders leave it 0.
    pub encryption: u16,
    pub extension: u16,
    pub first_sequence: Sequence,
    /// Largest packet with all headers, in bytes.
    pub mtu: u32,
    /// Packets in flight.
    pub window: u32,
    pub request: Request,
    /// The socket that says hello.
    pub socket: u32,
    pub cookie: u32,
}

/// What a handshake packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Induction,
    Conclusion,
    Rejection(Reject),
    /// A rendezvous, or nothing that is known.
    Other(u32),
}

impl Request {
    const fn read(raw: u32) -> Self {
        match raw {
            1 => Self::Induction,
            0xffff_ffff => Self::Conclusion,
            other => Self::Other(other),
        }
    }

    const fn raw(self) -> u32 {
        match self {
            Self::Induction => 1,
            Self::Conclusion => 0xffff_ffff,
            Self::Rejection(reject) => reject.code(),
            Self::Other(raw) => raw,
        }
    }
}

/// Capabilities and delays (section 3.2.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// 1.5.3 is 0x010503.
    pub version: u32,
    pub flags: u32,
    /// How long the speaker holds back what it receives, in milliseconds …
    pub receive_latency_ms: u16,
    /// … and how long the other end shall at least.
    pub send_latency_ms: u16,
}

impl Terms {
    /// Timestamps are used for play-out, in both directions.
    pub const TSBPD: u32 = 0b11;
    pub const ENCRYPTION: u32 = 1 << 2;
    pub const TOO_LATE_DROP: u32 = 1 << 3;
    pub const PERIODIC_LOSS_REPORTS: u32 = 1 << 4;
    pub const RETRANSMISSION_FLAG: u32 = 1 << 5;
    /// File transfer.
    pub const STREAM: u32 = 1 << 6;

    fn write(&self) -> Vec<u8> {
        let latencies = u32::from(self.receive_latency_ms) << 16 | u32::from(self.send_latency_ms);
        let words = [self.version, self.flags, latencies];
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }
}

/// What follows the fixed fields of a conclusion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extensions<'a> {
    pub terms: Option<Terms>,
    pub key_material: Option<&'a [u8]>,
    /// Bytes as sent, padding removed.
    pub stream_id: Option<Vec<u8>>,
    pub congestion: Option<Vec<u8>>,
    pub filter: bool,
    pub group: bool,
}

/// Why bytes are no handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    #[error("a handshake ends inside its fields")]
    Truncated,
    #[error("an extension ends too early")]
    TruncatedExtension,
    #[error("a stream id of more than {STREAM_ID_MAX} bytes")]
    LongStreamId,
}

impl Hello {
    /// The fixed fields, and the bytes of the extensions.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), HelloError> {
        let (fields, extensions) = bytes
            .split_first_chunk::<CONTENT_BYTES>()
            .ok_or(HelloError::Truncated)?;
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(fields.as_chunks::<4>().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        let [version, kinds, first_sequence, mtu, window, request, socket, cookie] = words;
        let hello = Self {
            version,
            encryption: (kinds >> 16) as u16,
            extension: kinds as u16,
            first_sequence: Sequence::new(first_sequence),
            mtu,
            window,
            request: Request::read(request),
            socket,
            cookie,
        };
        Ok((hello, extensions))
    }

    /// `peer`: the other end's address, as the draft wants it.
    pub fn write(&self, peer: core::net::IpAddr) -> Vec<u8> {
        let words = [
            self.version,
            u32::from(self.encryption) << 16 | u32::from(self.extension),
            self.first_sequence.raw(),
            self.mtu,
            self.window,
            self.request.raw(),
            self.socket,
            self.cookie,
        ];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let address = match peer.to_canonical() {
            core::net::IpAddr::V4(v4) => {
                let mut address = [0; 16];
                for (to, from) in address.iter_mut().zip(v4.octets().into_iter().rev()) {
                    *to = from;
                }
                address
            }
            core::net::IpAddr::V6(v6) => v6.octets(),
        };
        bytes.extend_from_slice(&address);
        bytes
    }

    /// The same with a caller's wishes, as [`write_request`] writes them.
    pub fn write_conclusion(mut self, peer: core::net::IpAddr, requests: &[u8], is_encrypted: bool) -> Vec<u8> {
        // A stream id counts as configuration (table 4).
        self.extension = FIELD_HS | FIELD_CONFIG | if is_encrypted { FIELD_KM } else { 0 };
        let mut bytes = self.write(peer);
        bytes.extend_from_slice(requests);
        bytes
    }

    /// The same with our answers to a conclusion.
    pub fn write_answer(mut self, peer: core::net::IpAddr, terms: &Terms, key_material: Option<&[u8]>) -> Vec<u8> {
        self.extension = FIELD_HS | if key_material.is_some() { FIELD_KM } else { 0 };
        let mut bytes = self.write(peer);
        push_extension(&mut bytes, HS_RESPONSE, &terms.write());
        if let Some(key_material) = key_material {
            push_extension(&mut bytes, KM_RESPONSE, key_material);
        }
        bytes
    }
}

/// The extensions of a caller's conclusion (section 3.2.1). Of `key_material`, which comes in whole words, nothing is changed.
pub fn write_request(terms: Option<&Terms>, stream_id: Option<&str>, key_material: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(terms) = terms {
        push_extension(&mut bytes, HS_REQUEST, &terms.write());
    }
    if let Some(id) = stream_id {
        push_extension(&mut bytes, STREAM_ID, &words_of(id.as_bytes()));
    }
    if let Some(key_material) = key_material {
        push_extension(&mut bytes, KM_REQUEST, key_material);
    }
    bytes
}

/// Text in little-endian words, padded with zeros.
fn words_of(text: &[u8]) -> Vec<u8> {
    let mut padded = text.to_vec();
    padded.resize(text.len().next_multiple_of(4), 0);
    let words = padded.as_chunks::<4>().0;
    words.iter().flat_map(|word| word.iter().rev().copied()).collect()
}

fn push_extension(bytes: &mut Vec<u8>, kind: u16, content: &[u8]) {
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&((content.len() / 4) as u16).to_be_bytes());
    bytes.extend_from_slice(content);
}

impl<'a> Extensions<'a> {
    /// Reads them in any order; of a kind that comes twice the last counts, kinds that are not known are skipped.
    pub fn parse(mut bytes: &'a [u8]) -> Result<Self, HelloError> {
        let mut found = Self::default();
        while let Some((&[a, b, c, d], rest)) = bytes.split_first_chunk() {
            let (kind, length) = (u16::from_be_bytes([a, b]), usize::from(u16::from_be_bytes([c, d])) * 4);
            let (content, rest) = rest.split_at_checked(length).ok_or(HelloError::TruncatedExtension)?;
            bytes = rest;
            match kind {
                HS_REQUEST | HS_RESPONSE => found.terms = Some(terms(content)?),
                KM_REQUEST | KM_RESPONSE => found.key_material = Some(content),
                STREAM_ID if content.len() > STREAM_ID_MAX => return Err(HelloError::LongStreamId),
                STREAM_ID => found.stream_id = Some(text(content)),
                CONGESTION => found.congestion = Some(text(content)),
                FILTER => found.filter = true,
                GROUP => found.group = true,
                _ => {}
            }
        }
        Ok(found)
    }
}

fn terms(content: &[u8]) -> Result<Terms, HelloError> {
    let (words, _) = content
        .split_first_chunk::<12>()
        .ok_or(HelloError::TruncatedExtension)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *words;
    Ok(Terms {
        version: u32::from_be_bytes([a, b, c, d]),
        flags: u32::from_be_bytes([e, f, g, h]),
        receive_latency_ms: u16::from_be_bytes([i, j]),
        send_latency_ms: u16::from_be_bytes([k, l]),
    })
}

/// [`words_of`], read.
fn text(content: &[u8]) -> Vec<u8> {
    let mut text: Vec<u8> = content
        .as_chunks::<4>()
        .0
        .iter()
        .flat_map(|word| word.iter().rev().copied())
        .collect();
    let end = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extensions(terms: Option<Terms>, stream_id: Option<&str>, key_material: Option<&[u8]>) -> Vec<u8> {
        write_request(terms.as_ref(), stream_id, key_material)
    }

    #[test]
    fn fields_survive_the_wire() {
        let hello = Hello {
            version: 5,
            encryption: 2,
            extension: MAGIC,
            first_sequence: Sequence::new(1234),
            mtu: 1500,
            window: 8192,
            request: Request::Conclusion,
            socket: 99,
            cookie: 0xdead_beef,
        };
        let bytes = hello.write([127, 0, 0, 1].into());
        assert_eq!(bytes.len(), CONTENT_BYTES);
        assert_eq!(Hello::parse(&bytes), Ok((hello, &[][..])));
        assert_eq!(Hello::parse(&bytes[..47]), Err(HelloError::Truncated));
    }

    #[test]
    fn stream_ids_of_any_length_come_whole() {
        for id in ["a", "ab", "abc", "abcd", "abcde", "#!::r=show,m=publish", ""] {
            let bytes = extensions(None, Some(id), None);
            let found = Extensions::parse(&bytes).unwrap();
            assert_eq!(found.stream_id.unwrap(), id.as_bytes());
        }
        let longest = "x".repeat(STREAM_ID_MAX);
        assert!(Extensions::parse(&extensions(None, Some(&longest), None)).is_ok());
        let too_long = "x".repeat(STREAM_ID_MAX + 1);
        let bytes = extensions(None, Some(&too_long), None);
        assert_eq!(Extensions::parse(&bytes), Err(HelloError::LongStreamId));
    }

    #[test]
    fn empty_cut_and_unknown_extensions_do_no_harm() {
        for kind in 0..10_u16 {
            let mut empty = kind.to_be_bytes().to_vec();
            empty.extend([0, 0]);
            let parsed = Extensions::parse(&empty);
            assert_eq!(parsed.is_err(), matches!(kind, HS_REQUEST | HS_RESPONSE), "{kind}");
            let mut cut = kind.to_be_bytes().to_vec();
            cut.extend([0, 9, 1, 2, 3]);
            assert_eq!(Extensions::parse(&cut), Err(HelloError::TruncatedExtension));
        }
        assert_eq!(Extensions::parse(&[1, 2, 3]), Ok(Extensions::default()));
    }
}
