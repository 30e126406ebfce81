//! How much later than its own clock says a source's frames come. Pure.
//!
//! Before this: `package/resilience.rs`. After this: `resilience/line.rs`, which puts the source by it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use weir_shared::media::time::MediaTime;

use crate::package::frame::TrackId;

/// Frames that come within this are one observation: the least late of them.
const BUCKET: Duration = Duration::from_millis(100);
/// Observations kept: three seconds.
const BUCKETS: usize = 30;
/// Observations in a row that must agree before a source counts as settled, and as many before them.
const SETTLED: usize = 3;
/// By so much they may differ: catching up at a tenth above the normal speed differs by more.
const AGREEMENT: MediaTime = MediaTime::from_millis(25);

/// The lateness of one source.
#[derive(Debug, Default)]
pub(super) struct Lag {
    tracks: BTreeMap<TrackId, VecDeque<Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    began: Instant,
    least: MediaTime,
}

impl Lag {
    /// A frame came at `at`, so much after the time it is stamped with.
    pub(super) fn note(&mut self, id: TrackId, lateness: MediaTime, at: Instant) {
        let buckets = self.tracks.entry(id).or_default();
        match buckets.back_mut() {
            Some(open) if at.saturating_duration_since(open.began) < BUCKET => open.least = open.least.min(lateness),
            _ => {
                if buckets.len() == BUCKETS {
                    buckets.pop_front();
                }
                buckets.push_back(Bucket {
                    began: at,
                    least: lateness,
                });
            }
        }
    }

    /// How late it is when nothing delays it further, by all that is known: of its tracks, the one that comes last.
    pub(super) fn least(&self) -> Option<MediaTime> {
        self.over(BUCKETS, Iterator::min)
    }

    /// The same of the last moments.
    pub(super) fn lately(&self) -> Option<MediaTime> {
        self.over(SETTLED, Iterator::min)
    }

    /// How late it was at the worst of times; `None` until enough is known.
    pub(super) fn most(&self) -> Option<MediaTime> {
        let known = self.tracks.values().all(|buckets| buckets.len() == BUCKETS);
        self.over(BUCKETS, Iterator::max).filter(|_| known)
    }

    /// Its lateness has stopped changing.
    pub(super) fn is_settled(&self) -> bool {
        self.tracks.values().all(|buckets| {
            let least = |skip| {
                let some = buckets.iter().rev().skip(skip).take(SETTLED);
                some.map(|bucket| bucket.least).min()
            };
            let (Some(newest), Some(oldest)) = (buckets.back(), buckets.iter().rev().nth(2 * SETTLED - 1)) else {
                return false;
            };
            // Observations with a hole between them say nothing.
            let together = newest.began.saturating_duration_since(oldest.began) < BUCKET * 4 * SETTLED as u32;
            let (Some(now), Some(before)) = (least(0), least(SETTLED)) else {
                return false;
            };
            together && (now - before).max(before - now) <= AGREEMENT
        })
    }

    fn over(&self, buckets: usize, pick: fn(std::vec::IntoIter<MediaTime>) -> Option<MediaTime>) -> Option<MediaTime> {
        self.tracks
            .values()
            .filter_map(|track| {
                let recent: Vec<MediaTime> = track.iter().rev().take(buckets).map(|bucket| bucket.least).collect();
                pick(recent.into_iter())
            })
            .max()
    }
}
