//! Who is followed: at most one follower per rendition, started by the first viewer, ended a while after the last.
//!
//! Before this: `handle.rs`. After this: `live/follower.rs`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::{DashMap, Entry};
use tokio::{sync::watch, time::Instant};
use weir_shared::id::{RenditionName, StreamKey};

use super::follower::{End, Follower, State};
use crate::{cache::Store, metrics::Metrics, upstream::Upstream};

/// How long the end of a rendition, or its absence, stays known.
const ENDED_LIFE: Duration = Duration::from_secs(5);
const ABSENT_LIFE: Duration = Duration::from_secs(1);

/// A rendition of a stream, as the map's key.
type Rendition = (StreamKey, RenditionName);

/// A follower as viewers hold it.
#[derive(Clone)]
struct Handle {
    state: watch::Receiver<State>,
    /// Milliseconds since `started` of the last request.
    used: Arc<AtomicU64>,
}

/// All followers of this edge.
pub struct Followers {
    running: DashMap<Rendition, Handle>,
    idle: Duration,
    limit: usize,
    started: Instant,
    upstream: Arc<Upstream>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
}

/// Too many renditions are followed already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl Followers {
    pub fn new(
        idle: Duration,
        limit: usize,
        upstream: Arc<Upstream>,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            running: DashMap::new(),
            idle,
            limit,
            started: Instant::now(),
            upstream,
            store,
            metrics,
        })
    }

    /// What is known of a rendition; starts to follow it if nobody does.
    pub fn watch(self: &Arc<Self>, key: &StreamKey, name: &RenditionName) -> Result<watch::Receiver<State>, TooMany> {
        let id = (key.clone(), name.clone());
        if let Some(handle) = self.running.get(&id) {
            handle.used.store(self.now_ms(), Ordering::Relaxed);
            return Ok(handle.state.clone());
        }
        let full = self.running.len() >= self.limit;
        match self.running.entry(id.clone()) {
            Entry::Occupied(handle) => {
                handle.get().used.store(self.now_ms(), Ordering::Relaxed);
                Ok(handle.get().state.clone())
            }
            Entry::Vacant(_) if full => {
                self.metrics.shed.with_label_values(&["followers"]).inc();
                Err(TooMany)
            }
            Entry::Vacant(place) => {
                let (state, reader) = watch::channel(State::default());
                let used = Arc::new(AtomicU64::new(self.now_ms()));
                place.insert(Handle {
                    state: reader.clone(),
                    used: used.clone(),
                });
                self.start(id, used, state);
                Ok(reader)
            }
        }
    }

    fn start(self: &Arc<Self>, id: Rendition, used: Arc<AtomicU64>, state: watch::Sender<State>) {
        let follower = Follower {
            directory: format!("/app/{}/d/", id.0),
            file: format!("{}.m3u8", id.1),
            upstream: self.upstream.clone(),
            store: self.store.clone(),
            metrics: self.metrics.clone(),
            state,
        };
        let followers = self.clone();
        self.metrics.followers.inc();
        tokio::spawn(async move {
            let linger = tokio::select! {
                end = follower.run() => Some(match end {
                    End::Ended => ENDED_LIFE,
                    End::Absent => ABSENT_LIFE,
                }),
                // Off the map already.
                () = followers.until_idle(&id, &used) => None,
            };
            if let Some(linger) = linger {
                tokio::time::sleep(linger).await;
                followers.running.remove(&id);
            }
            followers.metrics.followers.dec();
            // Only now: whoever still waits sees the channel close and asks afresh.
            drop(follower);
        });
    }

    async fn until_idle(&self, id: &Rendition, used: &AtomicU64) {
        loop {
            let idle_ms = self.now_ms().saturating_sub(used.load(Ordering::Relaxed));
            let left = self.idle.saturating_sub(Duration::from_millis(idle_ms));
            if !left.is_zero() {
                tokio::time::sleep(left).await;
                continue;
            }
            // Decided under the map's lock, where a new viewer would mark it used.
            let gone = self.running.remove_if(id, |_, handle| {
                let idle_ms = self.now_ms().saturating_sub(handle.used.load(Ordering::Relaxed));
                idle_ms >= self.idle.as_millis() as u64
            });
            if gone.is_some() {
                return;
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}
