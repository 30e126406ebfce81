//! Signed playback policies: what `playback-ticket` and `weir sign` mint. Pure: the time arrives as an argument.
//!
//! The policy is JSON with times in milliseconds since 1970, sent as base64url without padding; the signature is
//! HMAC-SHA256 over `<stream key>.<policy as sent>`, so it holds for every host, port and file name of the stream.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use sha2::Sha256;
use weir_shared::id::StreamKey;

use super::lifecycle::Millis;

/// What a viewer may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Until when the address opens the stream.
    pub url_expire: Millis,
    /// Until when a viewer who got in may stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_expire: Option<Millis>,
    /// The viewer's address, or a range of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_ip: Option<String>,
    /// Lets the viewer in backstage.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub preview: bool,
}

/// A policy as viewers send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub policy: String,
    pub signature: String,
}

impl Ticket {
    /// What is appended to a playback address.
    pub fn query(&self) -> String {
        format!("policy={}&signature={}", self.policy, self.signature)
    }
}

/// Signs a policy with a stream's secret.
pub fn mint(key: &StreamKey, secret: &[u8], policy: &Policy) -> Result<Ticket, serde_json::Error> {
    let policy = URL_SAFE_NO_PAD.encode(serde_json::to_vec(policy)?);
    let signature = sign(secret, format!("{key}.{policy}").as_bytes());
    Ok(Ticket { policy, signature })
}

/// Base64url without padding: 43 characters.
fn sign(secret: &[u8], text: &[u8]) -> String {
    // HMAC takes keys of any length (RFC 2104, section 2): the error of the signature cannot happen.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
        return String::new();
    };
    mac.update(text);
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's hmac: any other implementation must agree.
    #[test]
    fn a_ticket_has_the_bytes_that_were_agreed_on() {
        let key: StreamKey = "show".parse().unwrap();
        let policy = Policy {
            url_expire: 4_102_444_800_000,
            stream_expire: None,
            allow_ip: None,
            preview: false,
        };
        let ticket = mint(&key, b"aKq#1kj", &policy).unwrap();
        assert_eq!(ticket.policy, "eyJ1cmxfZXhwaXJlIjo0MTAyNDQ0ODAwMDAwfQ");
        assert_eq!(ticket.signature, "7rkS91p5jjYzav3fPRK4UggbvUkkuVi9etaWt7r1VRI");
    }
}
