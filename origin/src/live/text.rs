//! The text of a media playlist, at a price that does not depend on how much it lists.
//!
//! What a segment looks like once its parts are gone never changes, so runs of such segments are written once, compressed
//! once, and put between the few lines that are new. A delta update looks at the segments it lists, and at no others.
//!
//! Before this: `package/window.rs`. After this: `live/snapshot.rs`, `deliver/playlist.rs`.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use weir_shared::{
    hls::{
        delta,
        playlist::{MediaPlaylist, Segment},
        reload::Skip,
        write,
    },
    serve::gzip::{self, Piece},
};

use super::snapshot::Snapshot;

/// Segments in a run, by their sequence numbers: the next run begins at a multiple of this.
const RUN: u64 = 64;
/// Segments in a long run, which is made of whole runs: so there are few of them, however much is listed.
const LONG_RUN: u64 = 16 * RUN;

/// Runs of one rendition that were written already, in their order. Holds what the last text was made of, and no more: a
/// reader of an older snapshot has some written once more.
#[derive(Debug, Default)]
pub struct Runs(Mutex<Vec<Run>>);

#[derive(Debug)]
struct Run {
    /// Sequence numbers.
    segments: Range<u64>,
    /// Nothing stands before it: it names its EXT-X-MAP.
    leads: bool,
    text: Piece,
    /// What a long run was made of: it is needed again when the list has slid into it.
    inside: Vec<Self>,
}

impl Run {
    /// One run that is `segments`, if these are all of them.
    fn joined(mut runs: Vec<Self>, segments: &Range<u64>) -> Option<Self> {
        let mut next = segments.start;
        for run in &runs {
            if run.segments.start != next {
                return None;
            }
            next = run.segments.end;
        }
        if next != segments.end || runs.len() < 2 {
            return runs.pop().filter(|_| next == segments.end);
        }
        let mut texts: Vec<Piece> = runs.iter().map(|run| run.text.clone()).collect();
        let text = Piece::join(&mut texts);
        for (run, text) in runs.iter_mut().zip(texts) {
            run.text = text;
        }
        Some(Self {
            segments: segments.clone(),
            leads: false,
            text,
            inside: runs,
        })
    }

    /// Itself, or its runs if the list begins with segment `first` inside it.
    fn from(self, first: u64) -> Vec<Self> {
        if self.segments.start < first && !self.inside.is_empty() {
            self.inside
        } else {
            vec![self]
        }
    }
}

/// A playlist, plain or compressed, in chunks that follow one another.
pub(super) fn text(snapshot: &Snapshot, runs: &Runs, skip: Skip) -> Vec<Piece> {
    let window = &snapshot.window;
    let count = window.listed_len();
    // The newest segments, those with parts among them, as data; at least one is beyond both boundaries if any is.
    let boundary = snapshot.settings.server_control.can_skip_until.unwrap_or_default();
    let mut base = count;
    let (mut time, mut beyond) = (std::time::Duration::ZERO, false);
    while let Some(segment) = base
        .checked_sub(1)
        .and_then(|at| window.listed_at(at))
        .filter(|_| !beyond)
    {
        // One more than the boundaries ask for, so that they are found in here and not at its edge.
        beyond = time > boundary.max(snapshot.parts_limit());
        time += segment.duration;
        base -= 1;
    }
    let mut playlist = snapshot.playlist_from(base);
    let without_parts = delta::without_parts(&playlist);
    for segment in playlist.segments.iter_mut().take(without_parts) {
        segment.parts.clear();
    }
    if skip == Skip::Yes {
        let skipped = delta::skippable(&playlist);
        if skipped > 0 {
            playlist.segments.drain(..skipped);
            playlist.skipped_segments = Some((base + skipped) as u64);
            return vec![Piece::new(write::write(&playlist))];
        }
    }
    full(snapshot, runs, &playlist, base, without_parts)
}

/// Head, runs, the newest segments, tail. `playlist` lists the segments from `base` on, the first `settled` of which have
/// no parts any more.
fn full(snapshot: &Snapshot, runs: &Runs, playlist: &MediaPlaylist, base: usize, settled: usize) -> Vec<Piece> {
    let first = playlist.media_sequence.0;
    let mut head = String::new();
    write::write_head(&mut head, playlist);
    let mut pieces = vec![Piece::new(head)];

    let end = first + (base + settled) as u64;
    // Held while runs are written, so that two readers do not write the same.
    let mut kept = runs.0.lock();
    let mut old = std::mem::take(&mut *kept)
        .into_iter()
        .flat_map(|run| run.from(first))
        .peekable();
    let mut from = first;
    while from < end {
        let leads = from == first;
        let segments = next_run(from, end, leads);
        while old.next_if(|run| run.segments.start < from).is_some() {}
        let inside: Vec<Run> =
            std::iter::from_fn(|| old.next_if(|run| run.segments.end <= segments.end && run.leads == leads)).collect();
        from = segments.end;
        let run = Run::joined(inside, &segments).unwrap_or_else(|| Run {
            text: Piece::new(written(snapshot, segments.start - first..segments.end - first)),
            segments,
            leads,
            inside: Vec::new(),
        });
        pieces.push(run.text.clone());
        kept.push(run);
    }
    drop(kept);

    let mut rest = String::new();
    let before = (base + settled).checked_sub(1).and_then(|at| snapshot.segment_at(at));
    let mut map = before.and_then(|segment| segment.map_uri);
    for segment in playlist.segments.iter().skip(settled) {
        write::write_segment(&mut rest, segment, map.as_deref());
        map = segment.map_uri.clone().or(map);
    }
    write::write_tail(&mut rest, playlist);
    pieces.push(Piece::new(rest));
    pieces
}

/// The run that begins with segment `from`, of those before `end`.
fn next_run(from: u64, end: u64, leads: bool) -> Range<u64> {
    // The leading one is written anew when the list slides: it is never long.
    let is_long = !leads && from.is_multiple_of(LONG_RUN) && from + LONG_RUN <= end;
    let length = if is_long { LONG_RUN } else { RUN };
    from..((from / length + 1) * length).min(end)
}

/// A run of listed segments without parts, by their places in the list.
fn written(snapshot: &Snapshot, places: Range<u64>) -> String {
    let at = |place: u64| usize::try_from(place).ok().and_then(|place| snapshot.segment_at(place));
    let mut map = places
        .start
        .checked_sub(1)
        .and_then(at)
        .and_then(|segment| segment.map_uri);
    let mut out = String::new();
    for segment in places.filter_map(at) {
        let bare = Segment {
            parts: Vec::new(),
            ..segment
        };
        write::write_segment(&mut out, &bare, map.as_deref());
        map = bare.map_uri.or(map);
    }
    out
}

/// Plain or compressed.
pub(super) fn chunks(pieces: &[Piece], compressed: bool) -> Vec<Bytes> {
    match pieces {
        [one] if compressed => vec![gzip::gzip(one.plain())],
        _ if compressed => gzip::gzip_pieces(pieces),
        _ => pieces.iter().map(|piece| piece.plain().clone()).collect(),
    }
}

/// The runs of a rendition, shared by its snapshots.
pub type SharedRuns = Arc<Runs>;
