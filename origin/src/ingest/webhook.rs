//! The admission webhook: an operator's own say on every publish. Asked once at connect, told once at the end; never in
//! the frame path.
//!
//! Every question is its own task's wait and its own connection: a slow answer delays nobody else. Questions at a time are
//! bounded; one too many fails at once.
//!
//! Before this: `ingest/admission.rs`, `webhook/message.rs`. After this: the operator's server.

pub mod message;

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem::PemObject as _},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tracing::{debug, info, warn};

pub use message::{Asked, Question, Style};
use message::{BadAnswer, Status};

use super::{Refusal, admission::Metrics, redacted, secret::Secret};

/// Questions under way at a time.
pub const IN_FLIGHT_MAX: usize = 256;
/// Largest answer, in bytes.
const ANSWER_MAX: usize = 64 << 10;

/// What becomes of a publish when there is no clear answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fail {
    /// It is refused.
    #[default]
    Closed,
    /// It is let in, on its credentials alone.
    Open,
}

/// What a webhook is made from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `http://` or `https://`.
    pub url: Uri,
    pub secret: Secret,
    pub timeout: Duration,
    pub fail: Fail,
    pub style: Style,
}

/// Why a webhook can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("the URL is http:// or https:// with a host")]
    Url,
    #[error("the host can't be checked against a certificate: {0}")]
    Host(#[from] InvalidDnsNameError),
    #[error("TLS can't be used: {0}")]
    Tls(#[from] rustls::Error),
    #[error("{path}: {source}")]
    Authority {
        path: String,
        source: rustls::pki_types::pem::Error,
    },
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("no answer in time")]
    TimedOut,
    #[error("{IN_FLIGHT_MAX} questions under way already")]
    Crowded,
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("{0}")]
    Bad(#[from] BadAnswer),
}

/// Asks the operator's server. Cheap to clone.
#[derive(Clone)]
pub struct Webhook(Arc<Inner>);

struct Inner {
    settings: Settings,
    authority: String,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    in_flight: Semaphore,
}

impl Webhook {
    /// `authority`: a PEM file with the certificates to trust instead of the system's.
    pub fn new(settings: Settings, authority: Option<&Path>) -> Result<Self, SetupError> {
        let secure = match settings.url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(SetupError::Url),
        };
        let found = settings.url.authority().ok_or(SetupError::Url)?.clone();
        let host = found.host().trim_matches(['[', ']']).to_owned();
        let tls = if secure {
            let connector = TlsConnector::from(Arc::new(client_config(authority)?));
            Some((connector, ServerName::try_from(host.clone())?))
        } else {
            None
        };
        Ok(Self(Arc::new(Inner {
            settings,
            port: found.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            authority: found.to_string(),
            host,
            tls,
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
        })))
    }

    /// Waits for the verdict on a publish, at most the configured time.
    pub async fn ask(&self, question: &Question, metrics: &Metrics) -> Result<Asked, Refusal> {
        let started = Instant::now();
        let answer = self.0.put(question, Status::Opening).await;
        metrics.webhook_seconds.observe(started.elapsed().as_secs_f64());
        let outcome = match &answer {
            Ok(asked) if asked.key.is_some() => "rewritten",
            Ok(_) => "allowed",
            Err(NoAnswer::Bad(BadAnswer::Denied(_))) => "denied",
            Err(NoAnswer::TimedOut) => "timed_out",
            Err(NoAnswer::Crowded) => "crowded",
            Err(_) => "failed",
        };
        metrics.webhook.with_label_values(&[outcome]).inc();
        let key = redacted(&question.key);
        match answer {
            Ok(asked) => Ok(asked),
            Err(NoAnswer::Bad(BadAnswer::Denied(reason))) => {
                info!(key, reason, "the admission webhook denied a publish");
                Err(Refusal::WebhookDenied)
            }
            Err(error) => {
                let open = self.0.settings.fail == Fail::Open;
                warn!(key, %error, let_in = open, "the admission webhook gave no answer");
                if open {
                    Ok(Asked::default())
                } else {
                    Err(Refusal::WebhookFailed)
                }
            }
        }
    }

    /// Tells that a publish has ended. Nobody waits for it; when there is no room it is left out.
    pub fn tell_closed(&self, question: Question) {
        let inner = self.0.clone();
        tokio::spawn(async move {
            if let Err(error) = inner.put(&question, Status::Closing).await {
                debug!(%error, "the admission webhook was not told of an end");
            }
        });
    }
}

impl Inner {
    async fn put(&self, question: &Question, status: Status) -> Result<Asked, NoAnswer> {
        let _slot = self.in_flight.try_acquire().map_err(|_| NoAnswer::Crowded)?;
        let body = question.body(self.settings.style, status, SystemTime::now());
        timeout(self.settings.timeout, self.post(body))
            .await
            .map_err(|_| NoAnswer::TimedOut)?
    }

    async fn post(&self, body: Vec<u8>) -> Result<Asked, NoAnswer> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            Some((connector, name)) => {
                self.exchange(connector.connect(name.clone(), stream).await?, body)
                    .await
            }
            None => self.exchange(stream, body).await,
        }
    }

    async fn exchange<S>(&self, stream: S, body: Vec<u8>) -> Result<Asked, NoAnswer>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Polled here and not in a task of its own: when we are dropped, so is the connection.
        let request = async {
            let response = sender.send_request(self.request(body)).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_MAX);
            let body = body.collect().await.map_err(NoAnswer::Body)?.to_bytes();
            Ok(message::verdict(status, &body)?)
        };
        let mut connection = std::pin::pin!(connection);
        let mut request = std::pin::pin!(request);
        tokio::select! {
            biased;
            answer = &mut request => return answer,
            ended = &mut connection => ended?,
        }
        request.await
    }

    fn request(&self, body: Vec<u8>) -> Request<Full<Bytes>> {
        let (name, value) = message::signature(self.settings.style, &self.settings.secret, &body);
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        let path = self.settings.url.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = value.parse() {
                headers.insert(name, value);
            }
        };
        set(header::HOST.as_str(), &self.authority);
        set(header::CONTENT_TYPE.as_str(), "application/json");
        set(header::USER_AGENT.as_str(), concat!("weir/", env!("CARGO_PKG_VERSION")));
        set(name, &value);
        request
    }
}

fn client_config(authority: Option<&Path>) -> Result<ClientConfig, SetupError> {
    let mut roots = RootCertStore::empty();
    match authority {
        Some(path) => {
            let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let found = found.map_err(|source| SetupError::Authority {
                path: path.display().to_string(),
                source,
            })?;
            roots.add_parsable_certificates(found);
        }
        // Those that can't be read are fewer to trust; an empty list is found out by the first question.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
