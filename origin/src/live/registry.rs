//! Stream keys → live streams. The door that publishers come through and the place where readers look.
//!
//! Before this: `ingest/rtmp/server.rs` (publishers). Beside it: `live/pipeline.rs`. After this: `deliver/route.rs`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dashmap::{DashMap, Entry};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;
use weir_shared::id::{Epoch, StreamKey};

use super::{
    master::Master,
    pipeline::{self, Pipeline},
};
use crate::{
    ingest::{Admitted, Door, Publication, Refusal, catalog::Catalog, redacted},
    metrics::Metrics,
};

/// Frames a publisher may be ahead of its pipeline. When full, the session stops reading: the encoder feels it.
const EVENT_QUEUE: usize = 256;

/// Sequence numbers left free when a publisher is replaced before its pipeline has said its last word.
const TAKEOVER_MARGIN: u64 = 8;

/// What the registry was configured with.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Streams that exist.
    pub catalog: Arc<Catalog>,
    /// Streams held at once, ended ones that linger included.
    pub max_streams: usize,
    /// How long an ended stream stays readable.
    pub linger: Duration,
}

/// Why a stream can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// No such stream is configured.
    Unknown,
    /// The stream exists and nobody is pushing it.
    Offline,
}

/// One life of a stream: from a publisher's arrival until its successor's or the end of its lingering.
#[derive(Debug, Clone)]
pub struct Live {
    pub epoch: Epoch,
    pub master: watch::Receiver<Arc<Master>>,
    /// What its pipeline knows about its health.
    pub health: Arc<pipeline::Health>,
    stop: CancellationToken,
    next_msn: Arc<AtomicU64>,
}

/// All streams of this origin.
pub struct Registry {
    streams: DashMap<StreamKey, Live>,
    policy: Policy,
    settings: pipeline::Settings,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Registry {
    pub fn new(
        policy: Policy,
        settings: pipeline::Settings,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            streams: DashMap::new(),
            policy,
            settings,
            metrics,
            tasks: TaskTracker::new(),
            shutdown,
        })
    }

    /// The current life of a stream.
    pub fn find(&self, key: &StreamKey) -> Result<Live, Missing> {
        match self.streams.get(key) {
            Some(live) => Ok(live.clone()),
            None if self.policy.catalog.knows(key) => Err(Missing::Offline),
            None => Err(Missing::Unknown),
        }
    }

    /// Every stream there is, for the admin page.
    pub fn list(&self) -> Vec<(StreamKey, Live)> {
        let mut all: Vec<_> = self
            .streams
            .iter()
            .map(|e| (e.key().clone(), e.value().clone()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Waits until every pipeline has ended (after shutdown was asked for).
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Sequence numbers start from the wall clock, so that a restarted origin continues above what players have seen.
    fn first_msn(&self, now: SystemTime) -> u64 {
        let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let target_ms = self.settings.targets.segment.as_millis().max(1);
        u64::try_from(since_1970.as_millis() / target_ms).unwrap_or(0)
    }

    fn open(self: &Arc<Self>, key: StreamKey) -> Result<Publication, Refusal> {
        let now = SystemTime::now();
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut epoch = Epoch(u64::try_from(millis).unwrap_or(u64::MAX));
        let mut first_msn = self.first_msn(now);
        let full = self.streams.len() >= self.policy.max_streams;
        let entry = match self.streams.entry(key.clone()) {
            Entry::Vacant(_) if full => return Err(Refusal::Overloaded),
            entry => entry,
        };
        if let Entry::Occupied(old) = &entry {
            // The newest publisher wins: a ghost session must not block a reconnect.
            let old = old.get();
            old.stop.cancel();
            epoch = epoch.max(Epoch(old.epoch.0.saturating_add(1)));
            let taken = old.next_msn.load(Ordering::Acquire);
            first_msn = first_msn.max(taken.saturating_add(TAKEOVER_MARGIN));
        }
        let (events, inbox) = mpsc::channel(EVENT_QUEUE);
        let (master, readers) = watch::channel(Arc::new(Master::default()));
        let live = Live {
            epoch,
            master: readers,
            health: Arc::default(),
            stop: self.shutdown.child_token(),
            next_msn: Arc::new(AtomicU64::new(first_msn)),
        };
        entry.insert(live.clone());
        let pipeline = Pipeline::new(
            key.clone(),
            self.settings.clone(),
            epoch,
            live.next_msn.clone(),
            master,
            live.health.clone(),
            self.metrics.clone(),
        );
        let registry = self.clone();
        let stop = live.stop.clone();
        self.tasks.spawn(async move {
            let span = tracing::info_span!("stream", key = %redacted(&key));
            let held = pipeline.run(inbox, stop.clone()).instrument(span).await;
            // `held` keeps the last snapshots readable; a successor or a shutdown ends that at once.
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(registry.policy.linger) => {}
            }
            registry.streams.remove_if(&key, |_, live| live.epoch == epoch);
            drop(held);
        });
        Ok(Publication {
            events,
            stop: live.stop,
        })
    }
}

/// The registry as the publishers' door. (A newtype: opening needs the registry's own `Arc` for the pipeline's task.)
pub struct RegistryDoor(pub Arc<Registry>);

impl Door for RegistryDoor {
    fn publish(&self, admitted: Admitted) -> Result<Publication, Refusal> {
        if self.0.shutdown.is_cancelled() {
            return Err(Refusal::ShuttingDown);
        }
        self.0.open(admitted.key().clone())
    }
}
