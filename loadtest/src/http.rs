//! Requests of simulated viewers over HTTP/1.1, 2 and 3, at very little cost per viewer.
//!
//! Before this: [`crate::fleet`]. After this: the server under test. Bodies are never kept unless they are playlists:
//! they are counted and hashed as they come, in one receive buffer per thread.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{ClientConfig, crypto::ring, pki_types::ServerName};
use url::Url;

use crate::{
    headers::Headers,
    viewer::{Answer, Failure, MediaBody, Purpose, RequestId},
};

mod h1;
mod h2;
mod h3;
mod response;
mod trust;

pub use response::Sink;
pub use trust::AnyCertificate;

/// A reused connection that breaks within this time of a request was closed while idle; later, it was cut.
const IDLE_RACE: Duration = Duration::from_millis(100);

/// HTTP version that viewers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    H1,
    H2,
    H3,
}

impl Protocol {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
            Self::H3 => "h3",
        }
    }
}

/// Whose answers are looked at closely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verify {
    /// Hash the media bodies and read the headers of every n-th viewer; 0: nobody's.
    pub every: u32,
}

/// How one viewer asks, and how closely the answers are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Manners {
    /// Media bodies are hashed, headers are read.
    pub judged: bool,
    /// The multivariant playlist is asked for without gzip (rule HT-04); everything else always with it.
    pub plain_entry: bool,
}

impl Manners {
    fn takes_gzip(self, purpose: Purpose) -> bool {
        !(self.plain_entry && purpose == Purpose::Multivariant)
    }

    /// Where the headers of an answer are noted, if they are.
    fn headers(self, gzip: bool) -> Option<Headers> {
        self.judged.then(|| Headers::new(gzip))
    }
}

/// The server under test.
#[derive(Debug)]
pub struct Target {
    pub url: Url,
    pub protocol: Protocol,
    pub address: SocketAddr,
    /// `host:port` as it stands in requests.
    pub authority: String,
    server_name: ServerName<'static>,
    tls: Option<Arc<ClientConfig>>,
}

/// A URL that can't be tested, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum BadTarget {
    #[error("{0:?} is no URL: expected something like http://127.0.0.1:8080/app/show/index.m3u8")]
    Url(String),
    #[error("{0}:// is not spoken here: use http:// or https://")]
    Scheme(String),
    #[error("{host}: no address found ({source}); check the name")]
    Resolve { host: String, source: std::io::Error },
    #[error("--protocol h3 needs https://")]
    H3NeedsTls,
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl Target {
    /// Resolves the URL's host once. `insecure` accepts any certificate.
    pub fn new(url: &str, protocol: Protocol, insecure: bool) -> Result<Self, BadTarget> {
        let url = Url::parse(url).map_err(|_| BadTarget::Url(url.to_owned()))?;
        let secure = match url.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(BadTarget::Scheme(other.to_owned())),
        };
        if protocol == Protocol::H3 && !secure {
            return Err(BadTarget::H3NeedsTls);
        }
        let host = url.host_str().unwrap_or("").to_owned();
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let unresolved = |source| BadTarget::Resolve {
            host: host.clone(),
            source,
        };
        let address = (bare.as_str(), port)
            .to_socket_addrs()
            .map_err(unresolved)?
            .next()
            .ok_or_else(|| unresolved(std::io::Error::other("no address")))?;
        let server_name = ServerName::try_from(bare).map_err(|_| BadTarget::Url(url.to_string()))?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host,
        };
        let tls = if secure {
            Some(Arc::new(client_config(protocol, insecure)?))
        } else {
            None
        };
        Ok(Self {
            url,
            protocol,
            address,
            authority,
            server_name,
            tls,
        })
    }
}

fn client_config(protocol: Protocol, insecure: bool) -> Result<ClientConfig, rustls::Error> {
    let mut provider = ring::default_provider();
    // As browsers on processors with AES do.
    provider
        .cipher_suites
        .sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("AES_128"));
    let provider = Arc::new(provider);
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let mut config = if insecure {
        let any = Arc::new(AnyCertificate::new(provider));
        builder
            .dangerous()
            .with_custom_certificate_verifier(any)
            .with_no_client_auth()
    } else {
        let mut roots = rustls::RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        builder.with_root_certificates(roots).with_no_client_auth()
    };
    config.alpn_protocols = match protocol {
        Protocol::H1 => vec![b"http/1.1".to_vec()],
        Protocol::H2 => vec![b"h2".to_vec()],
        Protocol::H3 => vec![b"h3".to_vec()],
    };
    Ok(config)
}

/// A whole answer, owned.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub location: Option<String>,
    pub gzip: bool,
    pub headers: Option<Headers>,
    pub text: Vec<u8>,
    pub media: MediaBody,
    pub first_byte: crate::moment::Moment,
    pub at: crate::moment::Moment,
}

impl Response {
    pub fn as_answer(&self) -> Answer<'_> {
        Answer {
            status: self.status,
            location: self.location.as_deref(),
            gzip: self.gzip,
            headers: self.headers,
            text: &self.text,
            media: self.media,
            first_byte: self.first_byte,
            at: self.at,
        }
    }
}

/// A request that came to an end.
#[derive(Debug)]
pub struct Done {
    pub id: RequestId,
    pub result: Result<Box<Response>, Failure>,
}

/// One viewer's connections.
pub enum Wire {
    H1(h1::Wire),
    H2(h2::Wire),
    H3(h3::Wire),
}

impl Wire {
    pub fn new(target: Arc<Target>, manners: Manners) -> Self {
        match target.protocol {
            Protocol::H1 => Self::H1(h1::Wire::new(target, manners)),
            Protocol::H2 => Self::H2(h2::Wire::new(target, manners)),
            Protocol::H3 => Self::H3(h3::Wire::new(target, manners)),
        }
    }

    pub fn send(&mut self, id: RequestId, path: &str, purpose: Purpose) {
        match self {
            Self::H1(wire) => wire.send(id, path, purpose),
            Self::H2(wire) => wire.send(id, path, purpose),
            Self::H3(wire) => wire.send(id, path, purpose),
        }
    }

    pub fn cancel(&mut self, id: RequestId) {
        match self {
            Self::H1(wire) => wire.cancel(id),
            Self::H2(wire) => wire.cancel(id),
            Self::H3(wire) => wire.cancel(id),
        }
    }

    /// The next request that came to an end. `buffer` is the thread's receive buffer.
    pub fn poll(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Done> {
        match self {
            Self::H1(wire) => wire.poll(cx, buffer),
            Self::H2(wire) => wire.poll(cx, buffer),
            Self::H3(wire) => wire.poll(cx),
        }
    }
}
