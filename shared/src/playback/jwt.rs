//! Tickets as JSON Web Tokens: HS256 with the stream's own secret, or RS256 with keys that a site publishes. Pure.
//!
//! Before this: a query's `token`. After this: [`policy`](super::policy), which the claims are turned into.
//!
//! One algorithm is pinned; what the token's header says is compared with it and chooses nothing. `jsonwebtoken` takes
//! tokens apart; the two signatures are computed by the crates that the rest of Weir uses (`hmac`, `ring`).
//!
//! | claim | meaning |
//! |---|---|
//! | `sub`, required | the stream's key |
//! | `exp`, required | `url_expire`, in seconds |
//! | `nbf` | `url_activate`, in seconds |
//! | `aud` | compared where an audience is configured, else passed over |
//! | `stream_expire`, `allow_ip`, `real_ip`, `preview` | as in a policy |

use std::{fmt, sync::Once};

use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Validation,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result as JwtResult},
    signature::{self, Verifier},
};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde::Deserialize;
use sha2::Sha256;

use super::{
    Invalid, TEXT_MAX, UnixMillis,
    policy::{Policy, Times},
    range::AddressRange,
};
use crate::{directory::PlaybackSecret, id::StreamKey};

/// Public keys that are tried, at most: enough to replace one while it is in use.
pub const MAX_KEYS: usize = 4;

/// Latest `exp` and `nbf` that are believed, in seconds: the year 5138.
const SECONDS_MAX: f64 = 100_000_000_000.0;

/// A PEM text that holds no usable public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an RSA public key of 2048 to 8192 bits in PEM form: {0}")]
pub struct BadKey(String);

/// The pinned algorithm, and what it needs.
enum Pinned {
    /// Keys are the streams' own secrets.
    Hs256,
    Rs256(Vec<DecodingKey>),
}

/// Checks tokens.
pub struct Checker {
    pinned: Pinned,
    audience: Option<String>,
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.pinned {
            Pinned::Hs256 => "Checker(HS256)",
            Pinned::Rs256(_) => "Checker(RS256)",
        })
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: StreamKey,
    exp: f64,
    nbf: Option<f64>,
    stream_expire: Option<u64>,
    allow_ip: Option<AddressRange>,
    real_ip: Option<AddressRange>,
    #[serde(default)]
    preview: bool,
}

impl Checker {
    /// Tokens signed with the streams' own secrets.
    pub fn hs256(audience: Option<String>) -> Self {
        install();
        Self {
            pinned: Pinned::Hs256,
            audience,
        }
    }

    /// Tokens signed with the private half of one of these keys (PEM, `PUBLIC KEY` or `RSA PUBLIC KEY`).
    pub fn rs256<'a>(keys: impl IntoIterator<Item = &'a [u8]>, audience: Option<String>) -> Result<Self, BadKey> {
        install();
        let keys = keys.into_iter().map(DecodingKey::from_rsa_pem);
        let keys: Vec<_> = keys.collect::<Result<_, _>>().map_err(|e| BadKey(e.to_string()))?;
        Ok(Self {
            pinned: Pinned::Rs256(keys),
            audience,
        })
    }

    /// The policy that the claims make, if the token was signed for this stream.
    pub fn verify(&self, key: &StreamKey, secrets: &[PlaybackSecret], token: &str) -> Result<Policy, Invalid> {
        if token.is_empty() || token.len() > TEXT_MAX {
            return Err(Invalid::Malformed);
        }
        let mut refused = Invalid::Signature;
        let mut check = |decoding: &DecodingKey, algorithm| match self.decode(key, token, decoding, algorithm) {
            // Another key may be right.
            Err(Invalid::Signature) => None,
            Err(why) => {
                refused = why;
                None
            }
            Ok(policy) => Some(policy),
        };
        let found = match &self.pinned {
            Pinned::Hs256 => secrets
                .iter()
                .filter(|secret| !secret.reveal().is_empty())
                .find_map(|secret| check(&DecodingKey::from_secret(secret.reveal().as_bytes()), Algorithm::HS256)),
            Pinned::Rs256(keys) => keys.iter().find_map(|key| check(key, Algorithm::RS256)),
        };
        found.ok_or(refused)
    }

    fn decode(
        &self,
        key: &StreamKey,
        token: &str,
        decoding: &DecodingKey,
        algorithm: Algorithm,
    ) -> Result<Policy, Invalid> {
        let mut validation = Validation::new(algorithm);
        // Times are compared with our own `now`, by the policy.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = self.audience.is_some();
        validation.sub = Some(key.as_str().to_owned());
        validation.set_required_spec_claims(&["exp", "sub"]);
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            validation.set_required_spec_claims(&["exp", "sub", "aud"]);
        }
        let token = jsonwebtoken::decode::<Claims>(token, decoding, &validation).map_err(|e| invalid(e.kind()))?;
        // RFC 7515, section 4.1.11: whoever does not understand what is critical refuses.
        if token.header.crit.is_some() || token.claims.sub != *key {
            return Err(Invalid::Malformed);
        }
        token.claims.policy().ok_or(Invalid::Malformed)
    }
}

impl Claims {
    fn policy(self) -> Option<Policy> {
        Some(Policy {
            url_expire: millis(self.exp)?,
            url_activate: self.nbf.map_or(Some(None), |nbf| millis(nbf).map(Some))?,
            stream_expire: self.stream_expire.map(|t| Times::Either.read(t)),
            allow_ip: self.allow_ip,
            real_ip: self.real_ip,
            preview: self.preview,
        })
    }
}

/// NumericDate (RFC 7519, section 2): seconds, with a fraction perhaps.
fn millis(seconds: f64) -> Option<UnixMillis> {
    (0.0..=SECONDS_MAX)
        .contains(&seconds)
        .then_some((seconds * 1000.0) as UnixMillis)
}

fn invalid(error: &ErrorKind) -> Invalid {
    match error {
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm | ErrorKind::InvalidAlgorithmName => {
            Invalid::Algorithm
        }
        ErrorKind::InvalidSignature | ErrorKind::InvalidSubject | ErrorKind::InvalidAudience => Invalid::Signature,
        _ => Invalid::Malformed,
    }
}

/// Lets `jsonwebtoken` use the signatures below. Once per process.
fn install() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: signer,
        verifier_factory: verifier,
        key_utils: KeyUtils::new_unimplemented(),
    };
    static ONCE: Once = Once::new();
    // A program that installed one of its own before keeps it.
    ONCE.call_once(|| {
        let _ = PROVIDER.install_default();
    });
}

/// Nothing is signed here: sites sign their tokens.
fn signer(_: &Algorithm, _: &EncodingKey) -> JwtResult<Box<dyn JwtSigner>> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> JwtResult<Box<dyn JwtVerifier>> {
    let of_its_family = algorithm.family() == key.family();
    match algorithm {
        Algorithm::HS256 if of_its_family => {
            let mac = Hmac::new_from_slice(key.try_get_as_bytes()?).map_err(|_| ErrorKind::InvalidKeyFormat)?;
            Ok(Box::new(Hs256(mac)))
        }
        Algorithm::RS256 if of_its_family => Ok(Box::new(Rs256(key.try_get_as_bytes()?.to_vec()))),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

struct Hs256(Hmac<Sha256>);

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let mac = self.0.clone().chain_update(message);
        mac.verify_slice(signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

/// PKCS #1 v1.5 with SHA-256; the public key in DER.
struct Rs256(Vec<u8>);

impl Verifier<Vec<u8>> for Rs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.0);
        key.verify(message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Rs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}

#[cfg(test)]
mod tests;
