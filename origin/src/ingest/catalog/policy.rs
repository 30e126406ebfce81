//! What an origin must know of one stream to judge a publish. Pure data; no password and no token is in it, only what
//! they can be checked with. The passphrase of SRT is: it encrypts.
//!
//! Before this: the configuration or the control plane. After this: `ingest/admission/judge.rs`.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use weir_shared::id::StreamKey;

use crate::ingest::{
    Slot, Transport,
    secret::{Secret, same},
};

/// Longest user name, password or token, in bytes.
pub const CREDENTIAL_MAX: usize = 128;
/// Length of a passphrase, in bytes (SRT, "passphrase").
pub const PASSPHRASE_BYTES: std::ops::RangeInclusive<usize> = 10..=79;
/// Tokens of one slot that are good at the same time: the new one and those being phased out.
pub const TOKENS_MAX: usize = 8;

/// One stream as admission sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPolicy {
    pub key: StreamKey,
    /// `false`: nobody may publish, and whoever does is ended.
    pub active: bool,
    /// Whoever knows the key may publish, without a password or a token.
    pub allow_key_only: bool,
    pub primary: Secrets,
    pub backup: Secrets,
    /// Encoders over SRT have to lock their payloads with it; knowing it lets them in to either slot. `None`: they must not
    /// lock them. The one secret that is kept as it is: keys are made of it.
    pub passphrase: Option<Secret>,
    pub ports: OwnPorts,
    pub on_rotate: OnRotate,
    pub takeover: Takeover,
    /// How much of the past its viewers may go back in. `None`: no more than every live playlist lists. Taken up when the
    /// stream's next life begins.
    pub dvr: Option<Duration>,
    /// `None`: those of the configuration file.
    pub timers: Option<Timers>,
}

/// How long a stream waits for its publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Once it is gone.
    pub grace: Duration,
    /// While it is connected and sends nothing.
    pub idle: Duration,
}

/// What opens one slot of a stream: any one of these.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Secrets {
    pub credential: Option<Credential>,
    /// At most [`TOKENS_MAX`].
    pub tokens: Vec<TokenHash>,
}

/// Ports that belong to the stream alone: of TCP, for SRT of UDP. `None`: one of the configured range, if there is a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OwnPorts {
    pub rtmp: Option<u16>,
    pub rtmps: Option<u16>,
    pub srt: Option<u16>,
}

impl OwnPorts {
    pub const fn of(&self, transport: Transport) -> Option<u16> {
        match transport {
            Transport::Rtmp => self.rtmp,
            Transport::Rtmps => self.rtmps,
            Transport::Srt => self.srt,
        }
    }

    pub const fn set(&mut self, transport: Transport, port: u16) {
        match transport {
            Transport::Rtmp => self.rtmp = Some(port),
            Transport::Rtmps => self.rtmps = Some(port),
            Transport::Srt => self.srt = Some(port),
        }
    }

    /// All that are there.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        [self.rtmp, self.rtmps, self.srt].into_iter().flatten()
    }
}

/// What becomes of a running publish whose credentials were replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRotate {
    /// It goes on; the next connect needs the new ones.
    #[default]
    Keep,
    /// It is ended.
    Kick,
}

/// What happens when a slot has a publisher already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Takeover {
    /// The newest wins: a ghost session never blocks a reconnect.
    #[default]
    Takeover,
    /// The first stays.
    Refuse,
    /// The newest wins unless the other proved more: a password outranks a token, a token the bare key.
    Priority,
}

impl StreamPolicy {
    /// A stream that anybody who knows its key may publish.
    pub fn open(key: StreamKey) -> Self {
        Self {
            key,
            active: true,
            allow_key_only: true,
            primary: Secrets::default(),
            backup: Secrets::default(),
            passphrase: None,
            ports: OwnPorts::default(),
            on_rotate: OnRotate::default(),
            takeover: Takeover::default(),
            dvr: None,
            timers: None,
        }
    }

    pub const fn secrets(&self, slot: Slot) -> &Secrets {
        match slot {
            Slot::Primary => &self.primary,
            Slot::Backup => &self.backup,
        }
    }

    /// Whether encoders that show nothing have to be asked for a user name and a password.
    pub fn challenges(&self) -> bool {
        self.active && !self.allow_key_only && self.credentials().next().is_some()
    }

    /// Every user name and password there is, with the slot it opens.
    pub fn credentials(&self) -> impl Iterator<Item = (Slot, &Credential)> {
        let of = |slot: Slot| self.secrets(slot).credential.as_ref().map(move |c| (slot, c));
        Slot::ALL.into_iter().filter_map(of)
    }

    /// Whether there is nothing to check but the key.
    pub fn has_no_secrets(&self) -> bool {
        Slot::ALL
            .iter()
            .map(|slot| self.secrets(*slot))
            .all(|s| s.credential.is_none() && s.tokens.is_empty())
    }
}

/// A user name, and what its password is checked with.
///
/// The digest is `base64(md5(user + salt + password))`: the Adobe dialogue allows no other, and it serves the plain check
/// too. Whoever steals it can answer a challenge, so it is kept like a password; generated passwords can't be found from it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    username: String,
    salt: String,
    digest: String,
}

impl Credential {
    pub fn new(username: &str, password: &str, salts: &SaltSecret) -> Self {
        let salt = salts.salt_of(username);
        Self {
            digest: password_digest(username, &salt, password),
            username: username.to_owned(),
            salt,
        }
    }

    /// From what a store kept: see [`Credential::parts`].
    pub fn from_parts(username: String, salt: String, digest: String) -> Self {
        Self { username, salt, digest }
    }

    /// User name, salt and digest, for a store.
    pub fn parts(&self) -> (&str, &str, &str) {
        (&self.username, &self.salt, &self.digest)
    }

    pub fn username(&self) -> &str {
        &self.username
    }

    pub fn salt(&self) -> &str {
        &self.salt
    }

    /// The plain check.
    pub fn is(&self, username: &str, password: &str) -> bool {
        let found = password_digest(&self.username, &self.salt, password);
        same(self.username.as_bytes(), username.as_bytes()) & same(self.digest.as_bytes(), found.as_bytes())
    }

    /// The Adobe check: `response` = base64(md5(digest + opaque + the client's nonce)).
    pub fn answers(&self, opaque: &str, nonce: &str, response: &str) -> bool {
        let wanted = base64_md5(&[&self.digest, opaque, nonce]);
        same(wanted.as_bytes(), response.as_bytes())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(***)")
    }
}

fn password_digest(username: &str, salt: &str, password: &str) -> String {
    base64_md5(&[username, salt, password])
}

fn base64_md5(pieces: &[&str]) -> String {
    let mut hash = Md5::new();
    for piece in pieces {
        hash.update(piece.as_bytes());
    }
    STANDARD.encode(hash.finalize())
}

/// What every user's salt is derived from, so that the salt of a user who does not exist looks like any other.
#[derive(Clone)]
pub struct SaltSecret([u8; 32]);

impl SaltSecret {
    /// A store that keeps credentials keeps this with them.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// For credentials that are made anew at every start.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The same for the same user for ever: rotating a password does not change it.
    pub fn salt_of(&self, username: &str) -> String {
        let tag = hmac_sha256(&self.0, &[username.as_bytes()]);
        URL_SAFE_NO_PAD.encode(&tag[..9])
    }
}

impl fmt::Debug for SaltSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaltSecret(***)")
    }
}

/// HMAC-SHA256 over the pieces, one after another.
pub(crate) fn hmac_sha256(key: &[u8], pieces: &[&[u8]]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    for piece in pieces {
        mac.update(piece);
    }
    mac.finalize().into_bytes().into()
}

/// SHA-256 of a token. Tokens are long and random: nothing slower is needed.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// From what a store kept.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        same(&self.0, &other.0)
    }
}

impl Eq for TokenHash {}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(***)")
    }
}

/// Whether a user name, password or token reaches us unchanged from every encoder: some decode percent signs and some
/// don't, `?`, `&`, `@`, `:` and `/` end a field.
pub fn is_credential_text(text: &str) -> bool {
    (1..=CREDENTIAL_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_checked_without_being_kept() {
        let credential = Credential::new("anna", "opensesame", &SaltSecret::new([7; 32]));
        assert!(credential.is("anna", "opensesame"));
        for (user, password) in [("anna", "opensesamE"), ("bert", "opensesame"), ("anna", ""), ("", "")] {
            assert!(!credential.is(user, password));
        }
        assert!(!format!("{credential:?} {:?}", credential.parts()).contains("opensesame"));
        let (user, salt, digest) = credential.parts();
        let kept = Credential::from_parts(user.to_owned(), salt.to_owned(), digest.to_owned());
        assert_eq!(kept, credential);
    }

    /// Computed with Python's hashlib after FFmpeg's `do_adobe_auth`.
    #[test]
    fn the_adobe_answer_is_that_of_ffmpeg() {
        let credential = Credential::from_parts(
            "anna".into(),
            "c2FsdA".into(),
            password_digest("anna", "c2FsdA", "opensesame"),
        );
        assert_eq!(credential.digest, "G9iepDPi8OLDmOEBI3o/xQ==");
        assert!(credential.answers("T3BhcXVl", "0a1b2c3d", "JHwSnK3Gijluuc0lYuKEwA=="));
        assert!(!credential.answers("T3BhcXVm", "0a1b2c3d", "JHwSnK3Gijluuc0lYuKEwA=="));
    }

    #[test]
    fn salts_are_stable_and_differ_by_user() {
        let salts = SaltSecret::new([1; 32]);
        assert_eq!(salts.salt_of("anna"), salts.salt_of("anna"));
        assert_ne!(salts.salt_of("anna"), salts.salt_of("bert"));
        assert_ne!(salts.salt_of("anna"), SaltSecret::new([2; 32]).salt_of("anna"));
    }

    #[test]
    fn only_text_that_every_encoder_sends_unchanged_is_fit() {
        assert!(is_credential_text("Anna_1-2.x"));
        for bad in [
            "",
            "a b",
            "a%20",
            "a+b",
            "a/b",
            "a?b",
            "a&b",
            "a@b",
            "a:b",
            "ä",
            &"x".repeat(129),
        ] {
            assert!(!is_credential_text(bad), "{bad:?}");
        }
    }
}
