//! One track on the viewer's timeline: frames that wait until they are due, and what fills the time without any. Pure.
//!
//! Before this: `resilience/line.rs`, which queues. After this: `package/filler.rs`, which fills.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use weir_shared::media::time::MediaTime;

use super::Clock;
use crate::{
    codec::{CodecConfig, opus},
    package::{
        cadence::Cadence,
        filler::Filler,
        frame::{Frame, TrackId, TrackKind},
        segmenter::KeyRole,
        slate::Slate,
    },
};

/// How long after it is due a frame may come before its time is filled, where the cushion does not give as much.
const PATIENCE: MediaTime = MediaTime::from_millis(80);
/// Missing time that the frame before it is stretched over, if that is not below a frame.
const BEARABLE: MediaTime = MediaTime::from_millis(100);
/// A key frame within this begins the segment that was to begin now: less than what a segment may be longer than its target.
const SOON: MediaTime = MediaTime::from_millis(100);
/// Distances of frames that tell the rhythm.
const RHYTHM_MEMORY: usize = 16;
/// The rhythm until it is known.
const RHYTHM_DEFAULT: MediaTime = MediaTime::from_nanos(33_333_333);
/// Frames queued at most: the longest cushion of 120 pictures a second, and what bursts add to it.
pub(super) const FRAMES_MAX: usize = 2048;

/// A frame that waits.
#[derive(Debug, Clone)]
pub(super) struct Queued {
    pub frame: Frame,
    pub config: Arc<CodecConfig>,
    /// Number of the uninterrupted run of frames it belongs to.
    pub run: u64,
}

/// What comes next in a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub media: MediaTime,
    pub at: Instant,
    pub what: What,
}

/// What became of a moment without a frame.
#[derive(Debug, Default)]
pub(super) struct Filled {
    pub frame: Option<Frame>,
    /// The decoder configuration of this frame, if it is another one than before.
    pub config: Option<Arc<CodecConfig>>,
    /// Frames that waited and can't be decoded after it.
    pub lost: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Frame,
    Filler,
}

/// One track.
#[derive(Debug)]
pub(super) struct Queue {
    id: TrackId,
    /// The track of its sources that it shows.
    pub(super) of: TrackId,
    frames: VecDeque<Queued>,
    /// Of the newest frame queued.
    pub(super) newest_config: Option<Arc<CodecConfig>>,
    /// Of the newest frame published.
    config: Option<Arc<CodecConfig>>,
    filler: Option<Filler>,
    /// When the next frame must begin; `None` before the first.
    next: Option<MediaTime>,
    /// From one frame to the next.
    step: MediaTime,
    distances: VecDeque<i64>,
    last: Option<MediaTime>,
    /// Presentation minus decode time of key frames.
    composition: MediaTime,
    /// Where the last picture that is shown ends.
    shown_until: MediaTime,
    filling: bool,
    /// Where the present gap began.
    gap: MediaTime,
    /// Shown in gaps that last longer than this.
    slate: Option<(Slate, MediaTime)>,
    /// The run of the newest frame that was queued.
    pub(super) run: u64,
}

impl Queue {
    pub(super) fn new(id: TrackId, of: TrackId) -> Self {
        Self {
            id,
            of,
            frames: VecDeque::new(),
            newest_config: None,
            config: None,
            filler: None,
            next: None,
            step: RHYTHM_DEFAULT,
            distances: VecDeque::new(),
            last: None,
            composition: MediaTime::ZERO,
            shown_until: MediaTime::ZERO,
            filling: false,
            gap: MediaTime::ZERO,
            slate: None,
            run: 0,
        }
    }

    pub(super) fn is_filling(&self) -> bool {
        self.filling
    }

    pub(super) fn half_step(&self) -> MediaTime {
        MediaTime::from_nanos(self.step.as_nanos() / 2)
    }

    /// What to show in gaps that last longer than `after`, from the next segment on.
    pub(super) fn set_slate(&mut self, slate: Option<(Slate, MediaTime)>) {
        self.slate = slate;
    }

    /// From one frame to the next.
    pub(super) fn step(&self) -> MediaTime {
        self.step
    }

    /// When the first frame that waits begins.
    pub(super) fn front(&self) -> Option<MediaTime> {
        self.frames.front().map(|queued| queued.frame.dts)
    }

    /// From here on nothing is published yet.
    pub(super) fn position(&self) -> Option<MediaTime> {
        self.next
    }

    /// From here on nothing is queued.
    pub(super) fn end(&self) -> Option<MediaTime> {
        self.frames.back().map(|last| last.frame.dts + self.step).or(self.next)
    }

    /// Whether decoding can go on with this frame behind what is queued.
    pub(super) fn fits(&self, frame: &Frame, run: u64) -> bool {
        if self.run == run && (!self.filling || !self.frames.is_empty()) {
            return true;
        }
        let in_time = self.end().is_none_or(|end| frame.dts + self.half_step() >= end);
        in_time && (frame.key || self.id.kind == TrackKind::Audio)
    }

    /// Adds a frame. False: there are too many.
    pub(super) fn push(&mut self, queued: Queued) -> bool {
        if self.frames.len() >= FRAMES_MAX {
            return false;
        }
        self.run = queued.run;
        self.frames.push_back(queued);
        true
    }

    /// Takes back what is to begin at `from` or later.
    pub(super) fn cut(&mut self, from: MediaTime) {
        let limit = from - self.half_step();
        let keep = self.frames.iter().position(|queued| queued.frame.dts >= limit);
        if let Some(keep) = keep {
            self.frames.truncate(keep);
        }
    }

    /// Where the first frame of this run that waits could begin at the earliest, and where it does.
    pub(super) fn room(&self, run: u64) -> Option<(Option<MediaTime>, MediaTime)> {
        let first = self.frames.iter().position(|queued| queued.run == run)?;
        let before = first.checked_sub(1).and_then(|before| self.frames.get(before));
        let earliest = before.map(|queued| queued.frame.dts + self.step).or(self.next);
        Some((earliest, self.frames.get(first)?.frame.dts))
    }

    /// Moves the frames of a run.
    pub(super) fn bring_forward(&mut self, run: u64, by: MediaTime) {
        for queued in self.frames.iter_mut().filter(|queued| queued.run == run) {
            queued.frame.dts = queued.frame.dts - by;
        }
    }

    /// What comes next, and when. `fills`: gaps are filled.
    pub(super) fn next(&self, clock: Clock, fills: bool) -> Option<Next> {
        let frame = self.frames.front().map(|queued| queued.frame.dts);
        let filler = self.next.filter(|_| fills && self.filler.is_some());
        let (media, at, what) = match (frame, filler) {
            (Some(frame), Some(next)) if self.leaves_gap(frame, next) => (next, clock.due(next), What::Filler),
            (Some(frame), _) => (frame, clock.due(frame), What::Frame),
            // Also while it fills: what fills would always be ahead of frames that come as they are due.
            (None, Some(next)) => {
                let patience = PATIENCE.saturating_sub(clock.cushion).max(MediaTime::ZERO);
                (next, clock.due(next + patience), What::Filler)
            }
            (None, None) => return None,
        };
        Some(Next { media, at, what })
    }

    fn leaves_gap(&self, frame: MediaTime, next: MediaTime) -> bool {
        match self.filling {
            true => frame > next + self.half_step(),
            false => frame > next + self.step.max(BEARABLE),
        }
    }

    /// The next frame that waits, and its configuration if that is another one than before.
    pub(super) fn take(&mut self) -> Option<(Queued, bool)> {
        let queued = self.frames.pop_front()?;
        let is_new = self.config.as_ref() != Some(&queued.config);
        if is_new {
            self.filler = Some(Filler::new(&queued.config));
            self.config = Some(queued.config.clone());
        }
        self.follow(&queued.frame);
        Some((queued, is_new))
    }

    /// Whether what is queued has another configuration than what is published.
    pub(super) fn changes(&self) -> bool {
        self.config.is_some() && self.config != self.newest_config
    }

    /// The key frame that comes next, without anything to fill before it.
    pub(super) fn next_key(&self) -> Option<&Queued> {
        let queued = self.frames.front().filter(|queued| queued.frame.key)?;
        let next = self.next?;
        (!self.leaves_gap(queued.frame.dts, next)).then_some(queued)
    }

    /// The configuration that this run brings, if it is another one than before.
    pub(super) fn change(&self, run: u64) -> Option<&Arc<CodecConfig>> {
        let queued = self.frames.iter().find(|queued| queued.run == run);
        let config = queued.map_or(self.newest_config.as_ref(), |queued| Some(&queued.config))?;
        self.config.as_ref().filter(|before| *before != config).map(|_| config)
    }

    /// This run begins: from here on nothing is filled with the configuration of the one before. Gives the one that is in
    /// force now, if it is another one.
    pub(super) fn turn(&mut self, run: u64) -> Option<Arc<CodecConfig>> {
        let config = self.change(run)?.clone();
        // Late ones that were still waited for.
        self.frames.retain(|queued| queued.run >= run);
        self.filler = Some(Filler::new(&config));
        self.config = Some(config.clone());
        Some(config)
    }

    fn follow(&mut self, frame: &Frame) {
        self.learn(frame);
        if let Some(filler) = &mut self.filler {
            filler.shown(&frame.data, frame.key);
        }
        if frame.key {
            self.composition = frame.composition_offset;
        }
        self.filling = false;
        self.last = Some(frame.dts);
        self.next = Some(frame.dts + self.step);
        self.shown_until = self.shown_until.max(frame.pts() + self.step);
    }

    /// The rhythm: told by the codec, or seen.
    fn learn(&mut self, frame: &Frame) {
        let exact = |samples: u32, rate: u32| Cadence::new(u64::from(samples), u64::from(rate)).map(Cadence::frame);
        let step = match self.config.as_deref() {
            Some(CodecConfig::Aac(aac)) => exact(aac.frame_samples, aac.sample_rate),
            Some(CodecConfig::Opus(_)) => {
                let samples = opus::packet_samples(&frame.data).unwrap_or(opus::USUAL_PACKET_SAMPLES);
                exact(samples, opus::SAMPLE_RATE)
            }
            _ => {
                if let Some(last) = self.last.filter(|_| !self.filling) {
                    if self.distances.len() == RHYTHM_MEMORY {
                        self.distances.pop_front();
                    }
                    self.distances.push_back((frame.dts - last).as_nanos());
                }
                let seen: Vec<i64> = self.distances.iter().copied().collect();
                Cadence::from_deltas(&seen).map(Cadence::frame)
            }
        };
        self.step = step.unwrap_or(self.step);
    }

    /// There is no frame: gives the one that fills, if one can.
    pub(super) fn fill(&mut self, key_role: impl Fn(MediaTime) -> KeyRole) -> Filled {
        let mut filled = Filled::default();
        if !self.filling {
            self.filling = true;
            filled.lost = self.drop_until_key();
            if self.id.kind == TrackKind::Video {
                // Pictures are sent out of order: the newest one sent is shown to its end first.
                self.next = self.next.map(|next| next.max(self.shown_until - self.composition));
            }
            self.gap = self.next.unwrap_or(self.gap);
            if self.id.kind == TrackKind::Video {
                return filled;
            }
        }
        let Some(next) = self.next else { return filled };
        let is_video = self.id.kind == TrackKind::Video;
        // The next picture begins a segment soon enough, and a segment of a few frames helps nobody.
        let soon = |queued: &Queued| queued.frame.key && queued.frame.dts - next <= SOON;
        let is_soon = self.frames.front().is_some_and(soon);
        let mut key = is_video
            && match key_role(next) {
                KeyRole::Begins => true,
                KeyRole::Cuts => !is_soon,
                KeyRole::Inside => false,
            };
        // A frame before the segment would end anyhow: the part that players were hinted at is still one of the old map.
        if is_video && !is_soon && !key && key_role(next + self.step) == KeyRole::Cuts {
            filled.config = self.turn_to_slate(next);
            key = filled.config.is_some();
        }
        let Some(filling) = self.filler.as_mut().and_then(|filler| filler.next(key)) else {
            self.filler = None;
            return filled;
        };
        let frame = Frame {
            track: self.id,
            dts: next,
            composition_offset: self.composition,
            key: filling.key,
            data: filling.data,
        };
        self.next = Some(next + self.step);
        self.last = Some(next);
        self.shown_until = frame.pts() + self.step;
        filled.frame = Some(frame);
        filled
    }

    /// The gap has lasted long enough for the slate: holds that from now on, and gives its configuration.
    fn turn_to_slate(&mut self, next: MediaTime) -> Option<Arc<CodecConfig>> {
        let (slate, after) = self.slate.as_ref()?;
        if next - self.gap < *after || self.config.as_ref() == Some(&slate.config) {
            return None;
        }
        let mut filler = Filler::new(&slate.config);
        filler.shown(&slate.key, true);
        self.filler = Some(filler);
        self.config = Some(slate.config.clone());
        self.config.clone()
    }

    fn drop_until_key(&mut self) -> usize {
        if self.id.kind == TrackKind::Audio {
            return 0;
        }
        let before = self.frames.len();
        let key = self.frames.iter().position(|queued| queued.frame.key).unwrap_or(before);
        self.frames.drain(..key);
        key
    }
}
