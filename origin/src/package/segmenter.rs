//! Where parts and segments are cut, and how long each sample is said to last.
//!
//! Before this: `ingest/timeline.rs` (frames). After this: `package/fmp4` (bytes of a [`Draft`]).
//!
//! **Declared durations tile time exactly.** `tfdt` of a sample is the sum of all durations before it. A part is
//! published the moment its last frame has arrived, so that frame's duration is an estimate from the cadence; what the
//! estimate missed is carried into the samples that follow, never into a gap or an overlap. Presentation times of video
//! stay exact all the while: the composition offset absorbs the difference. Only when the input leaves out more than a
//! part's worth of media does `tfdt` leap ([`Output::Gap`]).

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use weir_shared::media::time::{MediaTime, Ticks, Timescale};

use super::{
    cadence::{Cadence, Smoother},
    frame::{Frame, TrackKind},
    keys::KeyRhythm,
};
use crate::codec::{CodecConfig, opus};

/// Timestamps are rounded to milliseconds: the cadence explains them when it is this close.
const VIDEO_TOLERANCE: MediaTime = MediaTime::from_nanos(1_500_000);
/// Frames looked at before the rhythm they show overrules the one the encoder claims.
const RATE_PROBE: usize = 4;
/// Distances remembered for that.
const RATE_MEMORY: usize = 32;
/// Smallest share of PART-TARGET that a part may have (section 4.4.4.9), in percent, with a little room.
const SHORTEST_PART_PERCENT: i64 = 86;

/// Distance between two publishers' frames that is bent away rather than left as a hole: players stumble over holes.
const BREAK_BEARABLE: MediaTime = MediaTime::from_millis(60);

/// What the operator wants of a stream's cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Targets {
    /// Length a part should have.
    pub part: Duration,
    /// A segment ends at the first key frame at or after this.
    pub segment: Duration,
    /// EXT-X-TARGETDURATION: no segment is longer.
    pub target_duration_seconds: u32,
}

/// Who decides where segments end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// This track's own key frames.
    Lead,
    /// Another track, through [`TrackSegmenter::cut_at`].
    Follow,
}

/// What a push brought about, in order.
#[derive(Debug, Clone)]
pub enum Output {
    /// A segment begins; the parts that follow are its.
    SegmentStart {
        /// Presentation time of its first sample.
        at: MediaTime,
        tfdt: Ticks,
        /// It begins with an independent frame.
        independent: bool,
        /// The decoder configuration changed.
        discontinuity: bool,
        config: Arc<CodecConfig>,
        init_index: u32,
    },
    Part(Draft),
    /// The segment is complete: the sum of its parts.
    SegmentEnd {
        duration: Ticks,
        /// It ended because no key frame came within the target duration.
        forced: bool,
    },
    /// The input left out more than a part's worth of media: `tfdt` leaps.
    Gap {
        missing: MediaTime,
    },
    Dropped {
        reason: Dropped,
    },
}

/// Why a frame is in no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// Nothing can be decoded before the first key frame.
    BeforeFirstKeyFrame,
}

/// A part before its bytes are laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Decode time of the first sample.
    pub tfdt: Ticks,
    pub duration: Ticks,
    /// An independent frame is among the samples.
    pub independent: bool,
    pub samples: Vec<Sample>,
}

/// One sample of a [`Draft`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// At least 1.
    pub duration: Ticks,
    /// May be negative.
    pub composition_offset: Ticks,
    pub sync: bool,
    pub data: Bytes,
}

/// Cuts one track.
#[derive(Debug)]
pub struct TrackSegmenter {
    config: Arc<CodecConfig>,
    next_config: Option<Arc<CodecConfig>>,
    init_index: u32,
    mode: Mode,
    targets: Targets,
    scale: Timescale,
    cadence: Option<Cadence>,
    deltas: VecDeque<i64>,
    /// The cadence comes from a few frames' distances.
    learned: bool,
    last_raw: Option<MediaTime>,
    smoother: Smoother,
    keys: KeyRhythm,
    /// Settled with the first part, then fixed.
    part_target: Option<Duration>,
    /// Decode time of the next sample: the sum of all durations so far.
    position: Ticks,
    segment: Option<OpenSegment>,
    part: OpenPart,
    cut_at: Option<MediaTime>,
    /// Where a following track had to cut by itself: the leading track's cut next to it is the same one.
    cut_alone_at: Option<MediaTime>,
    discontinuity: bool,
    /// The next frame comes from another publisher.
    broken_off: bool,
    /// Where the next segment counts as begun.
    aligned: Option<MediaTime>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct OpenSegment {
    start: Ticks,
    /// Parts closed in it.
    duration: Ticks,
}

/// Samples not yet published. The last one's duration is open; `fixed` is the sum of the others.
#[derive(Debug, Default)]
struct OpenPart {
    tfdt: Ticks,
    fixed: Ticks,
    samples: Vec<Sample>,
    independent: bool,
}

impl TrackSegmenter {
    pub fn new(config: Arc<CodecConfig>, hint_frame_rate: Option<f64>, mode: Mode, targets: Targets) -> Self {
        let (scale, cadence, tolerance) = rhythm(&config, hint_frame_rate);
        Self {
            config,
            next_config: None,
            init_index: 0,
            mode,
            targets,
            scale,
            cadence,
            deltas: VecDeque::new(),
            learned: false,
            last_raw: None,
            smoother: Smoother::new(tolerance),
            keys: KeyRhythm::default(),
            part_target: None,
            position: Ticks::ZERO,
            segment: None,
            part: OpenPart::default(),
            cut_at: None,
            cut_alone_at: None,
            discontinuity: false,
            broken_off: false,
            aligned: None,
            outputs: VecDeque::new(),
        }
    }

    /// A new decoder configuration: takes effect at the next key frame. An equal one changes nothing. True if it is
    /// another one than the one set last.
    pub fn set_config(&mut self, config: Arc<CodecConfig>) -> bool {
        let newest = self.next_config.as_ref().unwrap_or(&self.config);
        let is_new = **newest != *config;
        self.next_config = (*config != *self.config).then_some(config);
        is_new
    }

    /// The next segment is not continuous with those before it.
    pub fn mark_discontinuity(&mut self) {
        self.discontinuity = true;
    }

    /// The first segment counts as begun at this decode time, where a segment of another rendition began: so both end at the
    /// same key frame.
    pub fn align_to(&mut self, start: MediaTime) {
        self.aligned = Some(start);
    }

    /// Decode time at which the open segment began.
    pub fn segment_start(&self) -> Option<MediaTime> {
        Some(self.segment.as_ref()?.start.to_media_time(self.scale))
    }

    /// Whether a key frame with this decode time would begin a segment.
    pub fn wants_key(&self, at: MediaTime) -> bool {
        let Some(segment) = &self.segment else { return true };
        let half = Ticks(self.frame_ticks().0 / 2);
        at.to_ticks(self.scale) - segment.start + half >= self.segment_target_ticks()
    }

    /// What follows comes from another publisher: the open segment ends, and the next one begins exactly when its first
    /// frame is due.
    pub fn break_off(&mut self) {
        self.end_segment(false);
        self.cut_at = None;
        self.cut_alone_at = None;
        self.keys = KeyRhythm::default();
        self.broken_off = true;
    }

    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// The leading track begins a segment at this presentation time: end this one at the first sample boundary at or
    /// after it, at once if that has passed.
    pub fn cut_at(&mut self, at: MediaTime) {
        // Half a segment: further off, it is another cut.
        let near = MediaTime::from(self.targets.segment).as_nanos() / 2;
        if let Some(alone) = self.cut_alone_at.take()
            && (at - alone).as_nanos().abs() <= near
        {
            return;
        }
        self.cut_at = Some(at);
        let half = MediaTime::from_nanos(self.frame_time().as_nanos() / 2);
        if self.segment.is_some() && self.end_of_samples() + half >= at {
            self.cut_at = None;
            self.end_segment(false);
        }
    }

    /// Takes a frame; what it brings about is polled.
    pub fn push(&mut self, frame: Frame) {
        let key = frame.key || frame.track.kind == TrackKind::Audio;
        if self.segment.is_none() && self.last_raw.is_none() && !key {
            self.outputs.push_back(Output::Dropped {
                reason: Dropped::BeforeFirstKeyFrame,
            });
            return;
        }
        if !self.broken_off {
            // Between two publishers the distance says nothing.
            self.observe(&frame);
        }
        let cadence = self.cadence.unwrap_or(FALLBACK);
        let first = self.last_raw.is_none();
        self.last_raw = Some(frame.dts);
        let time = self.smoother.smooth(frame.dts, cadence);
        let due = time.to_ticks(self.scale);
        if first {
            self.position = due;
        } else {
            self.reach(due);
        }
        if key {
            self.switch_config(due);
        }
        self.cut_before(&frame, key);
        self.leap_if_gap(due);
        self.close_part_if_crowded();
        self.end_segment_if_long();
        let composition = self.smooth_composition(frame.composition_offset, cadence);
        self.begin_segment_if_none(time + composition, key);
        if key {
            self.keys.key_at(due.to_media_time(self.scale), self.frame_time());
        }
        self.append(frame.data, key, due, composition);
        self.close_part_if_full();
    }

    /// Ends the stream: closes what is open.
    pub fn finish(&mut self) {
        self.end_segment(false);
    }

    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn timescale(&self) -> Timescale {
        self.scale
    }

    /// EXT-X-PART-INF PART-TARGET, once the first part settled it.
    pub fn part_target(&self) -> Option<Duration> {
        self.part_target
    }

    /// Learns the rhythm from the distances between frames where nothing else tells it, or what told it was wrong.
    fn observe(&mut self, frame: &Frame) {
        match *self.config {
            CodecConfig::Aac(_) => return,
            CodecConfig::Opus(_) => return self.follow_opus(&frame.data),
            _ => {}
        }
        let raw = frame.dts;
        let Some(last) = self.last_raw else { return };
        if self.deltas.len() == RATE_MEMORY {
            self.deltas.pop_front();
        }
        self.deltas.push_back((raw - last).as_nanos());
        let claimed = self.cadence.map(|c| c.frame().as_nanos());
        let off = |delta: &i64| claimed.is_none_or(|c| (delta - c).abs() > c / 20 + 1_500_000);
        let enough = if claimed.is_none() { 2 } else { RATE_PROBE };
        let contradicted = self.deltas.len() >= enough && self.deltas.iter().rev().take(RATE_PROBE).all(off);
        // What was learned from a few frames is learned better from many.
        let refine = self.learned && self.deltas.len() == RATE_MEMORY;
        if !contradicted && !refine {
            return;
        }
        let look_at = if contradicted { RATE_PROBE * 2 } else { RATE_MEMORY };
        self.learned = contradicted;
        let recent: Vec<i64> = self.deltas.iter().rev().take(look_at).copied().collect();
        if let Some(found) = Cadence::from_deltas(&recent)
            && self.cadence != Some(found)
        {
            self.cadence = Some(found);
            self.smoother.rebase();
        }
    }

    /// An Opus packet says how long it lasts; the encoder may change that from packet to packet.
    fn follow_opus(&mut self, packet: &[u8]) {
        let samples = opus::packet_samples(packet).unwrap_or(opus::USUAL_PACKET_SAMPLES);
        let cadence = Cadence::new(u64::from(samples), u64::from(opus::SAMPLE_RATE));
        if cadence.is_some() && cadence != self.cadence {
            self.cadence = cadence;
            self.smoother.rebase();
        }
    }

    /// Presentation offsets carry the same rounding as timestamps: whole frames are meant where whole frames fit.
    fn smooth_composition(&self, offset: MediaTime, cadence: Cadence) -> MediaTime {
        if self.is_audio() {
            return MediaTime::ZERO;
        }
        let frame = cadence.frame().as_nanos().max(1);
        let frames = (offset.as_nanos() + (frame / 2) * offset.as_nanos().signum()) / frame;
        let even = cadence.times(frames.unsigned_abs());
        let even = if frames < 0 { MediaTime::ZERO - even } else { even };
        if (even - offset).as_nanos().abs() <= VIDEO_TOLERANCE.as_nanos() {
            even
        } else {
            offset
        }
    }

    /// A frame is due at `due`: the sample before it, if unpublished, lasts until then as far as its part has room.
    fn reach(&mut self, due: Ticks) {
        let (target, audio) = (self.part_target_ticks(), self.is_audio());
        let frame = self.frame_ticks();
        let Some(last) = self.part.samples.last_mut() else {
            return;
        };
        let start = self.part.tfdt + self.part.fixed;
        let room = (target - self.part.fixed).0.max(1);
        let mut duration = (due - start).0.clamp(1, room);
        if audio {
            // A decoder plays whole frames whatever is declared: bend, never break.
            duration = duration.max(frame.0 / 2).min(frame.0 * 3 / 2).min(room).max(1);
        }
        last.duration = Ticks(duration);
        self.position = start + last.duration;
        // Stretched to its limit: nothing more fits.
        if duration == room && room < (due - start).0 {
            self.close_part(Ending::Full);
        }
    }

    fn cut_before(&mut self, frame: &Frame, key: bool) {
        let Some(segment) = &self.segment else { return };
        let length = self.position - segment.start;
        let half = Ticks(self.frame_ticks().0 / 2);
        let cut = match self.mode {
            Mode::Lead => key && length + half >= self.segment_target_ticks(),
            Mode::Follow => {
                let half = half.to_media_time(self.scale);
                self.cut_at.is_some_and(|at| frame.pts() + half >= at)
            }
        };
        if cut {
            self.cut_at = None;
            self.end_segment(false);
        }
    }

    /// The input left out more than the samples before it can be stretched over.
    fn leap_if_gap(&mut self, due: Ticks) {
        let missing = due - self.position;
        let bearable = match std::mem::take(&mut self.broken_off) {
            true => BREAK_BEARABLE.to_ticks(self.scale),
            false => self.part_target_ticks(),
        };
        if missing > bearable {
            self.close_part(Ending::Short);
            self.outputs.push_back(Output::Gap {
                missing: missing.to_media_time(self.scale),
            });
            if let Some(segment) = &mut self.segment {
                // What a segment lasts is the sum of its parts: the leap is in none of them.
                segment.start += missing;
            }
            self.position = due;
        }
    }

    fn begin_segment_if_none(&mut self, at: MediaTime, key: bool) {
        if self.segment.is_some() {
            return;
        }
        let aligned = self.aligned.take().map(|start| start.to_ticks(self.scale));
        self.segment = Some(OpenSegment {
            start: aligned.map_or(self.position, |start| start.min(self.position)),
            duration: Ticks::ZERO,
        });
        self.outputs.push_back(Output::SegmentStart {
            at,
            tfdt: self.position,
            independent: key,
            discontinuity: std::mem::take(&mut self.discontinuity),
            config: self.config.clone(),
            init_index: self.init_index,
        });
    }

    fn append(&mut self, data: Bytes, sync: bool, due: Ticks, composition: MediaTime) {
        let target = self.part_target_ticks();
        let estimate = self.estimate();
        if self.part.samples.is_empty() {
            self.part.tfdt = self.position;
            self.part.fixed = Ticks::ZERO;
            self.part.independent = false;
        } else {
            self.part.fixed = self.position - self.part.tfdt;
        }
        let room = (target - self.part.fixed).0.max(1);
        let duration = Ticks(estimate.0.clamp(1, room));
        let composition_offset = match self.is_audio() {
            true => Ticks::ZERO,
            false => due + composition.to_ticks(self.scale) - self.position,
        };
        self.part.independent |= sync;
        self.part.samples.push(Sample {
            duration,
            composition_offset,
            sync,
            data,
        });
        self.position += duration;
    }

    /// Half of the next frame would not fit, and enough is there: publish without it.
    fn close_part_if_crowded(&mut self) {
        if self.part.samples.is_empty() {
            return;
        }
        let unpublished = self.position - self.part.tfdt;
        let crowded = unpublished + Ticks(self.estimate().0 / 2) > self.part_target_ticks();
        if crowded && unpublished >= self.shortest_part() {
            self.close_part(Ending::Full);
        }
    }

    /// How long the newest sample will last: so that the next one starts when it is due.
    fn estimate(&self) -> Ticks {
        let frame = self.frame_ticks();
        let next = self
            .smoother
            .next_due(self.cadence.unwrap_or(FALLBACK))
            .to_ticks(self.scale);
        Ticks(
            (next - self.position)
                .0
                .clamp((frame.0 / 2).max(1), frame.0 * 3 / 2 + 1),
        )
    }

    /// Publishes the part if no further frame fits.
    fn close_part_if_full(&mut self) {
        let length = self.position - self.part.tfdt;
        // One tick of rounding per frame is not a frame too many.
        let slack = Ticks(self.part.samples.len() as i64 + 1);
        if length + self.frame_ticks() > self.part_target_ticks() + slack {
            self.close_part(Ending::Full);
            self.end_segment_if_key_is_next();
            self.end_segment_if_long();
        }
    }

    /// The part just published is its segment's last if the encoder keeps its rhythm: says so together with the part.
    /// Otherwise the segment would end a frame later, and for that moment the hinted part would seem to belong to it:
    /// players that count parts (Shaka, video.js) lose their place there.
    fn end_segment_if_key_is_next(&mut self) {
        let Some(segment) = &self.segment else { return };
        let half = Ticks(self.frame_ticks().0 / 2);
        let long_enough = self.position - segment.start + half >= self.segment_target_ticks();
        let key_is_next = self.is_audio() || self.keys.is_due(self.end_of_samples(), self.frame_time());
        if self.mode == Mode::Lead && long_enough && key_is_next {
            self.end_segment(false);
        }
    }

    /// EXT-X-TARGETDURATION is the limit of *rounded* segment durations (section 4.4.3.1): ends the segment when another
    /// part could lead past it. A following track goes on to the last frame that fits, whatever part that makes: were its
    /// parts to decide, it would end before the leading track each time and run ahead of its sequence numbers.
    fn end_segment_if_long(&mut self) {
        let leads = self.mode == Mode::Lead;
        let beyond = if leads { 400 } else { 490 };
        let limit =
            Duration::from_secs(u64::from(self.targets.target_duration_seconds)) + Duration::from_millis(beyond);
        let limit = MediaTime::from(limit).to_ticks(self.scale);
        let fits = |segment: &OpenSegment| match leads {
            true => segment.duration + self.part_target_ticks() <= limit,
            false => self.position - segment.start + self.frame_ticks() <= limit,
        };
        if self.segment.as_ref().is_none_or(fits) {
            return;
        }
        self.end_segment(leads && !self.is_audio());
        if !leads {
            self.cut_alone_at = Some(self.end_of_samples());
        }
    }

    fn close_part(&mut self, ending: Ending) {
        if self.part.samples.is_empty() {
            return;
        }
        self.settle_part_target();
        let shortest = self.shortest_part();
        let mut length = self.position - self.part.tfdt;
        if let (Ending::Full, false, Some(last)) = (ending, self.part.independent, self.part.samples.last_mut())
            && length < shortest
        {
            // Too short for the 85 % rule: the last sample lasts longer, those after it catch up.
            last.duration += shortest - length;
            length = shortest;
            self.position = self.part.tfdt + length;
        }
        let part = std::mem::take(&mut self.part);
        if let Some(segment) = &mut self.segment {
            segment.duration += length;
        }
        self.outputs.push_back(Output::Part(Draft {
            tfdt: part.tfdt,
            duration: length,
            independent: part.independent,
            samples: part.samples,
        }));
        self.part.tfdt = self.position;
    }

    fn end_segment(&mut self, forced: bool) {
        self.close_part(Ending::Short);
        if let Some(segment) = self.segment.take() {
            if segment.duration == Ticks::ZERO {
                // Nothing in it yet: it goes on.
                self.segment = Some(segment);
                return;
            }
            self.outputs.push_back(Output::SegmentEnd {
                duration: segment.duration,
                forced,
            });
        }
    }

    fn switch_config(&mut self, due: Ticks) {
        let Some(config) = self.next_config.take() else { return };
        self.end_segment(false);
        let old_scale = self.scale;
        let (scale, cadence, tolerance) = rhythm(&config, None);
        self.config = config;
        self.init_index += 1;
        self.discontinuity = true;
        self.cadence = cadence.or(self.cadence);
        if scale != old_scale {
            self.scale = scale;
            self.position = due.rescale(old_scale, scale);
            self.smoother = Smoother::new(tolerance);
            if let Some(raw) = self.last_raw {
                self.smoother.smooth(raw, self.cadence.unwrap_or(FALLBACK));
            }
        } else {
            self.smoother.rebase();
        }
        self.part.tfdt = self.position;
    }

    /// PART-TARGET: the whole number of frames nearest to the configured one, in milliseconds rounded up so that tick
    /// rounding never exceeds it.
    fn wanted_part_target(&self) -> Duration {
        let cadence = self.cadence.unwrap_or(FALLBACK);
        let frame = cadence.frame().as_nanos().max(1);
        let target = i64::try_from(self.targets.part.as_nanos()).unwrap_or(i64::MAX);
        let frames = ((target + frame / 2) / frame).max(1);
        let exact = cadence.times(frames.unsigned_abs()).to_duration();
        Duration::from_millis(exact.as_nanos().div_ceil(1_000_000) as u64)
    }

    fn settle_part_target(&mut self) {
        if self.part_target.is_none() {
            // The rhythm may have been learned while this very part was being filled: it must fit too.
            let length = (self.position - self.part.tfdt).to_duration(self.scale);
            let length = Duration::from_millis(length.as_micros().div_ceil(1000) as u64);
            self.part_target = Some(self.wanted_part_target().max(length));
        }
    }

    fn part_target_ticks(&self) -> Ticks {
        let target = self.part_target.unwrap_or_else(|| self.wanted_part_target());
        // Whole ticks inside it.
        Ticks((target.as_micros() as i64).saturating_mul(i64::from(self.scale.get())) / 1_000_000)
    }

    fn shortest_part(&self) -> Ticks {
        Ticks(self.part_target_ticks().0 * SHORTEST_PART_PERCENT / 100)
    }

    fn segment_target_ticks(&self) -> Ticks {
        MediaTime::from(self.targets.segment).to_ticks(self.scale)
    }

    fn frame_time(&self) -> MediaTime {
        self.cadence.unwrap_or(FALLBACK).frame()
    }

    fn frame_ticks(&self) -> Ticks {
        self.frame_time().to_ticks(self.scale)
    }

    fn end_of_samples(&self) -> MediaTime {
        self.position.to_media_time(self.scale)
    }

    fn is_audio(&self) -> bool {
        self.config.track() == TrackKind::Audio
    }
}

/// How a part comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It is as long as it may be.
    Full,
    /// Its segment ends, or the input leaps.
    Short,
}

/// Until two frames have told the rhythm.
const FALLBACK: Cadence = Cadence::THIRTY;

/// Timescale, rhythm and tolerance that a configuration implies.
fn rhythm(config: &CodecConfig, hint_frame_rate: Option<f64>) -> (Timescale, Option<Cadence>, MediaTime) {
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
