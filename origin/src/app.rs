//! Wiring: the only file that knows all parts of the origin.

mod dvr;
mod health;
mod node;
mod outside;
mod recording;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use http::{Response, request::Parts};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_shared::{
    metrics::{Admin, AdminExtra},
    serve::{self, body::Body, drain::Drain, respond},
};

use self::{outside::Outside, recording::Recorder};
use crate::{
    config::Config,
    control::{
        addresses::{AddressBook, Addresses},
        api::{self, ApiState},
        fleet,
        metrics::ControlMetrics,
        model::DEFAULT,
        node::News,
        recordings::Recordings,
        service::Control,
        store::Store,
    },
    deliver::route::Deliver,
    ingest::{
        Entrance,
        admission::{self, Admission},
        catalog::Catalog,
        ports::{self, Listens, PortKeeper, PortTable},
        rtmp::{self, server::Wrapping},
        srt,
    },
    live::{
        registry::{Registry, RegistryDoor},
        status::StatusChange,
    },
    metrics::Metrics,
};

/// How long a shutdown waits for held requests and publishers.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// News of streams that wait to be written down. When it is full the media side drops its news and tells again later.
const NEWS_QUEUE: usize = 1024;

/// A running origin. Dropping it leaves its tasks running; end it with [`Origin::shutdown`].
pub struct Origin {
    /// Where edges and direct players ask.
    pub http: SocketAddr,
    /// Where encoders push.
    pub rtmp: SocketAddr,
    /// The same over TLS.
    pub rtmps: Option<SocketAddr>,
    /// The same over SRT.
    pub srt: Option<SocketAddr>,
    pub admin: SocketAddr,
    /// The REST API.
    pub api: SocketAddr,
    /// A fresh database's first API key. It is in no other place: show it.
    pub first_key: Option<String>,
    pub control: Arc<Control>,
    /// Where the media side tells the control plane what happened.
    pub news: mpsc::Sender<News>,
    addresses: Arc<AddressBook>,
    drain: Drain,
    stop: CancellationToken,
    tasks: TaskTracker,
    registry: Arc<Registry>,
    /// Streams that may be pushed: whoever manages them puts and removes here.
    pub catalog: Arc<Catalog>,
    /// Ports that belong to one stream each.
    pub own_ports: Arc<PortTable>,
    ingest: Arc<rtmp::Server>,
    recorder: Recorder,
    srt_ingest: Option<Arc<srt::Server>>,
}

impl Origin {
    /// Binds every port, then starts. Nothing runs if a port can't be bound.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let http = bind(config.http.listen, "http.listen").await?;
        let rtmp = bind(config.rtmp.listen, "rtmp.listen").await?;
        let rtmps = match &config.rtmps {
            Some(rtmps) => Some(bind(rtmps.listen, "rtmps.listen").await?),
            None => None,
        };
        let admin = bind(config.admin.listen, "admin.listen").await?;

        let api = bind(config.api.listen, "api.listen").await?;

        let prometheus = prometheus::Registry::new();
        let metrics = Arc::new(Metrics::new(&prometheus)?);
        let stop = CancellationToken::new();
        let drain = Drain::new();
        let tasks = TaskTracker::new();
        let catalog = config.catalog()?;
        let name = config.control.node.clone().unwrap_or_else(|| node_name(&http));
        let tiers = dvr::tiers(&config, &name, &prometheus, &tasks, &stop)?;
        let registry = Registry::new(
            config.policy(catalog.clone()),
            config.settings(),
            tiers,
            metrics.clone(),
            stop.clone(),
        );

        let admission_metrics = admission::Metrics::default();
        admission_metrics.register(&prometheus)?;
        let admission = Arc::new(Admission::new(catalog.clone(), config.webhook()?, admission_metrics));
        let rtmp_config = rtmp::Config {
            limits: config.rtmp_limits(),
            ..rtmp::Config::default()
        };
        rtmp_config.metrics.register(&prometheus)?;
        let door = Arc::new(RegistryDoor(registry.clone()));
        let ingest = rtmp::Server::new(rtmp_config, admission.clone(), door.clone(), stop.clone());
        let srt = match &config.srt {
            Some(configured) => {
                let server_config = configured.server();
                server_config.metrics.register(&prometheus)?;
                let server = srt::Server::new(server_config, admission, door, stop.clone());
                let bound = server.bind(configured.listen, Entrance::Shared).await;
                let bound = bound.with_context(|| format!("srt.listen: can't listen on {}", configured.listen))?;
                Some((server, bound))
            }
            None => None,
        };
        let srt_at = srt.as_ref().map(|(_, bound)| bound.local());

        let vault = config.database.vault().context("database.key_file")?;
        let store = Store::open(&config.database.url)
            .await
            .context("database.url")?
            .with_vault(vault);
        let outside = Outside::new(&config, &store, &name, reachable(&http)?, &prometheus, stop.clone())?;
        let addresses = Arc::new(AddressBook::new(addresses(&config, &http, &rtmp, srt_at)?));
        let register = Arc::new(Recordings::new(store.clone(), outside.metrics(), addresses.clone()));
        let recorder = Recorder::new(&config.record, registry.clone(), register, &prometheus, stop.clone())?;
        let counts = ControlMetrics::new()?;
        counts.register(&prometheus)?;
        let media = node::MediaNode::new(registry.clone(), catalog.clone(), recorder.clone(), counts.clone());
        let control = Control::new(store, Arc::new(media), outside.outbox(), counts.clone(), &name);
        let seeds: Vec<_> = config.streams.iter().map(|s| s.key.clone()).collect();
        control.seed_streams(&DEFAULT.parse()?, &seeds).await?;
        recorder.start(&tasks).await;
        control.recover().await?;
        tasks.spawn(Recorder::sweep(control.clone(), stop.clone()));
        let first_key = control.first_key().await?;
        let (news, heard) = mpsc::channel(NEWS_QUEUE);
        tasks.spawn(control.clone().run(heard, stop.clone()));
        tasks.spawn(control.clone().follow(stop.clone()));
        tasks.spawn(node::warn(registry.clone(), control.clone(), stop.clone()));
        tasks.spawn(fleet::watch(control.store.clone(), stop.clone()));
        let configured = config.streams.iter().map(|s| s.key.clone()).collect();
        tasks.spawn(node::report(
            registry.clone(),
            control.clone(),
            configured,
            news.clone(),
            stop.clone(),
        ));
        let state = ApiState {
            control: control.clone(),
            addresses: addresses.clone(),
        };
        let router = outside.start(state, &tasks);

        let started = Self {
            http: http.local_addr()?,
            rtmp: rtmp.local_addr()?,
            rtmps: rtmps.as_ref().map(TcpListener::local_addr).transpose()?,
            srt: srt_at,
            admin: admin.local_addr()?,
            api: api.local_addr()?,
            first_key,
            control,
            news,
            addresses,
            drain: drain.clone(),
            stop: stop.clone(),
            tasks: tasks.clone(),
            registry: registry.clone(),
            catalog: catalog.clone(),
            own_ports: Arc::default(),
            ingest: ingest.clone(),
            recorder,
            srt_ingest: srt.as_ref().map(|(server, _)| server.clone()),
        };

        let mut sites = vec![ports::Site {
            server: Listens::Rtmp(ingest.clone(), Wrapping::Plain),
            address: started.rtmp.ip(),
            range: config.rtmp.port_range,
        }];
        let mut shared = vec![(rtmp, Wrapping::Plain)];
        if let Some((listener, rtmps)) = rtmps.zip(config.rtmps.as_ref()) {
            let wrapping = Wrapping::Tls(config.ingest_tls()?.into());
            sites.push(ports::Site {
                server: Listens::Rtmp(ingest.clone(), wrapping.clone()),
                address: rtmps.listen.ip(),
                range: rtmps.port_range,
            });
            shared.push((listener, wrapping));
        }
        if let Some(((server, bound), configured)) = srt.zip(config.srt.as_ref()) {
            sites.push(ports::Site {
                server: Listens::Srt(server.clone()),
                address: configured.listen.ip(),
                range: configured.port_range,
            });
            tasks.spawn(server.listen(bound, stop.clone()));
        }
        let port_metrics = ports::Metrics::default();
        port_metrics.register(&prometheus)?;
        let table = started.own_ports.clone();
        let mut keeper = PortKeeper::new(catalog, sites, table, port_metrics);
        keeper.settle().await;
        tasks.spawn(keeper.run(stop.clone()));
        for (listener, wrapping) in shared {
            tasks.spawn(
                ingest
                    .clone()
                    .listen(listener, Entrance::Shared, wrapping, stop.clone()),
            );
        }
        tasks.spawn(api::serve(api, router, counts, drain.clone()));

        let deliver = Deliver {
            registry: registry.clone(),
            shelf: Some(started.recorder.shelf.clone()),
            metrics,
        };
        let limits = serve::tcp::Limits::default();
        tasks.spawn(serve::tcp::serve(http, None, limits.clone(), deliver, drain.clone()));

        let admin_side = Admin::new(prometheus, drain.clone()).with(Arc::new(StreamList(registry)));
        tasks.spawn(serve::tcp::serve(admin, None, limits, admin_side, drain));
        tasks.close();
        tracing::info!(http = %started.http, rtmp = %started.rtmp, admin = %started.admin, api = %started.api, "origin is ready");
        Ok(started)
    }

    /// Playback addresses in the API begin with this from now on.
    pub fn set_playback_base(&self, base: &str) {
        self.addresses.set_playback_base(base);
    }

    /// Every change of a stream's ingest from now on.
    pub fn watch_status(&self) -> tokio::sync::broadcast::Receiver<StatusChange> {
        self.registry.watch_status()
    }

    /// Ends publishers, answers held requests, closes. Playlists do not end: whoever starts next goes on.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.drain.start();
        let all = async {
            self.ingest.drained().await;
            if let Some(srt) = &self.srt_ingest {
                srt.drained().await;
            }
            self.registry.drained().await;
            self.recorder.studio.drained().await;
            self.tasks.wait().await;
        };
        if tokio::time::timeout(DRAIN_LIMIT, all).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        self.control.store.close().await;
    }
}

async fn bind(at: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(at)
        .await
        .with_context(|| format!("{key}: can't listen on {at} (is another program using this port?)"))
}

/// Host name and port: unique among origins, and the same after a restart.
fn node_name(http: &TcpListener) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let port = http.local_addr().map_or(0, |a| a.port());
    format!("{}:{port}", host.trim())
}

/// As programs on this machine reach it.
fn reachable(listener: &TcpListener) -> anyhow::Result<SocketAddr> {
    let mut at = listener.local_addr()?;
    if at.ip().is_unspecified() {
        at.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Ok(at)
}

fn addresses(
    config: &Config,
    http: &TcpListener,
    rtmp: &TcpListener,
    srt: Option<SocketAddr>,
) -> anyhow::Result<Addresses> {
    let (http, rtmp) = (reachable(http)?, reachable(rtmp)?);
    let control = &config.control;
    Ok(Addresses {
        host: control.host.clone().unwrap_or_else(|| rtmp.ip().to_string()),
        rtmp_port: Some(rtmp.port()),
        srt_port: srt.map(|srt| srt.port()),
        playback_base: control.playback.clone().unwrap_or_else(|| format!("http://{http}")),
        ..Addresses::default()
    })
}

/// `/streams` on the admin port: what is live and how it is doing.
struct StreamList(Arc<Registry>);

impl AdminExtra for StreamList {
    fn respond(&self, request: &Parts) -> Option<Response<Body>> {
        if request.uri.path() != "/streams" {
            return None;
        }
        let streams: Vec<_> = self
            .0
            .list()
            .into_iter()
            .map(|(key, live)| {
                let master = live.master.borrow().clone();
                let renditions: Vec<_> = master
                    .renditions
                    .iter()
                    .map(|r| {
                        let snapshot = r.feed.borrow().clone();
                        serde_json::json!({
                            "name": r.name,
                            "partTargetSeconds": snapshot.settings.part_target.as_secs_f64(),
                            "mediaSequence": snapshot.edge.first.0,
                            "openSegment": snapshot.edge.open.0,
                            "ended": snapshot.edge.ended,
                        })
                    })
                    .collect();
                let status = *live.status.borrow();
                let health = live.health.report();
                serde_json::json!({
                    "key": key,
                    "epoch": live.epoch.to_string(),
                    "state": status.state.as_str(),
                    "live": status.live,
                    "backupLive": status.backup_live,
                    "renditions": renditions,
                    "publishers": health.publishers,
                    "windowBytes": health.window_bytes,
                    "framesDropped": health.frames_dropped,
                    "resilience": health.resilience,
                    "warnings": health.warnings,
                })
            })
            .collect();
        Some(respond::json(&serde_json::json!({ "streams": streams })))
    }
}
