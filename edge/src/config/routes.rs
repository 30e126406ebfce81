//! `routes`: prefixes that belong to somebody else's origin.

use std::{num::NonZeroU32, path::PathBuf};

use serde::{Deserialize, Serialize};
use weir_shared::config::Fault;

/// Routes of one edge.
const MAX_ROUTES: usize = 256;
/// Characters of a name.
const MAX_NAME: usize = 64;
/// Upstreams of one route beside the first.
const MAX_BACKUPS: usize = 8;

/// Requests below a prefix go to another server, whose playlists are followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `/live`; `/`: everything.
    pub prefix: String,
    /// What metrics call it. `None`: the prefix without its outer slashes, or `root`.
    #[serde(default)]
    pub name: Option<String>,
    /// What the prefix stands for: `http://10.0.0.7:8888` or `https://origin.example/hls`.
    pub upstream: String,
    /// Servers that have the same at the same paths, without a path of their own.
    #[serde(default)]
    pub backups: Vec<String>,
    #[serde(default)]
    pub query: QueryRule,
    /// PEM file with the certificate authority of the upstream. `None`: those that browsers trust.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Requests a second for names that no playlist has named.
    #[serde(default = "Route::default_max_unknown_per_second")]
    pub max_unknown_per_second: NonZeroU32,
}

impl Route {
    /// With nothing but its two ends.
    pub fn new(prefix: impl Into<String>, upstream: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            name: None,
            upstream: upstream.into(),
            backups: Vec::new(),
            query: QueryRule::default(),
            ca: None,
            max_unknown_per_second: Self::default_max_unknown_per_second(),
        }
    }

    /// The value of the metric label `route`.
    pub fn label(&self) -> &str {
        match (&self.name, self.prefix.trim_matches('/')) {
            (Some(name), _) => name,
            (None, "") => "root",
            (None, prefix) => prefix,
        }
    }

    const fn default_max_unknown_per_second() -> NonZeroU32 {
        NonZeroU32::MIN.saturating_add(99)
    }
}

/// What a request's query (delivery directives apart) means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueryRule {
    /// Part of a name where a playlist gave it so; otherwise nothing.
    #[default]
    Named,
    /// Nothing: names that differ in it alone are one, and the upstream is asked with the query it gave first.
    Ignore,
    /// Always part of the name.
    Pass,
}

/// An address as scheme with authority and, without a slash at the end, path.
pub fn upstream_parts(address: &str) -> Option<(&str, &str)> {
    let address = address.trim_end_matches('/');
    let rest = address
        .strip_prefix("http://")
        .or_else(|| address.strip_prefix("https://"))?;
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    let authority = rest.strip_suffix(path)?;
    let parsed: http::uri::Authority = authority.parse().ok()?;
    let plain = !parsed.host().is_empty() && !authority.contains('@') && !path.contains(['?', '#', '%', ' ']);
    plain.then_some((address.strip_suffix(path)?, path))
}

pub(super) fn validate(routes: &[Route], faults: &mut Vec<Fault>) {
    let mut expect = |holds: bool, key: &str, expected: &str| {
        if !holds {
            faults.push(Fault::new(key, expected));
        }
    };
    expect(routes.len() <= MAX_ROUTES, "routes", "at most 256 of them");
    let mut prefixes: Vec<_> = routes.iter().map(|route| route.prefix.trim_end_matches('/')).collect();
    prefixes.sort_unstable();
    let before = prefixes.len();
    prefixes.dedup();
    let straight =
        |prefix: &str| prefix.is_empty() || (prefix.starts_with('/') && crate::route::place::is_straight(prefix));
    expect(
        prefixes.len() == before && routes.iter().all(|r| r.prefix.starts_with('/') && straight(&r.prefix)),
        "routes.prefix",
        "a path like /live, each one once",
    );
    let mut names: Vec<_> = routes.iter().map(Route::label).collect();
    names.sort_unstable();
    names.dedup();
    let named = |name: &str| (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
    expect(
        names.len() == routes.len() && names.into_iter().all(named),
        "routes.name",
        "1 to 64 printable characters without spaces, each one once; left out, the prefix counts",
    );
    expect(
        routes.iter().all(|route| upstream_parts(&route.upstream).is_some()),
        "routes.upstream",
        "an address like http://10.0.0.7:8888 or https://origin.example/hls",
    );
    let backup = |base: &String| upstream_parts(base).is_some_and(|(_, path)| path.is_empty());
    expect(
        routes
            .iter()
            .all(|route| route.backups.len() <= MAX_BACKUPS && route.backups.iter().all(backup)),
        "routes.backups",
        "at most 8 addresses like http://10.0.0.8:8888, without a path",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_apart() {
        for (address, parts) in [
            ("http://a:1", Some(("http://a:1", ""))),
            ("https://a/", Some(("https://a", ""))),
            ("http://[::1]:80/x/y/", Some(("http://[::1]:80", "/x/y"))),
            ("http://", None),
            ("ftp://a", None),
            ("http://u:p@a/", None),
            ("http://a/x?y", None),
        ] {
            assert_eq!(upstream_parts(address), parts, "{address}");
        }
    }

    #[test]
    fn every_fault_is_told() {
        let route = |prefix: &str, upstream: &str, backup: &str| Route {
            backups: vec![backup.to_owned()],
            ..Route::new(prefix, upstream)
        };
        let keys = |routes: &[Route]| {
            let mut faults = Vec::new();
            validate(routes, &mut faults);
            faults.into_iter().map(|fault| fault.key).collect::<Vec<_>>()
        };
        let good = route("/live", "http://a:1", "http://b:1");
        assert_eq!(
            keys(&[good.clone(), route("/", "http://a/x", "http://b")]),
            Vec::<String>::new()
        );
        assert_eq!(
            keys(&[good.clone(), route("/live/", "http://a", "http://b")]),
            ["routes.prefix", "routes.name"]
        );
        let called = |name: &str| Route {
            name: Some(name.to_owned()),
            ..route("/other", "http://a", "http://b")
        };
        assert_eq!(keys(&[good.clone(), called("packager")]), Vec::<String>::new());
        for bad in ["live", "", "a b", &"x".repeat(65)] {
            assert_eq!(keys(&[good.clone(), called(bad)]), ["routes.name"], "{bad}");
        }
        assert_eq!(
            keys(&[route("live", "a:1", "http://b/x"), good]),
            ["routes.prefix", "routes.name", "routes.upstream", "routes.backups"]
        );
    }
}
