//! The ring against a list of everything that ever went into it.

use std::time::SystemTime;

use futures_util::future::BoxFuture;
use proptest::prelude::*;

use super::*;

/// One segment's worth of input: its parts as (bytes, milliseconds).
#[derive(Debug, Clone)]
struct Input {
    parts: Vec<(usize, u64)>,
    discontinuity: bool,
    new_init: bool,
}

impl Input {
    fn duration(&self) -> Duration {
        Duration::from_millis(self.parts.iter().map(|(_, ms)| ms).sum())
    }
}

fn inputs(segments: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Input>> {
    let part = (1usize..40, 100u64..400);
    let input = (prop::collection::vec(part, 1..6), 0u8..10, 0u8..20).prop_map(|(parts, cut, init)| Input {
        parts,
        discontinuity: cut == 0,
        new_init: init == 0,
    });
    prop::collection::vec(input, segments)
}

fn settings() -> impl Strategy<Value = WindowSettings> {
    (0u64..30, 2u64..4).prop_map(|(seconds, target)| WindowSettings {
        duration: Duration::from_secs(seconds),
        target_duration: Duration::from_secs(target),
    })
}

/// Everything that ever went in, and what the rules say of it.
struct Model {
    enough: Duration,
    first_msn: u64,
    segments: Vec<Segment>,
    /// Index of the first listed segment.
    listed_from: usize,
    discontinuity_sequence: u64,
    /// Media time that has passed.
    now: Duration,
    /// Duration of the longest playlist that listed each segment.
    longest_listing: Vec<Duration>,
    /// When each segment left the list.
    unlisted_at: Vec<Duration>,
}

impl Model {
    fn new(settings: WindowSettings, first_msn: u64) -> Self {
        Self {
            enough: settings.duration.max(settings.target_duration * 3),
            first_msn,
            segments: vec![],
            listed_from: 0,
            discontinuity_sequence: 5,
            now: Duration::ZERO,
            longest_listing: vec![],
            unlisted_at: vec![],
        }
    }

    fn listed(&self) -> &[Segment] {
        &self.segments[self.listed_from..]
    }

    fn listed_time(&self) -> Duration {
        self.listed().iter().map(|s| s.duration).sum()
    }

    fn close(&mut self, segment: Segment) {
        self.now += segment.duration;
        self.segments.push(segment);
        self.longest_listing.push(Duration::ZERO);
        while self.listed_time() - self.listed()[0].duration >= self.enough {
            self.discontinuity_sequence += u64::from(self.listed()[0].discontinuity);
            self.unlisted_at.push(self.now);
            self.listed_from += 1;
        }
        let time = self.listed_time();
        for longest in &mut self.longest_listing[self.listed_from..] {
            *longest = time.max(*longest);
        }
    }

    /// Section 6.2.2: a segment stays for its own duration plus that of the longest playlist that listed it.
    fn must_be_there(&self, index: usize) -> bool {
        let available = |at: &Duration| *at + self.segments[index].duration + self.longest_listing[index] > self.now;
        self.unlisted_at.get(index).is_none_or(available)
    }
}

/// Bytes nobody else has.
fn part_bytes(number: u64, len: usize) -> Bytes {
    number.to_be_bytes().repeat(len).into()
}

fn compare(window: &Window, model: &Model) -> Result<(), TestCaseError> {
    let listed: Vec<_> = window.listed().map(|s| (**s).clone()).collect();
    prop_assert_eq!(&listed[..], model.listed());
    prop_assert_eq!(window.discontinuity_sequence(), model.discontinuity_sequence);

    let (mut held, mut kept_time) = (0, Duration::ZERO);
    for (index, expected) in model.segments.iter().enumerate() {
        let found = window.segment(expected.msn);
        prop_assert!(
            found.is_some() || !model.must_be_there(index),
            "segment {index} went too early"
        );
        prop_assert!(found.is_none_or(|s| **s == *expected));
        let init = window.init(expected.init_index);
        prop_assert!(found.is_none() || init == Some(part_bytes(u64::from(expected.init_index), 3)));
        for (number, part) in (expected.first_part.0..).zip(&expected.parts) {
            let expected = found.map(|_| part);
            prop_assert_eq!(
                window.part(PartNumber(number)),
                expected,
                "a part lives as long as its segment"
            );
        }
        held += found.map_or(0, |s| s.parts.iter().map(|p| p.bytes.len()).sum());
        kept_time += found.map_or(Duration::ZERO, |s| s.duration);
    }
    let open = window.open().map_or(&[][..], |open| &open.parts);
    held += open.iter().map(|p| p.bytes.len()).sum::<usize>();
    prop_assert_eq!(window.media_bytes(), held);
    // What is kept is bounded: the list, as much again for its availability, and some segments' slack.
    let slack = window.settings.target_duration * 6;
    prop_assert!(
        kept_time <= model.enough * 2 + slack,
        "{kept_time:?} kept of {:?}",
        model.enough
    );

    for absent in [
        0,
        model.first_msn - 1,
        model.first_msn + model.segments.len() as u64,
        u64::MAX,
    ] {
        prop_assert!(window.segment(MediaSequence(absent)).is_none());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_ring_is_the_list_it_stands_for(
        settings in settings(),
        inputs in inputs(1..220),
        first_msn in 1u64..1 << 40,
        first_part in 0u64..1 << 40,
    ) {
        let mut window = Window::new(settings);
        window.set_discontinuity_sequence(5);
        let mut model = Model::new(settings, first_msn);
        let (mut msn, mut number, mut init_index) = (first_msn, first_part, 0);
        let mut earlier: Option<(Window, Vec<Arc<Segment>>)> = None;
        for (n, input) in inputs.iter().enumerate() {
            if n == 0 || input.new_init {
                init_index += 1;
                window.push_init(init_index, part_bytes(u64::from(init_index), 3));
            }
            let start = SegmentStart {
                msn: MediaSequence(msn),
                pdt: SystemTime::UNIX_EPOCH + model.now,
                discontinuity: input.discontinuity,
                new_publisher: false,
                init_index,
                independent: n % 7 != 0,
                first_part: PartNumber(number),
            };
            window.open_segment(start);
            let mut parts = vec![];
            for &(len, ms) in &input.parts {
                let part = PartEntry {
                    bytes: part_bytes(number, len),
                    shared: false,
                    duration: Duration::from_millis(ms),
                    independent: parts.is_empty(),
                };
                window.push_part(Part {
                    number: PartNumber(number),
                    bytes: part.bytes.clone(),
                    shared: false,
                    duration: part.duration,
                    independent: part.independent,
                });
                prop_assert_eq!(window.part(PartNumber(number)), Some(&part), "the newest part is there at once");
                prop_assert_eq!(window.part(PartNumber(number + 1)), None);
                parts.push(part);
                number += 1;
                let edge = window.live_edge();
                let seen = (edge.open.0, edge.open_parts as usize, edge.next_part.0);
                prop_assert_eq!(seen, (msn, parts.len(), number));
            }
            compare(&window, &model)?;
            window.close_segment(input.duration());
            let last_parts = parts.len();
            model.close(Segment {
                msn: start.msn,
                duration: input.duration(),
                pdt: start.pdt,
                discontinuity: start.discontinuity,
                new_publisher: false,
                init_index,
                independent: start.independent,
                first_part: start.first_part,
                parts,
                cold: None,
            });
            msn += 1;
            compare(&window, &model)?;
            let edge = window.live_edge();
            let seen = (edge.first, edge.open.0, edge.open_parts, edge.last_complete_parts as usize, edge.next_part.0);
            prop_assert_eq!(seen, (model.listed()[0].msn, msn, 0, last_parts, number));
            if n == inputs.len() / 2 {
                earlier = Some((window.clone(), window.listed().cloned().collect()));
            }
        }
        if let Some((window, listed)) = earlier {
            prop_assert!(window.listed().eq(&listed), "what a reader holds never changes");
        }
    }
}

#[test]
fn a_segment_that_is_dropped_while_open_leaves_nothing_behind() {
    let mut window = Window::new(WindowSettings {
        duration: Duration::from_secs(10),
        target_duration: Duration::from_secs(2),
    });
    let start = |msn, first_part| SegmentStart {
        msn: MediaSequence(msn),
        pdt: SystemTime::UNIX_EPOCH,
        discontinuity: false,
        new_publisher: false,
        init_index: 0,
        independent: true,
        first_part: PartNumber(first_part),
    };
    let part = |number| Part {
        number: PartNumber(number),
        bytes: part_bytes(number, 10),
        shared: false,
        duration: Duration::from_secs(1),
        independent: true,
    };
    window.push_part(part(0));
    assert_eq!(window.media_bytes(), 0, "there is no segment to add to");
    window.open_segment(start(7, 0));
    window.push_part(part(0));
    window.open_segment(start(7, 0));
    assert_eq!((window.media_bytes(), window.part(PartNumber(0))), (0, None));
    window.push_part(part(0));
    window.close_segment(Duration::from_secs(1));
    window.close_segment(Duration::from_secs(1));
    assert_eq!(window.listed().count(), 1, "what is not open can't be closed");
    assert_eq!(window.media_bytes(), 80);
}

#[derive(Debug)]
struct Elsewhere(Bytes);

impl ColdMedia for Elsewhere {
    fn read(&self) -> BoxFuture<'static, std::io::Result<Bytes>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

/// Segments of a second with one part of eighty bytes each, from number 0 on.
fn seconds(window: &mut Window, numbers: std::ops::Range<u64>) {
    for number in numbers {
        window.open_segment(SegmentStart {
            msn: MediaSequence(number),
            pdt: SystemTime::UNIX_EPOCH,
            discontinuity: false,
            new_publisher: false,
            init_index: 0,
            independent: true,
            first_part: PartNumber(number),
        });
        window.push_part(Part {
            number: PartNumber(number),
            bytes: part_bytes(number, 10),
            shared: number.is_multiple_of(2),
            duration: Duration::from_secs(1),
            independent: true,
        });
        window.close_segment(Duration::from_secs(1));
    }
}

#[test]
fn old_segments_leave_memory_and_stay_in_the_list() {
    let mut window = Window::new(WindowSettings {
        duration: Duration::from_secs(200),
        target_duration: Duration::from_secs(2),
    });
    seconds(&mut window, 0..150);
    let reader = window.clone();
    let hot = Duration::from_secs(60);
    let old: Vec<_> = window.to_cool(hot).cloned().collect();
    assert_eq!(old.len(), 90);
    assert_eq!(old[0].msn, MediaSequence(0));
    for segment in &old {
        let elsewhere = Cold::new(Arc::new(Elsewhere(segment.parts[0].bytes.clone())));
        assert!(
            !window.cool(segment.msn.next(), elsewhere.clone()),
            "one after the other"
        );
        assert!(window.cool(segment.msn, elsewhere));
    }
    assert_eq!((window.media_bytes(), window.hot_time()), (60 * 80, hot));
    assert_eq!(window.own_bytes(), 30 * 80, "every other part is another window's too");
    assert_eq!(window.to_cool(hot).count(), 0);
    assert_eq!(window.listed_len(), 150);
    assert_eq!(window.part(PartNumber(70)), None);
    assert!(window.part(PartNumber(90)).is_some());
    let cold = window
        .segment(MediaSequence(70))
        .and_then(|segment| segment.cold.clone())
        .unwrap();
    let bytes = futures_util::FutureExt::now_or_never(cold.read()).unwrap().unwrap();
    assert_eq!(bytes, part_bytes(70, 10));
    assert!(
        reader.part(PartNumber(70)).is_some(),
        "what a reader holds never changes"
    );

    // They leave like all others, and what is in memory is counted right to the end.
    seconds(&mut window, 150..600);
    assert!(window.segment(MediaSequence(89)).is_none());
    let kept = (0..600)
        .filter(|msn| window.segment(MediaSequence(*msn)).is_some())
        .count();
    assert_eq!(window.hot_time(), Duration::from_secs(kept as u64));
    assert_eq!(window.media_bytes(), window.hot_time().as_secs() as usize * 80);
}

#[test]
fn a_window_that_may_not_have_its_past_keeps_the_newest() {
    let mut window = Window::new(WindowSettings {
        duration: Duration::from_secs(200),
        target_duration: Duration::from_secs(2),
    });
    seconds(&mut window, 0..150);
    window.cut(Duration::from_secs(60));
    assert_eq!((window.listed_len(), window.media_bytes()), (60, 60 * 80));
    assert_eq!(window.live_edge().first, MediaSequence(90));
    assert!(window.slides());
    seconds(&mut window, 150..155);
    assert_eq!(window.listed_len(), 65, "it grows again");
}
