//! `recording.json`: a recording as programs read it. Pure.
//!
//! Before this: `ledger.rs`. After this: `upload.rs`, which stores it; `shelf.rs`, which reads it for downloads.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_shared::{hls::name::MediaObject, id::RenditionName};

use super::micros;
use crate::record::ledger::{Ledger, Stage, name};

/// A recording as programs read it: `recording.json` beside its playlists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub recording: String,
    pub started_ms: u64,
    pub duration_ms: u64,
    pub bytes: u64,
    pub renditions: Vec<SummaryRendition>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SummaryRendition {
    pub name: RenditionName,
    pub inits: Vec<SummaryObject>,
    /// In the order of time. Those that were lost are not named.
    pub segments: Vec<SummaryObject>,
}

/// A stored object: its name below the recording's folder, its size and checksum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SummaryObject {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
    /// Zero for an init section.
    pub duration_us: u64,
}

pub fn summary(ledger: &Ledger) -> Summary {
    let object = |name: String, bytes, sha256: &str, duration: Duration| SummaryObject {
        name,
        bytes,
        sha256: sha256.to_owned(),
        duration_us: micros(duration),
    };
    let renditions = ledger.renditions.iter().map(|(rendition, of)| {
        let stored = of.takes.iter().filter(|(_, take)| take.stage == Stage::Stored);
        SummaryRendition {
            name: rendition.clone(),
            inits: of
                .inits
                .iter()
                .map(|((epoch, index), init)| {
                    let name = name(rendition, *epoch, MediaObject::Init(*index)).to_string();
                    object(name, init.bytes, &init.sha256, Duration::ZERO)
                })
                .collect(),
            segments: stored
                .map(|(at, take)| {
                    let name = name(rendition, at.epoch, MediaObject::Segment(at.msn)).to_string();
                    object(name, take.bytes, &take.sha256, take.duration)
                })
                .collect(),
        }
    });
    Summary {
        recording: ledger.recording.to_string(),
        started_ms: ledger.started_ms,
        duration_ms: u64::try_from(ledger.duration().as_millis()).unwrap_or(u64::MAX),
        bytes: ledger.media_bytes(),
        renditions: renditions.collect(),
    }
}
