//! Asking a site's own program whether a viewer may come in, as nginx's `auth_request` does: its status is the answer.
//!
//! Before this: `auth.rs`, with a request that carries no ticket. After this: whatever answers at `playback.external_check.url`.
//!
//! What is asked is the stream, the address and the viewer's own credentials (cookies, `Authorization`). An answer is kept for
//! as long as its own `Cache-Control` says, for exactly the same question. No answer in time, too many questions at once, or an
//! answer that is neither yes nor no: the viewer is not let in.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant as StdInstant},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri,
    header::{AUTHORIZATION, CACHE_CONTROL, COOKIE},
    request::Parts,
};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use moka::{Expiry, future::Cache};
use sha2::{Digest as _, Sha256};
use tokio::{sync::Semaphore, time::timeout};
use weir_shared::id::StreamKey;

use crate::{config::ExternalCheck, metrics::Metrics, refusal::Refusal};

const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const STREAM_KEY: HeaderName = HeaderName::from_static("x-stream-key");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// What is passed on of the viewer's own headers, and part of the question.
const PASSED_ON: [HeaderName; 2] = [AUTHORIZATION, COOKIE];

/// Longest time an answer is kept, whatever it says.
const LONGEST_LIFE: Duration = Duration::from_secs(3600);
/// Bytes of an answer's body that are read, so that its connection can be used again. Nobody looks at them.
const BODY_LIMIT: usize = 16 * 1024;
const IDLE_CONNECTIONS: usize = 64;

/// What the site says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    /// 401 or 403.
    No(StatusCode),
}

#[derive(Clone)]
struct Kept {
    answer: Answer,
    life: Duration,
}

/// Each answer has a life of its own.
struct OwnLife;

impl Expiry<[u8; 32], Kept> for OwnLife {
    fn expire_after_create(&self, _: &[u8; 32], kept: &Kept, _: StdInstant) -> Option<Duration> {
        Some(kept.life)
    }
}

/// Asks.
pub(super) struct External {
    client: Client<HttpConnector, Empty<Bytes>>,
    url: Uri,
    deadline: Duration,
    /// How long a viewer who was let in may stay before being asked again.
    pub(super) session: Duration,
    questions: Semaphore,
    kept: Cache<[u8; 32], Kept>,
    metrics: Arc<Metrics>,
}

impl External {
    pub(super) fn new(config: &ExternalCheck, metrics: Arc<Metrics>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(config.timeout.0));
        Self {
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .pool_idle_timeout(Duration::from_secs(8))
                .pool_timer(TokioTimer::new())
                .build(connector),
            url: config.url.parse().unwrap_or_default(),
            deadline: config.timeout.0,
            session: config.session.0,
            questions: Semaphore::new(config.max_in_flight),
            kept: Cache::builder()
                .max_capacity(config.max_kept)
                .expire_after(OwnLife)
                .build(),
            metrics,
        }
    }

    /// Whether the viewer may come in.
    pub(super) async fn ask(&self, key: &StreamKey, real: IpAddr, request: &Parts) -> Result<(), Refusal> {
        let headers = question(key, real, request).ok_or(Refusal::CheckUnavailable)?;
        let hash = hash(&headers);
        let (answer, result) = match self.kept.get(&hash).await {
            Some(kept) => (Ok(kept.answer), "remembered"),
            None => self.exchange(headers, hash).await,
        };
        self.metrics.external_checks.with_label_values(&[result]).inc();
        match answer? {
            Answer::Yes => Ok(()),
            Answer::No(status) => Err(Refusal::NotAllowed(status)),
        }
    }

    async fn exchange(&self, headers: HeaderMap, hash: [u8; 32]) -> (Result<Answer, Refusal>, &'static str) {
        let Ok(_slot) = self.questions.try_acquire() else {
            return (Err(Refusal::CheckUnavailable), "shed");
        };
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = headers;
        let exchange = async {
            let (head, body) = self.client.request(request).await.ok()?.into_parts();
            // Only for the sake of the connection.
            let _ = Limited::new(body, BODY_LIMIT).collect().await;
            Some(head)
        };
        let Ok(Some(head)) = timeout(self.deadline, exchange).await else {
            return (Err(Refusal::CheckUnavailable), "failed");
        };
        let (answer, result) = match head.status {
            status if status.is_success() => (Answer::Yes, "allowed"),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => (Answer::No(status), "refused"),
            _ => return (Err(Refusal::CheckUnavailable), "failed"),
        };
        let life = lifetime(&head.headers);
        if !life.is_zero() {
            self.kept.insert(hash, Kept { answer, life }).await;
        }
        (Ok(answer), result)
    }
}

/// The headers that are sent: all there is to a question.
fn question(key: &StreamKey, real: IpAddr, request: &Parts) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let uri = request.uri.path_and_query().map_or("/", |uri| uri.as_str());
    headers.insert(ORIGINAL_URI, HeaderValue::try_from(uri).ok()?);
    headers.insert(ORIGINAL_METHOD, HeaderValue::try_from(request.method.as_str()).ok()?);
    headers.insert(STREAM_KEY, HeaderValue::try_from(key.as_str()).ok()?);
    headers.insert(REAL_IP, HeaderValue::try_from(real.to_string()).ok()?);
    for name in PASSED_ON {
        for value in request.headers.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    Some(headers)
}

fn hash(headers: &HeaderMap) -> [u8; 32] {
    let mut hash = Sha256::new();
    for name in [ORIGINAL_URI, ORIGINAL_METHOD, STREAM_KEY, REAL_IP]
        .iter()
        .chain(&PASSED_ON)
    {
        let values: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        hash.update((values.len() as u64).to_be_bytes());
        for value in values {
            hash.update((value.len() as u64).to_be_bytes());
            hash.update(value);
        }
    }
    hash.finalize().into()
}

/// For how long an answer may be kept (RFC 9111, section 5.2.2): not at all unless it says so.
fn lifetime(headers: &HeaderMap) -> Duration {
    let (mut own, mut shared) = (None, None);
    let directives = headers.get_all(CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok());
    for directive in directives.flat_map(|value| value.split(',')) {
        let (name, value) = directive.trim().split_once('=').unwrap_or((directive.trim(), ""));
        let seconds = || value.trim_matches('"').parse().ok().map(Duration::from_secs);
        match name.to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return Duration::ZERO,
            "max-age" => own = seconds(),
            "s-maxage" => shared = seconds(),
            _ => {}
        }
    }
    shared.or(own).unwrap_or_default().min(LONGEST_LIFE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_for_as_long_as_it_says() {
        for (value, seconds) in [
            ("max-age=5", 5),
            ("private, Max-Age=\"5\"", 5),
            ("s-maxage=7, max-age=5", 7),
            ("max-age=5, no-store", 0),
            ("no-cache", 0),
            ("max-age=-1", 0),
            ("public", 0),
            ("max-age=99999999", 3600),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(value));
            assert_eq!(lifetime(&headers).as_secs(), seconds, "{value}");
        }
        assert_eq!(lifetime(&HeaderMap::new()), Duration::ZERO);
    }

    #[test]
    fn another_viewer_is_another_question() {
        let ask = |uri: &str, cookie: &'static str, real: [u8; 4]| {
            let request = Request::builder()
                .uri(uri)
                .header("cookie", cookie)
                .header("user-agent", "any");
            let (parts, ()) = request.body(()).unwrap().into_parts();
            hash(&question(&"show".parse().unwrap(), real.into(), &parts).unwrap())
        };
        let one = ask("/app/show/index.m3u8?a", "s=1", [10, 0, 0, 1]);
        assert_eq!(one, ask("/app/show/index.m3u8?a", "s=1", [10, 0, 0, 1]));
        for other in [
            ask("/app/show/index.m3u8?b", "s=1", [10, 0, 0, 1]),
            ask("/app/show/index.m3u8?a", "s=2", [10, 0, 0, 1]),
            ask("/app/show/index.m3u8?a", "s=1", [10, 0, 0, 2]),
        ] {
            assert_ne!(one, other);
        }
    }
}
