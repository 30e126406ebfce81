//! What a signed address allows. Pure.
//!
//! Before this: [`ticket`](super::ticket), [`ome`](super::ome) and [`jwt`](super::jwt), which find out that it is
//! genuine. After this: [`session`](super::session), which carries what still has to hold later.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::URL_SAFE_NO_PAD},
};
use serde::{Deserialize, Serialize};

use super::{Caller, Invalid, TEXT_MAX, UnixMillis, range::AddressRange};

/// Times above this are milliseconds, others seconds: the year 5138 in seconds, March 1973 in milliseconds.
const SECONDS_MAX: u64 = 100_000_000_000;

/// Base64url; padding may be there or not.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How times are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Milliseconds if that is plausible, else seconds.
    Either,
    /// Always milliseconds: OvenMediaEngine's way.
    Milliseconds,
}

impl Times {
    pub(super) const fn read(self, time: u64) -> UnixMillis {
        match self {
            Self::Either if time <= SECONDS_MAX => time * 1000,
            Self::Either | Self::Milliseconds => time,
        }
    }
}

/// What a viewer may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Until when the address opens the stream.
    pub url_expire: UnixMillis,
    /// From when on it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_activate: Option<UnixMillis>,
    /// Until when a viewer who got in may stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_expire: Option<UnixMillis>,
    /// Who is connected: the viewer, or the proxy in front of this edge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_ip: Option<AddressRange>,
    /// Who is watching, as a trusted proxy tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real_ip: Option<AddressRange>,
    /// Lets the viewer in backstage.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub preview: bool,
}

/// Its JSON, with times as they stand there. Other fields are passed over.
#[derive(Deserialize)]
struct Wire {
    url_expire: u64,
    url_activate: Option<u64>,
    stream_expire: Option<u64>,
    allow_ip: Option<AddressRange>,
    real_ip: Option<AddressRange>,
    #[serde(default)]
    preview: bool,
}

impl Policy {
    /// Opens a stream until then and nothing else.
    pub const fn until(url_expire: UnixMillis) -> Self {
        Self {
            url_expire,
            url_activate: None,
            stream_expire: None,
            allow_ip: None,
            real_ip: None,
            preview: false,
        }
    }

    /// Base64url without padding of its JSON.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(self)?))
    }

    /// Reads a policy as it is sent. Says nothing about who signed it.
    pub fn decode(text: &str, times: Times) -> Result<Self, Invalid> {
        if text.is_empty() || text.len() > TEXT_MAX {
            return Err(Invalid::Malformed);
        }
        let json = LENIENT.decode(text).map_err(|_| Invalid::Malformed)?;
        let wire: Wire = serde_json::from_slice(&json).map_err(|_| Invalid::Malformed)?;
        Ok(Self {
            url_expire: times.read(wire.url_expire),
            url_activate: wire.url_activate.map(|t| times.read(t)),
            stream_expire: wire.stream_expire.map(|t| times.read(t)),
            allow_ip: wire.allow_ip,
            real_ip: wire.real_ip,
            preview: wire.preview,
        })
    }

    /// Whether it opens the stream now, to a viewer from there.
    pub fn admits(&self, now: UnixMillis, from: Caller) -> Result<(), Invalid> {
        if self.url_activate.is_some_and(|since| now < since) {
            return Err(Invalid::NotYet);
        }
        if now >= self.url_expire {
            return Err(Invalid::Expired);
        }
        admits(self.stream_expire, self.allow_ip, self.real_ip, now, from)
    }
}

/// What holds for as long as somebody watches.
pub(super) fn admits(
    stream_expire: Option<UnixMillis>,
    allow_ip: Option<AddressRange>,
    real_ip: Option<AddressRange>,
    now: UnixMillis,
    from: Caller,
) -> Result<(), Invalid> {
    if stream_expire.is_some_and(|end| now >= end) {
        return Err(Invalid::StreamExpired);
    }
    let inside = |range: Option<AddressRange>, address| range.is_none_or(|range| range.contains(address));
    match inside(allow_ip, from.peer) && inside(real_ip, from.real) {
        true => Ok(()),
        false => Err(Invalid::Address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = 1_795_000_000_000;

    fn from(peer: &str, real: &str) -> Caller {
        Caller {
            peer: peer.parse().unwrap(),
            real: real.parse().unwrap(),
        }
    }

    fn read(json: &str) -> Result<Policy, Invalid> {
        Policy::decode(&URL_SAFE_NO_PAD.encode(json), Times::Either)
    }

    #[test]
    fn every_field_is_read_and_written_back() {
        let policy = Policy {
            url_expire: NOW + 1,
            url_activate: Some(NOW - 1),
            stream_expire: Some(NOW + 2),
            allow_ip: Some("192.168.100.0/24".parse().unwrap()),
            real_ip: Some("2001:db8::/32".parse().unwrap()),
            preview: true,
        };
        let text = policy.encode().unwrap();
        assert_eq!(Policy::decode(&text, Times::Either), Ok(policy));
    }

    #[test]
    fn seconds_and_milliseconds_are_told_apart() {
        let policy = read(r#"{"url_expire":1795000000,"stream_expire":1795000000123}"#).unwrap();
        assert_eq!((policy.url_expire, policy.stream_expire), (NOW, Some(NOW + 123)));
        let text = URL_SAFE_NO_PAD.encode(r#"{"url_expire":1795000000}"#);
        let policy = Policy::decode(&text, Times::Milliseconds).unwrap();
        assert_eq!(policy.url_expire, 1_795_000_000, "January 1970");
    }

    #[test]
    fn what_is_no_policy_is_malformed() {
        for bad in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"url_expire":"1795000000"}"#,
            r#"{"url_expire":-1}"#,
            r#"{"url_expire":1e12}"#,
            r#"{"url_expire":1,"url_expire":4102444800000}"#,
            r#"{"url_expire":4102444800000,"allow_ip":"everybody"}"#,
            r#"{"url_expire":4102444800000} "#,
            r#"{"url_expire":4102444800000}}"#,
        ] {
            let expected = if bad.ends_with(' ') {
                Ok(())
            } else {
                Err(Invalid::Malformed)
            };
            assert_eq!(read(bad).map(drop), expected, "{bad}");
        }
        assert_eq!(Policy::decode("%%%", Times::Either), Err(Invalid::Malformed));
        let long = "A".repeat(TEXT_MAX + 1);
        assert_eq!(Policy::decode(&long, Times::Either), Err(Invalid::Malformed));
    }

    #[test]
    fn padding_is_read_too() {
        let text = "eyJ1cmxfZXhwaXJlIjo0MTAyNDQ0ODAwMDAwfQ";
        let policy = Policy::decode(text, Times::Either);
        assert_eq!(policy, Ok(Policy::until(4_102_444_800_000)));
        assert_eq!(Policy::decode(&format!("{text}=="), Times::Either), policy);
    }

    #[test]
    fn an_address_is_valid_from_its_first_to_before_its_last_millisecond() {
        let policy = Policy {
            url_activate: Some(NOW),
            ..Policy::until(NOW + 10)
        };
        let viewer = from("203.0.113.7", "203.0.113.7");
        assert_eq!(policy.admits(NOW - 1, viewer), Err(Invalid::NotYet));
        assert_eq!(policy.admits(NOW, viewer), Ok(()));
        assert_eq!(policy.admits(NOW + 9, viewer), Ok(()));
        assert_eq!(policy.admits(NOW + 10, viewer), Err(Invalid::Expired));
    }

    #[test]
    fn both_addresses_have_to_be_right() {
        let policy = Policy {
            allow_ip: Some("10.0.0.0/8".parse().unwrap()),
            real_ip: Some("203.0.113.0/24".parse().unwrap()),
            ..Policy::until(NOW + 10)
        };
        for (peer, real, expected) in [
            ("10.1.2.3", "203.0.113.9", Ok(())),
            ("11.1.2.3", "203.0.113.9", Err(Invalid::Address)),
            ("10.1.2.3", "203.0.114.9", Err(Invalid::Address)),
            ("203.0.113.9", "10.1.2.3", Err(Invalid::Address)),
        ] {
            assert_eq!(policy.admits(NOW, from(peer, real)), expected, "{peer} {real}");
        }
    }
}
