//! Delta updates of outlines (sections 4.4.5.2 and 6.2.5.1): made for viewers, and merged when an origin gives them. The
//! rules are those of [`hls::delta`](crate::hls::delta).

use std::{fmt::Write as _, sync::Arc, time::Duration};

use super::{MediaOutline, Named, Piece};
use crate::hls::{delta::MergeError, position::MediaSequence, text::tag};

/// Parts are listed within this many target durations of the end (section 6.2.2).
const PART_TARGET_DURATIONS: u64 = 3;

/// The text of the delta update; `None`: there is nothing to skip, the full playlist is the answer.
pub fn text(full: &MediaOutline) -> Option<String> {
    let boundary = full.server_control.and_then(|control| control.can_skip_until)?;
    if full.skipped_segments.is_some() {
        return None;
    }
    let skipped = skippable(&full.segments, boundary);
    let in_force = &full.segments.get(skipped.checked_sub(1)?)?.in_force;
    let mut out = full.head.clone();
    push_skip(&mut out, skipped as u64);
    // Players that do not carry these over from what was skipped need them said again.
    out.push_str(in_force);
    for piece in full.segments.iter().skip(skipped) {
        out.push_str(&piece.text);
    }
    out.push_str(&full.tail);
    Some(out)
}

pub(super) fn push_skip(out: &mut String, skipped: u64) {
    let _ = writeln!(out, "{}:SKIPPED-SEGMENTS={skipped}", tag::SKIP);
}

/// How many segments at the front are all of them further than `boundary` from the end of the last complete one.
fn skippable(segments: &[Arc<Piece>], boundary: Duration) -> usize {
    let mut behind = Duration::ZERO;
    for (index, piece) in segments.iter().enumerate().rev() {
        if behind > boundary {
            return index + 1;
        }
        behind = behind.saturating_add(piece.duration);
    }
    0
}

/// Puts an update, delta or full, onto what is known and gives the full playlist it stands for.
pub fn merge(known: &MediaOutline, update: MediaOutline) -> Result<MediaOutline, MergeError> {
    if known.skipped_segments.is_some() {
        return Err(MergeError::OldIsDelta);
    }
    if update.media_sequence < known.media_sequence {
        return Err(MergeError::WentBack {
            known: known.media_sequence,
            update: update.media_sequence,
        });
    }
    let end = |outline: &MediaOutline| (outline.open_sequence(), outline.open_parts(), outline.ended);
    if end(&update) < end(known) {
        return Err(MergeError::Older {
            known: known.open_sequence(),
            update: update.open_sequence(),
        });
    }
    check_agreement(known, &update)?;
    let Some(skipped) = update.skipped_segments else {
        return Ok(update);
    };
    let carried = carried_over(known, update.media_sequence, skipped)?;
    let mut segments = Vec::with_capacity(carried.len() + update.segments.len());
    segments.extend_from_slice(carried);
    segments.extend(update.segments);
    let target_duration = u64::from(update.target_duration_seconds);
    let listed_for = Duration::from_secs(PART_TARGET_DURATIONS.saturating_mul(target_duration));
    strip_old_parts(&mut segments, listed_for, carried.len());
    Ok(MediaOutline {
        skipped_segments: None,
        segments,
        ..update
    })
}

/// The `skipped` complete segments from number `first` on.
fn carried_over(known: &MediaOutline, first: MediaSequence, skipped: u64) -> Result<&[Arc<Piece>], MergeError> {
    let known_end = known.open_sequence();
    if first.0.saturating_add(skipped) > known_end.0 {
        return Err(MergeError::MissingSkipped(first.max(known_end)));
    }
    let offset = usize::try_from(first.0.saturating_sub(known.media_sequence.0)).unwrap_or(usize::MAX);
    let count = usize::try_from(skipped).unwrap_or(usize::MAX);
    let segments = known.segments.get(offset..).and_then(|segments| segments.get(..count));
    segments.ok_or(MergeError::MissingSkipped(first))
}

/// What both list as complete must be the same segments (section 6.2.1).
fn check_agreement(known: &MediaOutline, update: &MediaOutline) -> Result<(), MergeError> {
    let first = update.first_listed();
    let skip = usize::try_from(first.0.saturating_sub(known.media_sequence.0)).unwrap_or(usize::MAX);
    let same_numbers = known.segments.iter().skip(skip).zip(&update.segments);
    for (index, (before, now)) in same_numbers.enumerate() {
        let itself = |piece: &Piece| piece.names.last().cloned();
        if before.complete && (itself(before) != itself(now) || before.duration != now.duration) {
            return Err(MergeError::Contradiction(MediaSequence(
                first.0.saturating_add(index as u64),
            )));
        }
    }
    Ok(())
}

/// Takes the parts off the segments among the first `carried` that begin more than `listed_for` before the end.
fn strip_old_parts(segments: &mut [Arc<Piece>], listed_for: Duration, carried: usize) {
    let mut distance = Duration::ZERO;
    for (index, piece) in segments.iter_mut().enumerate().rev() {
        let length = if piece.complete {
            piece.duration
        } else {
            piece.parts_duration
        };
        distance = distance.saturating_add(length);
        if index < carried && distance > listed_for && piece.parts > 0 {
            *piece = Arc::new(without_parts(piece));
        }
    }
}

fn without_parts(piece: &Piece) -> Piece {
    let prefix = format!("{}:", tag::PART);
    let lines = piece.text.split_inclusive('\n');
    let names: Vec<Named> = piece.names.last().cloned().into_iter().collect();
    Piece {
        text: lines.filter(|line| !line.starts_with(&prefix)).collect(),
        parts: 0,
        parts_duration: Duration::ZERO,
        names,
        in_force: piece.in_force.clone(),
        ..*piece
    }
}
