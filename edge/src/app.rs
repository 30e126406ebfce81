//! Wiring: the only file that knows all parts of the edge.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_shared::{
    metrics::Admin,
    serve::{drain::Drain, tcp, tls},
};

use crate::{
    cache::Store,
    config::Config,
    directory::Directory,
    handle,
    live::followers::Followers,
    metrics::Metrics,
    route::{Route, routes::Routes},
    upstream::Upstream,
};

/// How long a shutdown lets holds be answered in the ordinary way; a live stream needs one part's time.
const HOLD_LIMIT: Duration = Duration::from_secs(2);
/// How long it then waits for answers to reach their viewers.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// A running edge. End it with [`Edge::shutdown`].
pub struct Edge {
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
    pub admin: SocketAddr,
    drain: Drain,
    tasks: TaskTracker,
    /// Ends followers and fetches, and with them what is held.
    stop: CancellationToken,
}

impl Edge {
    /// Binds every port, then starts. Nothing runs if a port can't be bound or a certificate can't be read.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let http = match &config.http {
            Some(http) => Some(bind(http.listen, "http.listen").await?),
            None => None,
        };
        let https = match &config.https {
            Some(https) => {
                let tls = match (&https.certificate, &https.key) {
                    (Some(certificate), Some(key)) => tls::from_files(certificate, key)?,
                    _ => tls::self_signed(&["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])?,
                };
                Some((bind(https.listen, "https.listen").await?, tls))
            }
            None => None,
        };
        let admin = bind(config.admin.listen, "admin.listen").await?;

        let prometheus = prometheus::Registry::new();
        let metrics = Arc::new(Metrics::new(&prometheus)?);
        let stop = CancellationToken::new();
        let directory = match &config.directory {
            Some(directory) => Some(Directory::new(directory, metrics.clone()).context("directory")?),
            None => None,
        };
        let upstream = Arc::new(Upstream::new(
            &config.parents,
            &config.origins,
            directory.clone(),
            None,
            metrics.clone(),
        )?);
        let store = Store::new(
            config.cache.max_bytes.0,
            upstream.clone(),
            metrics.clone(),
            stop.clone(),
        );
        let followers = Followers::new(
            config.follow.idle.0,
            config.follow.max_renditions,
            upstream.clone(),
            store.clone(),
            metrics.clone(),
            stop.clone(),
        );
        let routes = config
            .routes
            .iter()
            .map(|route| Route::new(route, &upstream).map(Arc::new));
        let routes = Routes::new(
            routes.collect::<anyhow::Result<_>>()?,
            (config.follow.idle.0, config.follow.max_renditions),
            upstream,
            store.clone(),
            metrics.clone(),
            stop.clone(),
        );
        let handler = handle::Edge {
            followers,
            routes,
            store,
            directory: directory.clone(),
            metrics,
        };
        let limits = tcp::Limits {
            connections: config.max_connections,
            ..tcp::Limits::default()
        };
        let drain = Drain::new();
        let tasks = TaskTracker::new();
        let started = Self {
            http: http.as_ref().map(TcpListener::local_addr).transpose()?,
            https: https.as_ref().map(|(l, _)| l.local_addr()).transpose()?,
            admin: admin.local_addr()?,
            drain: drain.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        if let Some(directory) = directory {
            tokio::spawn(directory.follow(stop));
        }
        if let Some(listener) = http {
            tasks.spawn(tcp::serve(
                listener,
                None,
                limits.clone(),
                handler.clone(),
                drain.clone(),
            ));
        }
        if let Some((listener, tls)) = https {
            tasks.spawn(tcp::serve(listener, Some(tls), limits.clone(), handler, drain.clone()));
        }
        let admin_side = Admin::new(prometheus, drain.clone());
        tasks.spawn(tcp::serve(admin, None, limits, admin_side, drain));
        tasks.close();
        tracing::info!(http = ?started.http, https = ?started.https, admin = %started.admin, "edge is ready");
        Ok(started)
    }

    /// Readiness off, no new connections, held requests answered (with 503 if nothing new comes soon), then closed.
    pub async fn shutdown(self) {
        self.drain.start();
        if timeout(HOLD_LIMIT, self.tasks.wait()).await.is_ok() {
            self.stop.cancel();
            return;
        }
        self.stop.cancel();
        if timeout(DRAIN_LIMIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
}

/// An edge that is dropped without a shutdown ends at once.
impl Drop for Edge {
    fn drop(&mut self) {
        self.drain.start();
        self.stop.cancel();
    }
}

async fn bind(at: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(at)
        .await
        .with_context(|| format!("{key}: can't listen on {at} (is another program using this port?)"))
}
