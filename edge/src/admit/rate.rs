//! How often somebody may ask: governor's rate limiter over a map that can't grow without bound.
//!
//! Before this: `admit.rs`. Somebody new whom the map has no room for shares one allowance with all others like them until
//! there is room again: an attack from very many addresses slows newcomers down, and costs no more memory.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, RandomState},
    num::NonZeroU32,
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{StateStore, keyed::ShrinkableKeyedStateStore},
};
use parking_lot::Mutex;

use crate::config::Requests;

/// Locks the map is divided among.
const SHARDS: usize = 64;

/// Requests per second, and how many may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    pub per_second: NonZeroU32,
    pub burst: NonZeroU32,
}

impl From<Requests> for Allowance {
    fn from(requests: Requests) -> Self {
        Self {
            per_second: requests.per_second,
            burst: requests.burst,
        }
    }
}

/// One allowance for each `K`.
#[derive(Debug)]
pub(super) struct Rate<K: Hash + Eq + Clone, C: Clock = MonotonicClock> {
    limiter: RateLimiter<K, Bounded<K>, C, NoOpMiddleware<C::Instant>>,
    clock: C,
}

impl<K: Hash + Eq + Clone> Rate<K> {
    /// `remembered`: how many are told apart.
    pub(super) fn new(allowance: Allowance, remembered: usize) -> Self {
        Self::with_clock(allowance, remembered, MonotonicClock)
    }
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> Rate<K, C> {
    fn with_clock(allowance: Allowance, remembered: usize, clock: C) -> Self {
        let quota = Quota::per_second(allowance.per_second).allow_burst(allowance.burst);
        Self {
            limiter: RateLimiter::new(quota, Bounded::new(remembered), clock.clone()),
            clock,
        }
    }

    /// Takes one request off the allowance, or says how long until there is one.
    pub(super) fn take(&self, who: &K) -> Result<(), Duration> {
        self.limiter
            .check_key(who)
            .map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Forgets those whose allowance is whole again.
    pub(super) fn forget_the_quiet(&self) {
        self.limiter.retain_recent();
    }

    pub(super) fn remembered(&self) -> usize {
        self.limiter.len()
    }
}

/// Where governor keeps what it knows: for each key when its allowance is whole again.
#[derive(Debug)]
struct Bounded<K> {
    shards: Vec<Mutex<Shard<K>>>,
    hasher: RandomState,
    per_shard: usize,
}

#[derive(Debug)]
struct Shard<K> {
    known: HashMap<K, Nanos>,
    /// Of all that there is no room for.
    others: Option<Nanos>,
}

impl<K> Bounded<K> {
    fn new(room: usize) -> Self {
        let empty = || {
            Mutex::new(Shard {
                known: HashMap::new(),
                others: None,
            })
        };
        Self {
            shards: std::iter::repeat_with(empty).take(SHARDS).collect(),
            hasher: RandomState::new(),
            per_shard: room.div_ceil(SHARDS).max(1),
        }
    }
}

impl<K: Hash + Eq + Clone> StateStore for Bounded<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        let Some(shard) = self.shards.get(index) else {
            return measure(None).map(|(outcome, _)| outcome);
        };
        let mut shard = shard.lock();
        if let Some(state) = shard.known.get_mut(key) {
            let (outcome, next) = measure(Some(*state))?;
            *state = next;
            return Ok(outcome);
        }
        if shard.known.len() < self.per_shard {
            let (outcome, next) = measure(None)?;
            shard.known.insert(key.clone(), next);
            return Ok(outcome);
        }
        let (outcome, next) = measure(shard.others)?;
        shard.others = Some(next);
        Ok(outcome)
    }
}

impl<K: Hash + Eq + Clone> ShrinkableKeyedStateStore<K> for Bounded<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.known.retain(|_, state| *state > drop_below);
            // The room a crowd took is given back when it has gone.
            let needed = shard.known.len() * 2;
            shard.known.shrink_to(needed);
        }
    }

    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().known.len()).sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn rate(per_second: u32, burst: u32, remembered: usize) -> (Rate<u32, FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let allowance = Allowance {
            per_second: NonZeroU32::new(per_second).unwrap(),
            burst: NonZeroU32::new(burst).unwrap(),
        };
        (Rate::with_clock(allowance, remembered, clock.clone()), clock)
    }

    #[test]
    fn the_allowance_is_exact_and_each_has_its_own() {
        let (rate, clock) = rate(10, 30, 100);
        for n in 0..30 {
            assert_eq!(rate.take(&1), Ok(()), "{n}");
        }
        assert_eq!(rate.take(&1), Err(Duration::from_millis(100)));
        assert_eq!(rate.take(&2), Ok(()));
        clock.advance(Duration::from_millis(99));
        assert_eq!(rate.take(&1), Err(Duration::from_millis(1)));
        clock.advance(Duration::from_millis(1));
        assert_eq!(rate.take(&1), Ok(()));
        assert!(rate.take(&1).is_err());
        // A second later: ten, and no more.
        clock.advance(Duration::from_secs(1));
        let granted = (0..20).filter(|_| rate.take(&1).is_ok()).count();
        assert_eq!(granted, 10);
    }

    #[test]
    fn a_million_strangers_share_what_there_is_no_room_for() {
        let (rate, clock) = rate(1, 1, 1000);
        assert_eq!(rate.take(&0), Ok(()));
        let granted = (1..1_000_000).filter(|who| rate.take(who).is_ok()).count();
        let room = 1000usize.div_ceil(SHARDS) * SHARDS;
        assert_eq!(rate.remembered(), room);
        assert_eq!(
            granted,
            room - 1 + SHARDS,
            "one each who is known, one for all others of a shard"
        );
        clock.advance(Duration::from_secs(1));
        assert_eq!(rate.take(&0), Ok(()), "who was known before keeps what is theirs");
        clock.advance(Duration::from_secs(2));
        rate.forget_the_quiet();
        assert_eq!(rate.remembered(), 0);
    }
}
