//! What must hold of every cut, whatever an encoder sends: 100 000 random broadcasts, reproducible by seed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use weir_origin::{
    codec::{CodecConfig, aac::AacConfig, avc::AvcConfig},
    package::{
        frame::{Frame, TrackId},
        segmenter::{Draft, Mode, Output, Targets, TrackSegmenter},
    },
};
use weir_shared::media::time::{MediaTime, Ticks, Timescale};

fn avc(frame_duration: Option<(u32, u32)>) -> Arc<CodecConfig> {
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

fn aac(sample_rate: u32) -> Arc<CodecConfig> {
    Arc::new(CodecConfig::Aac(AacConfig {
        asc: Bytes::from_static(&[0x12, 0x10]),
        object_type: 2,
        sample_rate,
        channels: 2,
        frame_samples: 1024,
    }))
}

fn targets(part_ms: u64) -> Targets {
    Targets {
        part: Duration::from_millis(part_ms),
        segment: Duration::from_secs(2),
        target_duration_seconds: 4,
    }
}

fn video(n: u64, dts_ms: i64, offset_ms: i64, key: bool) -> Frame {
    Frame {
        track: TrackId::VIDEO,
        dts: MediaTime::from_millis(dts_ms),
        composition_offset: MediaTime::from_millis(offset_ms),
        key,
        data: Bytes::copy_from_slice(&n.to_be_bytes()),
    }
}

fn audio(n: u64, dts_ms: i64) -> Frame {
    Frame {
        track: TrackId::AUDIO,
        ..video(n, dts_ms, 0, true)
    }
}

/// `n` frames at `frames / seconds` per second, rounded to milliseconds as encoders do.
fn rounded_ms(n: u64, seconds: u64, frames: u64) -> i64 {
    1000 + ((n * seconds * 1000 + frames / 2) / frames) as i64
}

/// Follows the outputs of one segmenter and checks what must hold of any.
#[derive(Default)]
struct Checker {
    position: Option<Ticks>,
    segment: Option<(Ticks, Vec<Draft>)>,
    parts: Vec<Draft>,
    /// Durations of finished segments, and whether they were cut by force.
    segments: Vec<(Ticks, bool)>,
    gaps: usize,
    dropped: usize,
    next_byte: u64,
}

impl Checker {
    fn drain(&mut self, s: &mut TrackSegmenter) {
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
                        let gap_follows = false;
                        assert!(
                            part.independent || gap_follows || length.as_secs_f64() >= 0.85 * target.as_secs_f64(),
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
fn key_frames_too_far_apart_force_cuts_that_say_so() {
    let mut s = TrackSegmenter::new(avc(Some((1, 30))), None, Mode::Lead, targets(333));
    let mut checker = Checker::default();
    for n in 0..3000u64 {
        s.push(video(n, rounded_ms(n, 1, 30), 0, n % 250 == 0));
        checker.drain(&mut s);
    }
    assert!(checker.segments.iter().any(|(_, forced)| *forced));
}

#[test]
fn a_group_of_pictures_of_exactly_the_target_duration_needs_no_force() {
    let mut s = TrackSegmenter::new(avc(Some((1, 30))), None, Mode::Lead, targets(333));
    let mut checker = Checker::default();
    for n in 0..3000u64 {
        s.push(video(n, rounded_ms(n, 1, 30), 0, n % 120 == 0));
        checker.drain(&mut s);
    }
    assert!(
        checker
            .segments
            .iter()
            .all(|(d, forced)| *d == Ticks(360_000) && !forced)
    );
}

#[test]
fn audio_is_cut_where_video_is() {
    for lead_ms in [-120i64, 0, 120] {
        let mut v = TrackSegmenter::new(avc(Some((1, 30))), None, Mode::Lead, targets(333));
        let mut a = TrackSegmenter::new(aac(44_100), None, Mode::Follow, targets(333));
        let (mut vc, mut ac) = (Checker::default(), Checker::default());
        let mut n = 0;
        let mut cuts = 0;
        for f in 0..3000u64 {
            let at = rounded_ms(f, 1, 30);
            while rounded_ms(n, 1024, 44_100) <= at + lead_ms {
                a.push(audio(n, rounded_ms(n, 1024, 44_100)));
                n += 1;
            }
            v.push(video(f, at, 0, f % 60 == 0));
            let mut starts = Vec::new();
            while let Some(output) = v.poll() {
                if let Output::SegmentStart { at, .. } = &output {
                    starts.push(*at);
                }
            }
            for at in starts {
                if cuts > 0 {
                    a.cut_at(at);
                }
                cuts += 1;
            }
            ac.drain(&mut a);
        }
        vc.drain(&mut v);
        assert!((ac.segments.len() as i64 - (cuts - 1)).abs() <= 1, "{lead_ms}");
        for (duration, _) in &ac.segments[1..] {
            let seconds = duration.0 as f64 / 44_100.0;
            assert!(
                (seconds - 2.0).abs() < 0.03,
                "audio led by {lead_ms} ms: segment of {seconds} s"
            );
        }
    }
}

/// Frame by frame: what a 30 fps broadcast with these key frames brings about, as `(frame, output)`.
fn events(frames: u64, is_key: impl Fn(u64) -> bool) -> Vec<(u64, Output)> {
    let mut s = TrackSegmenter::new(avc(Some((1, 30))), None, Mode::Lead, targets(200));
    let mut all = Vec::new();
    for n in 0..frames {
        s.push(video(n, rounded_ms(n, 1, 30), 0, is_key(n)));
        all.extend(std::iter::from_fn(|| s.poll()).map(|output| (n, output)));
    }
    all
}

/// A hinted part must not seem to belong to a segment that is over: players that count parts lose their place.
#[test]
fn an_even_rhythm_ends_the_segment_together_with_its_last_part() {
    let ends: Vec<u64> = events(601, |n| n % 30 == 0)
        .iter()
        .filter(|(_, output)| matches!(output, Output::SegmentEnd { .. }))
        .map(|(n, _)| *n)
        .collect();
    // The first distance alone proves nothing; from then on, the last frame of a segment ends it.
    assert_eq!(ends, [60, 119, 179, 239, 299, 359, 419, 479, 539, 599]);
}

#[test]
fn a_key_frame_that_does_not_come_as_foretold_leaves_a_segment_that_says_so() {
    // Every second, then every four.
    let key = |n: u64| n < 240 && n.is_multiple_of(30) || n.is_multiple_of(120);
    let starts: Vec<(u64, bool)> = events(600, key)
        .iter()
        .filter_map(|(n, output)| match output {
            Output::SegmentStart { independent, .. } => Some((*n, *independent)),
            _ => None,
        })
        .collect();
    let first = starts.iter().position(|(_, independent)| !independent);
    assert_eq!(
        starts[..5],
        [(0, true), (60, true), (120, true), (180, true), (240, true)]
    );
    assert_eq!(
        first, None,
        "a key frame is due at 270, where no segment may end: {starts:?}"
    );
    let broken = |n: u64| n < 240 && n.is_multiple_of(60) || n == 330;
    let starts: Vec<(u64, bool)> = events(360, broken)
        .iter()
        .filter_map(|(n, output)| match output {
            Output::SegmentStart { independent, .. } => Some((*n, *independent)),
            _ => None,
        })
        .collect();
    assert_eq!(starts[3..], [(180, true), (240, false), (330, true)]);
}

/// Sequence numbers are counted cut by cut: one cut too many in one track, and they never meet again.
#[test]
fn audio_keeps_step_with_cuts_made_by_force() {
    for (part_ms, segment_seconds, lead_ms) in [
        (200, 1, 0),
        (200, 1, 120),
        (100, 1, -120),
        (333, 1, 80),
        (333, 2, 0),
        (200, 2, 400),
    ] {
        let targets = Targets {
            part: Duration::from_millis(part_ms),
            segment: Duration::from_secs(segment_seconds),
            target_duration_seconds: 2 * segment_seconds as u32,
        };
        let mut v = TrackSegmenter::new(avc(Some((1, 30))), None, Mode::Lead, targets);
        let mut a = TrackSegmenter::new(aac(48_000), None, Mode::Follow, targets);
        let (mut v_starts, mut a_starts): (Vec<MediaTime>, Vec<MediaTime>) = (Vec::new(), Vec::new());
        let starts = |s: &mut TrackSegmenter| -> Vec<MediaTime> {
            std::iter::from_fn(|| s.poll())
                .filter_map(|output| match output {
                    Output::SegmentStart { at, .. } => Some(at),
                    _ => None,
                })
                .collect()
        };
        let mut n = 0;
        for f in 0..9000u64 {
            let at = rounded_ms(f, 1, 30);
            while rounded_ms(n, 1024, 48_000) <= at + lead_ms {
                a.push(audio(n, rounded_ms(n, 1024, 48_000)));
                n += 1;
            }
            v.push(video(f, at, 0, f % 250 == 0));
            for at in starts(&mut v) {
                if !v_starts.is_empty() {
                    a.cut_at(at);
                }
                v_starts.push(at);
            }
            a_starts.extend(starts(&mut a));
        }
        for (index, (video, audio)) in v_starts.iter().zip(&a_starts).enumerate() {
            let off = (*video - *audio).as_nanos().abs() / 1_000_000;
            assert!(
                off <= lead_ms.unsigned_abs() as i64 + 60,
                "parts of {part_ms} ms, audio ahead by {lead_ms} ms: segment {index} starts at {video} and at {audio}"
            );
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

/// The leading track ends a segment where it was to end, and the next one a picture later: an encoder came back as another.
#[test]
fn a_following_track_makes_each_cut_that_it_is_behind() {
    let mut s = TrackSegmenter::new(aac(48_000), None, Mode::Follow, targets(200));
    let mut starts = Vec::new();
    for n in 0..150u64 {
        if n == 90 {
            // Sound is some frames late: they begin at 1 s, and 90 of them end at 2.92 s.
            s.cut_at(MediaTime::from_millis(3000));
            s.mark_discontinuity();
            s.set_config_at_cut(aac(44_100));
            s.cut_at(MediaTime::from_millis(3033));
        }
        s.push(audio(n, rounded_ms(n, 1024, 48_000)));
        while let Some(output) = s.poll() {
            if let Output::SegmentStart {
                at,
                discontinuity,
                init_index,
                ..
            } = output
            {
                starts.push((at.as_millis(), discontinuity, init_index));
            }
        }
    }
    assert_eq!(starts, [(1000, false, 0), (3005, false, 0), (3026, true, 1)]);
}

/// Players that fetch ahead take the part that is hinted for one of the configuration in force.
#[test]
fn a_turn_is_told_before_the_frame_it_is_for() {
    let mut s = TrackSegmenter::new(avc(Some((1, 30))), None, Mode::Lead, targets(200));
    for n in 0..15 {
        s.push(video(n, rounded_ms(n, 1, 30), 0, n == 0));
    }
    s.mark_discontinuity();
    s.set_config(avc(Some((1, 25))));
    s.turn(MediaTime::from_millis(503));
    let told: Vec<Output> = std::iter::from_fn(|| s.poll()).collect();
    let [
        ..,
        Output::Part(last),
        Output::SegmentEnd { .. },
        Output::SegmentStart {
            at,
            discontinuity,
            init_index,
            ..
        },
    ] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!(last.samples.len(), 3, "what there was of the open part");
    assert_eq!((at.as_millis(), *discontinuity, *init_index), (503, true, 1));
    s.push(video(15, 503, 0, true));
    let again = std::iter::from_fn(|| s.poll()).any(|output| matches!(output, Output::SegmentStart { .. }));
    assert!(!again, "its segment is open");
}

/// Media time is the wall clock's: what is wrong by a tenth in its ticks is wrong by years.
#[test]
fn another_sampling_rate_changes_the_ticks_and_not_the_time() {
    let wall_ms = 1_790_000_000_000;
    let mut s = TrackSegmenter::new(aac(48_000), None, Mode::Lead, targets(200));
    let (mut scale, mut position, mut lengths) = (s.timescale(), None, Vec::new());
    let mut at_ms = wall_ms;
    for (n, rate) in [(0, 48_000u32), (400, 44_100), (800, 32_000), (1200, 48_000)] {
        s.set_config(aac(rate));
        for k in 0..400u64 {
            s.push(audio(n + k, at_ms + (k * 1024 * 1000 / u64::from(rate)) as i64));
            while let Some(output) = s.poll() {
                match output {
                    Output::SegmentStart { timescale, tfdt, .. } => {
                        scale = timescale;
                        let at = tfdt.to_media_time(scale);
                        let apart = position.map_or(MediaTime::ZERO, |end: MediaTime| at - end);
                        assert!(apart.as_nanos().abs() < 1_000_000, "{rate}: a leap of {apart:?}");
                    }
                    Output::Part(part) => position = Some((part.tfdt + part.duration).to_media_time(scale)),
                    Output::SegmentEnd { duration, .. } => lengths.push(duration.to_duration(scale)),
                    other => panic!("{rate}: {other:?}"),
                }
            }
        }
        at_ms += (400 * 1024 * 1000 / u64::from(rate)) as i64;
    }
    let shown = position.expect("parts") - MediaTime::from_millis(wall_ms);
    let sent = MediaTime::from_millis(at_ms - wall_ms);
    assert!((sent - shown).as_nanos() < 300_000_000, "{shown:?} of {sent:?}");
    let sum: Duration = lengths.iter().sum();
    assert!(
        sum + Duration::from_millis(2500) > sent.to_duration() && sum <= sent.to_duration(),
        "{sum:?}"
    );
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
