//! Measures one publisher's input. Pure; times of arrival are arguments.
//!
//! Before this: `live/feed.rs`. After this: `live/health.rs`.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use serde::Serialize;
use weir_shared::media::time::MediaTime;

use crate::{
    codec::CodecConfig,
    ingest::{Link, Tally},
    package::frame::{Frame, TrackId, TrackKind},
};

/// Bit rate and frame rate are those of this last while.
const SLIDE: Duration = Duration::from_secs(5);
/// A step between two frames beyond this is a gap.
const GAP: MediaTime = MediaTime::from_millis(1000);
/// Key frames further apart than this make players wait when they join.
const GOP_MAX: MediaTime = MediaTime::from_millis(4100);
/// Smoothed difference between frames' distances by their clock and by arrival, beyond which the network is shaky.
const JITTER_MAX: Duration = Duration::from_millis(250);
/// Frames of the last while that it remembers: 5 s of 240 fps.
const FRAMES_MAX: usize = 1200;

/// What is worth an operator's attention.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Warning {
    KeyFramesTooRare { seconds: f64 },
    UnevenArrival { milliseconds: u64 },
    TooSlow { percent: u64 },
    Gaps { count: u64 },
    TimestampsRepaired { count: u64 },
    FramesDropped { count: u64 },
    PacketsLost { count: u64, latency_ms: u64 },
    Undecrypted { count: u64 },
    AcknowledgementsUnanswered { count: u64 },
    NoAudio,
}

impl Warning {
    /// Label value and log word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::KeyFramesTooRare { .. } => "key_frames_too_rare",
            Self::UnevenArrival { .. } => "uneven_arrival",
            Self::TooSlow { .. } => "too_slow",
            Self::Gaps { .. } => "gaps",
            Self::TimestampsRepaired { .. } => "timestamps_repaired",
            Self::FramesDropped { .. } => "frames_dropped",
            Self::PacketsLost { .. } => "packets_lost",
            Self::Undecrypted { .. } => "undecrypted",
            Self::AcknowledgementsUnanswered { .. } => "acknowledgements_unanswered",
            Self::NoAudio => "no_audio",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyFramesTooRare { seconds } => {
                write!(
                    f,
                    "key frames are {seconds:.1} s apart; set the keyframe interval to 1–2 s"
                )
            }
            Self::UnevenArrival { milliseconds } => write!(
                f,
                "frames arrive unevenly (by {milliseconds} ms); the encoder's network may be too slow for its bit rate"
            ),
            Self::TooSlow { percent } => write!(
                f,
                "media comes at {percent} % of its own speed; lower the bit rate or check the encoder's load"
            ),
            Self::Gaps { count } => write!(f, "the input left out more than a second {count} times"),
            Self::TimestampsRepaired { count } => {
                write!(f, "{count} timestamps jumped or went back and were put right")
            }
            Self::PacketsLost { count, latency_ms } => write!(
                f,
                "{count} SRT packets never came in time; raise the encoder's latency above {latency_ms} ms or lower its bit rate"
            ),
            Self::Undecrypted { count } => {
                write!(f, "{count} SRT packets were locked with a key that was never announced")
            }
            Self::AcknowledgementsUnanswered { count } => write!(
                f,
                "the encoder left {count} SRT acknowledgements unanswered; losses are asked for blindly"
            ),
            Self::FramesDropped { count } => write!(f, "{count} frames could not be used"),
            Self::NoAudio => write!(
                f,
                "there is no audio; some players and platforms expect a track, if only silence"
            ),
        }
    }
}

/// One publisher's input at one moment.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InputReport {
    pub tracks: Vec<TrackReport>,
    pub connected_seconds: u64,
    /// Steps of more than a second between two frames.
    pub gaps: u64,
    /// Frames that could not be used.
    pub frames_dropped: u64,
    /// Frames whose timestamps were put right.
    pub frames_repaired: u64,
    /// The way to the encoder, over SRT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    #[serde(skip)]
    pub warnings: Vec<Warning>,
}

/// One track of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrackReport {
    pub track: String,
    /// RFC 6381.
    pub codec: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u16>,
    /// Frames per second of the last seconds.
    pub frame_rate: f64,
    /// Bits per second of the last seconds.
    pub bitrate: u64,
    /// From one key frame to the next, the newest; video only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gop_seconds: Option<f64>,
    /// How unevenly frames arrive (RFC 3550 section 6.4.1), in milliseconds.
    pub jitter_ms: u64,
    pub frames: u64,
}

/// The accumulator of one publisher.
#[derive(Debug)]
pub struct Meter {
    tally: Arc<Tally>,
    joined: Instant,
    tracks: BTreeMap<TrackId, Track>,
    gaps: u64,
}

#[derive(Debug)]
struct Track {
    config: Arc<CodecConfig>,
    /// Decode time, arrival and size of the last while's frames.
    recent: VecDeque<(MediaTime, Instant, usize)>,
    frames: u64,
    key_at: Option<MediaTime>,
    gop: Option<MediaTime>,
    jitter_nanos: i64,
}

impl Meter {
    pub fn new(tally: Arc<Tally>, joined: Instant) -> Self {
        Self {
            tally,
            joined,
            tracks: BTreeMap::new(),
            gaps: 0,
        }
    }

    /// A track's decoder configuration, first or changed.
    pub fn configured(&mut self, id: TrackId, config: &Arc<CodecConfig>) {
        let track = self.tracks.entry(id).or_insert_with(|| Track {
            config: config.clone(),
            recent: VecDeque::new(),
            frames: 0,
            key_at: None,
            gop: None,
            jitter_nanos: 0,
        });
        track.config = config.clone();
    }

    pub fn frame(&mut self, frame: &Frame, arrived: Instant) {
        let Some(track) = self.tracks.get_mut(&frame.track) else {
            return;
        };
        if track.push(frame, arrived) {
            self.gaps += 1;
        }
    }

    pub fn report(&self, now: Instant) -> InputReport {
        let mut report = InputReport {
            tracks: self.tracks.iter().map(|(id, track)| track.report(*id)).collect(),
            connected_seconds: now.saturating_duration_since(self.joined).as_secs(),
            gaps: self.gaps,
            frames_dropped: self.tally.dropped.load(Ordering::Relaxed),
            frames_repaired: self.tally.repaired.load(Ordering::Relaxed),
            link: *self.tally.link.lock(),
            warnings: Vec::new(),
        };
        report.warnings = self.warnings(&report, now);
        report
    }

    fn warnings(&self, report: &InputReport, now: Instant) -> Vec<Warning> {
        let mut warnings = Vec::new();
        for (id, track) in &self.tracks {
            // A group that goes on counts as long as it already is.
            let last = track.recent.back().map(|(dts, ..)| *dts);
            let open = last.zip(track.key_at).map(|(last, key)| last - key);
            if id.kind == TrackKind::Video
                && let Some(gop) = track.gop.max(open)
                && gop > GOP_MAX
            {
                warnings.push(Warning::KeyFramesTooRare {
                    seconds: gop.as_secs_f64(),
                });
            }
        }
        if let Some(link) = &report.link {
            if link.packets_lost > 0 {
                warnings.push(Warning::PacketsLost {
                    count: link.packets_lost,
                    latency_ms: u64::try_from(link.latency.as_millis()).unwrap_or(u64::MAX),
                });
            }
            if link.packets_undecrypted > 0 {
                warnings.push(Warning::Undecrypted {
                    count: link.packets_undecrypted,
                });
            }
            if link.acknowledgements_unanswered > 0 {
                warnings.push(Warning::AcknowledgementsUnanswered {
                    count: link.acknowledgements_unanswered,
                });
            }
        }
        let jitter = self.tracks.values().map(|track| track.jitter_nanos).max().unwrap_or(0);
        let jitter = Duration::from_nanos(jitter.unsigned_abs());
        if jitter > JITTER_MAX {
            warnings.push(Warning::UnevenArrival {
                milliseconds: u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX),
            });
        }
        if let Some(percent) = self.tracks.values().filter_map(|track| track.speed_percent(now)).min()
            && percent < 95
        {
            warnings.push(Warning::TooSlow { percent });
        }
        for (count, warning) in [
            (report.gaps, Warning::Gaps { count: report.gaps }),
            (
                report.frames_repaired,
                Warning::TimestampsRepaired {
                    count: report.frames_repaired,
                },
            ),
            (
                report.frames_dropped,
                Warning::FramesDropped {
                    count: report.frames_dropped,
                },
            ),
        ] {
            if count > 0 {
                warnings.push(warning);
            }
        }
        let has = |kind| self.tracks.keys().any(|id| id.kind == kind);
        let settled = now.saturating_duration_since(self.joined) >= SLIDE;
        if settled && has(TrackKind::Video) && !has(TrackKind::Audio) {
            warnings.push(Warning::NoAudio);
        }
        warnings
    }
}

impl Track {
    /// True if there was a gap before this frame.
    fn push(&mut self, frame: &Frame, arrived: Instant) -> bool {
        let mut gap = false;
        if let Some(&(dts, before, _)) = self.recent.back() {
            let step = frame.dts - dts;
            gap = step > GAP;
            let by_arrival = MediaTime::from(arrived.saturating_duration_since(before));
            let off = (by_arrival - step).as_nanos().saturating_abs();
            self.jitter_nanos += (off - self.jitter_nanos) / 16;
        }
        if frame.key && frame.track.kind == TrackKind::Video {
            self.gop = self.key_at.map(|key| frame.dts - key).or(self.gop);
            self.key_at = Some(frame.dts);
        }
        self.frames += 1;
        self.recent.push_back((frame.dts, arrived, frame.data.len()));
        let too_old = |at: &Instant| arrived.saturating_duration_since(*at) > SLIDE;
        while self.recent.len() > FRAMES_MAX || self.recent.front().is_some_and(|(_, at, _)| too_old(at)) {
            self.recent.pop_front();
        }
        gap
    }

    /// Media time of the last while.
    fn span(&self) -> Option<f64> {
        let (first, last) = self.recent.front().zip(self.recent.back())?;
        let seconds = (last.0 - first.0).as_secs_f64();
        (seconds > 0.0).then_some(seconds)
    }

    /// How fast media comes. `None`: too little was seen, or it was cut short by the bound on frames.
    fn speed_percent(&self, now: Instant) -> Option<u64> {
        let (_, first, _) = self.recent.front()?;
        let by_arrival = now.saturating_duration_since(*first).as_secs_f64();
        let enough = by_arrival >= SLIDE.as_secs_f64() * 0.8 && self.recent.len() < FRAMES_MAX;
        enough.then(|| (self.span().unwrap_or(0.0) / by_arrival * 100.0) as u64)
    }

    fn report(&self, id: TrackId) -> TrackReport {
        let span = self.span();
        let picture = self.config.picture();
        // The newest frame's own duration is not in the span.
        let bytes: usize = self.recent.iter().rev().skip(1).map(|(_, _, bytes)| bytes).sum();
        let rate = |count: f64| span.map_or(0.0, |seconds| count / seconds);
        TrackReport {
            track: id.to_string(),
            codec: self.config.codec_string(),
            width: picture.map(|picture| picture.width),
            height: picture.map(|picture| picture.height),
            frame_rate: (rate(self.recent.len().saturating_sub(1) as f64) * 100.0).round() / 100.0,
            bitrate: rate(bytes as f64 * 8.0) as u64,
            gop_seconds: self.gop.map(MediaTime::as_secs_f64),
            jitter_ms: self.jitter_nanos.unsigned_abs() / 1_000_000,
            frames: self.frames,
        }
    }
}

#[cfg(test)]
mod tests;
