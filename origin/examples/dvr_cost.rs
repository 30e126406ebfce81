//! What DVR costs: hours of a broadcast at 6 Mbit/s with a made-up clock, in parts of 200 ms and segments of 2 s.
//!
//! `cargo run --release -p weir-origin --example dvr_cost -- part [HOURS]`: what a part costs at minute 1 and at the end. The
//! window takes it, a snapshot is made, and its playlist is written as delta update and in full, each plain and gzipped. All
//! parts share their bytes.
//!
//! `… --example dvr_cost -- memory FOLDER [HOURS]`: how much memory the process has while all but the newest ten minutes go to
//! a cold tier in that folder, as in an origin. Each part has bytes of its own: 2.7 GB of disk an hour. Linux only.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_origin::{
    dvr::{
        budget::Budget,
        cold::{ColdStore, Owner},
        metrics::Metrics,
    },
    live::{
        memory::{Memory, Settings, Tiers},
        snapshot::{RenditionSettings, Snapshot},
        text::SharedRuns,
    },
    package::{
        frame::TrackKind,
        window::{Part, SegmentStart, Window, WindowSettings},
    },
    record::store,
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

/// Media in memory.
const HOT: Duration = Duration::from_secs(600);
/// 6 Mbit/s.
const PART_BYTES: usize = 150_000;

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
            media: Bytes::from(vec![0; PART_BYTES]),
            part: 0,
        }
    }

    fn push(&mut self) -> Snapshot {
        let media = self.media.clone();
        self.push_media(media)
    }

    fn push_media(&mut self, media: Bytes) -> Snapshot {
        let (segment, index) = (self.part / PARTS_PER_SEGMENT, self.part % PARTS_PER_SEGMENT);
        if self.part == 0 {
            self.window.push_init(0, Bytes::from_static(b"init"));
        }
        if index == 0 {
            self.window.open_segment(SegmentStart {
                msn: MediaSequence(897_625_200 + segment),
                pdt: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000) + PART * self.part as u32,
                discontinuity: false,
                new_publisher: false,
                init_index: 0,
                independent: true,
                first_part: PartNumber(self.part),
            });
        }
        self.window.push_part(Part {
            number: PartNumber(self.part),
            bytes: media,
            shared: false,
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

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let hours = |at: usize| arguments.get(at).and_then(|hours| hours.parse().ok()).unwrap_or(6);
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["part", ..] => part_costs(hours(1)),
        ["memory", folder, ..] => memory(folder, hours(2))?,
        _ => anyhow::bail!("expected: part [HOURS], or memory FOLDER [HOURS]"),
    }
    Ok(())
}

fn part_costs(hours: u64) {
    let mut stream = Stream::new(Duration::from_secs(hours * 3600));
    println!(
        "part at     | window+snapshot | delta update, gzip    | full playlist, gzip   | together, median and mean"
    );
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
        let all: Duration = costs.iter().map(|cost| cost.publish + cost.delta + cost.full).sum();
        let mean = all / costs.len() as u32;
        let (first_sum, first_mean) = *first.get_or_insert((sum, mean));
        println!(
            "minute {minute:4} | {:>15.1?} | {:>9.1?} {:>5} bytes | {:>8.1?} {:>6} bytes | {sum:.1?}, {mean:.1?}: {:.2}, {:.2} of minute 1",
            times[0],
            times[1],
            median(&costs, |cost| cost.delta_bytes),
            times[2],
            median(&costs, |cost| cost.full_bytes),
            sum.as_secs_f64() / first_sum.as_secs_f64(),
            mean.as_secs_f64() / first_mean.as_secs_f64(),
        );
    }
}

#[tokio::main]
async fn memory(folder: &str, hours: u64) -> anyhow::Result<()> {
    let before = resident_bytes()?;
    let stop = CancellationToken::new();
    let metrics = Metrics::new(&prometheus::Registry::new())?;
    let owner = Owner {
        node: "dvr-cost".to_owned(),
        life: 1,
    };
    let tasks = TaskTracker::new();
    let store = store::open_for_now(folder, &BTreeMap::new())?;
    let tiers = Tiers {
        settings: Settings {
            hot: HOT,
            hot_min: Duration::from_secs(24),
            bytes_max: 1 << 40,
        },
        budget: Budget::new(1 << 40),
        cold: Some(ColdStore::start(store, &owner, metrics.clone(), &tasks, &stop)),
        metrics: metrics.clone(),
    };
    let budget = tiers.budget.clone();
    let mut memory = Memory::new(tiers, budget);
    let mut stream = Stream::new(Duration::from_secs(hours * 3600));
    let (name, begun) = ("video".parse()?, Instant::now());
    // What readers hold.
    let mut newest = None;
    println!("at          | listed  | media in memory | cold      | process   | beyond its start / media in memory");
    for part in 0..hours * 60 * PARTS_PER_MINUTE {
        let snapshot = stream.push_media(Bytes::from(vec![part as u8; PART_BYTES]));
        newest = Some(snapshot);
        if stream.part.is_multiple_of(PARTS_PER_SEGMENT) {
            memory.tend(vec![(&name, &mut stream.window)], begun + PART * stream.part as u32);
            // The clock is made up, the disk is not.
            while metrics.waiting.get() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        if stream.part.is_multiple_of(30 * PARTS_PER_MINUTE) {
            if let Some(newest) = &newest {
                newest.playlist(Skip::No, true);
                newest.playlist(Skip::Yes, true);
            }
            let (held, process) = (stream.window.media_bytes(), resident_bytes()?);
            println!(
                "minute {:4} | {:>7} | {:>12.1} MB | {:>6.0} MB | {:>6.1} MB | {:.3} (whole process: {:.3})",
                stream.part / PARTS_PER_MINUTE,
                stream.window.listed_len(),
                held as f64 / 1e6,
                metrics.cold_bytes.get() as f64 / 1e6,
                process as f64 / 1e6,
                process.saturating_sub(before) as f64 / held as f64,
                process as f64 / held as f64,
            );
        }
    }
    // Leaves nothing behind.
    drop((newest, stream, memory));
    while metrics.cold_bytes.get() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// Memory of this process that is in the machine's RAM.
fn resident_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.unwrap_or_default().trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
