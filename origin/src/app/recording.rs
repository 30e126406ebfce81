//! Wiring of recordings: the store, who is recorded, and what viewers read.

use std::sync::{Arc, atomic::AtomicU64};

use anyhow::Context as _;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config,
    control::{recordings::SWEEP_PERIOD, service::Control},
    live::registry::Registry,
    record::{
        metrics::Metrics, recording::Shared, register::Register, shelf::Shelf, store, studio::Studio,
        thumbnails::Thumbnails,
    },
};

/// The recorder of this node.
#[derive(Clone)]
pub(super) struct Recorder {
    pub studio: Arc<Studio>,
    pub shelf: Arc<Shelf>,
}

impl Recorder {
    pub(super) fn new(
        config: &config::Record,
        registry: Arc<Registry>,
        register: Arc<dyn Register>,
        prometheus: &prometheus::Registry,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new(prometheus)?);
        let store = store::open(&config.store, &config.options).context("record.store")?;
        let shared = Arc::new(Shared {
            settings: config.settings(),
            store: store.clone(),
            register,
            metrics: metrics.clone(),
            puts: Semaphore::new(config.parallel),
            thumbnails: config.thumbnails.settings().map(Thumbnails::new),
            backlog_bytes: AtomicU64::new(0),
        });
        let studio = Studio::new(registry, shared, stop);
        let shelf = Shelf::new(store, studio.unfinished.clone(), config.memory.0, metrics);
        Ok(Self { studio, shelf })
    }

    /// Picks up what an earlier process left, then follows this node's streams.
    pub(super) async fn start(&self, tasks: &TaskTracker) {
        self.studio.resume().await;
        tasks.spawn(self.studio.clone().run());
    }

    /// Removes what was deleted and could not be removed then.
    pub(super) async fn sweep(control: Arc<Control>, stop: CancellationToken) {
        let mut due = tokio::time::interval(SWEEP_PERIOD);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = due.tick() => control.sweep_deleted().await,
            }
        }
    }
}
