//! What rhythm a track has, and its timestamps put back on it.
//!
//! Encoders send timestamps rounded to milliseconds; the frames themselves come at an even rate. Before this:
//! `ingest/timeline.rs`. After this: `package/segmenter.rs`.

use weir_shared::media::time::MediaTime;

/// The time from one frame to the next as an exact fraction of a second in nanoseconds: `nanos / frames`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence {
    nanos: u64,
    frames: u64,
}

/// Frame rates that exist, as frames per `seconds`.
const KNOWN_RATES: [(u64, u64); 22] = [
    (5, 1),
    (10, 1),
    (12, 1),
    (25, 2),
    (15_000, 1001),
    (15, 1),
    (20, 1),
    (24_000, 1001),
    (24, 1),
    (25, 1),
    (30_000, 1001),
    (30, 1),
    (40, 1),
    (48_000, 1001),
    (48, 1),
    (50, 1),
    (60_000, 1001),
    (60, 1),
    (100, 1),
    (120_000, 1001),
    (120, 1),
    (240, 1),
];

impl Cadence {
    /// Thirty frames per second.
    pub const THIRTY: Self = Self {
        nanos: 1_000_000_000,
        frames: 30,
    };

    /// `seconds / frames` between frames. `None` outside 1 to 240 frames per second for video; audio frames fit too.
    pub fn new(seconds: u64, frames: u64) -> Option<Self> {
        let plausible = frames > 0 && seconds > 0 && frames / seconds <= 240 && seconds / frames < 1;
        let exact_one = frames == seconds;
        (plausible || exact_one).then_some(Self {
            nanos: seconds.saturating_mul(1_000_000_000),
            frames,
        })
    }

    /// Nearest known rate within 0.1 %, else the rate itself.
    pub fn from_frame_rate(rate: f64) -> Option<Self> {
        if !(1.0..=240.0).contains(&rate) {
            return None;
        }
        let near = KNOWN_RATES
            .iter()
            .find(|(frames, seconds)| (rate * *seconds as f64 / *frames as f64 - 1.0).abs() < 0.0004);
        match near {
            Some(&(frames, seconds)) => Self::new(seconds, frames),
            None => Self::new(1000, (rate * 1000.0).round() as u64),
        }
    }

    /// From the distances between frames, in nanoseconds, that carry rounding to whole milliseconds.
    pub fn from_deltas(deltas: &[i64]) -> Option<Self> {
        let mut sorted: Vec<i64> = deltas.iter().copied().filter(|d| *d > 0).collect();
        sorted.sort_unstable();
        let median = *sorted.get(sorted.len() / 2)?;
        // The mean of those near the median averages the rounding out.
        let near: Vec<i64> = sorted.into_iter().filter(|d| (d - median).abs() <= 2_000_000).collect();
        let mean = near.iter().sum::<i64>() / near.len().max(1) as i64;
        let rate = 1e9 / mean.max(1) as f64;
        // A mean of n differences is off by at most 1 ms / n: take the closest rate that explains it.
        let slack = 1e6 / near.len().max(1) as f64;
        // Whole rates before their 1000/1001 twins: a few frames can't tell them apart, and the whole ones are likelier.
        let fits =
            |&&(frames, seconds): &&(u64, u64)| (seconds as f64 * 1e9 / frames as f64 - mean as f64).abs() <= slack;
        let whole = KNOWN_RATES.iter().filter(|(_, seconds)| *seconds == 1).find(fits);
        match whole.or_else(|| KNOWN_RATES.iter().find(fits)) {
            Some(&(frames, seconds)) => Self::new(seconds, frames),
            None => Self::from_frame_rate(rate),
        }
    }

    /// Nearest nanosecond of `n` frames.
    pub fn times(self, n: u64) -> MediaTime {
        let product = u128::from(self.nanos) * u128::from(n);
        let nanos = (product + u128::from(self.frames) / 2) / u128::from(self.frames);
        MediaTime::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
    }

    /// One frame.
    pub fn frame(self) -> MediaTime {
        self.times(1)
    }
}

/// Puts timestamps back on the cadence: follows it exactly while the input agrees within `tolerance`, and the input
/// where it does not.
#[derive(Debug)]
pub struct Smoother {
    tolerance: MediaTime,
    base: MediaTime,
    frames: u64,
    last: Option<MediaTime>,
}

impl Smoother {
    pub fn new(tolerance: MediaTime) -> Self {
        Self {
            tolerance,
            base: MediaTime::ZERO,
            frames: 0,
            last: None,
        }
    }

    /// The smoothed time of the next frame. Never before the previous one.
    pub fn smooth(&mut self, raw: MediaTime, cadence: Cadence) -> MediaTime {
        let smoothed = match self.last {
            None => self.restart(raw),
            Some(last) => {
                let predicted = self.base + cadence.times(self.frames + 1);
                let off = raw - predicted;
                if off.as_nanos().abs() <= self.tolerance.as_nanos() {
                    self.frames += 1;
                    predicted
                } else {
                    self.restart(raw.max(last))
                }
            }
        };
        self.last = Some(smoothed);
        smoothed
    }

    /// Where the frame after the last one is due.
    pub fn next_due(&self, cadence: Cadence) -> MediaTime {
        self.base + cadence.times(self.frames + 1)
    }

    /// The cadence changed: count from the last frame on.
    pub fn rebase(&mut self) {
        if let Some(last) = self.last {
            self.restart(last);
        }
    }

    fn restart(&mut self, at: MediaTime) -> MediaTime {
        self.base = at;
        self.frames = 0;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(n: u64, seconds: u64, frames: u64) -> MediaTime {
        MediaTime::from_millis(((n * seconds * 1000 + frames / 2) / frames) as i64)
    }

    #[test]
    fn rounding_to_milliseconds_is_undone_at_every_known_rate() {
        for (frames, seconds) in KNOWN_RATES {
            let cadence = Cadence::new(seconds, frames).unwrap();
            let mut smoother = Smoother::new(MediaTime::from_nanos(1_500_000));
            let first = smoother.smooth(rounded(0, seconds, frames), cadence);
            for n in 1..20_000 {
                let smoothed = smoother.smooth(rounded(n, seconds, frames), cadence);
                assert_eq!(smoothed, first + cadence.times(n), "{frames}/{seconds} frame {n}");
            }
        }
    }

    #[test]
    fn the_rate_is_found_from_a_few_rounded_distances() {
        for (frames, seconds) in [(24, 1), (25, 1), (30, 1), (50, 1), (60, 1), (15, 1), (10, 1)] {
            let deltas: Vec<i64> = (0..5)
                .map(|n| (rounded(n + 1, seconds, frames) - rounded(n, seconds, frames)).as_nanos())
                .collect();
            assert_eq!(Cadence::from_deltas(&deltas), Cadence::new(seconds, frames), "{frames}");
        }
        assert_eq!(Cadence::from_deltas(&[]), None);
        assert_eq!(Cadence::from_deltas(&[0, -5]), None);
    }

    #[test]
    fn implausible_rates_are_no_cadence() {
        assert_eq!(Cadence::new(0, 30), None);
        assert_eq!(Cadence::new(1, 1000), None);
        assert_eq!(Cadence::new(20, 1), None);
        assert_eq!(Cadence::from_frame_rate(f64::NAN), None);
        assert_eq!(Cadence::from_frame_rate(29.97), Cadence::new(1001, 30_000));
        assert_eq!(Cadence::from_frame_rate(30.0), Cadence::new(1, 30));
    }

    #[test]
    fn a_real_step_is_followed() {
        let cadence = Cadence::new(1, 30).unwrap();
        let mut smoother = Smoother::new(MediaTime::from_nanos(1_500_000));
        smoother.smooth(MediaTime::from_millis(0), cadence);
        assert_eq!(
            smoother.smooth(MediaTime::from_millis(500), cadence),
            MediaTime::from_millis(500)
        );
        assert_eq!(
            smoother.smooth(MediaTime::from_millis(100), cadence),
            MediaTime::from_millis(500)
        );
    }
}
