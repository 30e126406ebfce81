//! Encoder timestamps made sane: 32-bit milliseconds of all tracks in, one continuous media timeline out. Pure; the
//! time of arrival is an argument.
//!
//! Promises: a track's decode times never decrease; audio and video that the encoder stamped alike stay together,
//! also across a jump; a wrap at 2^32 ms is no event; silence of the encoder stays a gap of its real length.
//!
//! How: each track adds an offset to its timestamps, and both offsets are the same as long as the encoder is sane. When
//! a timestamp is implausible, the track gets a new offset that continues the timeline. The other track, when its own
//! timestamps jump too, finds that offset and takes it instead of making another.
//!
//! Before this: `ingest/flv.rs`. After this: `package/frame.rs` on its way to the pipeline.

use std::time::Instant;

use weir_shared::media::time::MediaTime;

use crate::package::frame::TrackId;

/// Where a publish begins on its timeline, so that a track that starts a little earlier than the first frame that
/// arrived does not go negative.
pub const START_MS: i64 = 1000;
/// Steps back up to here are jitter and are held at the last decode time; longer ones are a jump.
pub const BACKWARD_MAX_MS: i64 = 1000;
/// Steps ahead of the clock up to here are believed; longer ones are a jump.
pub const AHEAD_MAX_MS: i64 = 10_000;
/// Composition offsets beyond this are not believed.
pub const COMPOSITION_MAX_MS: i64 = 10_000;

/// Below this, time without a frame at a jump is transport jitter, not silence.
const SILENCE_MIN_MS: i64 = 1000;
/// Frame distance assumed until two frames of a track were seen.
const CADENCE_DEFAULT_MS: i64 = 33;

/// A frame's place on the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub dts: MediaTime,
    /// Presentation minus decode time; changed where holding a decode time would have moved the picture.
    pub composition_offset: MediaTime,
    pub repair: Option<Repair>,
}

/// What was put right, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Went back a little; held at the track's last decode time.
    Held { by: MediaTime },
    /// Jumped; the timeline continues. `jump` is what the encoder's clock did beyond what was to be expected.
    Rebased { jump: MediaTime },
    /// Followed the other track over its jump.
    Followed,
}

impl Repair {
    /// Label value and log word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held { .. } => "held",
            Self::Rebased { .. } => "rebased",
            Self::Followed => "followed",
        }
    }

    /// All label values.
    pub const LABELS: [&'static str; 3] = ["held", "rebased", "followed"];
}

/// The normaliser of one publish.
#[derive(Debug, Default)]
pub struct Timeline {
    /// As many as `ingest/flv.rs` lets through.
    tracks: Vec<Track>,
    /// Number of the newest offset.
    newest: u64,
}

#[derive(Debug, Clone, Copy)]
struct Track {
    id: TrackId,
    offset: Offset,
    /// Last decode time, in milliseconds on the timeline.
    last_ms: i64,
    /// The same with the nanoseconds that the encoder gave beyond it.
    last: MediaTime,
    arrived: Instant,
    cadence_ms: i64,
}

/// Added to timestamps modulo 2^32, which makes wraps a matter of course.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offset {
    ms: u32,
    number: u64,
}

/// Where a track's next frame may plausibly lie, in milliseconds on the timeline.
struct Window {
    /// From here the distance of a candidate is taken modulo 2^32.
    near_ms: i64,
    /// Expected without any fault, both ends included.
    from_ms: i64,
    to_ms: i64,
}

impl Timeline {
    pub fn new() -> Self {
        Self::default()
    }

    /// Places a frame with the encoder's decode time in milliseconds and `nanos` beyond it (below a millisecond), and
    /// its composition offset in milliseconds, that arrived `now`.
    pub fn place(&mut self, id: TrackId, timestamp: u32, nanos: u32, composition_ms: i32, now: Instant) -> Placed {
        let own = self.tracks.iter().find(|track| track.id == id).copied();
        // Of the others, the one that has jumped last: it knows where the timeline goes on.
        let others = self.tracks.iter().filter(|track| track.id != id);
        let other = others.max_by_key(|track| (track.offset.number, track.arrived)).copied();
        let (offset, at_ms, repair) = self.locate(own, other, timestamp, now);

        let floor_ms = own.map_or(0, |track| track.last_ms);
        let dts_ms = at_ms.max(floor_ms);
        let held_ms = dts_ms - at_ms;
        let repair = repair.or((held_ms > 0).then_some(Repair::Held {
            by: MediaTime::from_millis(held_ms),
        }));
        let composition_ms = i64::from(composition_ms).clamp(-COMPOSITION_MAX_MS, COMPOSITION_MAX_MS) - held_ms;

        let step_ms = dts_ms - floor_ms;
        let cadence_ms = own.map_or(CADENCE_DEFAULT_MS, |track| match step_ms {
            1..SILENCE_MIN_MS => step_ms,
            _ => track.cadence_ms,
        });
        let exact = MediaTime::from_nanos(dts_ms.saturating_mul(1_000_000).saturating_add(i64::from(nanos)));
        let dts = own.map_or(exact, |track| track.last.max(exact));
        let track = Track {
            id,
            offset,
            last_ms: dts_ms,
            last: dts,
            arrived: now,
            cadence_ms,
        };
        match self.tracks.iter_mut().find(|track| track.id == id) {
            Some(place) => *place = track,
            None => self.tracks.push(track),
        }
        Placed {
            dts,
            composition_offset: MediaTime::from_millis(composition_ms),
            repair,
        }
    }

    /// Chooses the offset for a frame: the track's own, the other track's newer one, or a new one.
    fn locate(
        &mut self,
        own: Option<Track>,
        other: Option<Track>,
        timestamp: u32,
        now: Instant,
    ) -> (Offset, i64, Option<Repair>) {
        let Some(window) = Window::of(own, other, now) else {
            return (self.new_offset(timestamp, START_MS), START_MS, None);
        };
        let theirs = other.map(|track| track.offset);
        // A track's first frame is placed by the other's offset.
        let current = own.map(|track| track.offset).or(theirs);
        let newer = theirs.filter(|theirs| current.is_some_and(|current| theirs.number > current.number));

        let candidate = |offset: Offset| (offset, window.candidate(offset, timestamp));
        let current = current.map(candidate);
        let newer = newer.map(candidate).filter(|&(_, at_ms)| window.allows(at_ms));
        match (current, newer) {
            (Some((_, here)), Some((offset, there))) if window.distance(there) < window.distance(here) => {
                (offset, there, Some(Repair::Followed))
            }
            (Some((offset, here)), _) if window.allows(here) => (offset, here, None),
            (current, _) => {
                let at_ms = continuation_ms(own, other, now);
                let jump_ms = current.map_or(0, |(_, here)| here - at_ms);
                let repair = Repair::Rebased {
                    jump: MediaTime::from_millis(jump_ms),
                };
                (self.new_offset(timestamp, at_ms), at_ms, Some(repair))
            }
        }
    }

    /// The offset that puts `timestamp` at `at_ms`.
    fn new_offset(&mut self, timestamp: u32, at_ms: i64) -> Offset {
        self.newest += 1;
        Offset {
            ms: (at_ms as u32).wrapping_sub(timestamp),
            number: self.newest,
        }
    }
}

impl Window {
    /// `None`: no frame was ever placed.
    fn of(own: Option<Track>, other: Option<Track>, now: Instant) -> Option<Self> {
        let last_ms = own.or(other)?.last_ms;
        let reached = |track: Track| track.last_ms + since_ms(track.arrived, now);
        let to_ms = own.map(reached).max(other.map(reached)).unwrap_or(last_ms);
        Some(Self {
            near_ms: last_ms,
            // Of a track's first frame we only know that it is not far from the other track.
            from_ms: if own.is_some() { last_ms } else { last_ms - AHEAD_MAX_MS },
            to_ms: to_ms.max(last_ms),
        })
    }

    fn candidate(&self, offset: Offset, timestamp: u32) -> i64 {
        let step = timestamp.wrapping_add(offset.ms).wrapping_sub(self.near_ms as u32) as i32;
        self.near_ms + i64::from(step)
    }

    fn allows(&self, at_ms: i64) -> bool {
        at_ms >= self.from_ms - BACKWARD_MAX_MS && at_ms <= self.to_ms + AHEAD_MAX_MS
    }

    /// How far a candidate is from what was expected.
    fn distance(&self, at_ms: i64) -> i64 {
        (self.from_ms - at_ms).max(at_ms - self.to_ms).max(0)
    }
}

/// Where the timeline continues after a jump: one frame on, or later by as long as the encoder really was silent.
fn continuation_ms(own: Option<Track>, other: Option<Track>, now: Instant) -> i64 {
    let tracks = || own.into_iter().chain(other);
    let next_ms = tracks().map(|t| t.last_ms + t.cadence_ms).max().unwrap_or(START_MS);
    let silent_ms = tracks().map(|t| since_ms(t.arrived, now)).min().unwrap_or(0);
    let last_ms = tracks().map(|t| t.last_ms).max().unwrap_or(START_MS);
    if silent_ms < SILENCE_MIN_MS {
        next_ms
    } else {
        next_ms.max(last_ms + silent_ms)
    }
}

fn since_ms(then: Instant, now: Instant) -> i64 {
    i64::try_from(now.saturating_duration_since(then).as_millis()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests;
