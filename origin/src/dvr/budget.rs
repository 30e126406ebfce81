//! Memory for media: how much a node, and each of its streams, may hold. Pure.
//!
//! Before this: `config/dvr.rs`. After this: `live/memory.rs`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Of what fits, how much is kept when not all does: the next segments have to fit too.
const KEPT: f64 = 0.95;

/// Memory for media: a node's, or a stream's within it.
#[derive(Debug)]
pub struct Budget {
    /// Bytes.
    limit: u64,
    used: AtomicU64,
    whole: Option<Arc<Self>>,
}

impl Budget {
    /// `limit` in bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            whole: None,
        })
    }

    /// A budget of its own, all of which counts in this one too. `limit` in bytes.
    pub fn within(self: &Arc<Self>, limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            whole: Some(self.clone()),
        })
    }

    /// Bytes that are held.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// What fraction of what is held may stay: 1 while there is room.
    fn share(&self) -> f64 {
        let used = self.used();
        let own = if used <= self.limit {
            1.0
        } else {
            self.limit as f64 / used as f64
        };
        self.whole.as_ref().map_or(own, |whole| own.min(whole.share()))
    }

    fn change(&self, before: u64, after: u64) {
        if after > before {
            self.used.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - after, Ordering::Relaxed);
        }
        if let Some(whole) = &self.whole {
            whole.change(before, after);
        }
    }
}

/// What somebody holds of a budget; given back when it is dropped.
#[derive(Debug)]
pub struct Holding {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Holding {
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// It is so many bytes now.
    pub fn set(&mut self, bytes: u64) {
        self.budget.change(self.bytes, bytes);
        self.bytes = bytes;
    }

    /// How much media may stay in memory, of `held` that is there: `wanted`, or less when the budget is spent; never less
    /// than `least`.
    pub fn hot(&self, wanted: Duration, held: Duration, least: Duration) -> Duration {
        let share = self.budget.share();
        if share >= 1.0 {
            return wanted;
        }
        wanted.min(held.mul_f64(share * KEPT)).max(least)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_stream_keeps_what_it_wants_while_the_node_has_room() {
        let node = Budget::new(1000);
        let mut one = Holding::new(node.within(1000));
        one.set(600);
        assert_eq!(one.hot(HOUR, HOUR, MINUTE), HOUR);
        let mut other = Holding::new(node.within(1000));
        other.set(600);
        assert_eq!(node.used(), 1200);
        let less = one.hot(HOUR, HOUR, MINUTE);
        assert!(less < HOUR.mul_f64(0.84) && less > HOUR / 2, "{less:?}");
        drop(other);
        assert_eq!((node.used(), one.hot(HOUR, HOUR, MINUTE)), (600, HOUR));
    }

    #[test]
    fn a_streams_own_limit_holds_for_all_its_playlists_together() {
        let stream = Budget::new(10_000).within(1000);
        let (mut direct, mut resilient) = (Holding::new(stream.clone()), Holding::new(stream.clone()));
        direct.set(900);
        assert_eq!(direct.hot(HOUR, HOUR, MINUTE), HOUR);
        resilient.set(900);
        assert!(direct.hot(HOUR, HOUR, MINUTE) < HOUR * 11 / 20);
        direct.set(100);
        assert_eq!(resilient.hot(HOUR, HOUR, MINUTE), HOUR);
    }

    #[test]
    fn the_live_end_stays_whatever_it_takes() {
        let mut one = Holding::new(Budget::new(1));
        one.set(1 << 40);
        assert_eq!(one.hot(HOUR, HOUR, MINUTE), MINUTE);
        assert_eq!(one.hot(HOUR, Duration::ZERO, MINUTE), MINUTE);
    }
}
