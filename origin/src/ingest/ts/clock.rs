//! The clock of a transport stream: 33 bits of 90 kHz that wrap every 26.5 hours become a count that does not. Pure.
//!
//! Before this: `ts/pes.rs`. After this: `ingest/timeline.rs`, which judges jumps.

use super::pes::Stamps;

/// Ticks after which a stamp begins at zero again.
const WRAP: i64 = 1 << 33;

/// Decode and presentation time in nanoseconds since the clock's last beginning that was seen; may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub dts: i64,
    pub pts: i64,
}

/// The clock of one program: its streams share it.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Ticks of the last decode time.
    last: Option<i64>,
}

impl Clock {
    /// The nearest time to the last one that has these stamps.
    pub(super) fn times(&mut self, stamps: Stamps) -> Times {
        let dts = nearest(stamps.dts, self.last.unwrap_or(stamps.dts as i64));
        self.last = Some(dts);
        Times {
            dts: nanos(dts),
            pts: nanos(nearest(stamps.pts, dts)),
        }
    }
}

fn nearest(stamp: u64, near: i64) -> i64 {
    let ahead = (stamp as i64 - near).rem_euclid(WRAP);
    near + if ahead < WRAP / 2 { ahead } else { ahead - WRAP }
}

/// A tick is 100 000 / 9 ns.
const fn nanos(ticks: i64) -> i64 {
    // i128 would not be needed for 1 600 years of media.
    (ticks as i128 * 100_000 / 9) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(dts: u64, pts: u64) -> Stamps {
        Stamps { pts, dts }
    }

    #[test]
    fn a_wrap_is_no_event() {
        let mut clock = Clock::default();
        let end = (1u64 << 33) - 90_000;
        let first = clock.times(at(end, end + 3600));
        assert_eq!(first.pts - first.dts, 40_000_000);
        let over = clock.times(at(end + 89_991, 9));
        assert_eq!(over.pts - over.dts, 200_000);
        let second = clock.times(at(0, 0));
        assert_eq!(second.dts - first.dts, 1_000_000_000);
        let back = clock.times(at(end, end));
        assert_eq!(back.dts, first.dts, "a track that is a little behind");
    }

    #[test]
    fn the_picture_may_be_shown_before_the_clock_begins() {
        let times = Clock::default().times(at(100, (1 << 33) - 90));
        assert!(times.pts < 0 && times.dts > 0);
    }
}
