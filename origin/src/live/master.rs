//! A stream as a whole: its renditions and the multivariant playlist that names them.
//!
//! Before this: `live/pipeline.rs`, its only writer. After this: `deliver/playlist.rs`.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use weir_shared::{
    hls::multivariant::{Media, Multivariant, REQUIRED_VERSION, Variant},
    id::RenditionName,
};

use super::snapshot::Snapshot;
use crate::{codec::CodecConfig, package::frame::TrackKind};

/// A rendition as readers find it.
#[derive(Debug, Clone)]
pub struct Rendition {
    pub name: RenditionName,
    pub track: TrackKind,
    pub feed: watch::Receiver<Arc<Snapshot>>,
}

/// The stream at one moment: replaced when a rendition appears or its figures change.
#[derive(Debug, Default)]
pub struct Master {
    pub renditions: Vec<Rendition>,
    /// `/app/<key>/d/llhls.m3u8`
    pub direct: Bytes,
    /// `/app/<key>/index.m3u8`
    pub index: Bytes,
}

impl Master {
    pub fn rendition(&self, name: &RenditionName) -> Option<&Rendition> {
        self.renditions.iter().find(|r| r.name == *name)
    }
}

/// What the multivariant playlist says of a rendition.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub name: RenditionName,
    pub config: Arc<CodecConfig>,
    /// Highest segment bit rate, bits per second.
    pub peak_bitrate: u64,
    /// Mean bit rate, bits per second.
    pub average_bitrate: u64,
    /// Frames per 1000 seconds; video only.
    pub milli_frame_rate: Option<u64>,
}

const AUDIO_GROUP: &str = "audio";

/// Writes the multivariant playlist (section 4.4.6). `prefix` leads from it to the media playlists: `` or `d/`.
pub fn multivariant(facts: &[Facts], prefix: &str, independent_segments: bool) -> Multivariant {
    let uri = |f: &Facts| format!("{prefix}{}.m3u8", f.name);
    let is = |f: &&Facts, kind| f.config.track() == kind;
    let video = facts.iter().find(|f| is(f, TrackKind::Video));
    let audio = facts.iter().find(|f| is(f, TrackKind::Audio));
    let grouped = video.is_some();
    let mut variants = Vec::new();
    if let Some(lead) = video.or(audio) {
        let other = audio.filter(|_| grouped);
        let sum = |pick: fn(&Facts) -> u64| pick(lead).saturating_add(other.map_or(0, pick)).max(1);
        let codecs = std::iter::once(lead)
            .chain(other)
            .map(|f| f.config.codec_string())
            .collect::<Vec<_>>()
            .join(",");
        let resolution = match &*lead.config {
            CodecConfig::Avc(avc) => Some((u32::from(avc.width), u32::from(avc.height))),
            CodecConfig::Aac(_) => None,
        };
        variants.push(Variant {
            uri: uri(lead),
            bandwidth: sum(|f| f.peak_bitrate),
            average_bandwidth: Some(sum(|f| f.average_bitrate)),
            codecs: Some(codecs),
            resolution,
            frame_rate_milli: lead.milli_frame_rate.map(|r| r.min(u64::from(u32::MAX)) as u32),
            audio_group: other.map(|_| AUDIO_GROUP.to_owned()),
        });
    }
    let media = audio
        .filter(|_| grouped)
        .map(|f| Media {
            group_id: AUDIO_GROUP.to_owned(),
            name: "Audio".to_owned(),
            uri: Some(uri(f)),
            language: None,
            default: true,
            autoselect: true,
            channels: match &*f.config {
                CodecConfig::Aac(aac) => Some(aac.channels.to_string()),
                CodecConfig::Avc(_) => None,
            },
        })
        .into_iter()
        .collect();
    Multivariant {
        version: REQUIRED_VERSION,
        independent_segments,
        variants,
        media,
    }
}
