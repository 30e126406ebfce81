//! What a part costs in a long DVR window: at minute 1 and hour 6 of a broadcast with a made-up clock.
//!
//! `cargo run --release -p weir-origin --example dvr_cost -- [hours]`
//!
//! For each part: the window takes it, a snapshot is made, and its playlist is written as delta update and in full, each
//! plain and gzipped. Parts of 200 ms in segments of 2 s; all parts share their bytes, so that hours fit into memory.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use weir_origin::{
    live::{
        snapshot::{RenditionSettings, Snapshot},
        text::SharedRuns,
    },
    package::{
        frame::TrackKind,
        window::{Part, SegmentStart, Window, WindowSettings},
    },
};
use weir_shared::{
    hls::{
        playlist::ServerControl,
        position::{MediaSequence, PartNumber},
        reload::Skip,
    },
    id::Epoch,
};

const PART: Duration = Duration::from_millis(200);
const PARTS_PER_SEGMENT: u64 = 10;
const PARTS_PER_MINUTE: u64 = 300;

struct Stream {
    window: Window,
    settings: Arc<RenditionSettings>,
    runs: SharedRuns,
    media: Bytes,
    part: u64,
}

/// What was spent on one part, and how many bytes its playlists have.
#[derive(Default)]
struct Cost {
    publish: Duration,
    delta: Duration,
    full: Duration,
    delta_bytes: usize,
    full_bytes: usize,
}

impl Stream {
    fn new(window: Duration) -> Self {
        let target_duration = Duration::from_secs(4);
        Self {
            window: Window::new(WindowSettings {
                duration: window,
                target_duration,
            }),
            settings: Arc::new(RenditionSettings {
                name: "video".parse().expect("it is a name"),
                track: TrackKind::Video,
                epoch: Epoch(1_769_903_980_500),
                target_duration_seconds: 4,
                part_target: PART,
                server_control: ServerControl {
                    can_block_reload: true,
                    can_skip_until: Some(target_duration * 6),
                    hold_back: None,
                    part_hold_back: Some(PART * 3),
                },
                dvr: true,
            }),
            runs: SharedRuns::default(),
            media: Bytes::from(vec![0; 150_000]),
            part: 0,
        }
    }

    fn push(&mut self) -> Snapshot {
        let (segment, index) = (self.part / PARTS_PER_SEGMENT, self.part % PARTS_PER_SEGMENT);
        if self.part == 0 {
            self.window.push_init(0, Bytes::from_static(b"init"));
        }
        if index == 0 {
            self.window.open_segment(SegmentStart {
                msn: MediaSequence(897_625_200 + segment),
                pdt: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000) + PART * self.part as u32,
                discontinuity: false,
                init_index: 0,
                independent: true,
                first_part: PartNumber(self.part),
            });
        }
        self.window.push_part(Part {
            number: PartNumber(self.part),
            bytes: self.media.clone(),
            duration: PART,
            independent: index.is_multiple_of(5),
        });
        self.part += 1;
        if self.part.is_multiple_of(PARTS_PER_SEGMENT) {
            self.window.close_segment(PART * PARTS_PER_SEGMENT as u32);
        }
        let edge = self.window.live_edge();
        Snapshot::new(
            self.settings.clone(),
            self.runs.clone(),
            edge,
            self.window.clone(),
            Vec::new(),
        )
    }

    fn measure(&mut self) -> Cost {
        let begun = Instant::now();
        let snapshot = self.push();
        let pushed = Instant::now();
        snapshot.playlist(Skip::Yes, false);
        let delta = snapshot.playlist(Skip::Yes, true);
        let updated = Instant::now();
        snapshot.playlist(Skip::No, false);
        let full = snapshot.playlist(Skip::No, true);
        let bytes = |chunks: &[Bytes]| chunks.iter().map(Bytes::len).sum();
        Cost {
            publish: pushed - begun,
            delta: updated - pushed,
            full: updated.elapsed(),
            delta_bytes: bytes(&delta),
            full_bytes: bytes(&full),
        }
    }
}

fn median<T: Copy + Ord>(costs: &[Cost], of: fn(&Cost) -> T) -> T {
    let mut all: Vec<T> = costs.iter().map(of).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

fn main() {
    let hours: u64 = std::env::args()
        .nth(1)
        .and_then(|hours| hours.parse().ok())
        .unwrap_or(6);
    let mut stream = Stream::new(Duration::from_secs(hours * 3600));
    println!("part at     | window+snapshot | delta update, gzip    | full playlist, gzip");
    let mut first = None;
    for minute in [1, 10, 60, hours * 60, hours * 60 + 10] {
        while stream.part < minute * PARTS_PER_MINUTE {
            stream.push();
        }
        let costs: Vec<Cost> = (0..2 * PARTS_PER_MINUTE).map(|_| stream.measure()).collect();
        let times = [
            median(&costs, |cost| cost.publish),
            median(&costs, |cost| cost.delta),
            median(&costs, |cost| cost.full),
        ];
        let sum: Duration = times.iter().sum();
        let of_first = *first.get_or_insert(sum);
        println!(
            "minute {minute:4} | {:>12.1?} | {:>10.1?} {:>6} bytes | {:>10.1?} {:>7} bytes | {:.2} of minute 1",
            times[0],
            times[1],
            median(&costs, |cost| cost.delta_bytes),
            times[2],
            median(&costs, |cost| cost.full_bytes),
            sum.as_secs_f64() / of_first.as_secs_f64(),
        );
    }
}
