//! Delta updates: made at the origin and at every edge, merged at the edge (sections 4.4.5.2 and 6.2.5.1); and the rule
//! which segments still list their parts (section 6.2.2).
//!
//! Before it on the data path: the window (origin) or [`parse`](super::parse::parse) (edge). After it:
//! [`write`](super::write::write).
//!
//! For every playlist `new` that went through [`strip_old_parts`], and every earlier playlist `old` of the same
//! rendition that still holds what the update skips, `merge(&old, delta(&new)) == Ok(new)`.

use std::time::Duration;

use super::playlist::{MediaPlaylist, Segment};
use super::position::MediaSequence;

/// Parts are listed within this many target durations of the end (section 6.2.2).
const PART_TARGET_DURATIONS: u64 = 3;

/// How much the parts of a segment may add up to beyond its EXTINF (rule PL-23). The open segment counts that much less,
/// so that a segment's distance from the end never shrinks when the open one is closed: stripped parts stay stripped.
const PART_SUM_SLACK: Duration = Duration::from_millis(10);

/// The delta update of a full playlist: the segments beyond the Skip Boundary are replaced by their number.
///
/// A segment is beyond the boundary when all of it is further than CAN-SKIP-UNTIL from the end of the last complete
/// segment. Where there is nothing to skip, or no CAN-SKIP-UNTIL, or `full` is a delta update itself, the playlist comes
/// back as it is. The version stays; see [`required_version`](super::write::required_version).
pub fn delta(full: &MediaPlaylist) -> MediaPlaylist {
    let skipped = skippable(full);
    MediaPlaylist {
        skipped_segments: if skipped == 0 {
            full.skipped_segments
        } else {
            Some(skipped as u64)
        },
        segments: full.segments.iter().skip(skipped).cloned().collect(),
        server_control: full.server_control,
        preload_hint: full.preload_hint.clone(),
        rendition_reports: full.rendition_reports.clone(),
        ..*full
    }
}

/// How many segments at the front [`delta`] leaves out; 0 means that the delta update is the full playlist.
pub fn skippable(full: &MediaPlaylist) -> usize {
    let Some(boundary) = full.server_control.and_then(|control| control.can_skip_until) else {
        return 0;
    };
    if full.skipped_segments.is_some() {
        return 0;
    }
    let mut behind = Duration::ZERO;
    for (index, segment) in full.segments.iter().enumerate().rev() {
        if behind > boundary {
            return index + 1;
        }
        behind = behind.saturating_add(complete_duration(segment));
    }
    0
}

/// Takes the parts off the segments that begin more than three target durations before the end of the playlist (rule
/// PL-24). A segment loses all its parts at once, because a part's index counts from its segment's first.
///
/// The origin applies this to what it writes; [`merge`] applies it to what it carries over.
pub fn strip_old_parts(playlist: &mut MediaPlaylist) {
    let old = without_parts(playlist);
    for segment in playlist.segments.iter_mut().take(old) {
        segment.parts.clear();
    }
}

/// How many segments at the front list no parts. Needs durations only, so it can be asked before the text is built.
pub fn without_parts(playlist: &MediaPlaylist) -> usize {
    let limit = Duration::from_secs(PART_TARGET_DURATIONS * u64::from(playlist.target_duration_seconds));
    let mut distance = open_duration(playlist);
    for (index, segment) in playlist.segments.iter().enumerate().rev() {
        distance = distance.saturating_add(complete_duration(segment));
        if distance > limit && segment.uri.is_some() {
            return index + 1;
        }
    }
    0
}

fn complete_duration(segment: &Segment) -> Duration {
    if segment.uri.is_some() {
        segment.duration
    } else {
        Duration::ZERO
    }
}

fn open_duration(playlist: &MediaPlaylist) -> Duration {
    let parts = playlist.open_parts().iter();
    parts
        .fold(Duration::ZERO, |sum, part| sum.saturating_add(part.duration))
        .saturating_sub(PART_SUM_SLACK)
}

/// Why an update does not fit. In every case the caller asks for a full playlist and starts again from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    #[error("the playlist to merge into is itself a delta update")]
    OldIsDelta,
    #[error("the update is older: it ends at segment {update}, the known playlist at {known}")]
    Older {
        known: MediaSequence,
        update: MediaSequence,
    },
    #[error("the media sequence went back from {known} to {update}")]
    WentBack {
        known: MediaSequence,
        update: MediaSequence,
    },
    #[error("the update skips segment {0}, which is not known")]
    MissingSkipped(MediaSequence),
    #[error("segment {0} has another URI or duration than before: another life of the stream")]
    Contradiction(MediaSequence),
}

/// Puts an update, delta or full, onto the playlist known so far and gives the full playlist it stands for.
///
/// `old` may be any number of updates behind as long as it holds every segment the update skips. What both list must
/// agree in URI and duration; a numbering that starts afresh elsewhere shows in that or in a gap.
///
/// The segments carried over lose their parts by the rule of [`strip_old_parts`]; what the update lists itself is taken
/// as it says. An origin with another rule for old parts therefore merges to the same media with fewer parts listed.
pub fn merge(old: &MediaPlaylist, update: MediaPlaylist) -> Result<MediaPlaylist, MergeError> {
    if old.skipped_segments.is_some() {
        return Err(MergeError::OldIsDelta);
    }
    if update.media_sequence < old.media_sequence {
        return Err(MergeError::WentBack {
            known: old.media_sequence,
            update: update.media_sequence,
        });
    }
    if end(&update) < end(old) {
        return Err(MergeError::Older {
            known: old.open_sequence(),
            update: update.open_sequence(),
        });
    }
    check_agreement(old, &update)?;
    let Some(skipped) = update.skipped_segments else {
        return Ok(update);
    };
    let carried = carried_over(old, update.media_sequence, skipped)?;
    let mut segments = Vec::with_capacity(carried.len() + update.segments.len());
    segments.extend_from_slice(carried);
    segments.extend(update.segments);
    inherit_map(&mut segments, carried.len());
    let mut merged = MediaPlaylist {
        skipped_segments: None,
        segments,
        ..update
    };
    let strip = without_parts(&merged).min(carried.len());
    for segment in merged.segments.iter_mut().take(strip) {
        segment.parts.clear();
    }
    Ok(merged)
}

/// Where a playlist ends: the open segment, its listed parts, and whether anything can follow.
fn end(playlist: &MediaPlaylist) -> (MediaSequence, usize, bool) {
    (playlist.open_sequence(), playlist.open_parts().len(), playlist.ended)
}

/// The `skipped` complete segments of `old` from number `first` on.
fn carried_over(old: &MediaPlaylist, first: MediaSequence, skipped: u64) -> Result<&[Segment], MergeError> {
    if skipped == 0 {
        return Ok(&[]);
    }
    let known_end = old.open_sequence();
    if first.0.saturating_add(skipped) > known_end.0 {
        return Err(MergeError::MissingSkipped(first.max(known_end)));
    }
    let offset = usize::try_from(first.0.saturating_sub(old.media_sequence.0)).unwrap_or(usize::MAX);
    let count = usize::try_from(skipped).unwrap_or(usize::MAX);
    let known = old.segments.get(offset..).and_then(|segments| segments.get(..count));
    known.ok_or(MergeError::MissingSkipped(first))
}

/// What both playlists list as complete must be the same segments (section 6.2.1).
fn check_agreement(old: &MediaPlaylist, update: &MediaPlaylist) -> Result<(), MergeError> {
    let first = update.first_listed();
    let known = usize::try_from(first.0.saturating_sub(old.media_sequence.0)).unwrap_or(usize::MAX);
    let same_numbers = old.segments.iter().skip(known).zip(&update.segments);
    for (index, (before, now)) in same_numbers.enumerate() {
        if before.uri.is_some() && (before.uri != now.uri || before.duration != now.duration) {
            let number = MediaSequence(first.0.saturating_add(index as u64));
            return Err(MergeError::Contradiction(number));
        }
    }
    Ok(())
}

/// A map stays in force until the next one. Our delta updates name it again; an origin that does not means the one of
/// the last skipped segment.
fn inherit_map(segments: &mut [Segment], carried: usize) {
    let (carried, listed) = segments.split_at_mut(carried);
    let Some(map) = carried.last().and_then(|segment| segment.map_uri.as_ref()) else {
        return;
    };
    for segment in listed.iter_mut().take_while(|segment| segment.map_uri.is_none()) {
        segment.map_uri = Some(map.clone());
    }
}
