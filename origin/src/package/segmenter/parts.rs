//! The parts of a segment: how long they may be, when one is complete, and how long its samples are said to last.
//!
//! Before this: `package/segmenter.rs`, which says where segments end. After this: `segmenter/output.rs` ([`Draft`]).

use std::time::Duration;

use bytes::Bytes;
use weir_shared::media::time::{MediaTime, Ticks};

use super::{
    TrackSegmenter,
    output::{Draft, Output, Sample},
};

/// Smallest share of PART-TARGET that a part may have (section 4.4.4.9), in percent, with a little room.
const SHORTEST_PART_PERCENT: i64 = 86;

/// Samples not yet published. The last one's duration is open; `fixed` is the sum of the others.
#[derive(Debug, Default)]
pub(super) struct OpenPart {
    pub(super) tfdt: Ticks,
    pub(super) fixed: Ticks,
    pub(super) samples: Vec<Sample>,
    pub(super) independent: bool,
}

/// How a part comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is as long as it may be.
    Full,
    /// Its segment ends, or the input leaps.
    Short,
}

impl TrackSegmenter {
    /// A frame is due at `due`: the sample before it, if unpublished, lasts until then as far as its part has room.
    pub(super) fn reach(&mut self, due: Ticks) {
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

    pub(super) fn append(&mut self, data: Bytes, sync: bool, due: Ticks, composition: MediaTime) {
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
    pub(super) fn close_part_if_crowded(&mut self) {
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
        let next = self.smoother.next_due(self.rhythm.cadence()).to_ticks(self.scale);
        Ticks(
            (next - self.position)
                .0
                .clamp((frame.0 / 2).max(1), frame.0 * 3 / 2 + 1),
        )
    }

    /// Publishes the part if no further frame fits.
    pub(super) fn close_part_if_full(&mut self) {
        let length = self.position - self.part.tfdt;
        // One tick of rounding per frame is not a frame too many.
        let slack = Ticks(self.part.samples.len() as i64 + 1);
        if length + self.frame_ticks() > self.part_target_ticks() + slack {
            self.close_part(Ending::Full);
            self.end_segment_if_key_is_next();
            self.end_segment_if_long();
        }
    }

    pub(super) fn close_part(&mut self, ending: Ending) {
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

    /// PART-TARGET: the whole number of frames nearest to the configured one, in milliseconds rounded up so that tick
    /// rounding never exceeds it.
    fn wanted_part_target(&self) -> Duration {
        let cadence = self.rhythm.cadence();
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

    pub(super) fn part_target_ticks(&self) -> Ticks {
        let target = self.part_target.unwrap_or_else(|| self.wanted_part_target());
        // Whole ticks inside it.
        Ticks((target.as_micros() as i64).saturating_mul(i64::from(self.scale.get())) / 1_000_000)
    }

    fn shortest_part(&self) -> Ticks {
        Ticks(self.part_target_ticks().0 * SHORTEST_PART_PERCENT / 100)
    }
}
