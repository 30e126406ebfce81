//! Objects that are immutable by name (init sections, segments, parts) and, for a moment, multivariant playlists.
//!
//! Before this: `handle.rs` and `live/follower.rs`, which want an object. After this: `upstream.rs`.
//!
//! Whoever asks first leads: the fetch runs in a task of its own, so that a viewer who leaves cancels nothing, and all
//! who ask meanwhile wait for the same answer.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use dashmap::{DashMap, Entry as MapEntry};
use http::{HeaderValue, StatusCode, header};
use moka::{future::Cache, policy::EvictionPolicy};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use weir_shared::serve::gzip::gzip;

use crate::{
    metrics::Metrics,
    upstream::{Answer, Upstream, UpstreamError},
};

/// Largest media object, in bytes.
const OBJECT_LIMIT: usize = 64 << 20;
/// Longest wait for an object that the origin holds: a hinted part of a stream with a target duration of 10 s, and a
/// little. Viewers give up earlier, after three target durations of their stream.
const HELD_TIMEOUT: Duration = Duration::from_secs(32);
/// Longest wait for an object that is there; a stream that is just starting is waited for by the origin.
const PLAIN_TIMEOUT: Duration = Duration::from_secs(8);
/// How long an absent object stays known as absent.
const NEGATIVE_LIFE: Duration = Duration::from_secs(1);
/// Absent objects remembered.
const NEGATIVE_ENTRIES: u64 = 10_000;
/// How long a multivariant playlist is reused.
const SHORT_LIFE: Duration = Duration::from_millis(500);
/// Multivariant playlists kept.
const SHORT_ENTRIES: u64 = 10_000;
/// Fetches that one request takes part in, at most.
const TRIES: usize = 2;
/// Fetches under way at once.
const MAX_FLIGHTS: usize = 10_000;

/// An object in memory.
#[derive(Debug)]
pub struct Entry {
    pub body: Bytes,
    pub content_type: HeaderValue,
    pub etag: HeaderValue,
    pub fetched: Instant,
    gzipped: OnceLock<Bytes>,
}

impl Entry {
    /// The body gzip-encoded (playlists only), made once.
    pub fn gzipped(&self) -> Bytes {
        self.gzipped.get_or_init(|| gzip(&self.body)).clone()
    }
}

/// Why there is no object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// The origin says so: its status (4xx or 5xx), and its JSON reason if it gave a short one.
    Refused {
        status: StatusCode,
        reason: Option<Bytes>,
    },
    Upstream(UpstreamError),
    /// Too many fetches under way.
    Shed,
    /// This edge is ending.
    Ending,
}

/// What is known of an object before it is asked for: decides how long it, or its absence, is kept and how long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A multivariant playlist: good for a moment.
    Multivariant,
    /// A part, segment or init section that a followed playlist lists or hints: it is there or will be next. Absence is
    /// neither believed nor remembered: whoever asked too early must not take it from those who ask in time.
    Listed,
    /// A part, segment or init section that nothing vouches for.
    Unlisted,
}

impl Kind {
    const fn is_immutable(self) -> bool {
        !matches!(self, Self::Multivariant)
    }
}

/// A call's part in a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flight {
    Led,
    Joined,
}

type Outcome = Result<Arc<Entry>, Absent>;

/// The store.
pub struct Store {
    immutable: Cache<Arc<str>, Arc<Entry>>,
    short: Cache<Arc<str>, Arc<Entry>>,
    negative: Cache<Arc<str>, Absent>,
    flights: DashMap<Arc<str>, watch::Receiver<Option<Outcome>>>,
    upstream: Arc<Upstream>,
    metrics: Arc<Metrics>,
    /// Ends every fetch.
    stop: CancellationToken,
}

/// Removes a flight whatever ends it; waiters of one that never landed see its channel closed.
struct Landing<'a> {
    store: &'a Store,
    key: &'a Arc<str>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.store.flights.remove(self.key);
    }
}

impl Store {
    pub fn new(max_bytes: u64, upstream: Arc<Upstream>, metrics: Arc<Metrics>, stop: CancellationToken) -> Arc<Self> {
        let weight =
            |key: &Arc<str>, entry: &Arc<Entry>| u32::try_from(key.len() + entry.body.len() + 256).unwrap_or(u32::MAX);
        Arc::new(Self {
            // Least recently used: a new part has no history, and must not lose against an old segment for that.
            immutable: Cache::builder()
                .max_capacity(max_bytes)
                .weigher(weight)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            short: Cache::builder()
                .max_capacity(SHORT_ENTRIES)
                .time_to_live(SHORT_LIFE)
                .build(),
            negative: Cache::builder()
                .max_capacity(NEGATIVE_ENTRIES)
                .time_to_live(NEGATIVE_LIFE)
                .build(),
            flights: DashMap::new(),
            upstream,
            metrics,
            stop,
        })
    }

    /// The object at this origin path: from memory, from a fetch under way, or from an origin.
    pub async fn get(self: &Arc<Self>, path: &str, kind: Kind) -> Outcome {
        let key: Arc<str> = path.into();
        if let Some(found) = self.lookup(&key, kind).await {
            return found;
        }
        let mut outcome = Err(Absent::Upstream(UpstreamError::Broken));
        for _ in 0..TRIES {
            let (flight, mut landing) = self.join_or_lead(&key, kind)?;
            let landed = landing.wait_for(Option::is_some).await;
            outcome = match landed.as_deref() {
                Ok(Some(outcome)) => outcome.clone(),
                // The leader died (a panic, say): lead the next try.
                _ => continue,
            };
            let again = match &outcome {
                Ok(_) => false,
                // Whoever asked too early takes nothing from those who ask in time.
                Err(Absent::Refused { .. }) => kind == Kind::Listed && flight == Flight::Joined,
                // Cut in the middle: of all who waited one asks again.
                Err(Absent::Upstream(error)) => *error == UpstreamError::Broken,
                Err(Absent::Shed | Absent::Ending) => false,
            };
            if !again {
                break;
            }
        }
        outcome
    }

    async fn lookup(&self, key: &Arc<str>, kind: Kind) -> Option<Outcome> {
        if let Some(entry) = self.kept(key, kind).await {
            self.count("hit");
            return Some(Ok(entry));
        }
        if kind == Kind::Listed {
            return None;
        }
        let absent = self.negative.get(key).await?;
        self.count("negative");
        Some(Err(absent))
    }

    async fn kept(&self, key: &Arc<str>, kind: Kind) -> Option<Arc<Entry>> {
        if kind.is_immutable() {
            self.immutable.get(key).await
        } else {
            self.short.get(key).await
        }
    }

    fn join_or_lead(
        self: &Arc<Self>,
        key: &Arc<str>,
        kind: Kind,
    ) -> Result<(Flight, watch::Receiver<Option<Outcome>>), Absent> {
        if self.stop.is_cancelled() {
            return Err(Absent::Ending);
        }
        let full = self.flights.len() >= MAX_FLIGHTS;
        match self.flights.entry(key.clone()) {
            MapEntry::Occupied(flight) => {
                self.count("join");
                Ok((Flight::Joined, flight.get().clone()))
            }
            MapEntry::Vacant(_) if full => {
                self.metrics.shed.with_label_values(&["flights"]).inc();
                Err(Absent::Shed)
            }
            MapEntry::Vacant(place) => {
                self.count("lead");
                let (lands, flight) = watch::channel(None);
                place.insert(flight.clone());
                let (store, key) = (self.clone(), key.clone());
                tokio::spawn(async move {
                    let landing = Landing {
                        store: &store,
                        key: &key,
                    };
                    let outcome = tokio::select! {
                        outcome = store.fetch(&key, kind) => outcome,
                        () = store.stop.cancelled() => Err(Absent::Ending),
                    };
                    // Stored first, then off the list, then told: nobody in between starts a second fetch.
                    drop(landing);
                    lands.send_replace(Some(outcome));
                });
                Ok((Flight::Led, flight))
            }
        }
    }

    async fn fetch(&self, key: &Arc<str>, kind: Kind) -> Outcome {
        // Someone else's fetch may have landed between this one's look-up and its lead.
        if let Some(entry) = self.kept(key, kind).await {
            return Ok(entry);
        }
        let wait = match kind {
            Kind::Multivariant => PLAIN_TIMEOUT,
            Kind::Listed | Kind::Unlisted => HELD_TIMEOUT,
        };
        let outcome = match self.upstream.get(key, Instant::now() + wait, OBJECT_LIMIT).await {
            Ok(answer) => found(key, answer),
            Err(error) => Err(Absent::Upstream(error)),
        };
        match &outcome {
            Ok(entry) if kind.is_immutable() => self.immutable.insert(key.clone(), entry.clone()).await,
            Ok(entry) => self.short.insert(key.clone(), entry.clone()).await,
            Err(absent @ Absent::Refused { status, .. }) if status.is_client_error() && kind != Kind::Listed => {
                self.negative.insert(key.clone(), absent.clone()).await;
            }
            Err(_) => {}
        }
        outcome
    }

    fn count(&self, result: &'static str) {
        self.metrics.lookups.with_label_values(&[result]).inc();
    }
}

/// The validator of an object: its name, because names are never reused. The same for a segment that was fetched and one
/// that was put together from its parts.
pub fn etag(path: &str) -> HeaderValue {
    let name = path.split_once("/d/").map_or(path, |(_, name)| name);
    HeaderValue::try_from(format!("\"{name}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// What an origin's answer means for an object.
fn found(key: &str, answer: Answer) -> Outcome {
    if answer.status == StatusCode::OK {
        let kind = answer.headers.get(header::CONTENT_TYPE).cloned();
        return Ok(Arc::new(Entry {
            content_type: kind.unwrap_or(HeaderValue::from_static("application/mp4")),
            etag: etag(key),
            body: answer.body,
            fetched: Instant::now(),
            gzipped: OnceLock::new(),
        }));
    }
    if !answer.status.is_client_error() && !answer.status.is_server_error() {
        // Redirects are not followed, and nothing else was asked for.
        return Err(Absent::Upstream(UpstreamError::Unexpected));
    }
    Err(Absent::Refused {
        status: answer.status,
        reason: answer.into_reason(),
    })
}
