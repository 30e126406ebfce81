//! Where parts and segments are cut, and how long each sample is said to last.
//!
//! Before this: `ingest/timeline.rs` (frames). Beside it: `segmenter/rhythm.rs` (how far frames are apart), `segmenter/parts.rs`
//! (what goes into a part). After this: `package/fmp4` (bytes of a [`Draft`]).
//!
//! **Declared durations tile time exactly.** `tfdt` of a sample is the sum of all durations before it. A part is
//! published the moment its last frame has arrived, so that frame's duration is an estimate from the cadence; what the
//! estimate missed is carried into the samples that follow, never into a gap or an overlap. Presentation times of video
//! stay exact all the while: the composition offset absorbs the difference. Only when the input leaves out more than a
//! part's worth of media does `tfdt` leap ([`Output::Gap`]).

use std::{collections::VecDeque, sync::Arc, time::Duration};

use weir_shared::media::time::{MediaTime, Ticks, Timescale};

pub use self::output::{Draft, Dropped, Mode, Output, Sample, Targets};
use self::{
    parts::{Ending, OpenPart},
    rhythm::{Rhythm, VIDEO_TOLERANCE},
};
use super::{
    cadence::{Cadence, Smoother},
    frame::{Frame, TrackKind},
    keys::KeyRhythm,
};
use crate::codec::CodecConfig;

mod output;
mod parts;
mod rhythm;

/// Distance between two publishers' frames that is bent away rather than left as a hole: players stumble over holes.
const BREAK_BEARABLE: MediaTime = MediaTime::from_millis(60);
/// Cuts of the leading track that one which follows may be behind.
const MAX_CUTS: usize = 16;

/// Cuts one track.
#[derive(Debug)]
pub struct TrackSegmenter {
    config: Arc<CodecConfig>,
    next_config: Option<Arc<CodecConfig>>,
    init_index: u32,
    mode: Mode,
    targets: Targets,
    scale: Timescale,
    rhythm: Rhythm,
    last_raw: Option<MediaTime>,
    smoother: Smoother,
    keys: KeyRhythm,
    /// Settled with the first part, then fixed.
    part_target: Option<Duration>,
    /// Decode time of the next sample: the sum of all durations so far.
    position: Ticks,
    segment: Option<OpenSegment>,
    part: OpenPart,
    /// Where the leading track has cut and this one, which follows, has not come yet.
    cuts: VecDeque<Cut>,
    /// What the next of them brings.
    at_cut: Cut,
    /// Where a following track had to cut by itself: the leading track's cut next to it is the same one.
    cut_alone_at: Option<MediaTime>,
    discontinuity: bool,
    /// The next frame comes from another publisher.
    broken_off: bool,
    /// Where the next segment counts as begun.
    aligned: Option<MediaTime>,
    outputs: VecDeque<Output>,
}

/// What a key frame does for the segments of its track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRole {
    /// No segment is open: the next frame begins one, and has to be a key frame.
    Begins,
    /// The open segment is long enough, and would end before it.
    Cuts,
    /// It is one more in the open segment.
    Inside,
}

#[derive(Debug)]
struct OpenSegment {
    start: Ticks,
    /// Parts closed in it.
    duration: Ticks,
}

/// A cut of the leading track.
#[derive(Debug, Default)]
struct Cut {
    at: MediaTime,
    discontinuity: bool,
    config: Option<Arc<CodecConfig>>,
}

impl TrackSegmenter {
    pub fn new(config: Arc<CodecConfig>, hint_frame_rate: Option<f64>, mode: Mode, targets: Targets) -> Self {
        let (scale, cadence, tolerance) = rhythm::implied(&config, hint_frame_rate);
        Self {
            config,
            next_config: None,
            init_index: 0,
            mode,
            targets,
            scale,
            rhythm: Rhythm::new(cadence),
            last_raw: None,
            smoother: Smoother::new(tolerance),
            keys: KeyRhythm::default(),
            part_target: None,
            position: Ticks::ZERO,
            segment: None,
            part: OpenPart::default(),
            cuts: VecDeque::new(),
            at_cut: Cut::default(),
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

    /// The next segment is not continuous with those before it. A leading track begins it at its next key frame: until then
    /// players have no place for what follows it. One that follows begins it where that one cuts then.
    pub fn mark_discontinuity(&mut self) {
        match self.mode == Mode::Follow && self.segment.is_some() {
            true => self.at_cut.discontinuity = true,
            false => self.discontinuity = true,
        }
    }

    /// For a track that follows: takes effect where the leading track cuts next.
    pub fn set_config_at_cut(&mut self, config: Arc<CodecConfig>) {
        self.at_cut.config = Some(config);
    }

    /// For a track that leads: the next frame is a key frame with another configuration, or comes beside a track that has one,
    /// and is presented at `at`. Its segment is told of together with the part before it: were that part published alone, the
    /// one hinted after it would seem to be of the old configuration, and players that fetch it ahead decode it so.
    pub fn turn(&mut self, at: MediaTime) {
        self.end_segment(false);
        self.switch_config(self.position);
        self.begin_segment_if_none(at, true);
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

    /// What a key frame with this decode time would do.
    pub fn key_role(&self, at: MediaTime) -> KeyRole {
        let Some(segment) = &self.segment else {
            return KeyRole::Begins;
        };
        let half = Ticks(self.frame_ticks().0 / 2);
        match at.to_ticks(self.scale) - segment.start + half >= self.segment_target_ticks() {
            true => KeyRole::Cuts,
            false => KeyRole::Inside,
        }
    }

    /// What follows comes from another publisher: the open segment ends, and the next one begins exactly when its first
    /// frame is due.
    pub fn break_off(&mut self) {
        self.end_segment(false);
        self.cuts.clear();
        self.discontinuity |= std::mem::take(&mut self.at_cut).discontinuity;
        self.cut_alone_at = None;
        self.forget_key_rhythm();
        self.broken_off = true;
    }

    /// The next frame comes from another encoder, or after a gap: the past tells nothing of when its key frames are due.
    pub fn forget_key_rhythm(&mut self) {
        self.keys = KeyRhythm::default();
    }

    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// The leading track begins a segment at this presentation time: end this one at the first sample boundary at or
    /// after it, at once if that has passed.
    pub fn cut_at(&mut self, at: MediaTime) {
        // Half a segment: further off, it is another cut.
        let near = MediaTime::from(self.targets.segment).as_nanos() / 2;
        let cut = Cut {
            at,
            ..std::mem::take(&mut self.at_cut)
        };
        if let Some(alone) = self.cut_alone_at.take()
            && (at - alone).as_nanos().abs() <= near
        {
            self.discontinuity |= cut.discontinuity;
            return;
        }
        if self.cuts.len() < MAX_CUTS {
            self.cuts.push_back(cut);
        }
        if self.segment.is_some() && self.cut_what_is_due(self.end_of_samples()) {
            self.open_with_next_config();
        }
    }

    /// Ends the segment if the leading track has cut where the next sample is presented.
    fn cut_what_is_due(&mut self, at: MediaTime) -> bool {
        let half = MediaTime::from_nanos(self.frame_time().as_nanos() / 2);
        let mut is_cut = false;
        while let Some(cut) = self.cuts.pop_front_if(|cut| at + half >= cut.at) {
            is_cut = true;
            self.discontinuity |= cut.discontinuity;
            self.next_config = cut.config.or(self.next_config.take());
        }
        if is_cut {
            self.end_segment(false);
        }
        is_cut
    }

    /// A segment with another configuration is told of as soon as it is certain: players that fetch its first part ahead would
    /// decode it with the map in force before.
    fn open_with_next_config(&mut self) {
        if self.segment.is_none() && self.next_config.is_some() {
            self.switch_config(self.position);
            self.begin_segment_if_none(self.end_of_samples(), true);
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
        // Between two publishers the distance says nothing.
        if !self.broken_off && self.rhythm.observe(&self.config, self.last_raw, &frame) {
            self.smoother.rebase();
        }
        let cadence = self.rhythm.cadence();
        let first = self.last_raw.is_none();
        self.last_raw = Some(frame.dts);
        let time = self.smoother.smooth(frame.dts, cadence);
        let due = time.to_ticks(self.scale);
        if first {
            self.position = due;
        } else {
            self.reach(due);
        }
        self.cut_what_is_due(frame.pts());
        if key {
            self.switch_config(due);
        }
        // Another configuration may count in other ticks.
        let due = time.to_ticks(self.scale);
        if key {
            self.cut_before_key();
        }
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

    /// What the next frame is counted in; what is polled may be older, and says so.
    pub fn timescale(&self) -> Timescale {
        self.scale
    }

    /// EXT-X-PART-INF PART-TARGET, once the first part settled it.
    pub fn part_target(&self) -> Option<Duration> {
        self.part_target
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

    fn cut_before_key(&mut self) {
        let Some(segment) = &self.segment else { return };
        let length = self.position - segment.start;
        let half = Ticks(self.frame_ticks().0 / 2);
        if self.mode == Mode::Lead && (self.discontinuity || length + half >= self.segment_target_ticks()) {
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
            timescale: self.scale,
        });
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
        // The leading track's cut for the same reason is one that it has made already, or the next.
        if self.mode == Mode::Follow && self.segment.is_some() && self.cuts.pop_front().is_none() {
            self.cut_alone_at = Some(self.end_of_samples());
        }
        self.at_cut = Cut::default();
        self.end_segment(false);
        // One that has nothing in it yet begins anew.
        self.segment = None;
        let old_scale = self.scale;
        let (scale, cadence, tolerance) = rhythm::implied(&config, None);
        self.config = config;
        self.init_index += 1;
        self.discontinuity = true;
        self.rhythm.claim(cadence);
        if scale != old_scale {
            self.scale = scale;
            self.position = due.rescale(old_scale, scale);
            self.smoother = Smoother::new(tolerance);
            if let Some(raw) = self.last_raw {
                self.smoother.smooth(raw, self.rhythm.cadence());
            }
        } else {
            self.smoother.rebase();
        }
        self.part.tfdt = self.position;
    }

    fn segment_target_ticks(&self) -> Ticks {
        MediaTime::from(self.targets.segment).to_ticks(self.scale)
    }

    fn frame_time(&self) -> MediaTime {
        self.rhythm.cadence().frame()
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
