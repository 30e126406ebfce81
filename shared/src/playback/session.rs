//! Session tickets: what still has to hold for a viewer who got in, as one path segment. Pure.
//!
//! Made by an edge at the entrance with the stream's own secret; any edge that knows the stream can check it, none keeps
//! anything. The media playlists, parts and segments below it inherit it as relative addresses do, so that their bytes are
//! the same for all viewers.
//!
//! Before this: `policy.rs`. After this: the edge's `auth.rs`.
//!
//! | bytes | content |
//! |---|---|
//! | 1 | version, 1 |
//! | 1 | which of the optional fields are there, and whether the viewer may look backstage |
//! | 8 | number of the viewer |
//! | 8, optional | stream_expire, milliseconds since 1970 |
//! | 6 or 18, optional | allow_ip: length of an address (4 or 16), bits of the mask, address |
//! | 6 or 18, optional | real_ip |
//! | 16 | the first half of HMAC-SHA256 over a label, the stream's key and all before |
//!
//! Numbers are big-endian; the whole is base64url without padding: 35 to 94 characters.

use core::net::IpAddr;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::{
    Caller, Invalid, UnixMillis,
    policy::{self, Policy},
    range::AddressRange,
    ticket::{NotMinted, hmac},
};
use crate::{directory::PlaybackSecret, id::StreamKey};

/// What begins the path segment that a session ticket is.
pub const MARK: char = '~';
/// Longest session ticket, in characters.
pub const MAX_LEN: usize = 94;

const VERSION: u8 = 1;
/// Bytes of the MAC that are sent: 128 bits.
const MAC_BYTES: usize = 16;
/// Nothing else that is signed with a stream's secret begins so.
const LABEL: &[u8] = b"weir session ticket 1\0";

const STREAM_EXPIRE: u8 = 1;
const ALLOW_IP: u8 = 2;
const REAL_IP: u8 = 4;
const PREVIEW: u8 = 8;
const KNOWN: u8 = STREAM_EXPIRE | ALLOW_IP | REAL_IP | PREVIEW;

/// A viewer, as limits and figures tell them apart. Drawn at random when they come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ViewerId(pub u64);

/// A viewer who got in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    pub viewer: ViewerId,
    pub stream_expire: Option<UnixMillis>,
    pub allow_ip: Option<AddressRange>,
    pub real_ip: Option<AddressRange>,
    pub preview: bool,
}

impl Session {
    /// What remains of a policy once it has opened the stream.
    pub const fn of(policy: &Policy, viewer: ViewerId) -> Self {
        Self {
            viewer,
            stream_expire: policy.stream_expire,
            allow_ip: policy.allow_ip,
            real_ip: policy.real_ip,
            preview: policy.preview,
        }
    }

    /// Whether the viewer may go on now, from there.
    pub fn admits(&self, now: UnixMillis, from: Caller) -> Result<(), Invalid> {
        policy::admits(self.stream_expire, self.allow_ip, self.real_ip, now, from)
    }

    /// The ticket, without its mark.
    pub fn mint(&self, key: &StreamKey, secret: &PlaybackSecret) -> Result<String, NotMinted> {
        let mut bytes = self.payload();
        let mut mac = hmac(secret.reveal().as_bytes()).ok_or(NotMinted::NoSecret)?;
        feed(&mut mac, key, &bytes);
        bytes.extend(mac.finalize().into_bytes().into_iter().take(MAC_BYTES));
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    fn payload(&self) -> Vec<u8> {
        let flag = |there: bool, flag: u8| if there { flag } else { 0 };
        let flags = flag(self.stream_expire.is_some(), STREAM_EXPIRE)
            | flag(self.allow_ip.is_some(), ALLOW_IP)
            | flag(self.real_ip.is_some(), REAL_IP)
            | flag(self.preview, PREVIEW);
        let mut bytes = vec![VERSION, flags];
        bytes.extend(self.viewer.0.to_be_bytes());
        bytes.extend(self.stream_expire.into_iter().flat_map(u64::to_be_bytes));
        for range in [self.allow_ip, self.real_ip].into_iter().flatten() {
            match range.address() {
                IpAddr::V4(v4) => {
                    bytes.extend([4, range.bits()]);
                    bytes.extend(v4.octets());
                }
                IpAddr::V6(v6) => {
                    bytes.extend([16, range.bits()]);
                    bytes.extend(v6.octets());
                }
            }
        }
        bytes
    }
}

/// The session, if one of the stream's secrets signed the ticket. Compares in constant time.
pub fn verify(key: &StreamKey, secrets: &[PlaybackSecret], ticket: &str) -> Result<Session, Invalid> {
    if ticket.len() > MAX_LEN {
        return Err(Invalid::Malformed);
    }
    let bytes = URL_SAFE_NO_PAD.decode(ticket).map_err(|_| Invalid::Malformed)?;
    let at = bytes.len().checked_sub(MAC_BYTES).ok_or(Invalid::Malformed)?;
    let (payload, tag) = bytes.split_at_checked(at).ok_or(Invalid::Malformed)?;
    let signed = secrets.iter().any(|secret| {
        hmac(secret.reveal().as_bytes()).is_some_and(|mut mac| {
            feed(&mut mac, key, payload);
            mac.verify_truncated_left(tag).is_ok()
        })
    });
    match signed {
        true => read(payload).ok_or(Invalid::Malformed),
        false => Err(Invalid::Signature),
    }
}

fn feed(mac: &mut Hmac<Sha256>, key: &StreamKey, payload: &[u8]) {
    mac.update(LABEL);
    mac.update(key.as_str().as_bytes());
    mac.update(b"\0");
    mac.update(payload);
}

/// `None`: no edge of this version wrote it.
fn read(mut rest: &[u8]) -> Option<Session> {
    let [version, flags] = take(&mut rest)?;
    if version != VERSION || flags & !KNOWN != 0 {
        return None;
    }
    let viewer = ViewerId(u64::from_be_bytes(take(&mut rest)?));
    let mut session = Session {
        viewer,
        stream_expire: None,
        allow_ip: None,
        real_ip: None,
        preview: flags & PREVIEW != 0,
    };
    if flags & STREAM_EXPIRE != 0 {
        session.stream_expire = Some(u64::from_be_bytes(take(&mut rest)?));
    }
    for (flag, range) in [(ALLOW_IP, &mut session.allow_ip), (REAL_IP, &mut session.real_ip)] {
        if flags & flag != 0 {
            let [length, bits] = take(&mut rest)?;
            let address: IpAddr = match length {
                4 => take::<4>(&mut rest)?.into(),
                16 => take::<16>(&mut rest)?.into(),
                _ => return None,
            };
            *range = Some(AddressRange::new(address, bits).ok()?);
        }
    }
    rest.is_empty().then_some(session)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> StreamKey {
        "show".parse().unwrap()
    }

    fn secret() -> PlaybackSecret {
        PlaybackSecret::new("aKq#1kj")
    }

    fn full() -> Session {
        Session {
            viewer: ViewerId(0x0123_4567_89AB_CDEF),
            stream_expire: Some(4_102_444_800_000),
            allow_ip: Some("192.168.100.0/24".parse().unwrap()),
            real_ip: Some("2001:db8::/32".parse().unwrap()),
            preview: true,
        }
    }

    fn bare() -> Session {
        Session::of(&Policy::until(1), ViewerId(7))
    }

    fn check(ticket: &str) -> Result<Session, Invalid> {
        verify(&key(), &[secret()], ticket)
    }

    /// Computed with Python's hmac and struct: other versions of Weir in the same fleet must agree.
    #[test]
    fn a_session_ticket_has_the_bytes_that_were_agreed_on() {
        assert_eq!(
            bare().mint(&key(), &secret()).unwrap(),
            "AQAAAAAAAAAABw8Je6ExhFN1lDG40ndv9pk"
        );
        assert_eq!(
            full().mint(&key(), &secret()).unwrap(),
            "AQ8BI0VniavN7wAAA7ssw9gABBjAqGQAECAgAQ24AAAAAAAAAAAAAAAAmq6ImGXLYMBfzDPS6B6k6g"
        );
    }

    #[test]
    fn any_edge_reads_what_another_wrote() {
        for session in [full(), bare()] {
            let ticket = session.mint(&key(), &secret()).unwrap();
            assert!((35..=MAX_LEN).contains(&ticket.len()), "{}", ticket.len());
            assert_eq!(check(&ticket), Ok(session));
            let secrets = [PlaybackSecret::new("newer"), secret()];
            assert_eq!(verify(&key(), &secrets, &ticket), Ok(session));
            assert_eq!(verify(&key(), &secrets[..1], &ticket), Err(Invalid::Signature));
            assert_eq!(
                verify(&"shop".parse().unwrap(), &[secret()], &ticket),
                Err(Invalid::Signature)
            );
        }
    }

    #[test]
    fn the_longest_ticket_is_as_long_as_it_says() {
        let longest = Session {
            allow_ip: full().real_ip,
            ..full()
        };
        assert_eq!(longest.mint(&key(), &secret()).unwrap().len(), MAX_LEN);
    }

    #[test]
    fn what_was_signed_for_something_else_is_no_session() {
        let entrance = super::super::ticket::mint(&key(), &secret(), &Policy::until(4_102_444_800_000)).unwrap();
        assert!(check(&entrance.signature).is_err());
        assert!(check(&entrance.policy).is_err());
        assert!(check("").is_err());
        let no_secret = bare().mint(&key(), &PlaybackSecret::new(""));
        assert!(no_secret.is_err());
    }

    #[test]
    fn an_unknown_version_or_field_is_refused_even_if_signed() {
        for (at, value) in [(0, 2), (1, 16)] {
            let mut bytes = bare().payload();
            bytes[at] = value;
            let mut mac = hmac(secret().reveal().as_bytes()).unwrap();
            feed(&mut mac, &key(), &bytes);
            bytes.extend(&mac.finalize().into_bytes()[..MAC_BYTES]);
            assert_eq!(check(&URL_SAFE_NO_PAD.encode(bytes)), Err(Invalid::Malformed));
        }
    }

    /// More than 10⁴ of them: every character of several tickets replaced by several others.
    #[test]
    fn no_tampered_ticket_is_accepted() {
        let mut tried = 0;
        for session in [full(), bare()] {
            let ticket = session.mint(&key(), &secret()).unwrap();
            for at in 0..ticket.len() {
                for other in (0..=127u8).filter(|other| *other != ticket.as_bytes()[at]) {
                    let mut bytes = ticket.clone().into_bytes();
                    bytes[at] = other;
                    let tampered = String::from_utf8(bytes).unwrap();
                    assert!(check(&tampered).is_err(), "{at} {other}");
                    tried += 1;
                }
            }
            for end in 0..ticket.len() {
                assert!(check(&ticket[..end]).is_err());
            }
            for more in ["A", "AA", "AAAA", "=", "=="] {
                assert!(check(&format!("{ticket}{more}")).is_err(), "{more}");
            }
        }
        assert!(tried > 10_000, "{tried}");
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic_or_a_session(text in ".{0,120}") {
            prop_assert!(check(&text).is_err());
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&bytes);
        }
    }
}
