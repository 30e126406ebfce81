use std::time::Duration;

use proptest::prelude::*;

use super::*;

const VIDEO: TrackId = TrackId::VIDEO;
const AUDIO: TrackId = TrackId::AUDIO;

/// A timeline and the wall clock beside it.
struct Bench {
    timeline: Timeline,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self {
            timeline: Timeline::new(),
            now: Instant::now(),
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn place(&mut self, id: TrackId, timestamp: u32) -> Placed {
        self.timeline.place(id, timestamp, 0, 0, self.now)
    }

    fn at(&mut self, id: TrackId, timestamp: u32) -> i64 {
        self.place(id, timestamp).dts.as_millis()
    }

    /// One second of 25 fps video and 25 audio frames, in real time; the last decode times.
    fn play_second(&mut self, from: u32) -> (i64, i64) {
        let mut last = (0, 0);
        for n in 0..25 {
            let timestamp = from.wrapping_add(n * 40);
            last = (self.at(VIDEO, timestamp), self.at(AUDIO, timestamp.wrapping_add(5)));
            self.wait(40);
        }
        last
    }
}

#[test]
fn a_publish_begins_at_one_second_whatever_its_clock_says() {
    for first in [0, 5_000_000, u32::MAX - 10] {
        let mut bench = Bench::new();
        assert_eq!(bench.at(VIDEO, first), 1000);
        assert_eq!(bench.at(AUDIO, first.wrapping_sub(300)), 700);
        assert_eq!(bench.at(AUDIO, first.wrapping_add(40)), 1040);
    }
}

#[test]
fn the_32_bit_wrap_is_no_event() {
    let mut bench = Bench::new();
    assert_eq!(bench.play_second(u32::MAX - 500), (1960, 1965));
    let next = bench.place(VIDEO, (u32::MAX - 500).wrapping_add(1000));
    assert_eq!((next.dts.as_millis(), next.repair), (2000, None));
}

#[test]
fn small_steps_back_are_held_and_the_picture_stays_where_it_was() {
    let mut bench = Bench::new();
    bench.at(VIDEO, 0);
    bench.at(VIDEO, 40);
    let early = bench.timeline.place(VIDEO, 30, 0, 80, bench.now);
    assert_eq!(early.dts.as_millis(), 1040);
    assert_eq!((early.dts + early.composition_offset).as_millis(), 1110);
    let by = MediaTime::from_millis(10);
    assert_eq!(early.repair, Some(Repair::Held { by }));
    assert_eq!(bench.place(VIDEO, 80).repair, None);
}

#[test]
fn a_jump_back_continues_one_frame_on_with_both_tracks_together() {
    let mut bench = Bench::new();
    assert_eq!(bench.play_second(3_600_000), (1960, 1965));
    let video = bench.place(VIDEO, 0);
    assert_eq!(video.dts.as_millis(), 2005);
    assert!(matches!(video.repair, Some(Repair::Rebased { .. })));
    let audio = bench.place(AUDIO, 5);
    assert_eq!((audio.dts.as_millis(), audio.repair), (2010, Some(Repair::Followed)));
    bench.wait(40);
    assert_eq!(bench.place(VIDEO, 40).repair, None);
    assert_eq!(bench.at(AUDIO, 45), 2050);
}

#[test]
fn a_leap_of_ten_minutes_is_taken_back_even_if_the_tracks_leap_apart() {
    let mut bench = Bench::new();
    bench.play_second(0);
    let leap = 600_000;
    assert_eq!(bench.at(VIDEO, 1000 + leap), 2005);
    // Audio that was still under way before the leap keeps its place.
    assert_eq!(bench.place(AUDIO, 1005).repair, None);
    assert_eq!(bench.at(AUDIO, 1045 + leap), 2050);
    assert_eq!(bench.at(VIDEO, 1040 + leap), 2045);
}

#[test]
fn a_leap_at_the_threshold_does_not_split_the_tracks() {
    for leap in 9_900..10_200 {
        let mut bench = Bench::new();
        bench.play_second(0);
        let (video, audio) = bench.play_second(1000 + leap);
        assert_eq!(audio - video, 5, "leap {leap}");
    }
}

#[test]
fn real_silence_stays_a_gap_of_its_length() {
    let mut bench = Bench::new();
    bench.play_second(0);
    bench.wait(12_000);
    let kept = bench.place(VIDEO, 13_000);
    assert_eq!((kept.dts.as_millis(), kept.repair), (14_000, None));

    let mut bench = Bench::new();
    bench.play_second(3_600_000);
    bench.wait(5000);
    let video = bench.at(VIDEO, 0);
    assert_eq!(video, 1965 + 5040);
    assert_eq!(bench.at(AUDIO, 5), video + 5);
}

#[test]
fn a_track_with_a_clock_of_its_own_is_brought_beside_the_other() {
    let mut bench = Bench::new();
    for n in 0..50 {
        let video = bench.at(VIDEO, 7_000_000 + n * 40);
        let audio = bench.at(AUDIO, n * 40);
        assert!((audio - video).abs() < 100, "{audio} {video}");
        bench.wait(40);
    }
}

#[test]
fn a_stalled_network_does_not_look_like_a_jump() {
    let mut bench = Bench::new();
    bench.play_second(0);
    bench.wait(8000);
    // The backlog arrives at once.
    for n in 0..200 {
        assert_eq!(bench.place(VIDEO, 1000 + n * 40).repair, None);
        assert_eq!(bench.place(AUDIO, 1005 + n * 40).repair, None);
    }
}

#[test]
fn nanoseconds_move_a_frame_and_never_back() {
    let mut bench = Bench::new();
    let mut at = |timestamp, nanos| {
        let placed = bench.timeline.place(VIDEO, timestamp, nanos, 0, bench.now);
        (placed.dts.as_nanos(), placed.repair)
    };
    assert_eq!(at(0, 0), (1_000_000_000, None));
    assert_eq!(at(33, 333_333), (1_033_333_333, None));
    assert_eq!(at(33, 0), (1_033_333_333, None));
    assert_eq!(at(66, 666_667), (1_066_666_667, None));
}

#[test]
fn a_second_audio_track_keeps_its_own_order() {
    let second = TrackId { number: 1, ..AUDIO };
    let mut bench = Bench::new();
    bench.at(VIDEO, 0);
    // Its frames come a little behind those of the first track all the time: no step back.
    for n in 0..20 {
        let ahead = bench.place(AUDIO, n * 40 + 30);
        let behind = bench.place(second, n * 40);
        assert_eq!((ahead.repair, behind.repair), (None, None));
        assert_eq!(behind.dts.as_millis(), 1000 + i64::from(n) * 40);
        bench.wait(40);
    }
    // All jump together and stay together.
    bench.place(VIDEO, 3_000_000);
    let (ahead, behind) = (bench.at(AUDIO, 3_000_030), bench.at(second, 3_000_000));
    assert_eq!(ahead - behind, 30);
}

proptest! {
    #[test]
    fn decode_times_never_decrease(frames in prop::collection::vec((any::<bool>(), any::<u32>(), 0u64..20_000), 1..200)) {
        let mut bench = Bench::new();
        let mut last = [0, 0];
        for (video, timestamp, wait) in frames {
            bench.wait(wait);
            let at = bench.at(if video { VIDEO } else { AUDIO }, timestamp);
            prop_assert!(at >= last[usize::from(video)]);
            last[usize::from(video)] = at;
        }
    }

    /// However often an encoder's clock jumps, its tracks stay together and the timeline follows real time.
    #[test]
    fn jumps_neither_part_the_tracks_nor_bend_time(
        start: u32,
        jumps in prop::collection::vec(prop_oneof![Just(0u32), 11_000u32..2_000_000_000, 2_200_000_000..u32::MAX - 1100], 1..20),
    ) {
        let mut bench = Bench::new();
        let mut clock = start;
        for (second, jump) in jumps.into_iter().enumerate() {
            clock = clock.wrapping_add(jump);
            let (video, audio) = bench.play_second(clock);
            clock = clock.wrapping_add(1000);
            prop_assert_eq!(audio - video, 5);
            let expected = 1960 + 1000 * second as i64;
            prop_assert!((video - expected).abs() <= 10 * (second as i64 + 1), "{} is not {}", video, expected);
        }
    }
}
