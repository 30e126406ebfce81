//! Wiring of what the control plane tells the outside world: webhooks, event feeds, the directory for edges.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::Router;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{self, Config},
    control::{
        api::{self, ApiState},
        api_webhooks::{self, WebhookState},
        delivery::{self, Dispatcher, DurableOutbox, Poster, wall_clock},
        directory::{self, Directory, FleetCredential},
        guard::Guard,
        sse::Feeds,
        store::Store,
    },
};

/// Made before the control plane, which writes its events here; started with it.
pub(super) struct Outside {
    store: Store,
    metrics: Arc<delivery::Metrics>,
    guard: Arc<Guard>,
    poster: Poster,
    feeds: Feeds,
    directory: Option<(Directory, directory::Node)>,
    stop: CancellationToken,
}

impl Outside {
    /// `name` is this node's in leases; `http` is where its media is, as edges on this machine see it.
    pub(super) fn new(
        config: &Config,
        store: &Store,
        name: &str,
        http: SocketAddr,
        prometheus: &prometheus::Registry,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::new(delivery::Metrics::new(prometheus)?);
        let guard = Arc::new(Guard::parse(&config.webhooks.allow).context("webhooks.allow")?);
        let directory = match &config.directory {
            Some(config) => {
                let metrics = Arc::new(directory::Metrics::new(prometheus)?);
                let directory = Directory::new(store.clone(), credential(config)?, metrics, stop.clone());
                let url = config.url.clone().unwrap_or_else(|| format!("http://{http}"));
                let name = name.to_owned();
                Some((directory, directory::Node { name, url }))
            }
            None => None,
        };
        Ok(Self {
            store: store.clone(),
            feeds: Feeds::new(store.clone(), metrics.clone(), stop.clone()),
            poster: Poster::new(guard.clone())?,
            metrics,
            guard,
            directory,
            stop,
        })
    }

    /// Where the control plane writes down what happened.
    pub(super) fn outbox(&self) -> Arc<DurableOutbox> {
        Arc::new(DurableOutbox::new(self.metrics.clone()))
    }

    /// Starts delivering and telling. Gives the API's router, these calls included.
    pub(super) fn start(self, api: ApiState, tasks: &TaskTracker) -> Router {
        let calls = api::calls().merge(api_webhooks::router(WebhookState {
            api: api.clone(),
            guard: self.guard,
            feeds: self.feeds.clone(),
            clock: wall_clock(),
            metrics: self.metrics.clone(),
        }));
        let settings = delivery::Settings::default();
        let dispatcher = Dispatcher::new(self.store, self.poster, wall_clock(), self.metrics, settings);
        tasks.spawn(dispatcher.run(self.stop));
        tasks.spawn(self.feeds.run());
        let viewers = api.control.viewers.clone();
        let router = api::router(calls, api);
        match self.directory {
            Some((directory, node)) => {
                let directory = directory.counting(viewers);
                let router = router.merge(directory.router());
                tasks.spawn(directory.run(node));
                router
            }
            None => router,
        }
    }
}

fn credential(config: &config::Directory) -> anyhow::Result<FleetCredential> {
    FleetCredential::new(config.credential.reveal()).context("directory.credential: too short")
}
