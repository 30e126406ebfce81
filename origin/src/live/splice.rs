//! Joins the timelines of publishers that follow one another into the stream's one timeline. Pure; times of arrival are
//! arguments.
//!
//! Every publish comes with a clock of its own. The stream's clock is what was published last and when that came: a
//! newcomer's frame is put as much later as it came later. Where the clocks of two publishes agree with that anyway (an
//! encoder that went on counting, several outputs of one encoder), the encoder's clock is believed, which is exact.
//!
//! **A break leaves no hole in media time.** What came after it follows what came before it, and the programme date tells
//! how long it was. (hls.js 1.7 stands still for ever in front of a hole that no segment covers.) Only when other variants
//! of the stream went on meanwhile, the hole stays: their media time has passed.
//!
//! Before this: `live/standby.rs`, `ingest/timeline.rs`. After this: `live/packager.rs`.

use std::time::{Duration, Instant};

use weir_shared::media::time::MediaTime;

/// Where a stream's timeline begins, so that a track that starts a little earlier than the first frame does not go
/// negative.
pub const START: MediaTime = MediaTime::from_millis(1000);
/// Two publishers' clocks that differ by no more than this, as seen by arrival, are one clock.
pub const SAME_CLOCK: Duration = Duration::from_millis(500);
/// The same for several publishes of one stream, whose connections an encoder opens one after the other.
pub const SAME_ENCODER: Duration = Duration::from_secs(3);

/// How far a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Decode time on the stream's timeline.
    pub media: MediaTime,
    pub arrived: Instant,
}

/// A frame of the newcomer: its decode time on its own timeline, and when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub dts: MediaTime,
    pub arrived: Instant,
}

/// An offset that may be right because another publish has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub offset: MediaTime,
    pub tolerance: Duration,
}

/// What to add to the newcomer's times. `newest` is its newest frame: the one least delayed by how a connection begins.
pub fn offset(reached: Option<Reached>, newest: Arrival, candidates: &[Candidate]) -> MediaTime {
    let Some(reached) = reached else {
        return START - newest.dts;
    };
    let since = match newest.arrived.checked_duration_since(reached.arrived) {
        Some(later) => MediaTime::from(later),
        None => MediaTime::ZERO - MediaTime::from(reached.arrived.saturating_duration_since(newest.arrived)),
    };
    let by_arrival = reached.media + since - newest.dts;
    let difference = |candidate: &&Candidate| {
        let nanos = (candidate.offset - by_arrival).as_nanos().unsigned_abs();
        Duration::from_nanos(nanos)
    };
    candidates
        .iter()
        .filter(|candidate| difference(candidate) <= candidate.tolerance)
        .min_by_key(difference)
        .map_or(by_arrival, |candidate| candidate.offset)
}

/// What a newcomer is put after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    /// What was shown last of this variant.
    pub reached: Reached,
    /// The same of its video.
    pub video: Option<MediaTime>,
    /// What was shown last of any variant.
    pub furthest: Reached,
    /// From one frame to the next.
    pub step: MediaTime,
}

/// Where a newcomer is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub offset: MediaTime,
    /// Taken out of media time: by so much more the programme date has moved on.
    pub skipped: MediaTime,
}

/// How much sound may be told to begin before the end of the sound before it.
const SOUND_BENDS: MediaTime = MediaTime::from_millis(50);
/// Distance of frames assumed until two were seen.
pub const STEP_DEFAULT: MediaTime = MediaTime::from_millis(33);

impl After {
    /// Decode time from which on the newcomer may be shown: it never goes back.
    pub fn earliest(self) -> MediaTime {
        match self.video {
            // Video follows video. Sound that is ahead by no more than a few frames bends to that.
            Some(video) => (video + self.step).max(self.reached.media - SOUND_BENDS),
            None => self.reached.media + self.step,
        }
    }

    /// Puts the newcomer after what was shown. `starts`: its frames that decoding can begin with, oldest first.
    pub fn place(self, newest: Arrival, starts: &[Arrival], candidates: &[Candidate], leaves_holes: bool) -> Place {
        let offset = self.correct(newest, starts, candidates);
        let mut skipped = MediaTime::ZERO;
        if !leaves_holes {
            let usable = starts.iter().find(|start| start.dts + offset >= self.earliest());
            skipped = usable.map_or(skipped, |start| start.dts + offset - self.earliest());
        }
        Place {
            offset: offset - skipped,
            skipped,
        }
    }

    fn correct(self, newest: Arrival, starts: &[Arrival], candidates: &[Candidate]) -> MediaTime {
        let by_clock = offset(Some(self.furthest), newest, candidates);
        if starts.iter().any(|start| start.dts + by_clock >= self.earliest()) {
            return by_clock;
        }
        // By another's clock nothing here comes after what was shown: then it is not the same clock.
        let by_arrival = offset(Some(self.furthest), newest, &[]);
        let came_after = starts.iter().find(|start| start.arrived > self.reached.arrived);
        // It did come later: what its clock says of that is the unevenness of two networks.
        came_after.map_or(by_arrival, |start| by_arrival.max(self.earliest() - start.dts))
    }
}

/// The distance of frames, after another frame.
pub fn step(last: MediaTime, next: MediaTime, before: MediaTime) -> MediaTime {
    const LONGEST: MediaTime = MediaTime::from_millis(200);
    let distance = next - last;
    if distance > MediaTime::ZERO && distance <= LONGEST {
        distance
    } else {
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: i64) -> MediaTime {
        MediaTime::from_millis(n)
    }

    fn after_ms(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    fn at(dts: i64, arrived: Instant) -> Arrival {
        Arrival { dts: ms(dts), arrived }
    }

    #[test]
    fn the_first_publish_begins_at_the_start() {
        assert_eq!(offset(None, at(77, Instant::now()), &[]), START - ms(77));
    }

    #[test]
    fn a_break_keeps_its_length_whatever_the_newcomers_clock_says() {
        let start = Instant::now();
        let reached = Some(Reached {
            media: ms(60_000),
            arrived: start,
        });
        for first in [0, 999, 4_000_000_000] {
            let offset = offset(reached, at(first, after_ms(start, 5000)), &[]);
            assert_eq!(ms(first) + offset, ms(65_000));
        }
    }

    #[test]
    fn a_clock_that_went_on_is_believed_over_the_arrival() {
        let start = Instant::now();
        let reached = Some(Reached {
            media: ms(60_000),
            arrived: start,
        });
        let same = |millis| Candidate {
            offset: ms(50_000),
            tolerance: Duration::from_millis(millis),
        };
        // By its own clock 5 s went by, by arrival 5.2.
        let newest = at(15_000, after_ms(start, 5200));
        assert_eq!(offset(reached, newest, &[same(500)]), ms(50_000));
        assert_eq!(offset(reached, newest, &[same(100)]), ms(50_200));
    }

    #[test]
    fn what_came_later_is_put_later_even_if_it_came_in_a_burst() {
        let start = Instant::now();
        let reached = Reached {
            media: ms(60_000),
            arrived: start,
        };
        let after = After {
            reached,
            video: Some(reached.media),
            furthest: reached,
            step: ms(40),
        };
        // Two key frames, half a second apart by their clock, came within 10 ms.
        let starts = [at(0, after_ms(start, 100)), at(500, after_ms(start, 110))];
        let both = after.place(starts[1], &starts, &[], true);
        assert_eq!(starts[1].dts + both.offset, ms(60_110), "the second may be shown");
        let one = after.place(starts[1], &starts[..1], &[], true);
        assert_eq!(starts[0].dts + one.offset, ms(60_040));
        assert_eq!((both.skipped, one.skipped), (MediaTime::ZERO, MediaTime::ZERO));
    }

    #[test]
    fn a_break_leaves_no_hole_unless_others_went_on() {
        let start = Instant::now();
        let reached = Reached {
            media: ms(60_000),
            arrived: start,
        };
        let after = After {
            reached,
            video: Some(reached.media),
            furthest: reached,
            step: ms(40),
        };
        let newest = at(77, after_ms(start, 5000));
        let place = after.place(newest, &[newest], &[], false);
        assert_eq!(newest.dts + place.offset, ms(60_040));
        assert_eq!(place.skipped, ms(4960));
        assert_eq!(
            newest.dts + after.place(newest, &[newest], &[], true).offset,
            ms(65_000)
        );
    }
}
