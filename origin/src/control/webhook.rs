//! How a webhook is signed, and when it is tried again.
//!
//! Pure: `now` and randomness are arguments. Before this: `delivery.rs`, which has an event for an endpoint. After this:
//! `delivery/post.rs`, which sends it.
//!
//! Two signatures go with every delivery, made with the same secret:
//! * `Weir-Signature: sha256=<hex>`: HMAC-SHA256 over the raw body. The key is the secret's text, `whsec_` included.
//! * `Webhook-Signature: v1,<base64>` of the Standard Webhooks specification: HMAC-SHA256 over
//!   `<Webhook-Id>.<Webhook-Timestamp>.<raw body>`. The key is what the secret's base64 part stands for. It covers the
//!   time, so a receiver that checks it can refuse what somebody recorded and sends again.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Entropy of a secret, in bytes.
pub const SECRET_BYTES: usize = 32;
/// How old or how far in the future a delivery's timestamp may be for [`verify`].
pub const TIMESTAMP_TOLERANCE: Duration = Duration::from_secs(300);

/// For how long after the event a delivery is tried.
pub const RETRY_FOR: Duration = Duration::from_secs(24 * 3600);
/// Ceiling of the pause after the first failure; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Ceiling of all later pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(2 * 3600);

const PREFIX: &str = "whsec_";

type HmacSha256 = Hmac<Sha256>;

/// What an endpoint and its origin share. Shown once, when the endpoint is created.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    key: Vec<u8>,
}

/// A text that is no secret of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected whsec_ and base64 of 24 to 64 bytes")]
pub struct BadSecret;

impl Secret {
    pub fn new(random: [u8; SECRET_BYTES]) -> Self {
        Self {
            text: format!("{PREFIX}{}", STANDARD.encode(random)),
            key: random.to_vec(),
        }
    }

    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(BadSecret)?;
        let key = STANDARD.decode(encoded).map_err(|_| BadSecret)?;
        if !(24..=64).contains(&key.len()) {
            return Err(BadSecret);
        }
        Ok(Self {
            text: text.to_owned(),
            key,
        })
    }

    /// For the creating answer and the store, never for a log.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Headers of one attempt, name and value.
pub type SignedHeaders = [(&'static str, String); 6];

/// Signs one attempt. `delivery` stays the same over all attempts, `timestamp_seconds` is the attempt's own time.
pub fn sign(secret: &Secret, delivery: &str, timestamp_seconds: i64, body: &[u8]) -> SignedHeaders {
    let plain = hex(&mac(secret.text.as_bytes(), &[body]));
    let content = standard_content(delivery, timestamp_seconds, body);
    let standard = STANDARD.encode(mac(&secret.key, &content.each_ref().map(AsRef::as_ref)));
    [
        ("weir-delivery", delivery.to_owned()),
        ("weir-timestamp", timestamp_seconds.to_string()),
        ("weir-signature", format!("sha256={plain}")),
        ("webhook-id", delivery.to_owned()),
        ("webhook-timestamp", timestamp_seconds.to_string()),
        ("webhook-signature", format!("v1,{standard}")),
    ]
}

/// Why a receiver should not believe a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forged {
    #[error("a header of the signature is missing or malformed")]
    Header,
    #[error("the timestamp is too far from now")]
    Timestamp,
    #[error("the signature does not fit the secret and the body")]
    Signature,
}

/// What a receiver does: checks `Webhook-Signature` and how old the delivery is. In constant time.
pub fn verify<'h>(
    secret: &Secret,
    header: impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
    now_seconds: i64,
) -> Result<(), Forged> {
    let named = |name| header(name).ok_or(Forged::Header);
    let delivery = named("webhook-id")?;
    let timestamp: i64 = named("webhook-timestamp")?.parse().map_err(|_| Forged::Header)?;
    if now_seconds.abs_diff(timestamp) > TIMESTAMP_TOLERANCE.as_secs() {
        return Err(Forged::Timestamp);
    }
    // Several signatures may be given, of several versions and secrets.
    let fits = named("webhook-signature")?.split(' ').any(|signature| {
        let given = signature.strip_prefix("v1,").and_then(|s| STANDARD.decode(s).ok());
        given.is_some_and(|given| {
            let mut mac = keyed(&secret.key);
            for part in standard_content(delivery, timestamp, body) {
                mac.update(part.as_ref());
            }
            mac.verify_slice(&given).is_ok()
        })
    });
    fits.then_some(()).ok_or(Forged::Signature)
}

/// When to try again, in milliseconds since 1970; `None`: never, the delivery has failed for good.
///
/// The pause doubles from five seconds to two hours; `jitter` (0 to 1) draws it from its upper half, so that the
/// endpoints of one outage are not called all at once. The last try comes exactly [`RETRY_FOR`] after `since_ms`.
pub fn next_attempt(since_ms: i64, failures: u32, now_ms: i64, jitter: f64) -> Option<i64> {
    let last = since_ms.saturating_add(millis(RETRY_FOR));
    if now_ms >= last {
        return None;
    }
    let doubled = FIRST_PAUSE.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let ceiling = doubled.min(LONGEST_PAUSE);
    let pause = ceiling.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
    Some(now_ms.saturating_add(millis(pause)).min(last))
}

/// What an answer of an endpoint means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    /// Worth another try.
    Retry,
    /// The endpoint says that it is gone for good (410).
    GiveUp,
}

/// Only 2xx is a delivery: redirects are not followed, so they are failures, too.
pub const fn verdict(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Delivered,
        410 => Verdict::GiveUp,
        _ => Verdict::Retry,
    }
}

fn standard_content<'a>(delivery: &'a str, timestamp: i64, body: &'a [u8]) -> [Part<'a>; 3] {
    [
        Part::Borrowed(delivery.as_bytes()),
        Part::Owned(format!(".{timestamp}.").into_bytes()),
        Part::Borrowed(body),
    ]
}

type Part<'a> = std::borrow::Cow<'a, [u8]>;

fn keyed(key: &[u8]) -> HmacSha256 {
    // HMAC takes keys of any length (RFC 2104 section 2).
    HmacSha256::new_from_slice(key).unwrap_or_else(|_| HmacSha256::new(&Default::default()))
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed(key);
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1000;
    const HOUR: i64 = 3600 * SECOND;

    fn header<'a>(signed: &'a SignedHeaders, name: &str) -> Option<&'a str> {
        signed.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        // Test cases 1 and 2.
        assert_eq!(
            hex(&mac(&[0x0b; 20], &[b"Hi There"])),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            hex(&mac(b"Jefe", &[b"what do ya want ", b"for nothing?"])),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn the_standard_signature_is_that_of_the_specification() {
        // The example of the Standard Webhooks reference implementations.
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = sign(
            &secret,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(
            header(&signed, "webhook-signature"),
            Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
        // Made with another implementation (docs/webhooks.md).
        assert_eq!(
            header(&signed, "weir-signature"),
            Some("sha256=80ec8a89ce3cd22133a1066caecb4d04fea7467657c8514d717ec42c38a5c94c")
        );
    }

    #[test]
    fn a_receiver_believes_only_what_was_signed_lately() {
        let secret = Secret::new([9; SECRET_BYTES]);
        let signed = sign(&secret, "d1", 1_795_000_000, b"{}");
        let check = |secret: &Secret, body: &[u8], now| verify(secret, |name| header(&signed, name), body, now);
        assert_eq!(check(&secret, b"{}", 1_795_000_299), Ok(()));
        assert_eq!(check(&secret, b"{}", 1_795_000_301), Err(Forged::Timestamp));
        assert_eq!(check(&secret, b"{ }", 1_795_000_000), Err(Forged::Signature));
        assert_eq!(
            check(&Secret::new([8; SECRET_BYTES]), b"{}", 1_795_000_000),
            Err(Forged::Signature)
        );
        assert_eq!(verify(&secret, |_| None, b"{}", 0), Err(Forged::Header));
    }

    #[test]
    fn a_secret_is_read_back_and_never_printed() {
        let secret = Secret::new([1; SECRET_BYTES]);
        assert_eq!(Secret::parse(secret.reveal()), Ok(secret.clone()));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        for bad in ["", "whsec_", "whsec_AAAA", "AAAA", "whsec_not base64"] {
            assert_eq!(Secret::parse(bad), Err(BadSecret), "{bad}");
        }
    }

    #[test]
    fn pauses_double_up_to_two_hours() {
        let pause = |failures, jitter| next_attempt(0, failures, 0, jitter);
        for (failures, ceiling) in [(1, 5), (2, 10), (3, 20), (8, 640), (11, 5120), (12, 7200), (40, 7200)] {
            assert_eq!(pause(failures, 1.0), Some(ceiling * SECOND), "after {failures}");
            assert_eq!(pause(failures, 0.0), Some(ceiling * SECOND / 2), "after {failures}");
        }
    }

    #[test]
    fn tries_go_on_for_a_day_and_the_last_is_at_its_end() {
        for jitter in [0.0, 0.37, 1.0] {
            let (mut now, mut failures) = (1000, 1);
            while let Some(next) = next_attempt(1000, failures, now, jitter) {
                assert!(next > now && next - now <= 2 * HOUR);
                (now, failures) = (next, failures + 1);
            }
            assert_eq!(now, 1000 + 24 * HOUR);
            assert!((20..=36).contains(&failures), "{failures}");
        }
    }

    #[test]
    fn extremes_neither_panic_nor_wrap() {
        assert_eq!(next_attempt(i64::MAX, u32::MAX, i64::MAX, f64::NAN), None);
        assert!(next_attempt(i64::MIN, 0, i64::MIN, -1.0).is_some());
    }

    #[test]
    fn only_success_is_a_delivery() {
        assert_eq!(verdict(204), Verdict::Delivered);
        assert_eq!(verdict(410), Verdict::GiveUp);
        for status in [199, 301, 302, 400, 404, 429, 500, 503] {
            assert_eq!(verdict(status), Verdict::Retry, "{status}");
        }
    }
}
