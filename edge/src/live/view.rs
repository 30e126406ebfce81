//! What an edge knows of one rendition: the playlist as data and, made once when first asked for, as bytes; and the bytes
//! of the parts it lists.
//!
//! Before this: `live/own.rs`, its only maker. After this: `handle.rs`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderValue;
use tokio::time::Instant;
use weir_shared::{
    hls::{
        delta,
        name::{MediaObject, ObjectName},
        playlist::{MediaPlaylist, Segment},
        position::{LiveEdge, MediaSequence, PartNumber, advance_part_limit},
        write,
    },
    id::Epoch,
    serve::respond::PlaylistLifetimes,
};

use super::{Moment, texts::Texts};
use crate::cache::Entry;

/// Most bytes of listed parts that one view keeps beside the store; the oldest go first. Three target durations (as long
/// as parts are listed) of 20 Mbit/s are 30 MB.
const PART_BYTES_LIMIT: usize = 64 << 20;

/// A rendition at one moment. Never changes after publication.
#[derive(Debug)]
pub struct View {
    pub playlist: MediaPlaylist,
    pub edge: LiveEdge,
    /// The stream's life that the listed objects belong to; `None` where an origin names its objects otherwise.
    pub epoch: Option<Epoch>,
    pub lifetimes: PlaylistLifetimes,
    /// When the origin gave it.
    pub since: Instant,
    parts: PartBytes,
    texts: Texts,
}

/// The bytes of parts by number, ascending.
#[derive(Debug, Default, Clone)]
pub struct PartBytes(Vec<(PartNumber, Arc<Entry>)>);

impl PartBytes {
    pub fn insert(&mut self, number: PartNumber, entry: Arc<Entry>) {
        if let Err(place) = self.0.binary_search_by_key(&number, |(n, _)| *n) {
            self.0.insert(place, (number, entry));
        }
    }

    pub fn get(&self, number: PartNumber) -> Option<&Arc<Entry>> {
        let place = self.0.binary_search_by_key(&number, |(n, _)| *n).ok()?;
        self.0.get(place).map(|(_, entry)| entry)
    }

    /// Forgets the parts below `first`, and the oldest of the others while they are too many bytes.
    fn trim(&mut self, first: PartNumber) {
        let mut bytes: usize = self.0.iter().map(|(_, entry)| entry.body.len()).sum();
        let mut forget = 0;
        for (number, entry) in &self.0 {
            if *number >= first && bytes <= PART_BYTES_LIMIT {
                break;
            }
            bytes -= entry.body.len();
            forget += 1;
        }
        self.0.drain(..forget);
    }
}

/// A segment put together from its parts.
#[derive(Debug)]
pub struct Assembled {
    pub chunks: Vec<Bytes>,
    pub content_type: HeaderValue,
}

impl View {
    /// `parts`: the bytes at hand, of this life of the stream.
    pub fn new(playlist: MediaPlaylist, since: Instant, mut parts: PartBytes) -> Self {
        parts.trim(first_listed_part(&playlist).unwrap_or_default());
        Self {
            edge: live_edge(&playlist),
            epoch: epoch(&playlist),
            lifetimes: PlaylistLifetimes::new(playlist.target_duration_seconds),
            playlist,
            since,
            parts,
            texts: Texts::default(),
        }
    }

    /// The bytes of a part, if they are at hand.
    pub fn part(&self, number: PartNumber) -> Option<&Arc<Entry>> {
        self.parts.get(number)
    }

    /// The bytes at hand, for the next view of the same life.
    pub fn parts(&self) -> &PartBytes {
        &self.parts
    }

    /// Whether the playlist lists this object.
    pub fn lists(&self, object: MediaObject) -> bool {
        match object {
            MediaObject::Part(number) => {
                number < self.edge.next_part && first_listed_part(&self.playlist).is_some_and(|first| number >= first)
            }
            MediaObject::Segment(msn) => msn >= self.edge.first && msn < self.edge.open,
            MediaObject::Init(_) => false,
        }
    }

    /// A complete segment, if the bytes of all its parts are at hand.
    pub fn segment(&self, msn: MediaSequence) -> Option<Assembled> {
        let offset = usize::try_from(msn.0.checked_sub(self.edge.first.0)?).ok()?;
        let segment = self.playlist.segments.get(offset)?;
        if segment.uri.is_none() || segment.parts.is_empty() {
            return None;
        }
        let parts = segment
            .parts
            .iter()
            .map(|part| self.parts.get(part_number(&part.uri)?))
            .collect::<Option<Vec<_>>>()?;
        Some(Assembled {
            content_type: parts.first()?.content_type.clone(),
            chunks: parts.iter().map(|entry| entry.body.clone()).collect(),
        })
    }
}

impl Moment for View {
    fn edge(&self) -> &LiveEdge {
        &self.edge
    }

    fn target_duration(&self) -> Duration {
        Duration::from_secs(u64::from(self.playlist.target_duration_seconds))
    }

    fn part_target(&self) -> Option<Duration> {
        self.playlist.part_target
    }

    fn lifetimes(&self) -> &PlaylistLifetimes {
        &self.lifetimes
    }

    fn since(&self) -> Instant {
        self.since
    }

    fn texts(&self) -> &Texts {
        &self.texts
    }

    fn write(&self) -> String {
        write::write(&self.playlist)
    }

    fn write_delta(&self) -> Option<String> {
        Some(write::write(&delta::delta(&self.playlist)))
    }
}

/// Where a playlist stands.
fn live_edge(playlist: &MediaPlaylist) -> LiveEdge {
    let last_complete = playlist.segments.iter().rev().find(|s| s.uri.is_some());
    let part_target_ms = playlist.part_target.unwrap_or(Duration::from_secs(1)).as_millis();
    let hinted = playlist.preload_hint.as_ref().and_then(|hint| part_number(&hint.uri));
    let last_listed = playlist.segments.iter().rev().find_map(|s| s.parts.last());
    let after_last = last_listed.and_then(|p| part_number(&p.uri)).map(PartNumber::next);
    LiveEdge {
        first: playlist.media_sequence,
        open: playlist.open_sequence(),
        open_parts: u32::try_from(playlist.open_parts().len()).unwrap_or(u32::MAX),
        last_complete_parts: last_complete.map_or(0, |s| u32::try_from(s.parts.len()).unwrap_or(u32::MAX)),
        // Without a hint or a listed part nothing is known of parts: each is looked up.
        next_part: hinted.or(after_last).unwrap_or(PartNumber(u64::MAX)),
        ended: playlist.ended,
        advance_parts: advance_part_limit(u64::try_from(part_target_ms).unwrap_or(u64::MAX)),
    }
}

/// The life of the newest object a playlist names.
pub(super) fn epoch(playlist: &MediaPlaylist) -> Option<Epoch> {
    let hint = playlist.preload_hint.as_ref().map(|hint| hint.uri.as_str());
    let newest = |s: &Segment| match (s.parts.last(), &s.uri) {
        (Some(part), _) => media_name(&part.uri),
        (None, Some(uri)) => media_name(uri),
        (None, None) => None,
    };
    let (epoch, _) = hint
        .and_then(media_name)
        .or_else(|| playlist.segments.iter().rev().find_map(newest))?;
    Some(epoch)
}

fn first_listed_part(playlist: &MediaPlaylist) -> Option<PartNumber> {
    let first = playlist.segments.iter().find_map(|s| s.parts.first())?;
    part_number(&first.uri)
}

/// The running number in a part's name.
pub(super) fn part_number(uri: &str) -> Option<PartNumber> {
    match media_name(uri)? {
        (_, MediaObject::Part(number)) => Some(number),
        _ => None,
    }
}

fn media_name(uri: &str) -> Option<(Epoch, MediaObject)> {
    match ObjectName::parse(uri)? {
        ObjectName::Media { epoch, object, .. } => Some((epoch, object)),
        _ => None,
    }
}
