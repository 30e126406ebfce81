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
///
/// Audio tracks of one codec are a group, of which a player takes one; every group makes a variant of its own with the
/// video, so that CODECS names what that combination needs (section 4.4.6.2).
pub fn multivariant(facts: &[Facts], prefix: &str, independent_segments: bool) -> Multivariant {
    let uri = |f: &Facts| format!("{prefix}{}.m3u8", f.name);
    let of_kind = |kind| facts.iter().filter(move |f| f.config.track() == kind);
    let video = of_kind(TrackKind::Video).next();
    let groups = audio_groups(of_kind(TrackKind::Audio));
    let mut variants: Vec<Variant> = groups.iter().map(|group| variant(video, Some(group), &uri)).collect();
    if variants.is_empty() && video.is_some() {
        variants.push(variant(video, None, &uri));
    }
    let is_single = of_kind(TrackKind::Audio).count() == 1;
    // Audio on its own is a variant and needs no rendition beside it, unless there is a choice.
    let media = match video.is_none() && is_single {
        true => Vec::new(),
        false => groups
            .iter()
            .flat_map(|group| renditions(group, is_single, &uri))
            .collect(),
    };
    for variant in &mut variants {
        variant.audio_group = variant.audio_group.take().filter(|_| !media.is_empty());
    }
    Multivariant {
        version: REQUIRED_VERSION,
        independent_segments,
        variants,
        media,
    }
}

/// Audio tracks that can stand for each other: those of one codec.
struct AudioGroup<'a> {
    id: String,
    /// Never empty; the default first.
    tracks: Vec<&'a Facts>,
    /// Place of its first track among all audio tracks.
    first: usize,
}

fn audio_groups<'a>(tracks: impl Iterator<Item = &'a Facts>) -> Vec<AudioGroup<'a>> {
    let mut groups: Vec<AudioGroup<'a>> = Vec::new();
    for (place, track) in tracks.enumerate() {
        let codec = track.config.codec_string();
        let same = |group: &&mut AudioGroup<'_>| group.tracks.first().is_some_and(|t| t.config.codec_string() == codec);
        match groups.iter_mut().find(same) {
            Some(group) => group.tracks.push(track),
            None => groups.push(AudioGroup {
                id: match groups.len() {
                    0 => AUDIO_GROUP.to_owned(),
                    others => format!("{AUDIO_GROUP}-{}", others + 1),
                },
                tracks: vec![track],
                first: place,
            }),
        }
    }
    groups
}

/// The video with any one of the group, or the group's first track alone.
fn variant(video: Option<&Facts>, group: Option<&AudioGroup<'_>>, uri: &dyn Fn(&Facts) -> String) -> Variant {
    let audio = group.map_or(&[][..], |group| &group.tracks);
    let lead = video.or_else(|| audio.first().copied());
    let codecs: Vec<String> = video
        .into_iter()
        .chain(audio.first().copied())
        .map(|f| f.config.codec_string())
        .collect();
    // BANDWIDTH is an upper bound over all combinations (section 4.4.6.2).
    let sum = |pick: fn(&Facts) -> u64| {
        let loudest = audio.iter().map(|f| pick(f)).max().unwrap_or(0);
        video.map_or(0, pick).saturating_add(loudest).max(1)
    };
    let picture = video.and_then(|f| f.config.picture());
    Variant {
        uri: lead.map(uri).unwrap_or_default(),
        bandwidth: sum(|f| f.peak_bitrate),
        average_bandwidth: Some(sum(|f| f.average_bitrate)),
        codecs: Some(codecs.join(",")),
        resolution: picture.map(|p| (u32::from(p.width), u32::from(p.height))),
        frame_rate_milli: video
            .and_then(|f| f.milli_frame_rate)
            .map(|rate| rate.min(u64::from(u32::MAX)) as u32),
        audio_group: group.map(|group| group.id.clone()),
    }
}

/// EXT-X-MEDIA of a group. Only the first track of all is the default.
fn renditions(group: &AudioGroup<'_>, is_single: bool, uri: &dyn Fn(&Facts) -> String) -> Vec<Media> {
    let of_track = |(place, f): (usize, &&Facts)| Media {
        group_id: group.id.clone(),
        name: if is_single {
            "Audio".to_owned()
        } else {
            format!("Audio {}", number(&f.name))
        },
        uri: Some(uri(f)),
        language: None,
        default: group.first + place == 0,
        autoselect: true,
        channels: f.config.channels().map(|channels| channels.to_string()),
    };
    group.tracks.iter().enumerate().map(of_track).collect()
}

/// `audio` is 1, `audio-2` is 2.
fn number(name: &RenditionName) -> &str {
    name.as_str().rsplit_once('-').map_or("1", |(_, number)| number)
}
