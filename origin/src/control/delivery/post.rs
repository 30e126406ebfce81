//! One request to an endpoint: resolve, check every address, connect to one that passed, ask once, listen for the status.
//!
//! Before this: `dispatch.rs`. After this: somebody else's server. Redirects are not followed, answers' bodies not read,
//! connections not kept: an endpoint gets nothing from this origin but the request.

use std::{fmt, future::Future, io, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::control::{
    guard::{BadUrl, Callable, Destination, Forbidden, Guard},
    webhook::SignedHeaders,
};

/// From the first look at the name to the answer's status (row H7).
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// Time to connect to one address before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 4;
/// Largest head of an answer, in bytes.
const HEAD_LIMIT: usize = 16 * 1024;

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("Weir/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A name's addresses, later.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Names to addresses. Asked exactly once per try: what it said then is what was checked and what is called.
pub trait Resolve: Send + Sync + 'static {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}

/// The machine's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|addr| addr.ip()).collect())
        })
    }
}

/// Why there is no answer. The text is what the delivery log shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("the URL can't be called: {0}")]
    Url(#[from] BadUrl),
    #[error("the host name has no address")]
    Unresolved,
    #[error("the host name leads to {0}, which is not called")]
    Forbidden(Forbidden),
    #[error("no connection could be made")]
    Unreachable,
    #[error("no TLS connection could be made: is the certificate valid for this name?")]
    Tls,
    #[error("the connection broke before the answer")]
    Broken,
    #[error("no answer within {} seconds", TIMEOUT.as_secs())]
    Timeout,
}

impl Failure {
    /// Label of a metric.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Url(_) | Self::Forbidden(_) => "forbidden",
            Self::Unresolved | Self::Unreachable => "unreachable",
            Self::Tls | Self::Broken => "failed",
            Self::Timeout => "timeout",
        }
    }
}

/// What became of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The answer's status, whatever it is.
    pub result: Result<u16, Failure>,
    pub took: Duration,
}

/// Makes requests to endpoints.
#[derive(Clone)]
pub struct Poster {
    guard: Arc<Guard>,
    resolver: Arc<dyn Resolve>,
    tls: TlsConnector,
    timeout: Duration,
}

impl fmt::Debug for Poster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poster")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

impl Poster {
    /// Trusts the certificate authorities that browsers trust.
    pub fn new(guard: Arc<Guard>) -> Result<Self, rustls::Error> {
        let roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        Self::trusting(guard, roots)
    }

    /// Trusts these certificate authorities.
    pub fn trusting(guard: Arc<Guard>, roots: RootCertStore) -> Result<Self, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            guard,
            resolver: Arc::new(SystemResolver),
            tls: Arc::new(config).into(),
            timeout: TIMEOUT,
        })
    }

    #[must_use]
    pub fn resolving_with(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Another time limit than [`TIMEOUT`].
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// One POST. Never longer than the time limit.
    pub async fn post(&self, url: &str, headers: &SignedHeaders, body: Bytes) -> Outcome {
        let started = Instant::now();
        let result = timeout(self.timeout, self.exchange(url, headers, body)).await;
        Outcome {
            result: result.unwrap_or(Err(Failure::Timeout)),
            took: started.elapsed(),
        }
    }

    async fn exchange(&self, url: &str, headers: &SignedHeaders, body: Bytes) -> Result<u16, Failure> {
        let to = Destination::parse(url, &self.guard)?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(to.target())
            .header(header::HOST, to.authority())
            .header(header::CONTENT_TYPE, JSON)
            .header(header::USER_AGENT, USER_AGENT);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body)).map_err(|_| Failure::Url(BadUrl::Form))?;

        let stream = self.connect(&to).await?;
        if to.is_https() {
            let name = ServerName::try_from(to.host().to_owned()).map_err(|_| Failure::Tls)?;
            let stream = self.tls.connect(name, stream).await.map_err(|_| Failure::Tls)?;
            ask(stream, request).await
        } else {
            ask(stream, request).await
        }
    }

    /// A connection to one of the addresses that were checked.
    async fn connect(&self, to: &Destination) -> Result<TcpStream, Failure> {
        let found = self
            .resolver
            .resolve(to.host())
            .await
            .map_err(|_| Failure::Unresolved)?;
        let mut refused = Failure::Unresolved;
        let mut callable: Vec<Callable> = Vec::new();
        for addr in found {
            match self.guard.check(addr) {
                Ok(addr) => callable.push(addr),
                Err(why) => refused = Failure::Forbidden(why),
            }
        }
        for addr in callable.into_iter().take(MAX_ADDRESSES) {
            refused = Failure::Unreachable;
            if let Ok(Ok(stream)) = timeout(CONNECT_TIMEOUT, TcpStream::connect((addr.addr(), to.port()))).await {
                return Ok(stream);
            }
        }
        Err(refused)
    }
}

async fn ask<S>(stream: S, request: Request<Full<Bytes>>) -> Result<u16, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_LIMIT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Failure::Broken)?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await.map_err(|_| Failure::Broken)?;
    Ok(response.status().as_u16())
}
