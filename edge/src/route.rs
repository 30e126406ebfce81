//! A static route: the edge's machinery in front of somebody else's LL-HLS origin. What an object is, is learnt from the
//! playlists that name it.
//!
//! Read in the order of a request: [`routes`] → [`rendition`] (how a playlist is followed) → [`view`] (what viewers see);
//! [`place`] and [`range`] are pure.

pub mod place;
pub mod range;
pub mod rendition;
pub mod routes;
pub mod view;

use std::sync::Arc;

use anyhow::Context as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use weir_shared::hls::outline::Span;

use crate::{
    config,
    upstream::{Resource, RouteClient, Upstream, Via, jar::Jar},
};

pub use config::QueryRule;

/// Where requests below a prefix go.
pub struct Route {
    /// `/live`, or empty: everything.
    pub prefix: String,
    /// What metrics call it.
    pub name: String,
    /// Path of the upstream that the prefix stands for; empty or with a leading slash and none at the end.
    pub base_path: String,
    /// Scheme and authority, in the order of asking.
    pub upstreams: Vec<Arc<str>>,
    pub query: QueryRule,
    /// Trusts the route's own authority.
    pub(crate) client: Option<RouteClient>,
    pub(crate) jar: Arc<Jar>,
    guesses: DefaultDirectRateLimiter,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Route({:?} to {:?})", self.prefix, self.upstreams)
    }
}

impl Route {
    /// Reads the authority's file, if there is one.
    pub fn new(config: &config::Route, upstream: &Upstream) -> anyhow::Result<Self> {
        let (first, base_path) = config::upstream_parts(&config.upstream)
            .with_context(|| format!("routes: {}: not an address", config.upstream))?;
        let backups = config.backups.iter().map(|base| base.trim_end_matches('/').into());
        let client = match &config.ca {
            None => None,
            Some(path) => {
                let mut roots = RootCertStore::empty();
                let unreadable = || format!("routes: ca: {}", path.display());
                for certificate in CertificateDer::pem_file_iter(path).with_context(unreadable)? {
                    roots
                        .add(certificate.with_context(unreadable)?)
                        .with_context(unreadable)?;
                }
                Some(upstream.client_trusting(roots)?)
            }
        };
        Ok(Self {
            prefix: config.prefix.trim_end_matches('/').to_owned(),
            name: config.label().to_owned(),
            base_path: base_path.to_owned(),
            upstreams: std::iter::once(first.into()).chain(backups).collect(),
            query: config.query,
            client,
            jar: Arc::default(),
            guesses: RateLimiter::direct(Quota::per_second(config.max_unknown_per_second)),
        })
    }

    /// What is left of a path below the prefix: empty or with a leading slash.
    pub fn rest<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(&self.prefix)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }

    /// Whether the upstream may be asked for something that no playlist has named.
    pub(crate) fn may_guess(&self) -> bool {
        self.guesses.check().is_ok()
    }

    /// What is kept under `key`, at an address of this edge (path and query).
    pub fn resource(self: &Arc<Self>, key: &Arc<str>, address: &str, span: Option<Span>) -> Resource {
        let rest = self.rest(address).unwrap_or_default();
        let key = match span {
            None => key.clone(),
            // No request has this character in its path.
            Some(Span { first, length }) => format!("{key}#{first}+{}", length.unwrap_or(0)).into(),
        };
        Resource {
            key,
            via: Via::Route {
                route: self.clone(),
                path: format!("{}{rest}", self.base_path).into(),
                span,
            },
        }
    }

    /// The key of an address of this edge (path and query).
    pub fn key<'a>(&self, address: &'a str) -> &'a str {
        match self.query {
            QueryRule::Ignore => address.split('?').next().unwrap_or(address),
            QueryRule::Named | QueryRule::Pass => address,
        }
    }
}
