//! Weir's own signed addresses: a policy and its HMAC-SHA256 over `<stream key>.<policy as sent>`, so that a ticket holds
//! for every scheme, host, port and file name of its stream. Pure.
//!
//! Before this: a query, or whoever wants one. After this: [`policy`](super::policy).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{
    Invalid, TEXT_MAX,
    policy::{Policy, Times},
};
use crate::{directory::PlaybackSecret, id::StreamKey};

/// Base64url of 32 bytes.
pub const SIGNATURE_LEN: usize = 43;

/// A policy as viewers send it.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    pub policy: String,
    pub signature: String,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket(…)")
    }
}

impl Ticket {
    /// What is appended to a playback address.
    pub fn query(&self) -> String {
        format!("policy={}&signature={}", self.policy, self.signature)
    }
}

/// HMAC-SHA256; `None` for an empty secret, which protects nothing.
pub(super) fn hmac(secret: &[u8]) -> Option<Hmac<Sha256>> {
    let secret = Some(secret).filter(|s| !s.is_empty())?;
    // Takes keys of any length (RFC 2104, section 2).
    Hmac::new_from_slice(secret).ok()
}

/// Signs a policy with a stream's secret.
pub fn mint(key: &StreamKey, secret: &PlaybackSecret, policy: &Policy) -> Result<Ticket, NotMinted> {
    sign(key, secret, policy.encode()?)
}

/// Signs a policy that is written already, with fields of one's own perhaps.
pub fn sign(key: &StreamKey, secret: &PlaybackSecret, policy: String) -> Result<Ticket, NotMinted> {
    let mut mac = hmac(secret.reveal().as_bytes()).ok_or(NotMinted::NoSecret)?;
    feed(&mut mac, key, &policy);
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    Ok(Ticket { policy, signature })
}

/// Why a ticket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NotMinted {
    #[error("the stream has no playback secret")]
    NoSecret,
    #[error("the policy could not be written: {0}")]
    Policy(#[from] serde_json::Error),
}

/// The policy, if one of the stream's secrets signed it. Compares in constant time.
pub fn verify(key: &StreamKey, secrets: &[PlaybackSecret], policy: &str, signature: &str) -> Result<Policy, Invalid> {
    if policy.len() > TEXT_MAX || signature.len() != SIGNATURE_LEN {
        return Err(Invalid::Malformed);
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Invalid::Malformed)?;
    let signed = secrets.iter().any(|secret| {
        hmac(secret.reveal().as_bytes()).is_some_and(|mut mac| {
            feed(&mut mac, key, policy);
            mac.verify_slice(&signature).is_ok()
        })
    });
    match signed {
        true => Policy::decode(policy, Times::Either),
        false => Err(Invalid::Signature),
    }
}

fn feed(mac: &mut Hmac<Sha256>, key: &StreamKey, policy: &str) {
    mac.update(key.as_str().as_bytes());
    mac.update(b".");
    mac.update(policy.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> StreamKey {
        name.parse().unwrap()
    }

    fn secret(text: &str) -> PlaybackSecret {
        PlaybackSecret::new(text)
    }

    /// Computed with Python's hmac: any other implementation must agree.
    #[test]
    fn a_ticket_has_the_bytes_that_were_agreed_on() {
        let policy = Policy::until(4_102_444_800_000);
        let ticket = mint(&key("show"), &secret("aKq#1kj"), &policy).unwrap();
        assert_eq!(ticket.policy, "eyJ1cmxfZXhwaXJlIjo0MTAyNDQ0ODAwMDAwfQ");
        assert_eq!(ticket.signature, "7rkS91p5jjYzav3fPRK4UggbvUkkuVi9etaWt7r1VRI");
        let known = sign(&key("show"), &secret("k"), ticket.policy).unwrap();
        assert_eq!(known.signature, "-3PVbX9r70pJry4dEpEs-rnKnMSiW6rjCFCv3Ryfk04");
    }

    #[test]
    fn either_of_two_secrets_will_do_and_a_third_will_not() {
        let policy = Policy::until(4_102_444_800_000);
        let ticket = mint(&key("show"), &secret("old"), &policy).unwrap();
        let check = |secrets: &[PlaybackSecret]| verify(&key("show"), secrets, &ticket.policy, &ticket.signature);
        assert_eq!(check(&[secret("new"), secret("old")]), Ok(policy.clone()));
        assert_eq!(check(&[secret("old")]), Ok(policy));
        assert_eq!(check(&[secret("newest"), secret("new")]), Err(Invalid::Signature));
        assert_eq!(check(&[]), Err(Invalid::Signature));
    }

    #[test]
    fn an_empty_secret_signs_and_admits_nothing() {
        let policy = Policy::until(4_102_444_800_000);
        assert!(mint(&key("show"), &secret(""), &policy).is_err());
        // HMAC with an empty key, as anybody could compute it.
        let text = policy.encode().unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(b"").unwrap();
        feed(&mut mac, &key("show"), &text);
        let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        let checked = verify(&key("show"), &[secret("")], &text, &signature);
        assert_eq!(checked, Err(Invalid::Signature));
    }

    #[test]
    fn a_ticket_opens_no_other_stream() {
        let ticket = mint(&key("show"), &secret("k"), &Policy::until(4_102_444_800_000)).unwrap();
        let checked = verify(&key("shop"), &[secret("k")], &ticket.policy, &ticket.signature);
        assert_eq!(checked, Err(Invalid::Signature));
    }

    #[test]
    fn a_signature_has_one_spelling() {
        let ticket = mint(&key("show"), &secret("k"), &Policy::until(4_102_444_800_000)).unwrap();
        let check = |signature: &str| verify(&key("show"), &[secret("k")], &ticket.policy, signature);
        assert!(check(&ticket.signature).is_ok());
        let mut respelt = 0;
        for last in b'!'..=b'~' {
            let other = format!("{}{}", &ticket.signature[..42], last as char);
            respelt += usize::from(check(&other).is_ok());
        }
        assert_eq!(respelt, 1, "spare bits of the last character are not free");
        assert!(check(&format!("{}=", ticket.signature)).is_err());
        assert!(check("").is_err());
    }
}
