//! Requests to origins: connections, limits, and which origin to ask.
//!
//! Before this: `cache/store.rs` and `live/follower.rs`, which want something. After this: the origin's `deliver`.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use moka::future::Cache;
use tokio::time::{Instant, timeout_at};
use weir_shared::{hls::address::Address, serve::respond};

use crate::{directory::Directory, metrics::Metrics};

/// Time to connect to an origin.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest reason of an origin's refusal that is passed on, in bytes.
const REASON_LIMIT: usize = 1024;
/// Idle connections kept to one origin.
const IDLE_CONNECTIONS: usize = 256;
/// How long an origin that failed is asked last.
const PENALTY: Duration = Duration::from_secs(2);
/// Origins of which it is remembered that they failed.
const MAX_PENALTIES: u64 = 1024;

/// Why an origin's answer can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    #[error("no origin could be reached")]
    Unreachable,
    #[error("the origin did not answer in time")]
    Timeout,
    #[error("the origin's answer is larger than the limit for its kind")]
    TooLarge,
    #[error("the origin broke off its answer")]
    Broken,
    #[error("the origin answered something that was not asked for")]
    Unexpected,
}

/// An origin's whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// Why an origin said no, if it told so shortly and in JSON: fit to be passed on to a viewer.
    pub fn into_reason(self) -> Option<Bytes> {
        let told = self.headers.get(header::CONTENT_TYPE) == Some(&respond::JSON_TYPE);
        Some(self.body).filter(|body| told && body.len() <= REASON_LIMIT)
    }
}

/// The origins of this edge.
pub struct Upstream {
    client: Client<HttpConnector, Empty<Bytes>>,
    /// Base addresses.
    origins: Vec<String>,
    /// Knows which origin has which stream; `None`: any may.
    directory: Option<Arc<Directory>>,
    /// Origins that failed lately: asked last.
    failed: Cache<String, ()>,
    metrics: Arc<Metrics>,
}

impl Upstream {
    pub fn new(origins: &[String], directory: Option<Arc<Directory>>, metrics: Arc<Metrics>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            // Shorter than an origin keeps an idle connection: reuse never meets a closing one.
            .pool_idle_timeout(Duration::from_secs(8))
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self {
            client,
            origins: origins.iter().map(|base| trimmed(base)).collect(),
            directory,
            failed: Cache::builder()
                .max_capacity(MAX_PENALTIES)
                .time_to_live(PENALTY)
                .build(),
            metrics,
        }
    }

    /// Asks the origins in order, those that failed lately last, until one has an answer other than 404 or 5xx. Where
    /// none has, the first of those is the answer; an error if there was none at all.
    pub async fn get(&self, path: &str, deadline: Instant, limit: usize) -> Result<Answer, UpstreamError> {
        let mut refused = None;
        let mut failure = UpstreamError::Unreachable;
        for origin in self.candidates(path).await {
            self.metrics.upstream_in_flight.inc();
            let result = match timeout_at(deadline, self.ask(&origin, path, limit)).await {
                Ok(result) => result,
                Err(_) => Err(UpstreamError::Timeout),
            };
            self.metrics.upstream_in_flight.dec();
            self.metrics.upstream.with_label_values(&[outcome(&result)]).inc();
            match result {
                Ok(answer) if answer.status == StatusCode::NOT_FOUND || answer.status.is_server_error() => {
                    refused.get_or_insert(answer);
                }
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    self.failed.insert(origin, ()).await;
                    failure = error;
                }
            }
        }
        refused.ok_or(failure)
    }

    /// Whom to ask: first those that own the stream, then the others; of each, those that failed lately last.
    async fn candidates(&self, path: &str) -> Vec<String> {
        let (path, _) = path.split_once('?').unwrap_or((path, ""));
        let key = Address::parse(path).map(|address| address.key);
        let owners = match (&self.directory, key) {
            (Some(directory), Some(key)) => directory.origins(&key).await,
            _ => Vec::new(),
        };
        let (mut well, mut failed) = (Vec::new(), Vec::new());
        for base in owners
            .iter()
            .map(|base| trimmed(base))
            .chain(self.origins.iter().cloned())
        {
            if well.contains(&base) || failed.contains(&base) {
                continue;
            }
            match self.failed.get(&base).await {
                None => well.push(base),
                Some(()) => failed.push(base),
            }
        }
        well.append(&mut failed);
        well
    }

    async fn ask(&self, origin: &str, path: &str, limit: usize) -> Result<Answer, UpstreamError> {
        let uri: Uri = format!("{origin}{path}")
            .parse()
            .map_err(|_| UpstreamError::Unreachable)?;
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri;
        let response = self.client.request(request).await.map_err(|error| {
            tracing::debug!(%error, "an origin could not be asked");
            match error.is_connect() {
                true => UpstreamError::Unreachable,
                false => UpstreamError::Broken,
            }
        })?;
        let (head, mut body) = response.into_parts();
        let announced = head
            .headers
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.parse::<usize>().ok());
        if announced.is_some_and(|n| n > limit) {
            return Err(UpstreamError::TooLarge);
        }
        let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| UpstreamError::Broken)?;
            if let Some(data) = frame.data_ref() {
                if bytes.len() + data.len() > limit {
                    return Err(UpstreamError::TooLarge);
                }
                bytes.extend_from_slice(data);
            }
        }
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: bytes.freeze(),
        })
    }
}

fn trimmed(base: &str) -> String {
    base.trim_end_matches('/').to_owned()
}

fn outcome(result: &Result<Answer, UpstreamError>) -> &'static str {
    match result {
        Ok(answer) if answer.status.is_success() => "ok",
        Ok(_) => "refused",
        Err(UpstreamError::Timeout) => "timeout",
        Err(_) => "failed",
    }
}
