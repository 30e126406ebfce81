//! Which origins are well, judged by real traffic alone. Pure: outcomes and `now` in, an opinion out.
//!
//! Before this: the outcome of each request (`upstream.rs`). After this: `upstream/placement.rs`, the order in which
//! origins are asked. An origin that failed is asked last for a while, which doubles with each failure and is drawn at
//! random so that a fleet does not return as one; the first request after it is the trial.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{SeedableRng as _, rngs::SmallRng};
use weir_shared::retry::Backoff;

/// Shortest and longest time in which an origin that failed is asked last. Half of it is certain, half drawn.
const FIRST_PENALTY: Duration = Duration::from_millis(1000);
const LONGEST_PENALTY: Duration = Duration::from_secs(15);
/// Origins of which it is remembered that they failed.
const MAX_ORIGINS: usize = 1024;

/// All origins' health.
#[derive(Debug)]
pub(super) struct Health {
    failing: HashMap<Arc<str>, Failing>,
    rng: SmallRng,
}

#[derive(Debug)]
struct Failing {
    backoff: Backoff,
    until: Instant,
}

impl Health {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            failing: HashMap::new(),
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// Whether an origin is asked in its turn.
    pub(super) fn is_well(&self, origin: &str, now: Instant) -> bool {
        self.failing.get(origin).is_none_or(|failing| failing.until <= now)
    }

    /// It answered, whatever it said.
    pub(super) fn answered(&mut self, origin: &str) {
        if !self.failing.is_empty() {
            self.failing.remove(origin);
        }
    }

    /// It did not answer, or broke off. Gives whether this is news.
    pub(super) fn failed(&mut self, origin: &Arc<str>, now: Instant) -> bool {
        if self.failing.len() >= MAX_ORIGINS {
            self.failing.retain(|_, failing| failing.until > now);
        }
        if self.failing.len() >= MAX_ORIGINS && !self.failing.contains_key(origin) {
            return false;
        }
        let fresh = || Failing {
            backoff: Backoff::new(FIRST_PENALTY / 2, LONGEST_PENALTY / 2),
            until: now,
        };
        let mut news = false;
        let failing = self.failing.entry(origin.clone()).or_insert_with(|| {
            news = true;
            fresh()
        });
        // Requests that were under way together fail together: that is one failure.
        if failing.until <= now {
            let ceiling = failing.backoff.ceiling();
            failing.until = now + ceiling + failing.backoff.next(&mut self.rng);
        }
        news
    }

    /// Origins that are asked last now.
    pub(super) fn down(&self, now: Instant) -> usize {
        self.failing.values().filter(|failing| failing.until > now).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_that_failed_rests_longer_each_time_until_it_answers() {
        let mut health = Health::new(1);
        let (origin, mut now): (Arc<str>, _) = ("http://a".into(), Instant::now());
        let mut rests = Vec::new();
        for round in 0..8 {
            assert!(health.is_well(&origin, now));
            assert_eq!(health.failed(&origin, now), round == 0);
            // Those that failed with it do not count.
            assert!(!health.failed(&origin, now));
            let begin = now;
            while !health.is_well(&origin, now) {
                now += Duration::from_millis(10);
            }
            rests.push(now - begin);
        }
        assert!(rests[0] >= FIRST_PENALTY / 2 && rests[0] <= FIRST_PENALTY + Duration::from_millis(10));
        assert!(
            rests[6] >= LONGEST_PENALTY / 2 && rests[6] <= LONGEST_PENALTY,
            "{rests:?}"
        );
        health.answered(&origin);
        assert!(health.is_well(&origin, begin_of_time(now)) && health.down(now) == 0);
        assert!(health.failed(&origin, now), "it is news again");
    }

    fn begin_of_time(now: Instant) -> Instant {
        now.checked_sub(Duration::from_secs(1)).unwrap_or(now)
    }

    #[test]
    fn made_up_origins_do_not_fill_the_memory() {
        let mut health = Health::new(1);
        let now = Instant::now();
        for n in 0..10_000 {
            health.failed(&format!("http://{n}").into(), now);
        }
        assert!(health.failing.len() <= MAX_ORIGINS);
    }
}
