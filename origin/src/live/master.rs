//! A stream as a whole: its renditions and the multivariant playlist that names them.
//!
//! Before this: `live/pipeline.rs`, its only writer. After this: `deliver/playlist.rs`.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use weir_shared::{
    hls::multivariant::{Media, Multivariant, REQUIRED_VERSION, Variant, VideoRange},
    id::RenditionName,
};

use super::snapshot::Snapshot;
use crate::{codec::CodecConfig, ingest::language::Language, package::frame::TrackKind};

/// A rendition as readers find it.
#[derive(Debug, Clone)]
pub struct Rendition {
    pub name: RenditionName,
    pub track: TrackKind,
    pub feed: watch::Receiver<Arc<Snapshot>>,
}

/// Which of the two kinds of playlists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// What comes, as it comes.
    Direct,
    /// A cushion behind, and without gaps.
    Resilient,
}

impl Flavour {
    /// What its renditions' names begin with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Direct => "",
            Self::Resilient => RESILIENT_PREFIX,
        }
    }
}

const RESILIENT_PREFIX: &str = "r-";

/// The stream at one moment: replaced when a rendition appears or its figures change.
#[derive(Debug, Clone, Default)]
pub struct Master {
    /// As they come: what the direct playlist names.
    pub renditions: Vec<Rendition>,
    /// A cushion behind: what the default playlist names.
    pub resilient: Vec<Rendition>,
    /// `/app/<key>/d/llhls.m3u8`
    pub direct: Bytes,
    /// `/app/<key>/index.m3u8`
    pub index: Bytes,
}

impl Master {
    pub fn rendition(&self, name: &RenditionName) -> Option<&Rendition> {
        self.renditions.iter().chain(&self.resilient).find(|r| r.name == *name)
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
    /// Audio only, if the encoder told it.
    pub language: Option<Language>,
}

const AUDIO_GROUP: &str = "audio";

/// Writes the multivariant playlist (section 4.4.6). `prefix` leads from it to the media playlists: `` or `d/`.
///
/// Every video rendition makes a variant with every group of audio renditions, so that CODECS names what that combination
/// needs.
pub fn multivariant(facts: &[Facts], prefix: &str, independent_segments: bool) -> Multivariant {
    let uri = |f: &Facts| format!("{prefix}{}.m3u8", f.name);
    let of_kind = |kind| facts.iter().filter(move |f| f.config.track() == kind);
    let videos: Vec<&Facts> = of_kind(TrackKind::Video).collect();
    let audios: Vec<&Facts> = of_kind(TrackKind::Audio).collect();
    let groups = audio_groups(&audios);
    // Audio on its own is a variant and needs no rendition beside it, unless there is a choice.
    let is_grouped = !videos.is_empty() || audios.len() > 1;
    let pairs: Vec<(Option<&Facts>, Option<&AudioGroup<'_>>)> = match (videos.as_slice(), groups.as_slice()) {
        ([], groups) => groups.iter().map(|group| (None, Some(group))).collect(),
        (videos, []) => videos.iter().map(|video| (Some(*video), None)).collect(),
        (videos, groups) => videos
            .iter()
            .flat_map(|video| groups.iter().map(|group| (Some(*video), Some(group))))
            .collect(),
    };
    Multivariant {
        version: REQUIRED_VERSION,
        independent_segments,
        variants: pairs
            .into_iter()
            .map(|(video, group)| Variant {
                audio_group: group.filter(|_| is_grouped).map(|group| group.id.clone()),
                ..variant(video, group, &uri)
            })
            .collect(),
        media: match is_grouped {
            true => groups
                .iter()
                .flat_map(|group| group.renditions(groups.len() == 1, &uri))
                .collect(),
            false => Vec::new(),
        },
    }
}

/// Audio renditions of which a player takes one.
struct AudioGroup<'a> {
    id: String,
    /// Never empty; the default first.
    tracks: Vec<&'a Facts>,
}

/// Groups of one TYPE must have the same members and differ only in encoding (section 4.4.6.1.1): as many groups as
/// there are codecs if each codec has as many tracks as the others, in the same languages, which is how an encoder offers
/// the same sound in several codecs; else one group of all.
fn audio_groups<'a>(tracks: &[&'a Facts]) -> Vec<AudioGroup<'a>> {
    let mut by_codec: Vec<Vec<&'a Facts>> = Vec::new();
    for track in tracks {
        let codec = track.config.codec_string();
        let has_codec = |group: &&mut Vec<&Facts>| group.first().is_some_and(|t| t.config.codec_string() == codec);
        match by_codec.iter_mut().find(has_codec) {
            Some(group) => group.push(track),
            None => by_codec.push(vec![track]),
        }
    }
    let languages = |group: &[&Facts]| group.iter().map(|track| track.language).collect::<Vec<_>>();
    let first = by_codec.first().map(|group| languages(group));
    if by_codec.iter().any(|group| Some(languages(group)) != first) {
        by_codec = vec![tracks.to_vec()];
    }
    let ids = std::iter::once(AUDIO_GROUP.to_owned()).chain((2..).map(|n| format!("{AUDIO_GROUP}-{n}")));
    by_codec
        .into_iter()
        .zip(ids)
        .map(|(tracks, id)| AudioGroup { id, tracks })
        .collect()
}

impl AudioGroup<'_> {
    /// EXT-X-MEDIA of the group (section 4.4.6.1). `is_only`: else tracks in the same place of each group have the same
    /// name, for they are the same sound.
    fn renditions(&self, is_only: bool, uri: &dyn Fn(&Facts) -> String) -> Vec<Media> {
        let is_single = self.tracks.len() == 1;
        let name = |place: usize, f: &Facts| match (is_single, is_only) {
            (true, _) => "Audio".to_owned(),
            (false, true) => format!("Audio {}", number(&f.name)),
            (false, false) => format!("Audio {}", place + 1),
        };
        let media = |(place, f): (usize, &&Facts)| Media {
            group_id: self.id.clone(),
            name: name(place, f),
            uri: Some(uri(f)),
            language: f.language.map(|language| language.as_str().to_owned()),
            default: place == 0,
            autoselect: true,
            channels: f.config.channels().map(|channels| channels.to_string()),
        };
        self.tracks.iter().enumerate().map(media).collect()
    }
}

/// `audio` is 1, `audio-2` is 2, `audio-2-3` (a track of another publish) is 2-3.
fn number(name: &RenditionName) -> &str {
    let name = name.as_str();
    let plain = name.strip_prefix(RESILIENT_PREFIX).unwrap_or(name);
    plain.split_once('-').map_or("1", |(_, number)| number)
}

/// A video with any one of a group, or the first of a group alone.
fn variant(video: Option<&Facts>, group: Option<&AudioGroup<'_>>, uri: &dyn Fn(&Facts) -> String) -> Variant {
    let audio = group.map_or(&[][..], |group| &group.tracks);
    let lead = video.or_else(|| audio.first().copied());
    let mut codecs: Vec<String> = Vec::new();
    for track in video.into_iter().chain(audio.iter().copied()) {
        let codec = track.config.codec_string();
        if !codecs.contains(&codec) {
            codecs.push(codec);
        }
    }
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
        // What is said of none means SDR.
        video_range: picture.map(|p| p.range).filter(|range| *range != VideoRange::Sdr),
        audio_group: group.map(|group| group.id.clone()),
    }
}

#[cfg(test)]
mod tests;
