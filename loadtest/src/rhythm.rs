//! How evenly a broadcaster sends: in bundles, with jitter, or as steadily as an ideal encoder. Pure.
//!
//! After this: [`crate::pace`]. Timestamps stay what they are: only the moment of sending moves, and never ahead of a
//! frame's own time.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

/// Most spans of one pattern.
const MAX_SPANS: usize = 64;
/// Longest pattern, and longest jitter.
const LONGEST: Duration = Duration::from_secs(60);

/// What moves the moment of sending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rhythm {
    /// Frames leave in bundles that span so long, in turn; empty: each frame by itself.
    spans: Vec<Duration>,
    /// Each frame (or bundle) leaves up to so much later, at random; the order is kept.
    jitter: Duration,
    /// The same seed, the same jitter.
    seed: u64,
}

/// A rhythm that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRhythm {
    #[error("--part-pattern: 1 to 64 times above zero, 60s together at most")]
    Spans,
    #[error("--jitter: 60s at most")]
    Jitter,
}

impl Rhythm {
    pub fn new(spans: Vec<Duration>, jitter: Duration, seed: u64) -> Result<Self, BadRhythm> {
        let whole = spans
            .iter()
            .try_fold(Duration::ZERO, |sum, span| sum.checked_add(*span));
        if spans.len() > MAX_SPANS || spans.iter().any(Duration::is_zero) || whole.is_none_or(|whole| whole > LONGEST) {
            return Err(BadRhythm::Spans);
        }
        if jitter > LONGEST {
            return Err(BadRhythm::Jitter);
        }
        Ok(Self { spans, jitter, seed })
    }

    pub(crate) fn start(self) -> Beat {
        Beat {
            rng: SmallRng::seed_from_u64(self.seed),
            bundle_end: Duration::ZERO,
            bundle: 0,
            last: Duration::ZERO,
            late: Duration::ZERO,
            rhythm: self,
        }
    }
}

/// A rhythm being kept.
#[derive(Debug)]
pub(crate) struct Beat {
    rhythm: Rhythm,
    rng: SmallRng,
    /// The end of the latest bundle, and how many there were.
    bundle_end: Duration,
    bundle: usize,
    last: Duration,
    /// Jitter of the latest frame or bundle.
    late: Duration,
}

impl Beat {
    /// When the frame of time `at` leaves. Frames are asked for in order.
    pub(crate) fn leaves(&mut self, at: Duration) -> Duration {
        let fresh = self.rhythm.spans.is_empty() || at >= self.bundle_end;
        while at >= self.bundle_end {
            let turn = self.bundle % self.rhythm.spans.len().max(1);
            let Some(span) = self.rhythm.spans.get(turn) else { break };
            self.bundle_end += *span;
            self.bundle += 1;
        }
        if fresh && !self.rhythm.jitter.is_zero() {
            self.late = self.rng.random_range(Duration::ZERO..=self.rhythm.jitter);
        }
        let ready = if self.rhythm.spans.is_empty() {
            at
        } else {
            self.bundle_end
        };
        self.last = self.last.max(ready + self.late);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn leaves(rhythm: Rhythm, times: &[u64]) -> Vec<u128> {
        let mut beat = rhythm.start();
        times.iter().map(|at| beat.leaves(ms(*at)).as_millis()).collect()
    }

    #[test]
    fn an_ideal_encoder_sends_each_frame_at_its_time() {
        assert_eq!(leaves(Rhythm::default(), &[0, 33, 67]), [0, 33, 67]);
    }

    #[test]
    fn frames_of_a_bundle_leave_together_when_it_is_whole_and_spans_take_turns() {
        let rhythm = Rhythm::new(vec![ms(200), ms(50)], Duration::ZERO, 0).unwrap();
        assert_eq!(
            leaves(rhythm, &[0, 100, 199, 200, 249, 250, 449, 450, 900]),
            [200, 200, 200, 250, 250, 450, 450, 500, 950]
        );
    }

    #[test]
    fn jitter_delays_within_its_bound_keeps_the_order_and_can_be_repeated() {
        let rhythm = |seed| Rhythm::new(vec![], ms(80), seed).unwrap();
        let times: Vec<u64> = (0..500).map(|n| n * 33).collect();
        let left = leaves(rhythm(1), &times);
        assert!(left.is_sorted());
        let delays = left.iter().zip(&times).map(|(left, at)| left - u128::from(*at));
        assert!(delays.clone().all(|delay| delay <= 80));
        assert!(delays.clone().any(|delay| delay > 60) && delays.clone().any(|delay| delay < 20));
        assert_eq!(left, leaves(rhythm(1), &times));
        assert_ne!(left, leaves(rhythm(2), &times));
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        assert_eq!(Rhythm::new(vec![ms(0)], ms(0), 0), Err(BadRhythm::Spans));
        assert_eq!(Rhythm::new(vec![ms(1); 65], ms(0), 0), Err(BadRhythm::Spans));
        assert_eq!(Rhythm::new(vec![Duration::MAX; 2], ms(0), 0), Err(BadRhythm::Spans));
        assert_eq!(Rhythm::new(vec![], ms(60_001), 0), Err(BadRhythm::Jitter));
    }
}
