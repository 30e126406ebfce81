//! A recording that falls behind the cold tier takes what it missed from there.

use std::io;

use futures_util::future::BoxFuture;
use proptest::prelude::*;
use weir_shared::hls::position::PartNumber;

use super::*;
use crate::package::window::{Cold, ColdMedia, Part, SegmentStart, WindowSettings};

#[derive(Debug)]
struct Elsewhere(Bytes);

impl ColdMedia for Elsewhere {
    fn read(&self) -> BoxFuture<'static, io::Result<Bytes>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

const PARTS: u64 = 4;

struct Stream {
    window: Window,
    part: u64,
}

impl Stream {
    fn new() -> Self {
        let mut window = Window::new(WindowSettings {
            duration: Duration::from_secs(1000),
            target_duration: Duration::from_secs(4),
        });
        window.push_init(0, Bytes::from_static(b"init"));
        Self { window, part: 0 }
    }

    /// A part of one second; every fourth ends a segment.
    fn push(&mut self) {
        let number = PartNumber(self.part);
        if self.part.is_multiple_of(PARTS) {
            self.window.open_segment(SegmentStart {
                msn: MediaSequence(self.part / PARTS),
                pdt: UNIX_EPOCH + Duration::from_secs(self.part),
                discontinuity: false,
                new_publisher: false,
                init_index: 0,
                independent: true,
                first_part: number,
            });
        }
        self.window.push_part(Part {
            number,
            bytes: self.part.to_be_bytes().to_vec().into(),
            shared: false,
            duration: Duration::from_secs(1),
            independent: true,
        });
        self.part += 1;
        if self.part.is_multiple_of(PARTS) {
            self.window.close_segment(Duration::from_secs(PARTS));
        }
    }

    /// The oldest segment in memory leaves it.
    fn cool(&mut self) {
        let Some(oldest) = self.window.to_cool(Duration::ZERO).next().cloned() else {
            return;
        };
        let bytes: Vec<u8> = oldest.parts.iter().flat_map(|part| part.bytes.to_vec()).collect();
        let cold = Cold::new(Arc::new(Elsewhere(bytes.into())));
        assert!(self.window.cool(oldest.msn, cold));
    }
}

/// As `recorder.rs` does it.
fn record(cursor: &mut Cursor, window: &Window) -> Vec<Entry> {
    let mut entries = Vec::new();
    while let Some(segment) = cursor.next_cold(window, None).cloned() {
        let read = segment.cold.as_ref().unwrap().read();
        let bytes = futures_util::FutureExt::now_or_never(read).unwrap().unwrap();
        let collected = cursor.read_back(&segment, &bytes, window);
        assert_eq!(collected.segments_missed, 0);
        entries.extend(collected.entries);
    }
    let collected = cursor.collect(window, None);
    assert_eq!(collected.segments_missed, 0);
    entries.extend(collected.entries);
    entries
}

fn media(entries: &[Entry]) -> Vec<u8> {
    let parts = entries.iter().filter(|entry| matches!(entry.line, Line::Part { .. }));
    parts
        .flat_map(|entry| entry.media.as_ref().unwrap().1.to_vec())
        .collect()
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Push,
    Cool,
    Record,
}

proptest! {
    /// Whatever the order in which media comes, leaves memory, and is recorded: the recording has each byte once, and
    /// segments of the right length and sum.
    #[test]
    fn nothing_is_lost_to_the_cold_tier(steps in prop::collection::vec(
        prop_oneof![4 => Just(Step::Push), 1 => Just(Step::Cool), 1 => Just(Step::Record)], 1..200,
    )) {
        let mut stream = Stream::new();
        let mut cursor = Cursor::new("video".parse().unwrap(), Epoch(1), 4, MediaSequence(0));
        let mut entries = Vec::new();
        for step in steps {
            match step {
                Step::Push => stream.push(),
                Step::Cool => stream.cool(),
                Step::Record => entries.extend(record(&mut cursor, &stream.window)),
            }
        }
        entries.extend(record(&mut cursor, &stream.window));
        let all: Vec<u8> = (0..stream.part).flat_map(u64::to_be_bytes).collect();
        prop_assert_eq!(media(&entries), all);
        let mut closed = 0;
        for entry in &entries {
            if let Line::Close { bytes, duration_us, sha256, .. } = &entry.line {
                let whole: Vec<u8> = (closed * PARTS..(closed + 1) * PARTS).flat_map(u64::to_be_bytes).collect();
                prop_assert_eq!((*bytes, *duration_us), (8 * PARTS, PARTS * 1_000_000));
                prop_assert_eq!(sha256, &digest(&whole));
                closed += 1;
            }
        }
        prop_assert_eq!(closed, stream.part / PARTS);
    }
}
