//! What an edge knows of one rendition: the playlist as data and, made once when first asked for, as bytes.
//!
//! Before this: `live/follower.rs`, its only writer. After this: `handle.rs`.

use std::{sync::OnceLock, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;
use weir_shared::{
    hls::{
        delta,
        name::{MediaObject, ObjectName},
        playlist::MediaPlaylist,
        position::{LiveEdge, PartNumber, advance_part_limit},
        reload::Skip,
        write,
    },
    serve::{gzip::gzip, respond::PlaylistLifetimes},
};

/// A rendition at one moment. Never changes after publication.
#[derive(Debug)]
pub struct View {
    pub playlist: MediaPlaylist,
    pub edge: LiveEdge,
    pub lifetimes: PlaylistLifetimes,
    /// When the origin's answer arrived.
    pub received: Instant,
    texts: [OnceLock<Bytes>; 4],
}

impl View {
    pub fn new(playlist: MediaPlaylist, received: Instant) -> Self {
        Self {
            edge: live_edge(&playlist),
            lifetimes: PlaylistLifetimes::new(playlist.target_duration_seconds),
            playlist,
            received,
            texts: Default::default(),
        }
    }

    /// The playlist's bytes: full or delta, gzip-encoded or not. All viewers share them.
    pub fn text(&self, skip: Skip, compressed: bool) -> Bytes {
        let index = usize::from(skip == Skip::Yes) * 2 + usize::from(compressed);
        let Some(slot) = self.texts.get(index) else {
            return Bytes::new();
        };
        slot.get_or_init(|| match (skip, compressed) {
            (_, true) => gzip(&self.text(skip, false)),
            (Skip::No, false) => write::write(&self.playlist).into(),
            (Skip::Yes, false) => write::write(&delta::delta(&self.playlist)).into(),
        })
        .clone()
    }

    pub fn target_duration(&self) -> Duration {
        Duration::from_secs(u64::from(self.playlist.target_duration_seconds))
    }
}

/// Where a playlist stands.
fn live_edge(playlist: &MediaPlaylist) -> LiveEdge {
    let last_complete = playlist.segments.iter().rev().find(|s| s.uri.is_some());
    let part_target_ms = playlist.part_target.unwrap_or(Duration::from_secs(1)).as_millis();
    LiveEdge {
        first: playlist.media_sequence,
        open: playlist.open_sequence(),
        open_parts: playlist.open_parts().len() as u32,
        last_complete_parts: last_complete.map_or(0, |s| s.parts.len() as u32),
        next_part: playlist
            .preload_hint
            .as_ref()
            .and_then(|hint| part_number(&hint.uri))
            .unwrap_or_default(),
        ended: playlist.ended,
        advance_parts: advance_part_limit(u64::try_from(part_target_ms).unwrap_or(u64::MAX)),
    }
}

/// The running number in a part's name.
fn part_number(uri: &str) -> Option<PartNumber> {
    match ObjectName::parse(uri)? {
        ObjectName::Media {
            object: MediaObject::Part(number),
            ..
        } => Some(number),
        _ => None,
    }
}
