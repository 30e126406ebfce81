//! Edges that have this one as their parent: known by the fleet's credential, and let in to everything, because they ask
//! viewers for tickets themselves.
//!
//! Before this: `upstream.rs` of a child, which sends it. After this: `auth.rs`.

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use weir_shared::config::Secret;

const SCHEME: &str = "Bearer ";

/// Knows the fleet's own.
#[derive(Debug, Clone)]
pub struct Fleet(
    /// Hash of what they send. `None`: without a credential there is no fleet.
    Option<[u8; 32]>,
);

impl Fleet {
    pub fn new(credential: Option<&Secret>) -> Self {
        Self(credential.map(|credential| hash(format!("{SCHEME}{}", credential.reveal()).as_bytes())))
    }

    /// Compares in constant time: hashes, whatever is sent.
    pub fn knows(&self, headers: &HeaderMap) -> bool {
        let (Some(expected), Some(sent)) = (&self.0, headers.get(AUTHORIZATION)) else {
            return false;
        };
        hash(sent.as_bytes()).ct_eq(expected).into()
    }
}

/// What an edge says to its parents and to origins. `None`: it can't be sent in a header.
pub fn authorization(credential: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("{SCHEME}{}", credential.reveal())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_credential_itself_is_known() {
        let credential = Secret::new("known to the fleet alone");
        let fleet = Fleet::new(Some(&credential));
        let sends = |value: &HeaderValue| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.clone());
            headers
        };
        let own = authorization(&credential).unwrap();
        assert!(fleet.knows(&sends(&own)));
        assert!(!Fleet::new(None).knows(&sends(&own)), "no fleet, no member");
        assert!(!fleet.knows(&HeaderMap::new()));
        for other in [
            "Bearer known to the fleet alon",
            "bearer known to the fleet alone",
            "Bearer ",
            "known to the fleet alone",
        ] {
            assert!(!fleet.knows(&sends(&HeaderValue::from_static(other))), "{other}");
        }
        assert!(!format!("{own:?} {credential:?}").contains("known"));
    }
}
