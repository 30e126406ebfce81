//! Signatures, each computed once: whatever a stream's secrets have signed is remembered by its hash, within a bound.
//!
//! Before this: `auth.rs`, with credentials nobody has looked at. After this: [`weir_shared::playback`]. What is remembered
//! is only that a text is genuine: times and addresses are compared anew with every request, and a stream's record that
//! changes (new secrets, say) makes all of it forgotten.

use std::{fs, net::IpAddr, path::PathBuf, sync::Arc};

use http::{HeaderMap, HeaderName, header, request::Parts};
use moka::future::Cache;
use sha2::{Digest as _, Sha256};
use weir_shared::{
    directory::{RecordVersion, StreamRecord},
    playback::{
        Invalid, jwt,
        ome::{self, SignedAddress},
        policy::Policy,
        range::AddressRange,
        session::{self, Session},
        ticket,
    },
    serve::Peer,
};

use super::{credentials::Credentials, external::External};
use crate::{
    config::{Algorithm, Playback},
    metrics::Metrics,
};

const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Why the section `playback` can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadPlayback {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Key(#[from] jwt::BadKey),
}

/// A text that one of its stream's secrets has signed.
#[derive(Clone)]
struct Verified<T> {
    /// The record that held the secret.
    version: RecordVersion,
    content: T,
}

/// SHA-256 over form, stream and text.
type TextHash = [u8; 32];

/// Checks signatures, for all listeners.
pub struct Verifier {
    policies: Cache<TextHash, Verified<Policy>>,
    sessions: Cache<TextHash, Verified<Session>>,
    tokens: jwt::Checker,
    ome_origin: Option<String>,
    trusted_proxies: Vec<AddressRange>,
    external: Option<External>,
    metrics: Arc<Metrics>,
}

/// Which kind of signature it is, as a metric label.
#[derive(Clone, Copy)]
enum Form {
    Policy,
    Ome,
    Jwt,
    Session,
}

impl Form {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Ome => "ome",
            Self::Jwt => "jwt",
            Self::Session => "session",
        }
    }
}

impl Verifier {
    /// Reads the public keys, if any are configured.
    pub fn new(config: &Playback, metrics: Arc<Metrics>) -> Result<Self, BadPlayback> {
        let audience = config.jwt.audience.clone();
        let tokens = match config.jwt.algorithm {
            Algorithm::HS256 => jwt::Checker::hs256(audience),
            Algorithm::RS256 => {
                let read = |path: &PathBuf| {
                    fs::read(path).map_err(|source| BadPlayback::File {
                        path: path.clone(),
                        source,
                    })
                };
                let keys: Vec<_> = config.jwt.public_keys.iter().map(read).collect::<Result<_, _>>()?;
                jwt::Checker::rs256(keys.iter().map(Vec::as_slice), audience)?
            }
        };
        Ok(Self {
            policies: Cache::new(config.max_verified),
            sessions: Cache::new(config.max_verified),
            tokens,
            ome_origin: config.ome_origin.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            external: (config.external_check.as_ref()).map(|check| External::new(check, metrics.clone())),
            metrics,
        })
    }

    pub(super) const fn external(&self) -> Option<&External> {
        self.external.as_ref()
    }

    /// The session that a ticket in a path stands for.
    pub(super) async fn session(&self, record: &StreamRecord, ticket: &str) -> Result<Session, Invalid> {
        if ticket.len() > session::MAX_LEN {
            return Err(Invalid::Malformed);
        }
        let verify = || session::verify(&record.key, &record.playback_secrets, ticket);
        self.once(&self.sessions, Form::Session, record, &[ticket], verify)
            .await
    }

    /// The policy that a signed query stands for.
    pub(super) async fn policy(
        &self,
        record: &StreamRecord,
        credentials: &Credentials<'_>,
        peer: Peer,
        request: &Parts,
    ) -> Result<Policy, Invalid> {
        let (key, secrets) = (&record.key, &record.playback_secrets);
        match *credentials {
            Credentials::Token(token) => {
                let verify = || self.tokens.verify(key, secrets, token);
                self.once(&self.policies, Form::Jwt, record, &[token], verify).await
            }
            Credentials::Policy { policy, signature } if signature.len() == ome::SIGNATURE_LEN => {
                let origin = match &self.ome_origin {
                    Some(origin) => origin.clone(),
                    None => origin_of(peer, request).ok_or(Invalid::Malformed)?,
                };
                let query = request.uri.query().unwrap_or_default();
                let address = SignedAddress {
                    origin: &origin,
                    path: request.uri.path(),
                    query,
                };
                let verify = || ome::verify(secrets, address, policy, signature);
                let text = [&*origin, address.path, query];
                self.once(&self.policies, Form::Ome, record, &text, verify).await
            }
            Credentials::Policy { policy, signature } => {
                let verify = || ticket::verify(key, secrets, policy, signature);
                let text = [policy, signature];
                self.once(&self.policies, Form::Policy, record, &text, verify).await
            }
        }
    }

    /// Who is watching, as the nearest proxy that is trusted tells it; else whoever is connected.
    pub(super) fn real_address(&self, peer: Peer, headers: &HeaderMap) -> IpAddr {
        let peer = peer.addr.ip();
        let trusted = |address: IpAddr| self.trusted_proxies.iter().any(|range| range.contains(address));
        if !trusted(peer) {
            return peer;
        }
        let told = headers.get(REAL_IP).and_then(|v| v.to_str().ok()?.trim().parse().ok());
        if let Some(real) = told {
            return real;
        }
        // Each proxy appends whom it heard it from: what stands before the last one we trust, anybody may have written.
        let hops = headers.get_all(FORWARDED_FOR).iter();
        let hops = hops.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
        let hops: Vec<_> = hops.map(|hop| hop.trim().parse::<IpAddr>()).collect();
        let mut real = peer;
        for hop in hops.into_iter().rev() {
            let Ok(hop) = hop else { break };
            real = hop;
            if !trusted(hop) {
                break;
            }
        }
        real
    }

    async fn once<T: Clone + Send + Sync + 'static>(
        &self,
        cache: &Cache<TextHash, Verified<T>>,
        form: Form,
        record: &StreamRecord,
        text: &[&str],
        verify: impl FnOnce() -> Result<T, Invalid>,
    ) -> Result<T, Invalid> {
        let hash = hash(form, record.key.as_str(), text);
        let known = cache.get(&hash).await;
        if let Some(known) = known.filter(|known| known.version == record.version) {
            self.count(form, "remembered");
            return Ok(known.content);
        }
        let verified = verify();
        self.count(form, if verified.is_ok() { "genuine" } else { "refused" });
        let content = verified?;
        let verified = Verified {
            version: record.version,
            content: content.clone(),
        };
        cache.insert(hash, verified).await;
        Ok(content)
    }

    fn count(&self, form: Form, result: &'static str) {
        self.metrics
            .auth_checks
            .with_label_values(&[form.as_str(), result])
            .inc();
    }
}

/// Each piece is preceded by its length: no two texts are the same bytes.
fn hash(form: Form, key: &str, text: &[&str]) -> TextHash {
    let mut hash = Sha256::new();
    for piece in [form.as_str(), key].iter().chain(text) {
        hash.update((piece.len() as u64).to_be_bytes());
        hash.update(piece);
    }
    hash.finalize().into()
}

/// Scheme, host and port as the viewer named them, the port written out.
fn origin_of(peer: Peer, request: &Parts) -> Option<String> {
    let (scheme, port) = if peer.secure { ("https", 443) } else { ("http", 80) };
    let named = request.headers.get(header::HOST).and_then(|v| v.to_str().ok());
    let authority: http::uri::Authority = match request.uri.authority() {
        Some(authority) => authority.clone(),
        None => named?.parse().ok()?,
    };
    let port = authority.port_u16().unwrap_or(port);
    Some(format!("{scheme}://{}:{port}", authority.host()))
}
