//! Media time. This is the only file that rescales between time bases.

use std::{fmt, time::Duration};

/// Ticks per second of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timescale(u32);

impl Timescale {
    /// 90 kHz: exact for 24, 25, 29.97, 30, 50, 59.94 and 60 frames per second.
    pub const VIDEO: Self = Self(90_000);

    /// `None` for zero.
    pub const fn new(ticks_per_second: u32) -> Option<Self> {
        if ticks_per_second == 0 {
            None
        } else {
            Some(Self(ticks_per_second))
        }
    }

    /// Ticks per second.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A point on, or a distance along, the stream's media timeline, in nanoseconds. Signed: composition offsets and
/// corrections may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MediaTime(i64);

impl MediaTime {
    pub const ZERO: Self = Self(0);

    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Saturates beyond ±292 years.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    pub const fn as_millis(self) -> i64 {
        self.0 / 1_000_000
    }

    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Zero if negative.
    pub fn to_duration(self) -> Duration {
        Duration::from_nanos(self.0.max(0) as u64)
    }

    /// Nearest tick.
    pub fn to_ticks(self, scale: Timescale) -> Ticks {
        let product = i128::from(self.0) * i128::from(scale.0);
        Ticks(round_div(product, 1_000_000_000))
    }

    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::ops::Add for MediaTime {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.saturating_add(other)
    }
}

impl std::ops::Sub for MediaTime {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.saturating_sub(other)
    }
}

impl From<Duration> for MediaTime {
    fn from(d: Duration) -> Self {
        Self(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for MediaTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s", self.as_secs_f64())
    }
}

/// A count of ticks in a track's own [`Timescale`]: sample durations, `tfdt`, composition offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Ticks(pub i64);

impl Ticks {
    pub const ZERO: Self = Self(0);

    /// Nearest nanosecond.
    pub fn to_media_time(self, scale: Timescale) -> MediaTime {
        let product = i128::from(self.0) * 1_000_000_000;
        MediaTime(round_div(product, i128::from(scale.0)))
    }

    /// Nearest microsecond, zero if negative: what playlists print.
    pub fn to_duration(self, scale: Timescale) -> Duration {
        let product = i128::from(self.0.max(0)) * 1_000_000;
        Duration::from_micros(round_div(product, i128::from(scale.0)) as u64)
    }

    /// Nearest tick of another time base.
    pub fn rescale(self, from: Timescale, to: Timescale) -> Self {
        if from == to {
            return self;
        }
        Self(round_div(i128::from(self.0) * i128::from(to.0), i128::from(from.0)))
    }
}

impl std::ops::Add for Ticks {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::ops::Sub for Ticks {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::ops::AddAssign for Ticks {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// Division to the nearest integer, halves away from zero, saturating to 64 bits.
fn round_div(numerator: i128, denominator: i128) -> i64 {
    let half = denominator / 2;
    let rounded = if numerator >= 0 {
        (numerator + half) / denominator
    } else {
        (numerator - half) / denominator
    };
    rounded.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_become_the_nearest_tick() {
        assert_eq!(MediaTime::from_millis(33).to_ticks(Timescale::VIDEO), Ticks(2970));
        assert_eq!(MediaTime::from_millis(-33).to_ticks(Timescale::VIDEO), Ticks(-2970));
        let aac = Timescale::new(44_100).unwrap();
        assert_eq!(MediaTime::from_millis(23).to_ticks(aac), Ticks(1014));
    }

    #[test]
    fn a_frame_of_29_97_survives_the_round_trip() {
        let frame = Ticks(3003);
        assert_eq!(frame.to_media_time(Timescale::VIDEO).to_ticks(Timescale::VIDEO), frame);
        assert_eq!(frame.to_duration(Timescale::VIDEO), Duration::from_micros(33_367));
    }

    #[test]
    fn extremes_saturate_instead_of_wrapping() {
        assert_eq!(MediaTime::from_millis(i64::MAX).as_nanos(), i64::MAX);
        let _ = MediaTime::from_nanos(i64::MAX).to_ticks(Timescale::VIDEO);
        let _ = MediaTime::from_nanos(i64::MIN) - MediaTime::from_nanos(i64::MAX);
    }
}
