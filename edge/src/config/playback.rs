//! How viewers prove that they may watch: the section `playback`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use weir_shared::{
    config::Fault,
    playback::{jwt::MAX_KEYS, range::AddressRange},
};

/// Most proxies' ranges.
const MAX_PROXIES: usize = 64;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Playback {
    pub jwt: Jwt,
    /// Scheme, host and port with which addresses are signed in OvenMediaEngine's form. `None`: those of the request.
    pub ome_origin: Option<String>,
    /// Whose `X-Real-IP` and `X-Forwarded-For` are believed.
    pub trusted_proxies: Vec<AddressRange>,
    /// Tickets whose signature is not computed again.
    pub max_verified: u64,
}

/// Signature algorithm of tokens. The one that is not configured is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Algorithm {
    /// With the stream's own secret.
    #[default]
    HS256,
    /// With the private half of a key in `public_keys`.
    RS256,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    pub algorithm: Algorithm,
    /// PEM files, for RS256: the present one, and those it replaces or is replaced by.
    pub public_keys: Vec<PathBuf>,
    /// What `aud` has to be. `None`: it is not looked at.
    pub audience: Option<String>,
}

impl Default for Playback {
    fn default() -> Self {
        Self {
            jwt: Jwt::default(),
            ome_origin: None,
            trusted_proxies: Vec::new(),
            max_verified: 100_000,
        }
    }
}

impl Playback {
    pub(super) fn check(&self, faults: &mut Vec<Fault>) {
        let mut expect = |holds: bool, key: &str, expected: &str| {
            if !holds {
                faults.push(Fault::new(key, expected));
            }
        };
        let keys = match self.jwt.algorithm {
            Algorithm::HS256 => 0..=0,
            Algorithm::RS256 => 1..=MAX_KEYS,
        };
        expect(
            keys.contains(&self.jwt.public_keys.len()),
            "playback.jwt.public_keys",
            "1 to 4 PEM files with RS256, none with HS256",
        );
        expect(
            self.ome_origin.as_deref().is_none_or(is_written_out),
            "playback.ome_origin",
            "scheme, host and port, like https://edge.example.com:443",
        );
        expect(
            self.trusted_proxies.len() <= MAX_PROXIES,
            "playback.trusted_proxies",
            "at most 64 ranges",
        );
        expect(
            (1..=10_000_000).contains(&self.max_verified),
            "playback.max_verified",
            "1 to 10000000",
        );
    }
}

/// `scheme://host:port` and nothing else.
fn is_written_out(origin: &str) -> bool {
    let authority = origin
        .split_once("://")
        .map(|(_, rest)| rest.parse::<http::uri::Authority>());
    authority.is_some_and(|a| a.is_ok_and(|a| a.port_u16().is_some() && !a.as_str().contains('@')))
}
