//! Objects that are immutable by name (init sections, segments, parts) and, for a moment, multivariant playlists.
//!
//! Before this: `handle.rs`, `route/serve.rs` and the followers, which want an object. After this: `upstream.rs`.
//!
//! Whoever asks first leads: the fetch runs in a task of its own, so that a viewer who leaves cancels nothing, and all
//! who ask meanwhile wait for the same answer.

mod entry;
mod freshness;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dashmap::{DashMap, Entry as MapEntry};
use http::StatusCode;
use moka::{Expiry, future::Cache, policy::EvictionPolicy};
use tokio::{runtime::Handle, sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    admit::{Asker, Reached},
    metrics::Metrics,
    upstream::{Patience, Resource, Upstream, UpstreamError, Via},
};

pub use entry::{Entry, etag};

/// Largest media object, in bytes.
const OBJECT_LIMIT: usize = 64 << 20;
/// Longest wait for an object that the origin holds: a hinted part of a stream with a target duration of 10 s, and a
/// little. Viewers give up earlier, after three target durations of their stream.
const HELD_TIMEOUT: Duration = Duration::from_secs(32);
/// Longest wait for an object that is there; a stream that is just starting is waited for by the origin.
const PLAIN_TIMEOUT: Duration = Duration::from_secs(8);
/// How long one who may have it says nothing before the next is asked as well.
const PLAIN_HEDGE: Duration = Duration::from_secs(1);
/// The same for what may be held or large: longer than a part is made, and short of what a player has in hand.
const HELD_HEDGE: Duration = Duration::from_millis(2500);
/// How long an absent object stays known as absent.
const NEGATIVE_LIFE: Duration = Duration::from_secs(1);
/// Absent objects remembered.
const NEGATIVE_ENTRIES: u64 = 10_000;
/// How long a multivariant playlist is reused, and a media playlist that nobody follows.
const SHORT_LIFE: Duration = Duration::from_millis(500);
/// Playlists kept.
const SHORT_ENTRIES: u64 = 10_000;
/// How long a playlist that was there is taken to be there still.
const FAMILIAR_LIFE: Duration = Duration::from_secs(3600);
/// Fetches that one request takes part in, at most.
const TRIES: usize = 2;
/// Fetches under way at once.
const MAX_FLIGHTS: usize = 10_000;

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
    /// Whoever asks has asked for too much that nothing vouches for.
    Limited(Reached),
    /// This edge is ending.
    Ending,
}

impl Absent {
    /// Whether those who ask next are better told so than let through: the fleet's own 4xx; of others, who may storm or
    /// be of any size, everything.
    fn is_lasting(&self, foreign: bool) -> bool {
        match self {
            Self::Refused { status, .. } => foreign || status.is_client_error(),
            Self::Upstream(error) => *error == UpstreamError::TooLarge || foreign,
            Self::Shed | Self::Limited(_) | Self::Ending => false,
        }
    }
}

/// What is known of an object before it is asked for: decides how long it, or its absence, is kept and how long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A multivariant playlist: good for a moment.
    Multivariant,
    /// A part, segment or init section that a followed playlist lists or hints: it is there or will be next. Absence is
    /// neither believed nor remembered: whoever asked too early must not take it from those who ask in time.
    Listed,
    /// What a playlist of somebody else's has named at some time: its absence is believed.
    Named,
    /// A part, segment or init section that nothing vouches for.
    Unlisted,
}

/// A call's part in a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flight {
    Led,
    Joined,
}

type Outcome = Result<Arc<Entry>, Absent>;

/// Memory is for what may be asked for again.
struct Lives;

impl Expiry<Arc<str>, Arc<Entry>> for Lives {
    fn expire_after_create(&self, _: &Arc<str>, entry: &Arc<Entry>, _: std::time::Instant) -> Option<Duration> {
        entry.life()
    }
}

/// The store.
pub struct Store {
    immutable: Cache<Arc<str>, Arc<Entry>>,
    short: Cache<Arc<str>, Arc<Entry>>,
    negative: Cache<Arc<str>, Absent>,
    /// Playlists that were there lately: to ask for them again is no guess.
    familiar: Cache<Arc<str>, ()>,
    flights: DashMap<Arc<str>, watch::Receiver<Option<Outcome>>>,
    upstream: Arc<Upstream>,
    metrics: Arc<Metrics>,
    /// Where fetches run.
    threads: Handle,
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
                .expire_after(Lives)
                .build(),
            short: Cache::builder()
                .max_capacity(SHORT_ENTRIES)
                .time_to_live(SHORT_LIFE)
                .build(),
            negative: Cache::builder()
                .max_capacity(NEGATIVE_ENTRIES)
                .time_to_live(NEGATIVE_LIFE)
                .build(),
            familiar: Cache::builder()
                .max_capacity(SHORT_ENTRIES)
                .time_to_live(FAMILIAR_LIFE)
                .build(),
            flights: DashMap::new(),
            upstream,
            threads: Handle::current(),
            metrics,
            stop,
        })
    }

    /// One of the fleet's own objects, at this origin path. `asker`: on whose word an origin is asked if it must be.
    pub async fn get(self: &Arc<Self>, path: &str, kind: Kind, asker: Asker<'_>) -> Outcome {
        match Box::pin(self.lookup(path, kind)).await {
            Some(found) => found,
            None => self.fetched(Resource::own(path), kind, asker).await,
        }
    }

    /// The object: from memory, from a fetch under way, or from upstream.
    pub async fn get_resource(self: &Arc<Self>, resource: &Resource, kind: Kind) -> Outcome {
        match Box::pin(self.lookup(&resource.key, kind)).await {
            Some(found) => found,
            None => self.fetched(resource.clone(), kind, Asker::Trusted).await,
        }
    }

    async fn fetched(self: &Arc<Self>, resource: Resource, kind: Kind, asker: Asker<'_>) -> Outcome {
        let mut outcome = Err(Absent::Upstream(UpstreamError::Broken));
        for _ in 0..TRIES {
            let (flight, mut landing) = self.join_or_lead(&resource, kind, asker)?;
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
                Err(Absent::Shed | Absent::Limited(_) | Absent::Ending) => false,
            };
            if !again {
                break;
            }
        }
        outcome
    }

    async fn lookup(&self, key: &str, kind: Kind) -> Option<Outcome> {
        if let Some(entry) = self.kept(key).await {
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

    async fn kept(&self, key: &str) -> Option<Arc<Entry>> {
        if let Some(entry) = self.immutable.get(key).await {
            return Some(entry).filter(|entry| entry.is_good());
        }
        self.short.get(key).await
    }

    fn join_or_lead(
        self: &Arc<Self>,
        resource: &Resource,
        kind: Kind,
        asker: Asker<'_>,
    ) -> Result<(Flight, watch::Receiver<Option<Outcome>>), Absent> {
        if self.stop.is_cancelled() {
            return Err(Absent::Ending);
        }
        let full = self.flights.len() >= MAX_FLIGHTS;
        match self.flights.entry(resource.key.clone()) {
            MapEntry::Occupied(flight) => {
                self.count("join");
                Ok((Flight::Joined, flight.get().clone()))
            }
            MapEntry::Vacant(_) if full => {
                self.metrics.shed.with_label_values(&["flights"]).inc();
                Err(Absent::Shed)
            }
            MapEntry::Vacant(place) => {
                if let Via::Route { route, .. } = &resource.via
                    && kind == Kind::Unlisted
                    && !route.may_guess()
                {
                    self.metrics.shed.with_label_values(&["unknown_names"]).inc();
                    return Err(Absent::Shed);
                }
                if kind != Kind::Listed && !self.familiar.contains_key(&resource.key) {
                    asker.may_guess().map_err(Absent::Limited)?;
                }
                self.count("lead");
                let (lands, flight) = watch::channel(None);
                place.insert(flight.clone());
                let (store, resource) = (self.clone(), resource.clone());
                self.threads.spawn(async move {
                    let landing = Landing {
                        store: &store,
                        key: &resource.key,
                    };
                    let outcome = tokio::select! {
                        outcome = store.fetch(&resource, kind) => outcome,
                        () = store.stop.cancelled() => Err(Absent::Ending),
                    };
                    // Stored first, then off the list, then told: nobody in between starts a second fetch.
                    drop(landing);
                    lands.send_replace(Some(outcome));
                    // Whoever waited for these bytes should not wait for what is done here next, if they share a processor.
                    std::thread::yield_now();
                });
                Ok((Flight::Led, flight))
            }
        }
    }

    async fn fetch(&self, resource: &Resource, kind: Kind) -> Outcome {
        // Someone else's fetch may have landed between this one's look-up and its lead.
        if let Some(entry) = self.kept(&resource.key).await {
            return Ok(entry);
        }
        let (wait, hedge) = match kind {
            Kind::Multivariant => (PLAIN_TIMEOUT, PLAIN_HEDGE),
            Kind::Listed | Kind::Named | Kind::Unlisted => (HELD_TIMEOUT, HELD_HEDGE),
        };
        let patience = Patience {
            deadline: Instant::now() + wait,
            hedge,
        };
        let outcome = match self.upstream.get(resource, patience, OBJECT_LIMIT).await {
            Ok(answer) => entry::found(resource, kind, answer),
            Err(error) => Err(Absent::Upstream(error)),
        };
        self.keep(resource, kind, &outcome).await;
        outcome
    }

    async fn keep(&self, resource: &Resource, kind: Kind, outcome: &Outcome) {
        let foreign = matches!(resource.via, Via::Route { .. });
        let key = resource.key.clone();
        match outcome {
            Ok(entry) if kind == Kind::Multivariant || (foreign && entry.is_playlist()) => {
                self.short.insert(key.clone(), entry.clone()).await;
                self.familiar.insert(key, ()).await;
            }
            Ok(entry) if entry.is_good() => self.immutable.insert(key, entry.clone()).await,
            Ok(_) => {}
            // The same question again has the same answer, for a moment.
            Err(absent) if kind != Kind::Listed && absent.is_lasting(foreign) => {
                self.negative.insert(key, absent.clone()).await;
            }
            Err(_) => {}
        }
    }

    fn count(&self, result: &'static str) {
        self.metrics.lookups.with_label_values(&[result]).inc();
    }
}
