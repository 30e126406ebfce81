//! Where a publisher's time lies on the stream's media time.
//!
//! Before this: `ingest/timeline.rs` (ingest time). After this: `live/track.rs`, which dates segments by it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weir_shared::media::time::MediaTime;

/// Ingest time → media time, fixed once per pipeline: media time is the wall clock's, counted from 1970.
///
/// So a stream's next life, after an encoder's return or an origin's restart, goes on where the last one stood. A timeline
/// that began again at zero would need an EXT-X-DISCONTINUITY-SEQUENCE that no earlier life has used, which nobody
/// remembers after a crash (and a large one, from the clock, freezes hls.js: it walks an array of that length). Without
/// either, players wait until the new timeline has caught up with the old one.
///
/// A break that was taken out of media time (nobody published for a while) puts it behind the wall clock by that much.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockMap {
    shift: MediaTime,
    /// Breaks taken out of media time so far.
    breaks: Duration,
}

impl ClockMap {
    /// `first`: the ingest time of what arrives at `now`.
    pub(super) fn starting(first: MediaTime, now: SystemTime) -> Self {
        let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        // Whole milliseconds, so that what encoders rounded to milliseconds still looks it.
        let millis = i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX);
        Self {
            shift: MediaTime::from_millis(millis) - first,
            breaks: Duration::ZERO,
        }
    }

    /// Media time that is ingest time and this.
    pub(super) fn shifted(shift: MediaTime) -> Self {
        Self {
            shift,
            breaks: Duration::ZERO,
        }
    }

    /// What is added to ingest time.
    pub(super) fn shift(&self) -> MediaTime {
        self.shift
    }

    pub(super) fn media(&self, ingest: MediaTime) -> MediaTime {
        ingest + self.shift
    }

    /// From now on this much more time is not in media time.
    pub(super) fn leave_out(&mut self, missing: Duration) {
        self.breaks += missing;
    }

    pub(super) fn wall(&self, media: MediaTime) -> SystemTime {
        UNIX_EPOCH + media.to_duration() + self.breaks
    }
}
