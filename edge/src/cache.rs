//! Objects that are immutable by name (init sections, segments, parts) and, for a moment, multivariant playlists.
//!
//! Before this: `handle.rs` and `live/follower.rs`, which want an object. After this: `upstream.rs`.
//!
//! Whoever asks first leads: the fetch runs in a task of its own, so that a viewer who leaves cancels nothing, and all
//! who ask meanwhile wait for the same answer.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dashmap::{DashMap, Entry as MapEntry};
use http::{HeaderValue, StatusCode, header};
use moka::{future::Cache, policy::EvictionPolicy};
use tokio::{sync::watch, time::Instant};

use crate::{
    metrics::Metrics,
    upstream::{Answer, Upstream, UpstreamError},
};

/// Largest media object, in bytes.
const OBJECT_LIMIT: usize = 64 << 20;
/// Longest wait for an object: a hinted part of a stream with a target duration of 10 s, and a little.
const OBJECT_TIMEOUT: Duration = Duration::from_secs(32);
/// How long an absent object stays known as absent.
const NEGATIVE_LIFE: Duration = Duration::from_secs(1);
/// Absent objects remembered.
const NEGATIVE_ENTRIES: u64 = 10_000;
/// How long a multivariant playlist is reused.
const SHORT_LIFE: Duration = Duration::from_millis(500);
/// Multivariant playlists kept.
const SHORT_ENTRIES: u64 = 10_000;
/// Fetches under way at once.
const MAX_FLIGHTS: usize = 10_000;

/// An object in memory.
#[derive(Debug)]
pub struct Entry {
    pub body: Bytes,
    pub content_type: HeaderValue,
    pub etag: HeaderValue,
    pub fetched: Instant,
}

/// Why there is no object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// The origin says so: its status, and its JSON reason for the viewer.
    Refused {
        status: StatusCode,
        reason: Bytes,
    },
    Upstream(UpstreamError),
    /// Too many fetches under way.
    Shed,
}

/// Kind of object: decides how long it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// The name is never reused.
    Immutable,
    /// Good for a moment.
    Short,
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
    pub fn new(max_bytes: u64, upstream: Arc<Upstream>, metrics: Arc<Metrics>) -> Arc<Self> {
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
        })
    }

    /// The object at this origin path: from memory, from a fetch under way, or from an origin.
    pub async fn get(self: &Arc<Self>, path: &str, lifetime: Lifetime) -> Outcome {
        let key: Arc<str> = path.into();
        if let Some(found) = self.lookup(&key, lifetime).await {
            return found;
        }
        // A waiter whose leader died (a panic, say) leads the next try; that happens at most once per call.
        for _ in 0..2 {
            let mut flight = match self.join_or_lead(&key, lifetime) {
                Ok(flight) => flight,
                Err(absent) => return Err(absent),
            };
            let landed = flight.wait_for(Option::is_some).await;
            if let Ok(Some(outcome)) = landed.as_deref() {
                return outcome.clone();
            }
        }
        Err(Absent::Upstream(UpstreamError::Broken))
    }

    async fn lookup(&self, key: &Arc<str>, lifetime: Lifetime) -> Option<Outcome> {
        let cache = match lifetime {
            Lifetime::Immutable => &self.immutable,
            Lifetime::Short => &self.short,
        };
        if let Some(entry) = cache.get(key).await {
            self.count("hit");
            return Some(Ok(entry));
        }
        let absent = self.negative.get(key).await?;
        self.count("negative");
        Some(Err(absent))
    }

    fn join_or_lead(
        self: &Arc<Self>,
        key: &Arc<str>,
        lifetime: Lifetime,
    ) -> Result<watch::Receiver<Option<Outcome>>, Absent> {
        if self.flights.len() >= MAX_FLIGHTS {
            self.metrics.shed.with_label_values(&["flights"]).inc();
            return Err(Absent::Shed);
        }
        match self.flights.entry(key.clone()) {
            MapEntry::Occupied(flight) => {
                self.count("join");
                Ok(flight.get().clone())
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
                    let outcome = store.fetch(&key, lifetime).await;
                    // Stored first, then off the list, then told: nobody in between starts a second fetch.
                    drop(landing);
                    lands.send_replace(Some(outcome));
                });
                Ok(flight)
            }
        }
    }

    async fn fetch(&self, key: &Arc<str>, lifetime: Lifetime) -> Outcome {
        // Someone else's fetch may have landed between this one's look-up and its lead.
        let again = match lifetime {
            Lifetime::Immutable => self.immutable.get(key).await,
            Lifetime::Short => self.short.get(key).await,
        };
        if let Some(entry) = again {
            return Ok(entry);
        }
        let deadline = Instant::now() + OBJECT_TIMEOUT;
        let outcome = match self.upstream.get(key, deadline, OBJECT_LIMIT).await {
            Ok(answer) if answer.status == StatusCode::OK => Ok(Arc::new(entry(key, answer))),
            Ok(answer) => Err(Absent::Refused {
                status: answer.status,
                reason: answer.body,
            }),
            Err(error) => Err(Absent::Upstream(error)),
        };
        match (&outcome, lifetime) {
            (Ok(entry), Lifetime::Immutable) => self.immutable.insert(key.clone(), entry.clone()).await,
            (Ok(entry), Lifetime::Short) => self.short.insert(key.clone(), entry.clone()).await,
            (Err(absent @ Absent::Refused { status, .. }), _) if status.is_client_error() => {
                self.negative.insert(key.clone(), absent.clone()).await;
            }
            (Err(_), _) => {}
        }
        outcome
    }

    fn count(&self, result: &'static str) {
        self.metrics.lookups.with_label_values(&[result]).inc();
    }
}

fn entry(key: &str, answer: Answer) -> Entry {
    let kind = answer.headers.get(header::CONTENT_TYPE).cloned();
    let etag = answer.headers.get(header::ETAG).cloned();
    Entry {
        content_type: kind.unwrap_or(HeaderValue::from_static("application/mp4")),
        // Names are never reused, so a name is as good a validator.
        etag: etag
            .or_else(|| HeaderValue::try_from(format!("\"{key}\"")).ok())
            .unwrap_or(HeaderValue::from_static("\"0\"")),
        body: answer.body,
        fetched: Instant::now(),
    }
}
