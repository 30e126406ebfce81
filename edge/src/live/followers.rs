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
use tokio_util::sync::CancellationToken;
use weir_shared::id::{RenditionName, StreamKey};

use super::{
    follower::{End, Follower, State},
    view::View,
};
use crate::{cache::Store, metrics::Metrics, upstream::Upstream};

/// How long the end of a rendition, or its absence, stays known.
const ENDED_LIFE: Duration = Duration::from_secs(5);
const ABSENT_LIFE: Duration = Duration::from_secs(1);

/// Shortest pause between two looks at whether a follower is still needed.
const SHORTEST_NAP: Duration = Duration::from_millis(50);

/// A rendition of a stream, as the map's key.
type Rendition = (StreamKey, RenditionName);

/// A follower as viewers hold it.
#[derive(Clone)]
struct Handle {
    state: watch::Receiver<State>,
    /// Milliseconds since `started` of the last request.
    used: Arc<AtomicU64>,
}

impl Handle {
    fn is_alive(&self) -> bool {
        self.state.has_changed().is_ok()
    }
}

/// A follower's place on the map, given up when its task ends, however it ends.
struct Place {
    followers: Arc<Followers>,
    id: Rendition,
    used: Arc<AtomicU64>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mine = |_: &Rendition, handle: &Handle| Arc::ptr_eq(&handle.used, &self.used);
        self.followers.running.remove_if(&self.id, mine);
        self.followers.metrics.followers.dec();
    }
}

impl Place {
    /// Resolves when nobody has asked for the rendition for a while and nobody is waiting; it is off the map then.
    async fn until_idle(&self, state: &watch::Sender<State>) {
        let followers = &self.followers;
        let idle_for = || {
            let used = self.used.load(Ordering::Relaxed);
            Duration::from_millis(followers.now_ms().saturating_sub(used))
        };
        loop {
            let left = followers.idle.saturating_sub(idle_for());
            tokio::time::sleep(left.max(SHORTEST_NAP)).await;
            // Decided under the map's lock, where a new viewer would mark it used. One receiver is the map's own.
            let gone = followers.running.remove_if(&self.id, |_, handle| {
                Arc::ptr_eq(&handle.used, &self.used) && idle_for() >= followers.idle && state.receiver_count() <= 1
            });
            if gone.is_some() {
                return;
            }
        }
    }
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
    /// Ends every follower, and with it every hold.
    stop: CancellationToken,
}

/// Why a rendition is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFollowed {
    /// Too many are followed already.
    TooMany,
    /// This edge is ending.
    Ending,
}

impl Followers {
    pub fn new(
        idle: Duration,
        limit: usize,
        upstream: Arc<Upstream>,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            running: DashMap::new(),
            idle,
            limit,
            started: Instant::now(),
            upstream,
            store,
            metrics,
            stop,
        })
    }

    /// What is known of a rendition; starts to follow it if nobody does.
    pub fn watch(
        self: &Arc<Self>,
        key: &StreamKey,
        name: &RenditionName,
    ) -> Result<watch::Receiver<State>, NotFollowed> {
        if self.stop.is_cancelled() {
            return Err(NotFollowed::Ending);
        }
        let id = (key.clone(), name.clone());
        if let Some(handle) = self.running.get(&id)
            && handle.is_alive()
        {
            return Ok(self.used(&handle));
        }
        let full = self.running.len() >= self.limit;
        match self.running.entry(id.clone()) {
            Entry::Occupied(handle) if handle.get().is_alive() => Ok(self.used(handle.get())),
            // Its follower died without taking its leave.
            Entry::Occupied(mut dead) => {
                let (handle, state) = self.handle();
                dead.insert(handle.clone());
                Ok(self.start(id, handle, state))
            }
            Entry::Vacant(_) if full => {
                self.metrics.shed.with_label_values(&["followers"]).inc();
                Err(NotFollowed::TooMany)
            }
            Entry::Vacant(place) => {
                let (handle, state) = self.handle();
                place.insert(handle.clone());
                Ok(self.start(id, handle, state))
            }
        }
    }

    /// The newest view of a rendition that is followed already.
    pub fn peek(&self, key: &StreamKey, name: &RenditionName) -> Option<Arc<View>> {
        let handle = self.running.get(&(key.clone(), name.clone()))?;
        handle.used.store(self.now_ms(), Ordering::Relaxed);
        handle.state.borrow().view.clone()
    }

    fn used(&self, handle: &Handle) -> watch::Receiver<State> {
        handle.used.store(self.now_ms(), Ordering::Relaxed);
        handle.state.clone()
    }

    fn handle(&self) -> (Handle, watch::Sender<State>) {
        let (sender, state) = watch::channel(State::default());
        let used = Arc::new(AtomicU64::new(self.now_ms()));
        (Handle { state, used }, sender)
    }

    fn start(self: &Arc<Self>, id: Rendition, handle: Handle, state: watch::Sender<State>) -> watch::Receiver<State> {
        let follower = Follower {
            directory: format!("/app/{}/d/", id.0),
            file: format!("{}.m3u8", id.1),
            upstream: self.upstream.clone(),
            store: self.store.clone(),
            metrics: self.metrics.clone(),
            state,
        };
        let reader = handle.state.clone();
        let place = Place {
            followers: self.clone(),
            id,
            used: handle.used,
        };
        drop(handle.state);
        self.metrics.followers.inc();
        tokio::spawn(async move {
            // Dropped in this order: off the map, then the channel closes and whoever still waits asks afresh.
            let (follower, place) = (follower, place);
            let linger = tokio::select! {
                end = follower.run() => match end {
                    End::Ended => ENDED_LIFE,
                    End::Absent => ABSENT_LIFE,
                },
                () = place.until_idle(&follower.state) => Duration::ZERO,
                () = place.followers.stop.cancelled() => Duration::ZERO,
            };
            tokio::time::sleep(linger).await;
        });
        reader
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}
