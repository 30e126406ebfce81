//! Anybody's playlist as text in pieces: where it stands and what it names is read, everything else goes through as it
//! came, tags that nobody here knows included. Pure.
//!
//! Before it on the data path: the answer of an origin that is not Weir's. After it: the edge's view of a static route.
//! Weir's own playlists are read whole ([`parse`](super::parse)); delta updates of outlines are in [`delta`].

pub mod delta;
mod pieces;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use super::{
    parse::{ParseError, Problem, playlist_lines},
    playlist::ServerControl,
    position::{LiveEdge, MediaSequence, PartNumber, advance_part_limit},
    text::{self, tag},
};

/// Most playlists that one multivariant playlist may name.
pub const MAX_PLAYLISTS: usize = 1000;

/// Bytes of a resource: a sub-range (section 4.4.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    pub first: u64,
    /// `None`: to wherever the part will end (a hint whose length is not told).
    pub length: Option<u64>,
}

/// A resource, or a sub-range of one, that a playlist names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub name: Arc<str>,
    pub span: Option<Span>,
}

/// What a URI of a playlist means to whoever reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapped {
    /// The name under which it is known here. `None`: it leads elsewhere.
    pub name: Option<Arc<str>>,
    /// What the playlist says instead of the URI. `None`: the URI as it is.
    pub written: Option<String>,
}

/// A playlist, told apart by its content (section 4.1).
#[derive(Debug, Clone, PartialEq)]
pub enum Outline {
    Multivariant(MultivariantOutline),
    Media(MediaOutline),
}

/// A multivariant playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultivariantOutline {
    pub text: String,
    /// The media playlists it names.
    pub playlists: Vec<Arc<str>>,
}

/// A media playlist, full or delta.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaOutline {
    /// Lines before the first segment; without EXT-X-SKIP.
    head: String,
    /// Segments in order, the open one last if there is one.
    pub segments: Vec<Arc<Piece>>,
    /// Lines after the last segment: hints, rendition reports, the end.
    tail: String,
    /// EXT-X-TARGETDURATION, whole seconds.
    pub target_duration_seconds: u32,
    pub part_target: Option<Duration>,
    pub server_control: Option<ServerControl>,
    /// EXT-X-MEDIA-SEQUENCE. In a delta update: of the full playlist.
    pub media_sequence: MediaSequence,
    /// EXT-X-SKIP SKIPPED-SEGMENTS; `None` in a full playlist.
    pub skipped_segments: Option<u64>,
    /// EXT-X-PRELOAD-HINT TYPE=PART, where it leads to a resource that is known here.
    pub hint: Option<Named>,
    pub ended: bool,
}

/// One segment's lines.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    text: String,
    /// It has its URI. Otherwise it is the open one, of which only parts are listed.
    pub complete: bool,
    /// EXTINF; zero for the open segment.
    pub duration: Duration,
    /// EXT-X-PART lines.
    pub parts: u32,
    /// Their durations together.
    parts_duration: Duration,
    /// Its parts, its init section if it brings one, itself last.
    pub names: Vec<Named>,
    /// EXT-X-MAP and EXT-X-KEY lines in force at its end: a playlist that begins with the next segment says them again.
    in_force: Arc<str>,
}

/// Reads a playlist of either kind; `map` says what becomes of each URI.
pub fn outline(text: &str, map: impl FnMut(&str) -> Mapped) -> Result<Outline, ParseError> {
    let mut lines = playlist_lines(text)?.map(|(_, line)| text::split_tag(line).0);
    if lines.any(|name| [tag::STREAM_INF, tag::MEDIA].contains(&name)) {
        return multivariant(text, map).map(Outline::Multivariant);
    }
    pieces::media(text, map).map(Outline::Media)
}

fn multivariant(text: &str, mut map: impl FnMut(&str) -> Mapped) -> Result<MultivariantOutline, ParseError> {
    let mut out = String::with_capacity(text.len() + 64);
    out.push_str(tag::M3U);
    out.push('\n');
    let mut playlists = Vec::new();
    for (number, line) in playlist_lines(text)? {
        let fault = |problem| ParseError { line: number, problem };
        let name = match line.starts_with('#') {
            true => {
                let name = pieces::push_tag(&mut out, line, &mut map).map_err(fault)?;
                // Of the tags with a URI this one leads to a media playlist.
                name.filter(|_| text::split_tag(line).0 == tag::MEDIA)
            }
            false => pieces::push_uri(&mut out, line, &mut map).map_err(fault)?,
        };
        if let Some(name) = name {
            if playlists.len() >= MAX_PLAYLISTS {
                return Err(fault(Problem::TooMany("playlists")));
            }
            playlists.push(name);
        }
    }
    Ok(MultivariantOutline { text: out, playlists })
}

impl MediaOutline {
    /// The whole text.
    pub fn text(&self) -> String {
        let pieces: usize = self.segments.iter().map(|piece| piece.text.len()).sum();
        let mut out = String::with_capacity(self.head.len() + pieces + self.tail.len() + 64);
        out.push_str(&self.head);
        if let Some(skipped) = self.skipped_segments {
            delta::push_skip(&mut out, skipped);
        }
        for piece in &self.segments {
            out.push_str(&piece.text);
        }
        out.push_str(&self.tail);
        out
    }

    /// Sequence number of the first listed segment.
    pub fn first_listed(&self) -> MediaSequence {
        MediaSequence(self.media_sequence.0.saturating_add(self.skipped_segments.unwrap_or(0)))
    }

    /// Sequence number of the segment that is open or comes next.
    pub fn open_sequence(&self) -> MediaSequence {
        let complete = self.segments.iter().filter(|piece| piece.complete).count() as u64;
        MediaSequence(self.first_listed().0.saturating_add(complete))
    }

    /// Parts of the open segment listed so far.
    pub fn open_parts(&self) -> u32 {
        self.segments
            .last()
            .filter(|piece| !piece.complete)
            .map_or(0, |piece| piece.parts)
    }

    /// Everything that segments from `first` on name.
    pub fn names_from(&self, first: MediaSequence) -> impl Iterator<Item = &Named> {
        let skip = usize::try_from(first.0.saturating_sub(self.first_listed().0)).unwrap_or(usize::MAX);
        self.segments.iter().skip(skip).flat_map(|piece| &piece.names)
    }

    /// Where the playlist stands. Parts are known by name, not by number.
    pub fn live_edge(&self) -> LiveEdge {
        let last_complete = self.segments.iter().rev().find(|piece| piece.complete);
        let part_target_ms = self.part_target.unwrap_or(Duration::from_secs(1)).as_millis();
        LiveEdge {
            first: self.media_sequence,
            open: self.open_sequence(),
            open_parts: self.open_parts(),
            last_complete_parts: last_complete.map_or(0, |piece| piece.parts),
            next_part: PartNumber(u64::MAX),
            ended: self.ended,
            advance_parts: advance_part_limit(u64::try_from(part_target_ms).unwrap_or(u64::MAX)),
        }
    }
}
