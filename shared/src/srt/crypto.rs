//! Payload encryption (draft-sharabayko-srt-01, section 6): AES-CTR under keys that come wrapped in key material messages.
//! Pure.
//!
//! A passphrase and the salt of a message give the key that wraps (PBKDF2, HMAC-SHA1); it opens the keys that lock
//! payloads, an even and an odd one in turn, so that an encoder can change keys under way.
//!
//! Before this: `srt/hello.rs` and `srt/wire.rs`. After this: the origin's `srt/session.rs`, the harness's `srt/caller.rs`.

use aes::{
    Aes128, Aes192, Aes256,
    cipher::{InnerIvInit as _, KeyInit as _, StreamCipherCore as _},
};
use ctr::{CtrCore, flavors::Ctr128BE};
use sha1::Sha1;

use super::{sequence::Sequence, wire::Encryption};
use crate::config::Secret;

/// Rounds of PBKDF2 (section 6.1.4).
const ROUNDS: u32 = 2048;
/// Bytes of the salt that the wrapping key is made with: its last ones.
pub const SALT_BYTES: usize = 16;
const KEK_SALT_BYTES: usize = 8;
/// Bytes of the salt that go into counters.
const NONCE_BYTES: usize = 14;
/// Where a packet's number stands in its counter block.
const NUMBER_AT: usize = 10;
/// What RFC 3394 puts before wrapped keys.
const WRAP_BYTES: usize = 8;
/// A key material message: fixed fields, salt, wrapping, and two keys of 32 bytes.
const MESSAGE_MAX: usize = 16 + SALT_BYTES + WRAP_BYTES + 2 * 32;
/// Answer to a key refresh that could not be read: KM state "bad secret" (section 3.2.2).
pub const BAD_SECRET_STATE: [u8; 4] = [0, 0, 0, 4];

/// Why key material is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("malformed key material")]
    Malformed,
    #[error("key material for another cipher than AES-CTR")]
    Cipher,
    #[error("the passphrase is wrong")]
    WrongPassphrase,
}

/// A key material message, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Message<'a> {
    even: bool,
    odd: bool,
    salt: [u8; SALT_BYTES],
    key_bytes: usize,
    wrapped: &'a [u8],
}

impl<'a> Message<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, KeyError> {
        if bytes.len() > MESSAGE_MAX {
            return Err(KeyError::Malformed);
        }
        let (fields, rest) = bytes.split_first_chunk::<16>().ok_or(KeyError::Malformed)?;
        let &[
            kind,
            sign_a,
            sign_b,
            flags,
            _,
            _,
            _,
            _,
            cipher,
            auth,
            carrier,
            _,
            _,
            _,
            salt_words,
            key_words,
        ] = fields;
        // Version 1, key material, "HAI", for SRT.
        if (kind, sign_a, sign_b, carrier) != (0x12, 0x20, 0x29, 2) {
            return Err(KeyError::Malformed);
        }
        if (cipher, auth) != (2, 0) {
            return Err(KeyError::Cipher);
        }
        let (even, odd) = (flags & 1 != 0, flags & 2 != 0);
        let key_bytes = usize::from(key_words) * 4;
        let keys = usize::from(even) + usize::from(odd);
        let (salt, wrapped) = rest.split_first_chunk().ok_or(KeyError::Malformed)?;
        let sound = matches!(key_bytes, 16 | 24 | 32)
            && keys > 0
            && usize::from(salt_words) * 4 == SALT_BYTES
            && wrapped.len() == WRAP_BYTES + keys * key_bytes;
        if !sound {
            return Err(KeyError::Malformed);
        }
        Ok(Self {
            even,
            odd,
            salt: *salt,
            key_bytes,
            wrapped,
        })
    }
}

/// AES with any of its key lengths.
#[derive(Clone)]
enum Cipher {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

impl Cipher {
    fn new(key: &[u8]) -> Result<Self, KeyError> {
        match key.len() {
            16 => Aes128::new_from_slice(key).map(Self::Aes128),
            24 => Aes192::new_from_slice(key).map(Self::Aes192),
            _ => Aes256::new_from_slice(key).map(Self::Aes256),
        }
        .map_err(|_| KeyError::Malformed)
    }

    fn apply(&self, counter: &[u8; 16], payload: &mut [u8]) {
        match self {
            Self::Aes128(aes) => {
                CtrCore::<_, Ctr128BE>::inner_iv_init(aes, counter.into()).apply_keystream_partial(payload.into())
            }
            Self::Aes192(aes) => {
                CtrCore::<_, Ctr128BE>::inner_iv_init(aes, counter.into()).apply_keystream_partial(payload.into())
            }
            Self::Aes256(aes) => {
                CtrCore::<_, Ctr128BE>::inner_iv_init(aes, counter.into()).apply_keystream_partial(payload.into())
            }
        }
    }
}

/// A key that locks payloads.
struct StreamKey {
    cipher: Cipher,
    nonce: [u8; NONCE_BYTES],
}

impl StreamKey {
    /// Section 6.2.2: the packet's number in zeros, the salt over it, the last two bytes count blocks.
    fn counter(&self, sequence: Sequence) -> [u8; 16] {
        let mut counter = [0; 16];
        for (to, from) in counter.iter_mut().skip(NUMBER_AT).zip(sequence.raw().to_be_bytes()) {
            *to = from;
        }
        for (to, from) in counter.iter_mut().zip(self.nonce) {
            *to ^= from;
        }
        counter
    }
}

/// The keys of one session.
pub struct Keyring {
    passphrase: Secret,
    even: Option<StreamKey>,
    odd: Option<StreamKey>,
    /// The wrapping key, and what it was made with: encoders keep their salt when they change keys.
    wrapping: ([u8; SALT_BYTES], Vec<u8>),
    /// Messages are repeated until they are answered.
    last_message: Vec<u8>,
    /// Stream keys changed so far.
    refreshes: u64,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring(***)")
    }
}

impl Keyring {
    /// From a handshake's key material. It takes a millisecond or two of computing.
    pub fn unlock(passphrase: &str, message: &[u8]) -> Result<Self, KeyError> {
        let mut keyring = Self {
            passphrase: Secret::new(passphrase),
            even: None,
            odd: None,
            wrapping: ([0; SALT_BYTES], Vec::new()),
            last_message: Vec::new(),
            refreshes: 0,
        };
        keyring.take(message)?;
        Ok(keyring)
    }

    /// A message under way: one new key, or both.
    pub fn refresh(&mut self, message: &[u8]) -> Result<(), KeyError> {
        if self.last_message != message {
            self.take(message)?;
            self.refreshes += 1;
        }
        Ok(())
    }

    /// The message to be echoed as an answer.
    pub fn message(&self) -> &[u8] {
        &self.last_message
    }

    pub const fn refreshes(&self) -> u64 {
        self.refreshes
    }

    /// Opens a payload in place, or locks it: the two are the same. `false`: that key is not known.
    pub fn open(&self, encryption: Encryption, sequence: Sequence, payload: &mut [u8]) -> bool {
        let key = match encryption {
            Encryption::None => return true,
            Encryption::Even => &self.even,
            Encryption::Odd => &self.odd,
        };
        if let Some(key) = key {
            key.cipher.apply(&key.counter(sequence), payload);
        }
        key.is_some()
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), KeyError> {
        let message = Message::parse(bytes)?;
        let (salt, wrapping) = &self.wrapping;
        if *salt != message.salt || wrapping.len() != message.key_bytes {
            let key = wrapping_key(self.passphrase.reveal(), &message.salt, message.key_bytes);
            self.wrapping = (message.salt, key);
        }
        let keys = unwrap(&self.wrapping.1, message.wrapped)?;
        let mut nonce = [0; NONCE_BYTES];
        for (to, from) in nonce.iter_mut().zip(message.salt) {
            *to = from;
        }
        let mut keys = keys.chunks_exact(message.key_bytes);
        let mut next = || {
            let key = keys.next().ok_or(KeyError::Malformed)?;
            let cipher = Cipher::new(key)?;
            Ok(Some(StreamKey { cipher, nonce }))
        };
        if message.even {
            self.even = next()?;
        }
        if message.odd {
            self.odd = next()?;
        }
        self.last_message = bytes.to_vec();
        Ok(())
    }
}

/// What an encoder sends to announce keys of 16, 24 or 32 bytes, both of one length (section 3.2.2).
pub fn announcement(
    passphrase: &str,
    salt: &[u8; SALT_BYTES],
    even: Option<&[u8]>,
    odd: Option<&[u8]>,
) -> Result<Vec<u8>, KeyError> {
    let flags = u8::from(even.is_some()) | u8::from(odd.is_some()) << 1;
    let key_bytes = even.or(odd).map_or(0, <[u8]>::len);
    let keys = [even.unwrap_or_default(), odd.unwrap_or_default()].concat();
    let mut bytes = vec![0x12, 0x20, 0x29, flags, 0, 0, 0, 0, 2, 0, 2, 0, 0, 0];
    bytes.extend([(SALT_BYTES / 4) as u8, (key_bytes / 4) as u8]);
    bytes.extend(salt);
    let mut wrapped = vec![0; keys.len() + WRAP_BYTES];
    let wrapping = wrapping_key(passphrase, salt, key_bytes);
    let done = match wrapping.len() {
        16 => aes_kw::KwAes128::new_from_slice(&wrapping).map(|kw| kw.wrap_key(&keys, &mut wrapped).is_ok()),
        24 => aes_kw::KwAes192::new_from_slice(&wrapping).map(|kw| kw.wrap_key(&keys, &mut wrapped).is_ok()),
        _ => aes_kw::KwAes256::new_from_slice(&wrapping).map(|kw| kw.wrap_key(&keys, &mut wrapped).is_ok()),
    };
    bytes.extend(wrapped);
    // Of keys that are none, or differ in length, no sound message comes.
    match done {
        Ok(true) => Message::parse(&bytes).map(drop)?,
        _ => return Err(KeyError::Malformed),
    }
    Ok(bytes)
}

fn wrapping_key(passphrase: &str, salt: &[u8; SALT_BYTES], key_bytes: usize) -> Vec<u8> {
    let mut key = vec![0; key_bytes];
    let salt = &salt[SALT_BYTES - KEK_SALT_BYTES..];
    pbkdf2::pbkdf2_hmac::<Sha1>(passphrase.as_bytes(), salt, ROUNDS, &mut key);
    key
}

/// RFC 3394. Its check value tells a wrong key, and with it a wrong passphrase.
fn unwrap(wrapping: &[u8], wrapped: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut keys = vec![0; wrapped.len().saturating_sub(WRAP_BYTES)];
    let opened = match wrapping.len() {
        16 => aes_kw::KwAes128::new_from_slice(wrapping).map(|kw| kw.unwrap_key(wrapped, &mut keys).is_ok()),
        24 => aes_kw::KwAes192::new_from_slice(wrapping).map(|kw| kw.unwrap_key(wrapped, &mut keys).is_ok()),
        _ => aes_kw::KwAes256::new_from_slice(wrapping).map(|kw| kw.unwrap_key(wrapped, &mut keys).is_ok()),
    };
    match opened {
        Ok(true) => Ok(keys),
        Ok(false) => Err(KeyError::WrongPassphrase),
        Err(_) => Err(KeyError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [u8; SALT_BYTES] = *b"0123456789abcdef";

    const PASSPHRASE: &str = "correct horse battery";

    fn message(passphrase: &str, even: Option<&[u8]>, odd: Option<&[u8]>) -> Vec<u8> {
        announcement(passphrase, &SALT, even, odd).unwrap()
    }

    /// What an encoder makes of a payload: the counter as the draft says it, written down once more.
    fn locked(key: &[u8], sequence: u32, payload: &[u8]) -> Vec<u8> {
        let number = sequence.to_be_bytes();
        let mut counter = [0; 16];
        counter[..14].copy_from_slice(&SALT[..14]);
        for (n, byte) in number.into_iter().enumerate() {
            counter[10 + n] ^= byte;
        }
        let mut locked = payload.to_vec();
        Cipher::new(key).unwrap().apply(&counter, &mut locked);
        locked
    }

    #[test]
    fn keys_of_every_length_open_what_they_locked() {
        for length in [16, 24, 32] {
            let (even, odd) = (vec![1; length], vec![2; length]);
            let mut keys = Keyring::unlock(PASSPHRASE, &message("correct horse battery", Some(&even), None)).unwrap();
            let sequence = Sequence::new(77);
            let mut payload = locked(&even, 77, b"some transport packets");
            assert!(keys.open(Encryption::Even, sequence, &mut payload));
            assert_eq!(payload, b"some transport packets");
            assert!(!keys.open(Encryption::Odd, sequence, &mut payload));

            // The next key comes beside the one in use, and later alone.
            let both = message("correct horse battery", Some(&even), Some(&odd));
            for announced in [&both, &both, &message("correct horse battery", None, Some(&odd))] {
                keys.refresh(announced).unwrap();
                assert_eq!(keys.message(), announced.as_slice());
            }
            assert_eq!(keys.refreshes(), 2);
            let mut payload = locked(&odd, 78, b"more of them");
            assert!(keys.open(Encryption::Odd, Sequence::new(78), &mut payload));
            assert_eq!(payload, b"more of them");
        }
    }

    #[test]
    fn a_wrong_passphrase_and_broken_key_material_are_told_apart() {
        let good = message("correct horse battery", Some(&[1; 16]), None);
        let wrong = message("correct horse batterY", Some(&[1; 16]), None);
        let unlock = |bytes: &[u8]| Keyring::unlock(PASSPHRASE, bytes).map(|_| ());
        assert_eq!(unlock(&wrong), Err(KeyError::WrongPassphrase));
        for length in 0..good.len() {
            assert_eq!(unlock(&good[..length]), Err(KeyError::Malformed), "{length}");
        }
        assert_eq!(unlock(&[&good[..], &[0; 200]].concat()), Err(KeyError::Malformed));
        for (at, value, error) in [
            (0, 0x13, KeyError::Malformed),
            (8, 3, KeyError::Cipher),
            (15, 5, KeyError::Malformed),
        ] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert_eq!(unlock(&bytes), Err(error), "byte {at}");
        }
        // A refresh that can't be read leaves the keys as they are.
        let mut keys = Keyring::unlock(PASSPHRASE, &good).unwrap();
        assert_eq!(keys.refresh(&wrong), Err(KeyError::WrongPassphrase));
        let mut payload = locked(&[1; 16], 5, b"still open");
        assert!(keys.open(Encryption::Even, Sequence::new(5), &mut payload));
        assert_eq!(payload, b"still open");
    }
}
