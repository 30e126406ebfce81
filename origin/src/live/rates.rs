//! What the multivariant playlist says of a track's bits and frames.
//!
//! Before this: `live/track.rs`, which counts parts. After this: `live/master.rs`.

use std::time::Duration;

use weir_shared::media::time::Timescale;

use crate::package::segmenter::Draft;

/// Bits and time of complete segments, for BANDWIDTH and AVERAGE-BANDWIDTH.
#[derive(Debug, Default)]
pub(super) struct Rates {
    peak: u64,
    bits: u64,
    time: Duration,
    /// Of the segment that is not complete yet.
    open_bits: u64,
}

impl Rates {
    /// A part was published.
    pub(super) fn add(&mut self, bytes: usize) {
        self.open_bits = self.open_bits.saturating_add(bytes as u64 * 8);
    }

    pub(super) fn close_segment(&mut self, duration: Duration) {
        // A stub of a segment says nothing about the rate (section 4.4.6.2 looks at 0.5 to 1.5 target durations).
        if duration >= Duration::from_millis(500) {
            let rate = bits_per_second(self.open_bits, duration);
            self.peak = self.peak.max(rate);
            self.bits = self.bits.saturating_add(self.open_bits);
            self.time += duration;
        }
        self.open_bits = 0;
    }

    /// BANDWIDTH and AVERAGE-BANDWIDTH. Before the first segment is complete only the encoder's own words (or the bits so
    /// far) are known.
    pub(super) fn told(&self, announced: Option<u64>, target_duration_seconds: u32) -> (u64, u64) {
        let announced = announced.unwrap_or(0);
        let so_far = self.open_bits / u64::from(target_duration_seconds.max(1));
        let average = self.average().unwrap_or(announced.max(so_far));
        let peak = if self.peak > 0 {
            self.peak
        } else {
            announced.max(average)
        };
        // A tenth of room, for what later segments may bring.
        (peak.saturating_mul(11) / 10, average)
    }

    fn average(&self) -> Option<u64> {
        (!self.time.is_zero()).then(|| bits_per_second(self.bits, self.time))
    }
}

fn bits_per_second(bits: u64, duration: Duration) -> u64 {
    let micros = duration.as_micros().max(1);
    u64::try_from(u128::from(bits) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

/// Frames per 1000 seconds, as the first part shows it.
pub(super) fn milli_frame_rate(draft: &Draft, scale: Timescale) -> Option<u64> {
    let ticks = u64::try_from(draft.duration.0).ok().filter(|t| *t > 0)?;
    let frames = draft.samples.len() as u64;
    let exact = u128::from(frames) * 1000 * u128::from(scale.get());
    u64::try_from((exact + u128::from(ticks) / 2) / u128::from(ticks)).ok()
}
