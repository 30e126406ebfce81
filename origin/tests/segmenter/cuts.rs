//! Where segments end: at key frames, where the leading track ends them, where the encoder changes.

use std::time::Duration;

use weir_origin::package::segmenter::{Mode, Output, Targets, TrackSegmenter};
use weir_shared::media::time::{MediaTime, Ticks};

use super::checker::{Checker, aac, audio, avc, rounded_ms, targets, video};

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
