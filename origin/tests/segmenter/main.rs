//! What must hold of every part and segment, whatever an encoder sends: 100 000 random broadcasts, reproducible by seed.

mod checker;
mod cuts;

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use weir_origin::package::segmenter::{Mode, TrackSegmenter};
use weir_shared::media::time::{MediaTime, Timescale};

use checker::{Checker, aac, audio, avc, rounded_ms, targets, video};

#[test]
fn a_part_is_out_the_moment_its_last_frame_is_in() {
    for (frames, seconds, part_ms, per_part) in [
        (30u64, 1u64, 333, 10),
        (30, 1, 200, 6),
        (30_000, 1001, 333, 10),
        (24, 1, 200, 5),
        (24_000, 1001, 333, 8),
        (25, 1, 100, 3),
        (60, 1, 100, 6),
    ] {
        let told = Some((seconds as u32, frames as u32));
        let mut s = TrackSegmenter::new(avc(told), None, Mode::Lead, targets(part_ms));
        let mut checker = Checker::default();
        let gop = 2 * frames.div_ceil(seconds);
        for n in 0..3000u64 {
            s.push(video(n, rounded_ms(n, seconds, frames), 0, n % gop == 0));
            checker.drain(&mut s);
            if (n + 1) % gop % per_part == 0 && (n + 1) % gop != 0 {
                assert_eq!(
                    checker.next_byte,
                    n + 1,
                    "{frames}/{seconds} at {part_ms} ms, frame {n}"
                );
            }
        }
        assert!(checker.parts.iter().all(|p| p.samples.len() <= per_part as usize));
        assert_eq!(checker.gaps, 0);
    }
}

#[test]
fn a_constant_rate_never_drifts_by_half_a_frame() {
    for (frames, seconds) in [
        (30, 1),
        (30_000, 1001),
        (24_000, 1001),
        (25, 1),
        (60_000, 1001),
        (15, 1),
    ] {
        for told in [Some((seconds as u32, frames as u32)), None] {
            let mut s = TrackSegmenter::new(avc(told), None, Mode::Lead, targets(333));
            let mut checker = Checker::default();
            let total = 20_000u64;
            for n in 0..total {
                s.push(video(n, rounded_ms(n, seconds, frames), 0, n % 30 == 0));
            }
            s.finish();
            checker.drain(&mut s);
            let mut n = 0;
            for part in &checker.parts {
                let mut at = part.tfdt;
                for sample in &part.samples {
                    let exact = MediaTime::from_millis(1000)
                        + MediaTime::from_nanos((n * seconds * 1_000_000_000 / frames) as i64);
                    let off = at.to_media_time(s.timescale()) - exact;
                    let half = 500_000_000 * seconds as i64 / frames as i64;
                    assert!(
                        off.as_nanos().abs() < half,
                        "{frames}/{seconds} told {told:?}: frame {n} is off by {off}"
                    );
                    at += sample.duration;
                    n += 1;
                }
            }
            assert_eq!(n, total);
        }
    }
}

#[test]
fn a_real_gap_leaps_and_a_small_one_is_stretched_over() {
    for (gap_ms, leaps) in [(100, 0), (250, 0), (2500, 1)] {
        let mut s = TrackSegmenter::new(avc(Some((1, 30))), None, Mode::Lead, targets(333));
        let mut checker = Checker::default();
        for n in 0..600u64 {
            let late = if n >= 133 { gap_ms } else { 0 };
            s.push(video(n, rounded_ms(n, 1, 30) + late, 0, n % 30 == 0));
            checker.drain(&mut s);
        }
        assert_eq!(checker.gaps, leaps, "{gap_ms} ms");
    }
}

#[test]
fn nothing_before_the_first_key_frame_is_packaged() {
    let mut s = TrackSegmenter::new(avc(None), None, Mode::Lead, targets(333));
    let mut checker = Checker::default();
    for n in 0..10 {
        s.push(video(n, 1000 + n as i64 * 33, 0, false));
    }
    checker.drain(&mut s);
    assert_eq!(checker.dropped, 10);
    assert!(checker.parts.is_empty());
}

/// One random broadcast: constant or variable rate, B-frames, jitter, gaps, rare key frames, audio of any rate.
fn broadcast(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let part_ms = [100, 200, 333, 500, 1000][rng.random_range(0..5)];
    if rng.random_ratio(1, 4) {
        return audio_broadcast(&mut rng, part_ms);
    }
    let (frames, seconds) = [
        (24, 1),
        (25, 1),
        (30, 1),
        (30_000, 1001),
        (24_000, 1001),
        (50, 1),
        (60, 1),
        (10, 1),
        (12, 1),
    ][rng.random_range(0..9)];
    let told = match rng.random_range(0..4) {
        0 => None,
        1 => Some((1, 25)),
        _ => Some((seconds as u32, frames as u32)),
    };
    let gop = rng.random_range(5..400);
    let variable = rng.random_ratio(1, 3);
    let b_frames = rng.random_bool(0.5);
    let mut s = TrackSegmenter::new(avc(told), None, Mode::Lead, targets(part_ms));
    let mut checker = Checker::default();
    let (mut shift, mut last) = (0i64, 0i64);
    let first_key = rng.random_range(0..3u64);
    let mut n = 0;
    for f in 0..rng.random_range(20..160u64) {
        if variable && rng.random_ratio(1, 5) {
            shift += rng.random_range(0..400);
        }
        if rng.random_ratio(1, 200) {
            shift += rng.random_range(0..5000);
        }
        let jitter = if variable { rng.random_range(-10..10) } else { 0 };
        let dts = (rounded_ms(f, seconds, frames) + shift + jitter).max(last);
        last = dts;
        let offset = match b_frames {
            true => rng.random_range(-2..4) * 1000 * seconds as i64 / frames as i64,
            false => 0,
        };
        let key = f == first_key || (f > first_key && (f - first_key).is_multiple_of(gop));
        if f < first_key {
            s.push(video(u64::MAX, dts, offset, false));
        } else {
            s.push(video(n, dts, offset, key));
            n += 1;
        }
        checker.drain(&mut s);
    }
    s.finish();
    checker.drain(&mut s);
    assert_eq!(checker.next_byte, n, "nothing is lost");
}

fn audio_broadcast(rng: &mut SmallRng, part_ms: u64) {
    let rate = [22_050, 32_000, 44_100, 48_000][rng.random_range(0..4)];
    let mut s = TrackSegmenter::new(aac(rate), None, Mode::Lead, targets(part_ms));
    let mut checker = Checker::default();
    let mut shift = 0i64;
    let count = rng.random_range(20..300u64);
    let mut last = 0;
    for n in 0..count {
        if rng.random_ratio(1, 100) {
            shift += rng.random_range(-30..1500);
        }
        let dts = (rounded_ms(n, 1024, u64::from(rate)) + shift).max(last);
        last = dts;
        s.push(audio(n, dts));
        checker.drain(&mut s);
    }
    s.finish();
    checker.drain(&mut s);
    assert_eq!(checker.next_byte, count, "nothing is lost");
}

#[test]
fn a_hundred_thousand_random_broadcasts_obey_the_rules() {
    for seed in 0..100_000 {
        if let Err(panic) = std::panic::catch_unwind(|| broadcast(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn presentation_times_are_exact_whatever_the_durations_do() {
    let mut s = TrackSegmenter::new(avc(Some((1, 30))), None, Mode::Lead, targets(200));
    let mut checker = Checker::default();
    let mut expected = Vec::new();
    let mut at = 1000i64;
    let mut rng = SmallRng::seed_from_u64(7);
    for n in 0..2000u64 {
        at += rng.random_range(20..120);
        s.push(video(n, at, 80, n % 30 == 0));
        expected.push(at + 80);
        checker.drain(&mut s);
    }
    s.finish();
    checker.drain(&mut s);
    assert_eq!(checker.gaps, 0);
    let mut shown = Vec::new();
    for part in &checker.parts {
        let mut at = part.tfdt;
        for sample in &part.samples {
            shown.push((at + sample.composition_offset).to_media_time(Timescale::VIDEO));
            at += sample.duration;
        }
    }
    for (n, (shown, expected)) in shown.iter().zip(&expected).enumerate() {
        let off = *shown - MediaTime::from_millis(*expected);
        // Smoothing puts back what rounding to milliseconds took.
        assert!(off.as_nanos().abs() <= 3_000_000, "frame {n} is shown {off} off");
    }
}
