//! The distance from one frame to the next: what a codec's configuration says of it, and what the frames themselves show.
//!
//! Before this: `package/frame.rs`. After this: `package/segmenter.rs`, which expects frames by it.

use std::collections::VecDeque;

use weir_shared::media::time::{MediaTime, Timescale};

use crate::{
    codec::{CodecConfig, opus},
    package::{cadence::Cadence, frame::Frame},
};

/// Timestamps are rounded to milliseconds: the cadence explains them when it is this close.
pub(super) const VIDEO_TOLERANCE: MediaTime = MediaTime::from_nanos(1_500_000);
/// Frames looked at before the rhythm they show overrules the one the encoder claims.
const RATE_PROBE: usize = 4;
/// Distances remembered for that.
const RATE_MEMORY: usize = 32;
/// Until two frames have told the rhythm.
const FALLBACK: Cadence = Cadence::THIRTY;

/// What is known of one track's rhythm.
#[derive(Debug)]
pub(super) struct Rhythm {
    cadence: Option<Cadence>,
    /// The newest distances, in nanoseconds.
    deltas: VecDeque<i64>,
    /// The cadence comes from a few frames' distances.
    learned: bool,
}

impl Rhythm {
    pub(super) fn new(claimed: Option<Cadence>) -> Self {
        Self {
            cadence: claimed,
            deltas: VecDeque::new(),
            learned: false,
        }
    }

    pub(super) fn cadence(&self) -> Cadence {
        self.cadence.unwrap_or(FALLBACK)
    }

    /// Another configuration: what it claims counts, and what was known if it claims nothing.
    pub(super) fn claim(&mut self, claimed: Option<Cadence>) {
        self.cadence = claimed.or(self.cadence);
    }

    /// Learns from the distance to the frame before, which was at `last`, where nothing else tells the rhythm or what told
    /// it was wrong. True if it is another one now.
    pub(super) fn observe(&mut self, config: &CodecConfig, last: Option<MediaTime>, frame: &Frame) -> bool {
        match config {
            CodecConfig::Aac(_) => return false,
            CodecConfig::Opus(_) => return self.follow_opus(&frame.data),
            _ => {}
        }
        let Some(last) = last else { return false };
        if self.deltas.len() == RATE_MEMORY {
            self.deltas.pop_front();
        }
        self.deltas.push_back((frame.dts - last).as_nanos());
        let claimed = self.cadence.map(|c| c.frame().as_nanos());
        let off = |delta: &i64| claimed.is_none_or(|c| (delta - c).abs() > c / 20 + VIDEO_TOLERANCE.as_nanos());
        let enough = if claimed.is_none() { 2 } else { RATE_PROBE };
        let contradicted = self.deltas.len() >= enough && self.deltas.iter().rev().take(RATE_PROBE).all(off);
        // What was learned from a few frames is learned better from many.
        let refine = self.learned && self.deltas.len() == RATE_MEMORY;
        if !contradicted && !refine {
            return false;
        }
        let look_at = if contradicted { RATE_PROBE * 2 } else { RATE_MEMORY };
        self.learned = contradicted;
        let recent: Vec<i64> = self.deltas.iter().rev().take(look_at).copied().collect();
        match Cadence::from_deltas(&recent) {
            Some(found) if self.cadence != Some(found) => {
                self.cadence = Some(found);
                true
            }
            _ => false,
        }
    }

    /// An Opus packet says how long it lasts; the encoder may change that from packet to packet.
    fn follow_opus(&mut self, packet: &[u8]) -> bool {
        let samples = opus::packet_samples(packet).unwrap_or(opus::USUAL_PACKET_SAMPLES);
        let cadence = Cadence::new(u64::from(samples), u64::from(opus::SAMPLE_RATE));
        let is_new = cadence.is_some() && cadence != self.cadence;
        if is_new {
            self.cadence = cadence;
        }
        is_new
    }
}

/// Timescale, rhythm and tolerance that a configuration implies.
pub(super) fn implied(config: &CodecConfig, hint_frame_rate: Option<f64>) -> (Timescale, Option<Cadence>, MediaTime) {
    let sampled = |samples: u32, rate: u32| {
        let scale = Timescale::new(rate).unwrap_or(Timescale::VIDEO);
        let cadence = Cadence::new(u64::from(samples), u64::from(rate));
        let half = cadence.map_or(VIDEO_TOLERANCE, |c| MediaTime::from_nanos(c.frame().as_nanos() / 2));
        (scale, cadence, half)
    };
    match config {
        CodecConfig::Aac(aac) => sampled(aac.frame_samples, aac.sample_rate),
        CodecConfig::Opus(_) => sampled(opus::USUAL_PACKET_SAMPLES, opus::SAMPLE_RATE),
        CodecConfig::Avc(_) | CodecConfig::Hevc(_) | CodecConfig::Av1(_) => {
            let told = config
                .picture()
                .and_then(|picture| picture.frame_duration)
                .and_then(|(seconds, frames)| Cadence::new(u64::from(seconds), u64::from(frames)));
            let cadence = told.or_else(|| hint_frame_rate.and_then(Cadence::from_frame_rate));
            (Timescale::VIDEO, cadence, VIDEO_TOLERANCE)
        }
    }
}
