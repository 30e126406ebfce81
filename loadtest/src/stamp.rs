//! The first bytes of a made-up part: when it was complete, and which part it is. Pure.
//!
//! Written by [`crate::content`], read by [`crate::oracle`]. The time is an ordinary ProducerReferenceTimeBox (`prft`,
//! ISO/IEC 14496-12 8.16.5), so a part of any server that writes one tells its age, too. The identity is a `free` box
//! behind it.

use crate::moment::Moment;

/// Seconds from 1900 (NTP) to 1970.
const NTP_OFFSET_SECONDS: u64 = 2_208_988_800;
/// Length of a made-up part's head: `prft`, `free`, and the header of the `mdat` that follows.
pub const STAMP_BYTES: usize = PRFT_BYTES + FREE_BYTES + 8;
/// How much of a body's front a reader should keep to find a stamp.
pub const HEAD_BYTES: usize = 96;
const PRFT_BYTES: usize = 32;
const FREE_BYTES: usize = 36;
const MAGIC: &[u8; 8] = b"WeirPart";
/// `prft` flags: the moment the fragment was finalised and stored.
const FINALISED: u32 = 2;

/// Which made-up part this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// [`stream_tag`] of the stream's key.
    pub stream: u64,
    /// [`stream_tag`] of the rendition's name, lower half.
    pub rendition: u32,
    /// Running number of the part in its rendition.
    pub part: u64,
}

/// What the head of a part says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// When the part was complete.
    pub completed: Moment,
    /// Only in made-up parts.
    pub identity: Option<Identity>,
}

/// A name as a number (FNV-1a).
pub fn stream_tag(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The head of a made-up part whose `mdat` then holds `payload` bytes.
pub fn write(completed: Moment, identity: Identity, payload: u32) -> [u8; STAMP_BYTES] {
    let seconds = completed.0 / 1_000_000 + NTP_OFFSET_SECONDS;
    let fraction = ((completed.0 % 1_000_000) << 32).div_ceil(1_000_000);
    let mut out = Vec::with_capacity(STAMP_BYTES);
    out.extend_from_slice(&(PRFT_BYTES as u32).to_be_bytes());
    out.extend_from_slice(b"prft");
    out.extend_from_slice(&(0x0100_0000 | FINALISED).to_be_bytes());
    out.extend_from_slice(&1u32.to_be_bytes());
    out.extend_from_slice(&((seconds << 32) | fraction).to_be_bytes());
    out.extend_from_slice(&identity.part.to_be_bytes());
    out.extend_from_slice(&(FREE_BYTES as u32).to_be_bytes());
    out.extend_from_slice(b"free");
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&identity.stream.to_be_bytes());
    out.extend_from_slice(&identity.rendition.to_be_bytes());
    out.extend_from_slice(&identity.part.to_be_bytes());
    out.extend_from_slice(&payload.saturating_add(8).to_be_bytes());
    out.extend_from_slice(b"mdat");
    let mut stamp = [0; STAMP_BYTES];
    for (to, from) in stamp.iter_mut().zip(out) {
        *to = from;
    }
    stamp
}

/// Reads the stamp of a body whose first bytes these are. A `styp` or `emsg` box may come first.
pub fn read(head: &[u8]) -> Option<Stamp> {
    let mut rest = head;
    loop {
        let size = u32::from_be_bytes(array(rest.get(..4)?)?) as usize;
        let kind = rest.get(4..8)?;
        if kind == b"prft" {
            let ntp = u64::from_be_bytes(array(rest.get(16..24)?)?);
            let seconds = (ntp >> 32).checked_sub(NTP_OFFSET_SECONDS)?;
            let micros = ((ntp & 0xffff_ffff) * 1_000_000) >> 32;
            let identity = rest.get(PRFT_BYTES..).and_then(identity);
            return Some(Stamp {
                completed: Moment(seconds * 1_000_000 + micros),
                identity,
            });
        }
        if kind != b"styp" && kind != b"emsg" {
            return None;
        }
        rest = rest.get(size.max(8)..)?;
    }
}

fn identity(free: &[u8]) -> Option<Identity> {
    if free.get(4..8)? != b"free" || free.get(8..16)? != MAGIC {
        return None;
    }
    Some(Identity {
        stream: u64::from_be_bytes(array(free.get(16..24)?)?),
        rendition: u32::from_be_bytes(array(free.get(24..28)?)?),
        part: u64::from_be_bytes(array(free.get(28..36)?)?),
    })
}

fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity {
        stream: 7,
        rendition: 2,
        part: 1234,
    };

    #[test]
    fn a_stamp_is_read_back_to_the_microsecond() {
        for micros in [1_795_000_000_000_000, 1_795_000_000_999_999, 1_795_000_000_123_457] {
            let stamp = Stamp {
                completed: Moment(micros),
                identity: Some(IDENTITY),
            };
            assert_eq!(read(&write(Moment(micros), IDENTITY, 9)), Some(stamp));
        }
    }

    #[test]
    fn a_prft_of_another_server_tells_the_time_behind_a_styp() {
        let mut body = Vec::from(*b"\0\0\0\x10styp........");
        body.extend_from_slice(&write(Moment(1_795_000_000_000_000), IDENTITY, 0)[..PRFT_BYTES]);
        let stamp = read(&body).unwrap();
        assert_eq!((stamp.completed.0, stamp.identity), (1_795_000_000_000_000, None));
    }

    #[test]
    fn what_is_no_stamp_is_none() {
        for junk in [&b""[..], b"mdat", &[0; 96], &[255; 96], b"\0\0\0\0styp\0\0\0\0styp"] {
            assert_eq!(read(junk), None);
        }
        let whole = write(Moment(1), IDENTITY, 0);
        for cut in 0..24 {
            assert_eq!(read(&whole[..cut]), None);
        }
    }
}
