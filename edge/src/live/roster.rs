//! Who is followed: at most one follower per playlist, started by the first viewer, ended a while after the last.
//!
//! Before this: `live/followers.rs` (the fleet's renditions) and `route/routes.rs` (those of others). After this:
//! `live/follower.rs`.

use std::{
    future::Future,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::{DashMap, Entry};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::follower::{End, State};
use crate::{
    admit::{Asker, Reached},
    metrics::Metrics,
};

/// How long the end of a playlist, or its absence, stays known.
const ENDED_LIFE: Duration = Duration::from_secs(5);
const ABSENT_LIFE: Duration = Duration::from_secs(1);

/// Shortest pause between two looks at whether a follower is still needed.
const SHORTEST_NAP: Duration = Duration::from_millis(50);

/// A follower as viewers hold it.
struct Handle<M> {
    state: watch::Receiver<State<M>>,
    /// Milliseconds since `started` of the last request.
    used: Arc<AtomicU64>,
}

impl<M> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            used: self.used.clone(),
        }
    }
}

impl<M> Handle<M> {
    fn is_alive(&self) -> bool {
        self.state.has_changed().is_ok()
    }
}

/// What names a followed playlist.
pub trait Id: Clone + Eq + Hash + Send + Sync + 'static {}

impl<T: Clone + Eq + Hash + Send + Sync + 'static> Id for T {}

/// A follower's place on the map, given up when its task ends, however it ends.
struct Place<I: Id, M: Send + Sync + 'static> {
    roster: Arc<Roster<I, M>>,
    id: I,
    used: Arc<AtomicU64>,
}

impl<I: Id, M: Send + Sync + 'static> Drop for Place<I, M> {
    fn drop(&mut self) {
        let mine = |_: &I, handle: &Handle<M>| Arc::ptr_eq(&handle.used, &self.used);
        self.roster.running.remove_if(&self.id, mine);
        self.roster.metrics.followers.dec();
    }
}

impl<I: Id, M: Send + Sync + 'static> Place<I, M> {
    /// Resolves when nobody has asked for the playlist for a while and nobody is waiting; it is off the map then.
    async fn until_idle(&self, state: &watch::Sender<State<M>>) {
        let roster = &self.roster;
        let idle_for = || {
            let used = self.used.load(Ordering::Relaxed);
            Duration::from_millis(roster.now_ms().saturating_sub(used))
        };
        loop {
            let left = roster.idle.saturating_sub(idle_for());
            tokio::time::sleep(left.max(SHORTEST_NAP)).await;
            // Decided under the map's lock, where a new viewer would mark it used. One receiver is the map's own.
            let gone = roster.running.remove_if(&self.id, |_, handle| {
                Arc::ptr_eq(&handle.used, &self.used) && idle_for() >= roster.idle && state.receiver_count() <= 1
            });
            if gone.is_some() {
                return;
            }
        }
    }
}

/// All followers of one kind.
pub struct Roster<I: Id, M: Send + Sync + 'static> {
    running: DashMap<I, Handle<M>>,
    idle: Duration,
    limit: usize,
    started: Instant,
    metrics: Arc<Metrics>,
    /// Where followers run.
    threads: tokio::runtime::Handle,
    /// Ends every follower, and with it every hold.
    stop: CancellationToken,
}

/// Why a playlist is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFollowed {
    /// Too many are followed already.
    TooMany,
    /// Whoever asks has asked for too much that nothing vouches for.
    Limited(Reached),
    /// This edge is ending.
    Ending,
}

/// What is known of a followed playlist, as it changes.
pub type Watched<M> = watch::Receiver<State<M>>;

impl<I: Id, M: Send + Sync + 'static> Roster<I, M> {
    pub fn new(idle: Duration, limit: usize, metrics: Arc<Metrics>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            running: DashMap::new(),
            idle,
            limit,
            started: Instant::now(),
            metrics,
            threads: tokio::runtime::Handle::current(),
            stop,
        })
    }

    /// What is known of a playlist; if nobody follows it yet, `follow` does, on `asker`'s word that it exists.
    pub fn watch<F>(
        self: &Arc<Self>,
        id: &I,
        asker: Asker<'_>,
        follow: impl FnOnce(Arc<watch::Sender<State<M>>>) -> F,
    ) -> Result<Watched<M>, NotFollowed>
    where
        F: Future<Output = End> + Send + 'static,
    {
        if self.stop.is_cancelled() {
            return Err(NotFollowed::Ending);
        }
        if let Some(handle) = self.running.get(id)
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
                Ok(self.start(id.clone(), handle, state, follow))
            }
            Entry::Vacant(_) if full => {
                self.metrics.shed.with_label_values(&["followers"]).inc();
                Err(NotFollowed::TooMany)
            }
            Entry::Vacant(place) => {
                asker.may_guess().map_err(NotFollowed::Limited)?;
                let (handle, state) = self.handle();
                place.insert(handle.clone());
                Ok(self.start(id.clone(), handle, state, follow))
            }
        }
    }

    /// What is known of a playlist that is followed already.
    pub fn peek(&self, id: &I) -> Option<Watched<M>> {
        let handle = self.running.get(id)?;
        Some(self.used(&handle))
    }

    /// The newest view of a playlist that is followed already.
    pub fn view(&self, id: &I) -> Option<Arc<M>> {
        let handle = self.running.get(id)?;
        handle.used.store(self.now_ms(), Ordering::Relaxed);
        handle.state.borrow().view.clone()
    }

    fn used(&self, handle: &Handle<M>) -> Watched<M> {
        handle.used.store(self.now_ms(), Ordering::Relaxed);
        handle.state.clone()
    }

    fn handle(&self) -> (Handle<M>, watch::Sender<State<M>>) {
        let (sender, state) = watch::channel(State::default());
        let used = Arc::new(AtomicU64::new(self.now_ms()));
        (Handle { state, used }, sender)
    }

    fn start<F>(
        self: &Arc<Self>,
        id: I,
        handle: Handle<M>,
        state: watch::Sender<State<M>>,
        follow: impl FnOnce(Arc<watch::Sender<State<M>>>) -> F,
    ) -> Watched<M>
    where
        F: Future<Output = End> + Send + 'static,
    {
        let reader = handle.state.clone();
        let place = Place {
            roster: self.clone(),
            id,
            used: handle.used,
        };
        drop(handle.state);
        self.metrics.followers.inc();
        let state = Arc::new(state);
        let following = follow(state.clone());
        self.threads.spawn(async move {
            // Dropped in this order: off the map, then the channel closes and whoever still waits asks afresh.
            let (state, place) = (state, place);
            let linger = tokio::select! {
                end = following => match end {
                    End::Ended => ENDED_LIFE,
                    End::Absent => ABSENT_LIFE,
                },
                () = place.until_idle(&state) => Duration::ZERO,
                () = place.roster.stop.cancelled() => Duration::ZERO,
            };
            tokio::time::sleep(linger).await;
        });
        reader
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}
