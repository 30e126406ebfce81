//! MPEG-TS (ISO/IEC 13818-1) of a broadcaster becomes [`Event`]s: transport packets in, decoder configurations and access
//! units on the normalised timeline out. Pure; the time of arrival is an argument.
//!
//! Own code though `mpeg2ts-reader` exists: that one forgets the PES packets under way whenever a program map changes,
//! takes a repeated packet for a lost one, and slices by lengths of the peer's.
//!
//! This file is what a transport needs to know of it: bytes are pushed as they come, steps are polled. Inside:
//! `ts/packet.rs` → `ts/table.rs` (what there is) and `ts/pes.rs` → `ts/track.rs` (→ `ts/video.rs`, `ts/audio.rs`).
//!
//! Before this: `ingest/srt/connection.rs`, or whatever carries a transport stream. After this: `live/pipeline.rs`.

use std::{collections::VecDeque, time::Instant};

use crate::{
    codec::{aac::AacError, avc::AvcError, hevc::HevcError, opus::OpusError},
    ingest::{
        Announced, Event,
        flv::{DropReason, TRACKS_MAX},
        timeline::{Repair, Timeline},
    },
    package::frame::{TrackId, TrackKind},
};

mod audio;
mod clock;
mod packet;
mod pes;
mod table;
mod track;
pub(crate) mod video;

use clock::Clock;
use packet::{Continuity, NULL_PID, Order, Packet, Pid};
use table::{Codec, PAT_PID, Sections, Stream};
use track::Track;

/// Length of a transport packet (section 2.4.3.2).
pub const PACKET_BYTES: usize = 188;
/// First byte of every transport packet.
pub const SYNC_BYTE: u8 = 0x47;

/// Bounds of one transport stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes without a transport packet in them after which the stream is taken for something else.
    pub garbage_bytes: usize,
    /// Bytes of packets without a program map after which nothing is expected any more.
    pub bytes_before_program: usize,
    /// What becomes of video of which a part was lost.
    pub damaged: Damaged,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            garbage_bytes: 64 << 10,
            bytes_before_program: 8 << 20,
            damaged: Damaged::default(),
        }
    }
}

/// What becomes of a video access unit of which a part was lost. Either way it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damaged {
    /// It is left out, and with it all that may refer to it: the picture stands until the next key frame, and is right.
    #[default]
    DropToKey,
    /// It is passed on: the picture moves, and shows the damage.
    PassOn,
}

/// What the caller has to do next.
#[derive(Debug)]
pub enum Step {
    /// For the pipeline. `repair`: its timestamp was put right.
    Event { event: Event, repair: Option<Repair> },
    /// An access unit was left out.
    Dropped { track: TrackKind, reason: DropReason },
}

/// Why a transport stream cannot be packaged. All are the encoder's settings; trying again without changing them is of
/// no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TsError {
    #[error("not an MPEG transport stream")]
    NotTs,
    #[error("MPEG transport stream without a program: no usable PAT and PMT")]
    NoProgram,
    #[error("video codec {0} is not supported in MPEG-TS, H.264 and HEVC are")]
    UnsupportedVideo(&'static str),
    #[error("audio codec {0} is not supported in MPEG-TS, AAC and Opus are")]
    UnsupportedAudio(&'static str),
    #[error("more than {TRACKS_MAX} {} tracks", .0.as_str())]
    TooManyTracks(TrackKind),
    #[error("video without parameter sets")]
    NoParameterSets,
    #[error("H.264 configuration: {0}")]
    Avc(#[from] AvcError),
    #[error("HEVC configuration: {0}")]
    Hevc(#[from] HevcError),
    #[error("AAC configuration: {0}")]
    Aac(#[from] AacError),
    #[error("Opus configuration: {0}")]
    Opus(#[from] OpusError),
}

impl TsError {
    /// Label value and log word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NotTs => "not_ts",
            Self::NoProgram => "no_program",
            Self::UnsupportedVideo(_) | Self::UnsupportedAudio(_) => "unsupported_codec",
            Self::TooManyTracks(_) => "too_many_tracks",
            Self::NoParameterSets => "no_parameter_sets",
            Self::Avc(_) | Self::Hevc(_) | Self::Aac(_) | Self::Opus(_) => "configuration",
        }
    }
}

/// The demultiplexer of one publish.
#[derive(Debug)]
pub struct Demuxer {
    limits: Limits,
    /// As many as one payload amounts to.
    steps: VecDeque<Step>,
    /// Bytes since the last transport packet.
    garbage_bytes: usize,
    /// Bytes of transport packets as long as there is no program.
    bytes_before_program: usize,
    programs: Table,
    map: Table,
    /// The program's streams, at most [`TRACKS_MAX`] of each kind.
    tracks: Vec<Track>,
    announced: Option<Announced>,
    clock: Clock,
    timeline: Timeline,
}

/// One table: where it is, and what it said last.
#[derive(Debug, Default)]
struct Table {
    pid: Pid,
    continuity: Continuity,
    sections: Sections,
    last: Option<table::Section>,
}

impl Table {
    fn at(pid: Pid) -> Self {
        Self { pid, ..Self::default() }
    }

    /// The table, if this packet completes it and it is not the one before.
    fn push(&mut self, packet: &Packet<'_>) -> Option<table::Section> {
        match self.continuity.order(packet) {
            Order::Next => {}
            Order::Repeated => return None,
            Order::Lost => self.sections.lost(),
        }
        let section = self.sections.push(packet)?;
        if self.last.as_ref() == Some(&section) {
            return None;
        }
        self.last = Some(section.clone());
        Some(section)
    }
}

impl Demuxer {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            steps: VecDeque::new(),
            garbage_bytes: 0,
            bytes_before_program: 0,
            programs: Table::at(PAT_PID),
            map: Table::at(NULL_PID),
            tracks: Vec::new(),
            announced: None,
            clock: Clock::default(),
            timeline: Timeline::new(),
        }
    }

    /// Takes the payload of one datagram that arrived `now`: any number of whole transport packets. After an `Err` the
    /// publish is over.
    pub fn push(&mut self, payload: &[u8], now: Instant) -> Result<(), TsError> {
        for packet in payload.chunks(PACKET_BYTES) {
            if packet.len() == PACKET_BYTES && packet.first() == Some(&SYNC_BYTE) {
                self.garbage_bytes = 0;
                self.packet(packet, now)?;
            } else {
                self.garbage_bytes += packet.len();
            }
        }
        if self.garbage_bytes > self.limits.garbage_bytes {
            return Err(TsError::NotTs);
        }
        Ok(())
    }

    /// The transport lost something between the last payload and the next: access units of video that are not complete
    /// are damaged. Sound goes by the packets' own counters, it is seldom what was lost.
    pub fn gap(&mut self) {
        for track in &mut self.tracks {
            track.gap();
        }
    }

    /// The transport ends: what is under way is all there will be of it.
    pub fn finish(&mut self, now: Instant) -> Result<(), TsError> {
        for at in 0..self.tracks.len() {
            let Some(track) = self.tracks.get_mut(at) else { break };
            if let Some(pes) = track.finish() {
                self.media(at, pes, now)?;
            }
        }
        Ok(())
    }

    /// What the payloads so far amount to, in order.
    pub fn poll(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    fn packet(&mut self, bytes: &[u8], now: Instant) -> Result<(), TsError> {
        if self.tracks.is_empty() {
            self.bytes_before_program += bytes.len();
            if self.bytes_before_program > self.limits.bytes_before_program {
                return Err(TsError::NoProgram);
            }
        }
        let Some(packet) = Packet::parse(bytes) else {
            return Ok(());
        };
        if packet.pid == PAT_PID {
            if let Some(pid) = self.programs.push(&packet).as_ref().and_then(table::program)
                && pid != self.map.pid
            {
                self.map = Table::at(pid);
            }
        } else if packet.pid == self.map.pid {
            if let Some(streams) = self.map.push(&packet).as_ref().and_then(table::streams) {
                self.open(&streams)?;
            }
        } else if let Some(at) = self.tracks.iter().position(|track| track.pid == packet.pid) {
            let whole = self.tracks.get_mut(at).map(|track| track.push(&packet));
            for pes in whole.into_iter().flatten().flatten() {
                self.media(at, pes, now)?;
            }
        }
        Ok(())
    }

    /// Makes the tracks those of the map. One that stays on its PID with its codec goes on as it is.
    fn open(&mut self, streams: &[Stream]) -> Result<(), TsError> {
        let mut old = std::mem::take(&mut self.tracks);
        let mut announced = Announced::default();
        for kind in [TrackKind::Video, TrackKind::Audio] {
            let mut number = 0;
            let mut unsupported = None;
            for stream in streams.iter().filter(|stream| stream.codec.kind() == kind) {
                if let Codec::Other(_, name) = stream.codec {
                    unsupported = Some(name);
                    continue;
                }
                if usize::from(number) >= TRACKS_MAX {
                    return Err(TsError::TooManyTracks(kind));
                }
                if let Some(language) = stream.language.filter(|_| kind == TrackKind::Audio) {
                    announced.audio_languages.set(number, language);
                }
                let id = TrackId { kind, number };
                let kept = old
                    .iter()
                    .position(|track| (track.pid, track.codec, track.id) == (stream.pid, stream.codec, id));
                self.tracks.push(match kept {
                    Some(at) => old.swap_remove(at),
                    None => Track::new(stream.pid, id, stream.codec, self.limits.damaged),
                });
                number += 1;
            }
            match (kind, number, unsupported) {
                (TrackKind::Video, 0, Some(name)) => return Err(TsError::UnsupportedVideo(name)),
                (TrackKind::Audio, 0, Some(name)) => return Err(TsError::UnsupportedAudio(name)),
                (TrackKind::Video, ..) => announced.has_video = Some(number > 0),
                (TrackKind::Audio, ..) => announced.has_audio = Some(number > 0),
            }
        }
        if !self.tracks.is_empty() && self.announced != Some(announced) {
            self.announced = Some(announced);
            self.steps.push_back(Step::Event {
                event: Event::Announced(announced),
                repair: None,
            });
        }
        Ok(())
    }

    fn media(&mut self, at: usize, pes: pes::Pes, now: Instant) -> Result<(), TsError> {
        let Some(track) = self.tracks.get_mut(at) else {
            return Ok(());
        };
        let times = pes.stamps.map(|stamps| self.clock.times(stamps));
        for unit in track.read(pes, times)? {
            self.steps.push_back(unit.place(track.id, &mut self.timeline, now));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
