//! Names and secrets that nobody can guess, and what of an API key is kept.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use weir_shared::id::{InvalidName, StreamId, StreamKey};

use super::model::{ApiKey, Credentials, Scope};
use super::store::{Millis, NewKey};

/// What every API key begins with, so that secret scanners find one that got lost.
pub const KEY_PREFIX: &str = "weir_";
/// Characters of a key that a list shows.
const SHOWN: usize = 12;

/// `bytes` random bytes as text of `[A-Za-z0-9_-]`: encoders pass these through whatever their URL handling
/// (wire-facts: ffmpeg does not percent-decode credentials, GStreamer does).
fn random(bytes: usize) -> String {
    let mut drawn = vec![0u8; bytes];
    rand::rng().fill_bytes(&mut drawn);
    URL_SAFE_NO_PAD.encode(drawn)
}

/// A stream's public name: 128 random bits.
pub fn stream_key() -> Result<StreamKey, InvalidName> {
    random(16).parse()
}

pub fn stream_id() -> Result<StreamId, InvalidName> {
    format!("str_{}", random(12)).parse()
}

pub fn credentials() -> Credentials {
    Credentials {
        username: username(),
        password: password(),
        token: token(),
        backup_password: password(),
        backup_token: token(),
        passphrase: random(24),
        playback_secret: playback_secret(),
        previous_playback_secret: None,
    }
}

/// User name of a push.
pub fn username() -> String {
    format!("u{}", random(6))
}

/// Password of a push.
pub fn password() -> String {
    random(24)
}

/// For `?t=<token>`.
pub fn token() -> String {
    random(24)
}

/// 256 bits, as HMAC-SHA256 takes them.
pub fn playback_secret() -> String {
    random(32)
}

/// SHA-256, lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A new API key: the secret, which is shown once, and what is kept of it. 256 random bits need no slow hash.
pub fn api_key(
    project: Option<weir_shared::id::ProjectId>,
    name: &str,
    scopes: Vec<Scope>,
    at: Millis,
) -> (String, NewKey) {
    let secret = format!("{KEY_PREFIX}{}", random(32));
    let record = ApiKey {
        id: format!("key_{}", random(12)),
        project,
        name: name.to_owned(),
        prefix: secret.get(..SHOWN).unwrap_or_default().to_owned(),
        scopes,
        created_at: at,
        revoked_at: None,
    };
    let hash = sha256_hex(secret.as_bytes());
    (secret, NewKey { record, hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hash_of_a_key_is_kept() {
        let (secret, kept) = api_key(None, "ci", vec![Scope::Admin], 0);
        assert_eq!(kept.hash, sha256_hex(secret.as_bytes()));
        assert!(!format!("{kept:?}").contains(&secret));
        assert!(secret.starts_with(&kept.record.prefix));
    }

    #[test]
    fn sha256_of_nothing_is_the_known_one() {
        assert!(sha256_hex(b"").starts_with("e3b0c44298fc1c149afbf4c8996fb924"));
    }

    #[test]
    fn an_srt_passphrase_has_the_length_that_srt_takes() {
        assert!((10..=79).contains(&credentials().passphrase.len()));
    }
}
