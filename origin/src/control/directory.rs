//! What edges ask of an origin about streams: records by key, and a long poll for what changes
//! ([`weir_shared::directory`]).
//!
//! Before this: the API's listener, behind the fleet's credential. After this: `directory/records.rs` (the database) and
//! `directory/changes.rs` (what changed since when). Every origin of a fleet answers for all streams: they share the
//! database. What this origin changes itself is told at once, what others change as soon as `fleet.rs` has seen it.

mod changes;
mod records;

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri, header::AUTHORIZATION};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::{
    sync::{Semaphore, broadcast::error::RecvError, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use weir_shared::{
    directory::{
        Cursor, MAX_CHANGES, MAX_KEYS, MAX_REPORT_BYTES, MAX_REPORTED_STREAMS, MAX_WAIT_SECONDS, PATH, Page,
        VIEWERS_PATH, ViewersReport,
    },
    hold::{self, Held},
    id::StreamKey,
};

pub use changes::{ChangeLog, Since};
pub use records::of as record_of;

use super::{
    api::problem::{FieldError, Problem},
    store::{Changed, Store, StoreError, now},
    viewers::Viewers,
};

/// Changes remembered: an edge that was away for longer asks for everything it knows again.
const REMEMBERED: usize = 16_384;
/// Long polls at once: they leave the API's listener (1024 connections) room for calls. Later ones are told to come back.
const MAX_WAITERS: usize = 512;
/// How often this node says where it is.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(10);

/// What all origins and edges of a fleet know and nobody else.
#[derive(Clone)]
pub struct FleetCredential([u8; 32]);

/// Shortest fleet credential, in bytes.
pub const CREDENTIAL_MIN_BYTES: usize = 16;

impl FleetCredential {
    /// `None`: too short to be a secret.
    pub fn new(secret: &str) -> Option<Self> {
        (secret.len() >= CREDENTIAL_MIN_BYTES).then(|| Self(Sha256::digest(secret).into()))
    }

    /// Compared by digest, in constant time: neither content nor length can be felt out.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
        let given = value.and_then(|v| v.split_once(' '));
        given.is_some_and(|(scheme, secret)| {
            let digest: [u8; 32] = Sha256::digest(secret).into();
            scheme.eq_ignore_ascii_case("bearer") && bool::from(self.0.ct_eq(&digest))
        })
    }
}

impl fmt::Debug for FleetCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetCredential(…)")
    }
}

/// What an operator can see of it.
#[derive(Debug)]
pub struct Metrics {
    /// By kind (`get`, `poll`, `viewers`, `none`) and outcome (`ok`, `refused`, `shed`, `failed`).
    requests: IntCounterVec,
    waiting: IntGauge,
    viewers: IntGauge,
}

impl Metrics {
    /// Creates and registers. Fails only if a name is registered twice.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "weir_origin_directory_requests_total",
                "Questions of edges about streams: get = records by key, poll = what changes, viewers = how many watch at an edge; shed = too many were waiting.",
            ),
            &["kind", "outcome"],
        )?;
        let waiting = IntGauge::new(
            "weir_origin_directory_waiting",
            "Edges that wait to be told of changed streams: one for each edge that uses this origin's directory.",
        )?;
        registry.register(Box::new(requests.clone()))?;
        let viewers = IntGauge::new(
            "weir_origin_viewers",
            "Viewers of all streams on all edges that tell this origin.",
        )?;
        registry.register(Box::new(waiting.clone()))?;
        registry.register(Box::new(viewers.clone()))?;
        Ok(Self {
            requests,
            waiting,
            viewers,
        })
    }
}

/// This origin's directory.
#[derive(Clone)]
pub struct Directory {
    store: Store,
    credential: FleetCredential,
    changes: Arc<Mutex<ChangeLog>>,
    /// The newest change's number.
    newest: Arc<watch::Sender<u64>>,
    waiters: Arc<Semaphore>,
    viewers: Viewers,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// Who this node is to the fleet.
#[derive(Debug, Clone)]
pub struct Node {
    /// As in leases.
    pub name: String,
    /// Base address at which edges reach its media.
    pub url: String,
}

impl Directory {
    /// Long polls end with `stop`. Changes are heard of while [`Directory::run`] runs.
    pub fn new(store: Store, credential: FleetCredential, metrics: Arc<Metrics>, stop: CancellationToken) -> Self {
        Self {
            store,
            credential,
            changes: Arc::new(Mutex::new(ChangeLog::new(rand::random(), REMEMBERED))),
            newest: Arc::new(watch::channel(0).0),
            waiters: Arc::new(Semaphore::new(MAX_WAITERS)),
            viewers: Viewers::default(),
            metrics,
            stop,
        }
    }

    /// Where edges ask, to be merged with the API's router.
    pub fn router(&self) -> Router {
        Router::new()
            .route(PATH, get(answer))
            .route(VIEWERS_PATH, post(take_viewers))
            .layer(DefaultBodyLimit::max(MAX_REPORT_BYTES))
            .with_state(self.clone())
    }

    /// Adds up viewers here, where the API shows them.
    #[must_use]
    pub fn counting(mut self, viewers: Viewers) -> Self {
        self.viewers = viewers;
        self
    }

    /// Hears of changes, and says where this node is, until the stop.
    pub async fn run(self, node: Node) {
        let mut changes = self.store.changes();
        let mut announce_at = Instant::now();
        loop {
            if Instant::now() >= announce_at {
                announce_at = Instant::now() + ANNOUNCE_EVERY;
                if let Err(error) = records::announce(&self.store, &node.name, &node.url, now()).await {
                    tracing::warn!(%error, "this origin can't tell edges where it is; trying again");
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep_until(announce_at) => {}
                told = changes.recv() => match told {
                    Ok(Changed::Here { key, .. } | Changed::Elsewhere { key }) => self.note(key),
                    Ok(Changed::Limits { .. }) => {}
                    Ok(Changed::Missed) | Err(RecvError::Lagged(_)) => self.missed(),
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    fn note(&self, key: StreamKey) {
        let newest = self.changes.lock().note(key);
        self.newest.send_replace(newest);
    }

    fn missed(&self) {
        let newest = self.changes.lock().forget();
        self.newest.send_replace(newest);
    }

    /// Records of these keys, at once. The cursor is from before they were read: what changes later comes after it.
    async fn get(&self, keys: &[StreamKey]) -> Result<Page, StoreError> {
        let cursor = self.changes.lock().cursor();
        self.page(cursor, keys).await
    }

    /// What changed after the cursor, once something has.
    async fn poll(&self, cursor: Cursor, wait: Duration) -> Result<Page, StoreError> {
        let mut newest = self.newest.subscribe();
        let since = || self.changes.lock().since(cursor, MAX_CHANGES);
        if since() != Since::Lost {
            let changed = hold::hold(&mut newest, Instant::now() + wait, |number| {
                (*number > cursor.number).then_some(())
            });
            tokio::select! {
                () = self.stop.cancelled() => {}
                held = changed => debug_assert!(held != Held::Gone, "this directory holds the sender"),
            }
        }
        match since() {
            Since::Keys { keys, cursor } => self.page(cursor, &keys).await,
            Since::Lost => Ok(Page {
                cursor: self.changes.lock().cursor(),
                records: Vec::new(),
                unknown: Vec::new(),
                reset: true,
            }),
        }
    }

    async fn page(&self, cursor: Cursor, keys: &[StreamKey]) -> Result<Page, StoreError> {
        let records = records::read(&self.store, keys, now()).await?;
        let found = |key: &&StreamKey| !records.iter().any(|record| record.key == **key);
        let unknown = keys.iter().filter(found).cloned().collect();
        Ok(Page {
            cursor,
            records,
            unknown,
            reset: false,
        })
    }
}

/// Longest name of an edge, in bytes.
const NODE_NAME_BYTES: usize = 64;

/// An edge says how many watch there.
async fn take_viewers(State(directory): State<Directory>, headers: HeaderMap, body: Bytes) -> Response {
    let count = |outcome| {
        directory
            .metrics
            .requests
            .with_label_values(&["viewers", outcome])
            .inc()
    };
    if !directory.credential.admits(&headers) {
        count("refused");
        return Problem::unauthorized("edges send the fleet's credential").into_response();
    }
    let fits =
        |report: &ViewersReport| report.node.len() <= NODE_NAME_BYTES && report.streams.len() <= MAX_REPORTED_STREAMS;
    let Some(report) = serde_json::from_slice(&body).ok().filter(fits) else {
        count("refused");
        return Problem::invalid(vec![FieldError::new("body", "an edge's report of viewers")]).into_response();
    };
    let all = directory.viewers.take(report, std::time::Instant::now());
    directory.metrics.viewers.set(i64::try_from(all).unwrap_or(i64::MAX));
    count("ok");
    StatusCode::NO_CONTENT.into_response()
}

/// A question.
#[derive(Debug, PartialEq)]
enum Question {
    Get(Vec<StreamKey>),
    Poll { since: Cursor, wait: Duration },
}

impl Question {
    fn parse(query: &str) -> Result<Self, Problem> {
        let invalid = |field: &str, expected: &str| Problem::invalid(vec![FieldError::new(field, expected)]);
        let (mut keys, mut since, mut wait) = (Vec::new(), None, 0);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "key" if keys.len() < MAX_KEYS => {
                    keys.push(value.parse().map_err(|_| invalid("key", "a stream's key"))?);
                }
                "key" => return Err(invalid("key", "at most 100 keys")),
                "since" => since = Some(value.parse().map_err(|_| invalid("since", "a cursor"))?),
                "wait" => wait = value.parse::<u64>().map_err(|_| invalid("wait", "seconds"))?,
                _ => return Err(invalid(&name, "key, since or wait")),
            }
        }
        match since {
            Some(_) if !keys.is_empty() => Err(invalid("since", "either keys or a cursor")),
            Some(since) => Ok(Self::Poll {
                since,
                wait: Duration::from_secs(wait.min(MAX_WAIT_SECONDS)),
            }),
            None => Ok(Self::Get(keys)),
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Get(_) => "get",
            Self::Poll { .. } => "poll",
        }
    }
}

async fn answer(State(directory): State<Directory>, uri: Uri, headers: HeaderMap) -> Response {
    let metrics = directory.metrics.clone();
    let count = |kind, outcome| metrics.requests.with_label_values(&[kind, outcome]).inc();
    if !directory.credential.admits(&headers) {
        count("none", "refused");
        return Problem::unauthorized("edges send the fleet's credential").into_response();
    }
    let question = match Question::parse(uri.query().unwrap_or_default()) {
        Ok(question) => question,
        Err(problem) => {
            count("none", "refused");
            return problem.into_response();
        }
    };
    let kind = question.kind();
    let page = match question {
        Question::Get(keys) => directory.get(&keys).await,
        Question::Poll { since, wait } => {
            let Ok(_slot) = directory.waiters.try_acquire() else {
                count(kind, "shed");
                let mut problem = Problem::unavailable();
                problem.detail = "too many edges wait already".to_owned();
                return problem.into_response();
            };
            let _waiting = Waiting::new(&metrics.waiting);
            directory.poll(since, wait).await
        }
    };
    match page {
        Ok(page) => {
            count(kind, "ok");
            Json(page).into_response()
        }
        Err(error) => {
            count(kind, "failed");
            Problem::from(error).into_response()
        }
    }
}

/// Counts a waiting edge until it is dropped.
struct Waiting<'a>(&'a IntGauge);

impl<'a> Waiting<'a> {
    fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credential_is_compared_whole() {
        let credential = FleetCredential::new("a fleet's own secret").unwrap();
        let admits = |value: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
            credential.admits(&headers)
        };
        assert!(admits("Bearer a fleet's own secret") && admits("bearer a fleet's own secret"));
        for wrong in [
            "Bearer a fleet's own secre",
            "Bearer a fleet's own secret ",
            "Bearer",
            "",
            "Basic a fleet's own secret",
        ] {
            assert!(!admits(wrong), "{wrong:?}");
        }
        assert!(!credential.admits(&HeaderMap::new()));
        assert!(FleetCredential::new("short").is_none());
    }

    #[test]
    fn a_question_is_for_keys_or_for_changes() {
        let parsed = |query: &str| Question::parse(query).ok();
        assert_eq!(parsed(""), Some(Question::Get(Vec::new())));
        let keys = ["a", "b"].map(|k| k.parse().unwrap()).to_vec();
        assert_eq!(parsed("key=a&key=b"), Some(Question::Get(keys)));
        let since = Cursor { instance: 1, number: 2 };
        let wait = Duration::from_secs(30);
        assert_eq!(
            parsed(&format!("since={since}&wait=900")),
            Some(Question::Poll { since, wait })
        );
        let many = "key=a&".repeat(MAX_KEYS + 1);
        for bad in [
            "key=",
            "key=a/b",
            "key=%00",
            "since=x",
            "since=1-1&wait=-1",
            "since=1-1&key=a",
            "a=b",
            &many,
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
