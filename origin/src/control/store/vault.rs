//! Secrets that the API shows again (push credentials, passphrases, playback and webhook secrets) lie in the database
//! encrypted: ChaCha20-Poly1305 (RFC 8439) under a key that is in a file of its own. Whoever gets hold of the database, of a
//! backup or of a replica alone can neither push nor sign.
//!
//! Each text is bound to what it belongs to (the stream's or endpoint's id): moved to another row it does not open.
//! Without a key secrets are kept as they are; what was written so stays readable once there is one.
//!
//! Before this: `streams.rs`, `delivery/endpoints.rs`. API keys and fleet credentials are not here: of them only hashes are
//! kept, or nothing.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::Rng as _;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::StoreError;

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// How an encrypted text begins; plain ones are JSON or begin with `whsec_`.
const MARK: &str = "sealed1:";

/// Shuts secrets away and takes them out again.
#[derive(Clone, Default)]
pub struct Vault(Option<Arc<LessSafeKey>>);

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Vault(…)" } else { "Vault(open)" })
    }
}

/// Why a key file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadKeyFile {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{0}: expected 32 bytes in base64url")]
    Content(PathBuf),
}

impl Vault {
    /// Secrets are kept as they are.
    pub fn open() -> Self {
        Self::default()
    }

    /// Under the key of a file, which every origin of the fleet has.
    pub fn with_key_file(path: &Path) -> Result<Self, BadKeyFile> {
        let text = fs::read_to_string(path).map_err(|source| BadKeyFile::File {
            path: path.to_owned(),
            source,
        })?;
        Self::with_key(text.trim()).ok_or_else(|| BadKeyFile::Content(path.to_owned()))
    }

    /// The same; makes the file, for its owner's eyes only, if it is not there.
    pub fn with_own_key_file(path: &Path) -> Result<Self, BadKeyFile> {
        use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
        let mut options = fs::OpenOptions::new();
        let made = options.write(true).create_new(true).mode(0o600).open(path);
        let written = match made {
            Ok(mut file) => {
                let mut key = [0; KEY_BYTES];
                rand::rng().fill_bytes(&mut key);
                // A key that is lost takes every secret with it: on the disk before anything is shut away with it.
                writeln!(file, "{}", URL_SAFE_NO_PAD.encode(key)).and_then(|()| file.sync_all())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        };
        written.map_err(|source| BadKeyFile::File {
            path: path.to_owned(),
            source,
        })?;
        Self::with_key_file(path)
    }

    fn with_key(text: &str) -> Option<Self> {
        let key = URL_SAFE_NO_PAD.decode(text).ok()?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).ok()?;
        Some(Self(Some(Arc::new(LessSafeKey::new(key)))))
    }

    /// `about`: what the secret belongs to.
    pub fn shut(&self, about: &str, secret: String) -> Result<String, StoreError> {
        let Some(key) = &self.0 else { return Ok(secret) };
        // Drawn at random: 2^32 of them may be used with one key (NIST SP 800-38D, section 8.3, for the same length).
        let mut nonce = [0; NONCE_LEN];
        rand::rng().fill_bytes(&mut nonce);
        let mut text = secret.into_bytes();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(about), &mut text)
            .map_err(|_| StoreError::Locked)?;
        let sealed = [nonce.as_slice(), &text].concat();
        Ok(format!("{MARK}{}", URL_SAFE_NO_PAD.encode(sealed)))
    }

    pub fn take_out(&self, about: &str, kept: String) -> Result<String, StoreError> {
        let Some(sealed) = kept.strip_prefix(MARK) else {
            return Ok(kept);
        };
        let key = self.0.as_ref().ok_or(StoreError::Locked)?;
        let sealed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| StoreError::Locked)?;
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or(StoreError::Locked)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| StoreError::Locked)?;
        let mut text = text.to_vec();
        let opened = key
            .open_in_place(nonce, Aad::from(about), &mut text)
            .map_err(|_| StoreError::Locked)?;
        String::from_utf8(opened.to_vec()).map_err(|_| StoreError::Locked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(byte: u8) -> Vault {
        Vault::with_key(&URL_SAFE_NO_PAD.encode([byte; KEY_BYTES])).expect("a key")
    }

    #[test]
    fn a_secret_opens_with_its_key_where_it_belongs_and_nowhere_else() {
        let shut = vault(7).shut("str_1", "opensesame".to_owned()).unwrap();
        assert!(!shut.contains("opensesame"));
        assert_ne!(shut, vault(7).shut("str_1", "opensesame".to_owned()).unwrap());
        assert_eq!(vault(7).take_out("str_1", shut.clone()).unwrap(), "opensesame");
        for (vault, about, kept) in [
            (vault(8), "str_1", shut.clone()),
            (vault(7), "str_2", shut.clone()),
            (Vault::open(), "str_1", shut.clone()),
            (vault(7), "str_1", shut[..shut.len() - 1].to_owned()),
            (vault(7), "str_1", format!("{shut}A")),
            (vault(7), "str_1", MARK.to_owned()),
            (vault(7), "str_1", format!("{MARK}!")),
        ] {
            assert!(matches!(vault.take_out(about, kept), Err(StoreError::Locked)));
        }
    }

    #[test]
    fn what_was_kept_before_there_was_a_key_is_still_readable() {
        let plain = Vault::open().shut("str_1", "{}".to_owned()).unwrap();
        assert_eq!(vault(7).take_out("str_1", plain).unwrap(), "{}");
    }

    #[test]
    fn a_key_file_is_made_once_and_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = std::env::temp_dir().join(format!("weir-vault-{}.key", std::process::id()));
        let first = Vault::with_own_key_file(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        let shut = first.shut("a", "b".to_owned()).unwrap();
        let again = Vault::with_own_key_file(&path).unwrap().take_out("a", shut).unwrap();
        fs::write(&path, "short").unwrap();
        let bad = Vault::with_key_file(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!((mode & 0o777, again.as_str()), (0o600, "b"));
        assert!(matches!(bad, Err(BadKeyFile::Content(_))));
        assert!(matches!(Vault::with_key_file(&path), Err(BadKeyFile::File { .. })));
    }
}
