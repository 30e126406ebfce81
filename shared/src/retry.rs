//! How long to wait before trying again: capped exponential back-off with full jitter.
//!
//! Pure: the caller brings the randomness, does the sleeping and gives up when its own deadline says so.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The pause before each next attempt is drawn evenly from zero to a ceiling that doubles with every failure. Drawing
/// from zero spreads a fleet that lost the same origin at the same moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    /// Ceiling of the next pause.
    ceiling: Duration,
}

impl Backoff {
    /// `initial` is the ceiling of the first pause, `max` that of all later ones. A `max` below `initial` wins.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            ceiling: initial.min(max),
        }
    }

    /// The pause after one more failure.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let ceiling = u64::try_from(self.ceiling.as_nanos()).unwrap_or(u64::MAX);
        self.ceiling = self.ceiling.saturating_mul(2).min(self.max);
        Duration::from_nanos(rng.random_range(0..=ceiling))
    }

    /// The longest that the next pause may be.
    pub fn ceiling(&self) -> Duration {
        self.ceiling
    }

    /// After a success: the next failure counts as the first.
    pub fn reset(&mut self) {
        self.ceiling = self.initial.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// The longest of many first, second, … pauses.
    fn ceilings(initial: Duration, max: Duration, attempts: usize) -> Vec<Duration> {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut longest = vec![Duration::ZERO; attempts];
        for _ in 0..2000 {
            let mut backoff = Backoff::new(initial, max);
            for longest in &mut longest {
                *longest = backoff.next(&mut rng).max(*longest);
            }
        }
        longest
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum() {
        let expected = [100, 200, 400, 800, 1000, 1000].map(MS);
        for (longest, ceiling) in ceilings(MS(100), MS(1000), 6).into_iter().zip(expected) {
            assert!(
                longest <= ceiling && longest > ceiling * 98 / 100,
                "{longest:?} of {ceiling:?}"
            );
        }
    }

    #[test]
    fn pauses_are_spread_evenly_from_zero() {
        let mut rng = SmallRng::seed_from_u64(11);
        let mut counts = [0; 4];
        for _ in 0..4000 {
            let pause = Backoff::new(MS(100), MS(100)).next(&mut rng);
            counts[(pause.as_millis() / 25).min(3) as usize] += 1;
        }
        assert!(counts.iter().all(|&count| (900..1100).contains(&count)), "{counts:?}");
    }

    #[test]
    fn success_starts_over() {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut backoff = Backoff::new(MS(1), MS(60_000));
        for _ in 0..40 {
            backoff.next(&mut rng);
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= MS(1));
    }

    #[test]
    fn extremes_neither_panic_nor_wrap() {
        let mut rng = SmallRng::seed_from_u64(5);
        let mut endless = Backoff::new(Duration::MAX, Duration::MAX);
        let mut none = Backoff::new(MS(5), Duration::ZERO);
        for _ in 0..100 {
            endless.next(&mut rng);
            assert_eq!(none.next(&mut rng), Duration::ZERO);
        }
    }
}
