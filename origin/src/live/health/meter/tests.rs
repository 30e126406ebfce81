use bytes::Bytes;

use super::*;
use crate::codec::avc::AvcConfig;

/// A publisher of 25 frames per second, 5000 bytes each.
struct Bench {
    meter: Meter,
    tally: Arc<Tally>,
    start: Instant,
    frames: u64,
    late_ms: u64,
}

impl Bench {
    fn new() -> Self {
        let (tally, start) = (Arc::<Tally>::default(), Instant::now());
        let mut meter = Meter::new(tally.clone(), start);
        let config = CodecConfig::Avc(AvcConfig {
            record: Bytes::new(),
            nal_length_size: 4,
            profile: [0x64, 0, 0x1F],
            width: 1280,
            height: 720,
            sample_aspect: (1, 1),
            frame_duration: None,
        });
        meter.configured(TrackId::VIDEO, &Arc::new(config));
        Self {
            meter,
            tally,
            start,
            frames: 0,
            late_ms: 0,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.frames * 40 + self.late_ms)
    }

    /// Plays so many frames with a key frame every `gop`.
    fn play(&mut self, frames: u64, gop: u64) {
        for _ in 0..frames {
            let frame = Frame {
                track: TrackId::VIDEO,
                dts: MediaTime::from_millis(self.frames as i64 * 40),
                composition_offset: MediaTime::ZERO,
                key: self.frames.is_multiple_of(gop),
                data: Bytes::from_static(&[0; 5000]),
            };
            let now = self.now();
            self.meter.frame(&frame, now);
            self.frames += 1;
        }
    }

    fn report(&self) -> InputReport {
        self.meter.report(self.now())
    }

    fn told(&self) -> Vec<&'static str> {
        self.report().warnings.iter().map(Warning::as_str).collect()
    }
}

#[test]
fn a_healthy_input_is_measured_and_not_warned_of() {
    let mut bench = Bench::new();
    bench.play(100, 50);
    let report = bench.report();
    let track = &report.tracks[0];
    assert_eq!(
        (track.codec.as_str(), track.width, track.height),
        ("avc1.64001f", Some(1280), Some(720))
    );
    assert_eq!((track.frame_rate, track.bitrate), (25.0, 1_000_000));
    assert_eq!((track.gop_seconds, track.jitter_ms), (Some(2.0), 0));
    assert_eq!(bench.told(), [""; 0]);
    bench.play(100, 50);
    assert_eq!(bench.told(), ["no_audio"]);
}

#[test]
fn rare_key_frames_are_told_in_seconds() {
    let mut bench = Bench::new();
    bench.play(220, 208);
    let warning = bench.report().warnings.remove(0);
    assert_eq!(
        warning.to_string(),
        "key frames are 8.3 s apart; set the keyframe interval to 1–2 s"
    );
    // Known before the next one comes, too.
    let mut bench = Bench::new();
    bench.play(150, 100_000);
    assert_eq!(bench.told()[0], "key_frames_too_rare");
}

#[test]
fn a_network_that_is_too_slow_shows_in_speed_and_jitter() {
    let mut bench = Bench::new();
    for _ in 0..30 {
        bench.play(5, 25);
        bench.late_ms += 60;
    }
    assert!(bench.told().contains(&"too_slow"), "{:?}", bench.told());
    let mut bench = Bench::new();
    for _ in 0..30 {
        bench.play(1, 25);
        bench.late_ms += 1000;
    }
    assert!(bench.told().contains(&"uneven_arrival"), "{:?}", bench.told());
}

#[test]
fn gaps_and_what_the_session_counted_are_told() {
    let mut bench = Bench::new();
    bench.play(10, 25);
    bench.frames += 50;
    bench.play(10, 25);
    bench.tally.dropped.store(3, Ordering::Relaxed);
    bench.tally.repaired.store(4, Ordering::Relaxed);
    let report = bench.report();
    assert_eq!((report.gaps, report.frames_dropped, report.frames_repaired), (1, 3, 4));
    for told in ["gaps", "timestamps_repaired", "frames_dropped"] {
        assert!(bench.told().contains(&told), "{told}");
    }
}

#[test]
fn memory_is_bounded_however_fast_frames_come() {
    let mut bench = Bench::new();
    bench.play(100_000, 25);
    let track = bench.meter.tracks.values().next().unwrap();
    assert!(track.recent.len() <= FRAMES_MAX);
}
