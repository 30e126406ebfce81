//! Frames as encoders send them, and what must hold of whatever the segmenter makes of them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use weir_origin::{
    codec::{CodecConfig, aac::AacConfig, avc::AvcConfig},
    package::{
        frame::{Frame, TrackId},
        segmenter::{Draft, Output, Targets, TrackSegmenter},
    },
};
use weir_shared::media::time::{MediaTime, Ticks};

pub(crate) fn avc(frame_duration: Option<(u32, u32)>) -> Arc<CodecConfig> {
    Arc::new(CodecConfig::Avc(AvcConfig {
        record: Bytes::from_static(&[1, 0x64, 0, 0x1f, 0xff, 0xe0, 0]),
        nal_length_size: 4,
        profile: [0x64, 0, 0x1f],
        width: 1280,
        height: 720,
        sample_aspect: (1, 1),
        frame_duration,
    }))
}

pub(crate) fn aac(sample_rate: u32) -> Arc<CodecConfig> {
    Arc::new(CodecConfig::Aac(AacConfig {
        asc: Bytes::from_static(&[0x12, 0x10]),
        object_type: 2,
        sample_rate,
        channels: 2,
        frame_samples: 1024,
    }))
}

pub(crate) fn targets(part_ms: u64) -> Targets {
    Targets {
        part: Duration::from_millis(part_ms),
        segment: Duration::from_secs(2),
        target_duration_seconds: 4,
    }
}

pub(crate) fn video(n: u64, dts_ms: i64, offset_ms: i64, key: bool) -> Frame {
    Frame {
        track: TrackId::VIDEO,
        dts: MediaTime::from_millis(dts_ms),
        composition_offset: MediaTime::from_millis(offset_ms),
        key,
        data: Bytes::copy_from_slice(&n.to_be_bytes()),
    }
}

pub(crate) fn audio(n: u64, dts_ms: i64) -> Frame {
    Frame {
        track: TrackId::AUDIO,
        ..video(n, dts_ms, 0, true)
    }
}

/// `n` frames at `frames / seconds` per second, rounded to milliseconds as encoders do.
pub(crate) fn rounded_ms(n: u64, seconds: u64, frames: u64) -> i64 {
    1000 + ((n * seconds * 1000 + frames / 2) / frames) as i64
}

/// Follows the outputs of one segmenter and checks what must hold of any.
#[derive(Default)]
pub(crate) struct Checker {
    position: Option<Ticks>,
    segment: Option<(Ticks, Vec<Draft>)>,
    pub(crate) parts: Vec<Draft>,
    /// Durations of finished segments, and whether they were cut by force.
    pub(crate) segments: Vec<(Ticks, bool)>,
    pub(crate) gaps: usize,
    pub(crate) dropped: usize,
    pub(crate) next_byte: u64,
}

impl Checker {
    pub(crate) fn drain(&mut self, s: &mut TrackSegmenter) {
        while let Some(output) = s.poll() {
            match output {
                Output::SegmentStart { tfdt, .. } => {
                    assert!(self.segment.is_none(), "a segment starts inside another");
                    self.segment = Some((tfdt, Vec::new()));
                }
                Output::Part(draft) => self.part(draft),
                Output::SegmentEnd { duration, forced } => {
                    let (_, parts) = self.segment.take().expect("an end has a start");
                    let sum: i64 = parts.iter().map(|p| p.duration.0).sum();
                    assert_eq!(sum, duration.0, "parts add up to their segment");
                    let seconds = duration.to_duration(s.timescale()).as_secs_f64();
                    assert!(seconds.round() <= 4.0, "EXTINF {seconds} above TARGETDURATION");
                    let target = s.part_target().expect("settled by the first part");
                    for part in &parts[..parts.len() - 1] {
                        let length = part.duration.to_duration(s.timescale());
                        assert!(
                            part.independent || length.as_secs_f64() >= 0.85 * target.as_secs_f64(),
                            "part of {length:?} is below 85 % of {target:?}"
                        );
                    }
                    self.segments.push((duration, forced));
                }
                Output::Gap { missing } => {
                    assert!(missing > MediaTime::ZERO);
                    // The part before a leap is short by nature, and starts the count anew.
                    if let Some((_, parts)) = &mut self.segment
                        && let Some(last) = parts.last_mut()
                    {
                        last.independent = true;
                    }
                    self.position = self.position.map(|p| p + missing.to_ticks(s.timescale()));
                    self.gaps += 1;
                }
                Output::Dropped { .. } => self.dropped += 1,
            }
            if let (Some(target), Some(part)) = (s.part_target(), self.parts.last()) {
                let length = part.duration.to_duration(s.timescale());
                assert!(length <= target, "part of {length:?} is above {target:?}");
            }
        }
    }

    fn part(&mut self, draft: Draft) {
        let expected = self.position.unwrap_or(draft.tfdt);
        // A leap is told in nanoseconds and made in ticks.
        assert!(
            (draft.tfdt - expected).0.abs() <= 2 * self.gaps as i64,
            "tfdt is continuous"
        );
        assert!(!draft.samples.is_empty());
        let sum: i64 = draft.samples.iter().map(|s| s.duration.0).sum();
        assert_eq!(sum, draft.duration.0, "samples add up to their part");
        assert!(draft.samples.iter().all(|s| s.duration.0 >= 1));
        assert_eq!(draft.independent, draft.samples.iter().any(|s| s.sync));
        for sample in &draft.samples {
            let n = u64::from_be_bytes(sample.data.as_ref().try_into().unwrap());
            assert_eq!(n, self.next_byte, "every frame comes out once, in order");
            self.next_byte += 1;
        }
        self.position = Some(draft.tfdt + draft.duration);
        self.segment
            .as_mut()
            .expect("a part is in a segment")
            .1
            .push(draft.clone());
        self.parts.push(draft);
    }
}
