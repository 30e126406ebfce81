//! A made-up clock, a store that is as slow as it is told to be, and the windows of one stream.

use std::time::SystemTime;

use bytes::Bytes;
use object_store::memory::InMemory;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use weir_shared::hls::position::PartNumber;

use super::*;
use crate::{
    dvr::cold::Owner,
    package::window::{Part, SegmentStart, WindowSettings},
};

/// Of each segment, which is one part of one second.
const BYTES: u64 = 1000;
const HOT: Duration = Duration::from_secs(60);
const HOT_MIN: Duration = Duration::from_secs(12);

struct Stream {
    name: RenditionName,
    window: Window,
    memory: Memory,
    metrics: Metrics,
    begun: Instant,
    seconds: u64,
    _stop: DropGuard,
}

impl Stream {
    /// `bytes_max`: of the stream. `store`: `None` if there is no cold tier.
    fn new(bytes_max: u64, store: Option<Arc<dyn object_store::ObjectStore>>) -> Self {
        let stop = CancellationToken::new();
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let owner = Owner {
            node: "n".to_owned(),
            life: 1,
        };
        let start = |store| ColdStore::start(store, &owner, metrics.clone(), &TaskTracker::new(), &stop);
        let tiers = Tiers {
            settings: Settings {
                hot: HOT,
                hot_min: HOT_MIN,
                bytes_max,
            },
            budget: Budget::new(1 << 40),
            cold: store.map(start),
            metrics: metrics.clone(),
        };
        let budget = tiers.stream_budget();
        Self {
            name: "video".parse().unwrap(),
            window: Window::new(WindowSettings {
                duration: Duration::from_secs(3600),
                target_duration: Duration::from_secs(2),
            }),
            memory: Memory::new(tiers, budget),
            metrics,
            begun: Instant::now(),
            seconds: 0,
            _stop: stop.drop_guard(),
        }
    }

    fn live() -> Self {
        Self::new(1 << 30, Some(Arc::new(InMemory::new())))
    }

    fn now(&self) -> Instant {
        self.begun + Duration::from_secs(self.seconds)
    }

    /// A second more of media; the store does not get to do anything.
    fn second(&mut self) {
        let number = self.seconds;
        self.window.open_segment(SegmentStart {
            msn: MediaSequence(number),
            pdt: SystemTime::UNIX_EPOCH,
            discontinuity: false,
            new_publisher: false,
            init_index: 0,
            independent: true,
            first_part: PartNumber(number),
        });
        let mut bytes = vec![0; BYTES as usize];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        self.window.push_part(Part {
            number: PartNumber(number),
            bytes: bytes.into(),
            shared: false,
            duration: Duration::from_secs(1),
            independent: true,
        });
        self.window.close_segment(Duration::from_secs(1));
        self.seconds += 1;
        let now = self.now();
        self.memory.tend(vec![(&self.name, &mut self.window)], now);
    }

    /// Seconds of media, each of which the store has all the time it needs for.
    async fn seconds(&mut self, count: u64) {
        for _ in 0..count {
            self.second();
            self.settle().await;
        }
    }

    /// Waits until the store has nothing left to do.
    async fn settle(&self) {
        while self.metrics.waiting.get() > 0 {
            tokio::task::yield_now().await;
        }
    }

    fn listed_seconds(&self) -> usize {
        self.window.listed_len()
    }

    async fn first_bytes(&self) -> Bytes {
        let oldest = self.window.listed_at(0).unwrap();
        match &oldest.cold {
            Some(cold) => cold.read().await.unwrap(),
            None => oldest.parts[0].bytes.clone(),
        }
    }
}

#[tokio::test]
async fn the_newest_minute_is_in_memory_and_all_of_it_can_be_watched() {
    let mut stream = Stream::live();
    stream.seconds(300).await;
    let hot = stream.window.hot_time();
    assert!(hot >= HOT && hot <= HOT + Duration::from_secs(2), "{hot:?}");
    assert_eq!(stream.memory.tiers.budget.used(), hot.as_secs() * BYTES);
    assert_eq!(stream.metrics.memory_bytes.get() as u64, hot.as_secs() * BYTES);
    assert_eq!(stream.listed_seconds(), 300);
    assert_eq!(stream.first_bytes().await[..8], 0_u64.to_be_bytes());
    assert_eq!(stream.memory.trouble(), None);
    // One that is written is still in memory: the next second lets it go.
    assert_eq!(stream.metrics.cold_bytes.get() as u64, (301 - hot.as_secs()) * BYTES);

    stream.window.clear();
    let now = stream.now();
    stream.memory.tend(vec![(&stream.name, &mut stream.window)], now);
    assert_eq!(stream.memory.tiers.budget.used(), 6 * BYTES);
    assert_eq!(stream.metrics.cold_bytes.get(), 0, "cleared from both tiers");
    stream.seconds(100).await;
    assert_eq!(stream.listed_seconds(), 106, "and it grows again");
    let budget = stream.memory.tiers.budget.clone();
    drop(stream);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn a_stream_over_its_budget_moves_more_and_loses_nothing() {
    let mut stream = Stream::new(30 * BYTES, Some(Arc::new(InMemory::new())));
    stream.seconds(200).await;
    let hot = stream.window.hot_time().as_secs();
    assert!((20..=31).contains(&hot), "{hot} s");
    assert_eq!((stream.listed_seconds(), stream.memory.trouble()), (200, None));
}

#[tokio::test]
async fn without_a_cold_tier_the_budget_bounds_the_past() {
    let mut stream = Stream::new(100 * BYTES, None);
    stream.seconds(100).await;
    assert_eq!((stream.listed_seconds(), stream.memory.trouble()), (100, None));
    stream.seconds(400).await;
    assert!(
        (90..=100).contains(&stream.listed_seconds()),
        "{}",
        stream.listed_seconds()
    );
    assert!(stream.memory.tiers.budget.used() <= 100 * BYTES);
    assert_eq!(stream.memory.trouble(), Some(Trouble::MemoryFull));
}

#[tokio::test]
async fn a_store_that_stalls_costs_the_old_past_and_nothing_more() {
    let mut stream = Stream::live();
    stream.seconds(120).await;
    assert_eq!(stream.listed_seconds(), 120);
    // From now on nobody lets the store run.
    let mut most = Duration::ZERO;
    for _ in 0..600 {
        stream.second();
        most = most.max(stream.window.hot_time());
        assert!(stream.listed_seconds() >= 60, "live has its minute");
    }
    assert!(most <= HOT + SLACK * 2 + Duration::from_secs(3), "{most:?}");
    assert_eq!(stream.memory.trouble(), Some(Trouble::StoreFails));
    assert_eq!(stream.metrics.degraded.get(), 1);
    assert!(stream.metrics.cuts.get() > 0);

    // It runs again: after a while nothing tells of it any more.
    stream.seconds(200).await;
    assert_eq!((stream.memory.trouble(), stream.metrics.degraded.get()), (None, 0));
    assert!(stream.listed_seconds() >= 250, "{}", stream.listed_seconds());
    let hot = stream.window.hot_time();
    assert!(hot <= HOT + Duration::from_secs(2), "{hot:?}");
}

#[tokio::test]
async fn a_store_that_refuses_is_asked_seldom_and_one_segment_at_a_time() {
    let gone = std::env::temp_dir().join(format!("weir-memory-{}", std::process::id()));
    std::fs::create_dir_all(&gone).unwrap();
    let store = object_store::local::LocalFileSystem::new_with_prefix(&gone).unwrap();
    let mut stream = Stream::new(1 << 30, Some(Arc::new(store)));
    stream.seconds(80).await;
    assert_eq!(stream.listed_seconds(), 80);
    std::fs::remove_dir_all(&gone).unwrap();
    std::fs::write(&gone, "").unwrap();
    let before = stream.metrics.writes.with_label_values(&["failed"]).get();
    stream.seconds(100).await;
    let failed = stream.metrics.writes.with_label_values(&["failed"]).get() - before;
    assert!((10..=25).contains(&failed), "{failed} tries in 100 s");
    assert_eq!(stream.memory.trouble(), Some(Trouble::StoreFails));
    std::fs::remove_file(&gone).unwrap();
    stream.seconds(WARNED.as_secs() + 10).await;
    assert_eq!(stream.memory.trouble(), None);
    let hot = stream.window.hot_time();
    assert!(hot <= HOT + Duration::from_secs(2), "{hot:?}");
    drop(stream);
    let _ = std::fs::remove_dir_all(&gone);
}
