//! Wiring: the only file that knows all parts of the edge.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_shared::{
    metrics::Admin,
    serve::{door::Door, drain::Drain, tcp},
};

use crate::{
    auth::{Auth, Verifier},
    cache::Store,
    config::{Config, Tickets},
    directory::Directory,
    handle,
    listen::{self, Secure},
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
        let prometheus = prometheus::Registry::new();
        let metrics = Arc::new(Metrics::new(&prometheus)?);
        let limits = tcp::Limits {
            connections: config.max_connections,
            ..tcp::Limits::default()
        };
        let door = Door::counting(limits, Some(metrics.shed.clone()));
        let http = match &config.http {
            Some(http) => Some(listen::bind(http.listen, "http.listen", None)?),
            None => None,
        };
        let https = match &config.https {
            Some(https) => Some(Secure::bind(https, &door)?),
            None => None,
        };
        let admin = listen::bind(config.admin.listen, "admin.listen", None)?;

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
        let verifier = Arc::new(Verifier::new(&config.playback, metrics.clone()).context("playback")?);
        let handler = |tickets: Tickets| handle::Edge {
            followers: followers.clone(),
            routes: routes.clone(),
            store: store.clone(),
            directory: directory.clone(),
            auth: Auth {
                tickets: tickets == Tickets::On,
                verifier: verifier.clone(),
                metrics: metrics.clone(),
            },
            metrics: metrics.clone(),
        };
        let [plain, secure] = [
            handler(config.http.as_ref().map_or(Tickets::On, |http| http.tickets)),
            handler(config.https.as_ref().map_or(Tickets::On, |https| https.tickets)),
        ];
        let drain = Drain::new();
        let tasks = TaskTracker::new();
        let started = Self {
            http: http.as_ref().map(TcpListener::local_addr).transpose()?,
            https: https.as_ref().map(Secure::addr).transpose()?,
            admin: admin.local_addr()?,
            drain: drain.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        if let Some(directory) = directory.clone() {
            tokio::spawn(directory.follow(stop.clone()));
        }
        if let Some(listener) = http {
            let (door, handler, drain) = (door.clone(), plain, drain.clone());
            tasks.spawn(tcp::serve_through(
                door,
                listener,
                None,
                tcp::Options::default(),
                handler,
                drain,
            ));
        }
        if let (Some(listener), Some(https)) = (https, config.https.clone()) {
            tokio::spawn(listen::follow_files(https, listener.certificates(), stop.clone()));
            listener.serve(&tasks, &door, &secure, &drain)?;
        }
        let admin_side = Admin::new(prometheus, drain.clone());
        tasks.spawn(tcp::serve(admin, None, tcp::Limits::default(), admin_side, drain));
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
