//! Playlists as viewers use them: read once, merged once, shared by all viewers who got the same bytes. Pure.
//!
//! Before this: a playlist's body. After this: [`crate::viewer`], which walks the parts, and [`crate::oracle`].

use std::{collections::HashMap, io::Read as _, sync::Arc, time::Duration};

use weir_shared::hls::{
    delta::{self, MergeError},
    parse::{self, MAX_PLAYLIST_BYTES},
    playlist::MediaPlaylist,
    position::{MediaSequence, PartIndex},
    write,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{moment::Moment, rule::Violation};

mod document;

/// Playlists kept by a [`Shelf`] in one generation; the older of two generations goes.
const GENERATION: usize = 256;

/// A part's place: its segment, and its index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub msn: MediaSequence,
    pub part: PartIndex,
}

impl Position {
    pub const fn new(msn: u64, part: u32) -> Self {
        Self {
            msn: MediaSequence(msn),
            part: PartIndex(part),
        }
    }

    /// The next part of the same segment.
    #[must_use]
    pub const fn next_part(self) -> Self {
        Self {
            msn: self.msn,
            part: self.part.next(),
        }
    }

    #[must_use]
    pub const fn next_segment(self) -> Self {
        Self {
            msn: self.msn.next(),
            part: PartIndex(0),
        }
    }
}

/// A part as a full playlist lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPart {
    pub at: Position,
    pub uri: Arc<str>,
    pub duration: Duration,
    pub independent: bool,
    pub gap: bool,
    /// When its last frame happened, by EXT-X-PROGRAM-DATE-TIME.
    pub ends_at: Option<Moment>,
    /// EXT-X-MAP in force.
    pub map: Option<Arc<str>>,
}

/// A full media playlist with its parts laid out.
#[derive(Debug)]
pub struct Listing {
    /// Same content, same number.
    pub id: u64,
    pub playlist: MediaPlaylist,
    /// In order.
    pub parts: Vec<ListedPart>,
    /// The first position that is not listed.
    pub end: Position,
    /// What the document alone shows to be wrong.
    pub faults: Vec<Violation>,
}

/// What to do about a position.
#[derive(Debug, PartialEq, Eq)]
pub enum Find<'a> {
    Listed(&'a ListedPart),
    /// It comes next, or later.
    NotYet,
    /// Its segment lists no parts any more, or left the playlist.
    Gone,
}

impl Listing {
    pub fn new(playlist: MediaPlaylist, id: u64) -> Self {
        let mut parts = Vec::new();
        let mut msn = playlist.first_listed();
        let mut clock: Option<Moment> = None;
        let mut map: Option<Arc<str>> = None;
        for segment in &playlist.segments {
            clock = segment.program_date_time.map(Moment::from_system).or(clock);
            if segment.map_uri.as_deref() != map.as_deref() {
                map = segment.map_uri.as_deref().map(Arc::from);
            }
            let mut part_clock = clock;
            for (index, part) in segment.parts.iter().enumerate() {
                part_clock = part_clock.map(|at| at.plus(part.duration));
                parts.push(ListedPart {
                    at: Position::new(msn.0, index as u32),
                    uri: part.uri.as_str().into(),
                    duration: part.duration,
                    independent: part.independent,
                    gap: part.gap,
                    ends_at: part_clock,
                    map: map.clone(),
                });
            }
            clock = clock.map(|at| at.plus(segment.duration));
            msn = msn.next();
        }
        let end = Position::new(playlist.open_sequence().0, playlist.open_parts().len() as u32);
        Self {
            id,
            parts,
            end,
            faults: document::faults(&playlist),
            playlist,
        }
    }

    /// Looks a position up; an index past the end of a complete segment means part 0 of the next (section 6.2.5.2).
    pub fn find(&self, at: Position) -> Find<'_> {
        match self.parts.binary_search_by_key(&at, |part| part.at) {
            Ok(found) => self.parts.get(found).map_or(Find::NotYet, Find::Listed),
            Err(_) if at >= self.end => Find::NotYet,
            Err(after) => {
                let rolls = |part: &&ListedPart| part.at == at.next_segment();
                let follows = after
                    .checked_sub(1)
                    .and_then(|n| self.parts.get(n))
                    .is_some_and(|p| p.at.msn == at.msn);
                match self.parts.get(after).filter(rolls) {
                    Some(part) if follows => Find::Listed(part),
                    // The open segment has no part yet: what is wanted is its part 0.
                    None if follows && self.end == at.next_segment() => Find::NotYet,
                    _ => Find::Gone,
                }
            }
        }
    }

    /// Where a player joins: the last independent part at least PART-HOLD-BACK from the end, or else the first of those
    /// listed.
    pub fn join(&self) -> Option<Position> {
        let control = self.playlist.server_control;
        let hold_back = control.and_then(|c| c.part_hold_back).unwrap_or(Duration::ZERO);
        let mut behind = Duration::ZERO;
        let mut fallback = None;
        for part in self.parts.iter().rev() {
            behind = behind.saturating_add(part.duration);
            if behind >= hold_back && !part.gap {
                if part.independent {
                    return Some(part.at);
                }
                fallback = Some(part.at);
            }
        }
        fallback.or(self.parts.first().map(|part| part.at))
    }

    pub fn target_duration(&self) -> Duration {
        Duration::from_secs(u64::from(self.playlist.target_duration_seconds))
    }
}

/// Why a body is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("the body is not valid gzip, or longer than a playlist may be")]
    Gzip,
    #[error("the body is not UTF-8")]
    Utf8,
    #[error(transparent)]
    Parse(#[from] parse::ParseError),
    #[error("a delta update, but there is no playlist to merge it into")]
    NothingToMerge,
    #[error("the delta update does not fit: {0}")]
    Merge(#[from] MergeError),
}

type Read = Result<Arc<Listing>, Unreadable>;

/// Playlists read lately, by their bytes. Thousands of viewers get the same bytes: they are read once.
#[derive(Debug, Default)]
pub struct Shelf {
    young: HashMap<(u64, u64), Read>,
    old: HashMap<(u64, u64), Read>,
    /// Listings by content: viewers who merged different deltas into the same playlist share it again.
    contents: HashMap<u64, Arc<Listing>>,
}

impl Shelf {
    /// The full playlist that `body` stands for: itself, or a delta update merged into `known`.
    pub fn read(&mut self, body: &[u8], gzip: bool, known: Option<&Arc<Listing>>) -> Read {
        let key = (xxh3_64(body), known.map_or(0, |listing| listing.id));
        if let Some(read) = self.young.get(&key) {
            return read.clone();
        }
        let read = match self.old.remove(&key) {
            Some(read) => read,
            None => self.read_anew(body, gzip, known),
        };
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.contents.retain(|_, listing| Arc::strong_count(listing) > 1);
        }
        self.young.insert(key, read.clone());
        read
    }

    fn read_anew(&mut self, body: &[u8], gzip: bool, known: Option<&Arc<Listing>>) -> Read {
        let unpacked;
        let text = if gzip {
            unpacked = unzip(body)?;
            &unpacked
        } else {
            body
        };
        let playlist = parse::parse(std::str::from_utf8(text).map_err(|_| Unreadable::Utf8)?)?;
        let (playlist, id) = if playlist.skipped_segments.is_some() {
            let known = known.ok_or(Unreadable::NothingToMerge)?;
            let merged = delta::merge(&known.playlist, playlist)?;
            let id = xxh3_64(write::write(&merged).as_bytes());
            (merged, id)
        } else {
            let id = xxh3_64(write::write(&playlist).as_bytes());
            (playlist, id)
        };
        let listing = self
            .contents
            .entry(id)
            .or_insert_with(|| Arc::new(Listing::new(playlist, id)));
        Ok(listing.clone())
    }
}

/// Inflates a body of bounded size.
pub fn unzip(body: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let mut text = Vec::new();
    let limit = MAX_PLAYLIST_BYTES as u64 + 1;
    let read = flate2::read::GzDecoder::new(body).take(limit).read_to_end(&mut text);
    match read {
        Ok(n) if n <= MAX_PLAYLIST_BYTES => Ok(text),
        _ => Err(Unreadable::Gzip),
    }
}

#[cfg(test)]
mod tests;
