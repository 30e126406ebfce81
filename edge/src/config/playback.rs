//! How viewers prove that they may watch: the section `playback`.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use weir_shared::{
    config::{Fault, HumanDuration},
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
    /// Who is asked about viewers without a ticket. `None`: nobody, they are refused.
    pub external_check: Option<ExternalCheck>,
}

/// A site's own program that says who may watch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalCheck {
    /// `http://127.0.0.1:9000/may-watch`
    pub url: String,
    /// Time for an answer.
    #[serde(default = "ExternalCheck::default_timeout")]
    pub timeout: HumanDuration,
    /// How long a viewer may stay before the next question.
    #[serde(default = "ExternalCheck::default_session")]
    pub session: HumanDuration,
    /// Questions at once.
    #[serde(default = "ExternalCheck::default_max_in_flight")]
    pub max_in_flight: usize,
    /// Answers kept.
    #[serde(default = "ExternalCheck::default_max_kept")]
    pub max_kept: u64,
}

impl ExternalCheck {
    /// With everything else as it is by default.
    pub fn new(url: String) -> Self {
        Self {
            url,
            timeout: Self::default_timeout(),
            session: Self::default_session(),
            max_in_flight: Self::default_max_in_flight(),
            max_kept: Self::default_max_kept(),
        }
    }

    const fn default_timeout() -> HumanDuration {
        HumanDuration(Duration::from_secs(1))
    }

    const fn default_session() -> HumanDuration {
        HumanDuration(Duration::from_secs(12 * 3600))
    }

    const fn default_max_in_flight() -> usize {
        256
    }

    const fn default_max_kept() -> u64 {
        100_000
    }
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
            external_check: None,
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
        let Some(check) = &self.external_check else { return };
        let url: Option<http::Uri> = check.url.parse().ok();
        expect(
            url.is_some_and(|url| url.scheme_str() == Some("http") && url.host().is_some()),
            "playback.external_check.url",
            "an address like http://127.0.0.1:9000/may-watch",
        );
        let within = |time: &HumanDuration, least: u64, most: u64| {
            (Duration::from_millis(least)..=Duration::from_millis(most)).contains(&time.0)
        };
        expect(
            within(&check.timeout, 10, 10_000),
            "playback.external_check.timeout",
            "10ms to 10s",
        );
        expect(
            within(&check.session, 1000, 7 * 24 * 3_600_000),
            "playback.external_check.session",
            "1s to 168h",
        );
        expect(
            (1..=10_000).contains(&check.max_in_flight),
            "playback.external_check.max_in_flight",
            "1 to 10000",
        );
        expect(
            (1..=10_000_000).contains(&check.max_kept),
            "playback.external_check.max_kept",
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
