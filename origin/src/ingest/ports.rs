//! Ports that belong to one stream each: bound when the stream comes, released when it goes. Which stream a connection is
//! for is then known before its first byte, and nobody can push to another stream's port.
//!
//! One task compares the catalog with what is bound after every change (`ports/table.rs`, pure), so that no change can be
//! missed. Publishes over TCP outlive the port that they came through; those over SRT end with it.
//!
//! Before this: `ingest/catalog.rs`. After this: `rtmp/server.rs`, `srt/server.rs`.

mod range;
mod table;

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use prometheus::{IntCounter, IntGaugeVec, Opts, Registry};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::table::Owner;
pub use self::{
    range::{BadRange, PortRange},
    table::PortTable,
};
use super::{
    Entrance, Transport,
    catalog::Catalog,
    redacted,
    rtmp::{self, server::Wrapping},
    srt,
};

/// What own ports count.
#[derive(Debug, Clone)]
pub struct Metrics {
    bound: IntGaugeVec,
    failed: IntCounter,
}

impl Metrics {
    /// Fails only if the names are taken.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.bound.clone()))?;
        registry.register(Box::new(self.failed.clone()))
    }
}

impl Default for Metrics {
    /// Not registered anywhere. The names below are valid, which is all that could fail.
    #[expect(clippy::expect_used, reason = "constant names, covered by every start of an origin")]
    fn default() -> Self {
        let bound = Opts::new(
            "weir_origin_ingest_own_ports",
            "Ports that belong to one stream each and are listening.",
        );
        Self {
            bound: IntGaugeVec::new(bound, &["transport"]).expect("valid name"),
            failed: IntCounter::new(
                "weir_origin_ingest_own_port_failures_total",
                "Own ports that could not be had: taken by another program, or the range is used up. The log names them.",
            )
            .expect("valid name"),
        }
    }
}

/// Where own ports of one transport are bound.
pub struct Site {
    pub server: Listens,
    pub address: IpAddr,
    pub range: Option<PortRange>,
}

/// Who listens at a site's ports.
#[derive(Clone)]
pub enum Listens {
    Rtmp(Arc<rtmp::Server>, Wrapping),
    Srt(Arc<srt::Server>),
}

impl Listens {
    const fn transport(&self) -> Transport {
        match self {
            Self::Rtmp(_, wrapping) => wrapping.transport(),
            Self::Srt(_) => Transport::Srt,
        }
    }

    /// Binds a port and listens until `stop`.
    async fn start(
        &self,
        address: SocketAddr,
        entrance: Entrance,
        stop: CancellationToken,
    ) -> io::Result<JoinHandle<()>> {
        Ok(match self {
            Self::Rtmp(server, wrapping) => {
                let listener = TcpListener::bind(address).await?;
                tokio::spawn(server.clone().listen(listener, entrance, wrapping.clone(), stop))
            }
            Self::Srt(server) => {
                let bound = server.bind(address, entrance).await?;
                tokio::spawn(server.clone().listen(bound, stop))
            }
        })
    }
}

/// Keeps the own ports of all streams bound.
pub struct PortKeeper {
    catalog: Arc<Catalog>,
    /// At most one per transport.
    sites: Vec<Site>,
    table: Arc<PortTable>,
    metrics: Metrics,
    open: HashMap<u16, Listening>,
}

struct Listening {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// How soon a port that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(10);

impl PortKeeper {
    pub fn new(catalog: Arc<Catalog>, sites: Vec<Site>, table: Arc<PortTable>, metrics: Metrics) -> Self {
        Self {
            catalog,
            sites,
            table,
            metrics,
            open: HashMap::new(),
        }
    }

    /// Binds what the catalog wants now; `false`: not all of it could be had. Call it once before [`PortKeeper::run`] for
    /// ports that are there from the start.
    pub async fn settle(&mut self) -> bool {
        let mut all = true;
        let ranges: BTreeSet<_> = self
            .sites
            .iter()
            .filter(|site| site.range.is_some())
            .map(|site| site.server.transport())
            .collect();
        let plan = self
            .table
            .plan(&self.catalog.list(), |transport| ranges.contains(&transport));
        for port in plan.release {
            self.release(port).await;
        }
        for (port, owner) in plan.fixed {
            if self.bind(port, &owner).await.is_err() {
                all = false;
                self.metrics.failed.inc();
            }
        }
        for owner in plan.any {
            if !self.bind_any(&owner).await {
                all = false;
                self.metrics.failed.inc();
                warn!(
                    key = redacted(&owner.key),
                    transport = owner.transport.as_str(),
                    "no free port in the range for this stream"
                );
            }
        }
        for transport in Transport::ALL {
            let count = self.table.count(transport);
            let gauge = self.metrics.bound.with_label_values(&[transport.as_str()]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        all
    }

    /// Follows the catalog until the shutdown, then returns when every port is closed.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut changes = self.catalog.changes();
        loop {
            changes.mark_unchanged();
            let all = self.settle().await;
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(RETRY), if !all => {}
            }
        }
        let ports: Vec<_> = self.open.keys().copied().collect();
        for port in ports {
            self.release(port).await;
        }
    }

    async fn bind_any(&mut self, owner: &Owner) -> bool {
        let Some(range) = self.site(owner.transport).and_then(|site| site.range) else {
            return false;
        };
        for port in range.iter() {
            let reserved = self.open.contains_key(&port) || self.catalog.by_port(port).is_some();
            if !reserved && self.bind(port, owner).await.is_ok() {
                return true;
            }
        }
        false
    }

    async fn bind(&mut self, port: u16, owner: &Owner) -> Result<(), ()> {
        let site = self.site(owner.transport).ok_or(())?;
        let (address, server) = (SocketAddr::new(site.address, port), site.server.clone());
        let (key, transport) = (redacted(&owner.key), owner.transport.as_str());
        let stop = CancellationToken::new();
        let entrance = Entrance::Own(owner.key.clone());
        let task = match server.start(address, entrance, stop.clone()).await {
            Ok(task) => task,
            Err(error) => {
                warn!(key, transport, port, %error, "a stream's own port can't be bound");
                return Err(());
            }
        };
        info!(key, transport, port, "own port opened");
        self.open.insert(port, Listening { stop, task });
        self.table.insert(port, owner.clone());
        Ok(())
    }

    /// Returns when the port is free for the next.
    async fn release(&mut self, port: u16) {
        self.table.remove(port);
        if let Some(Listening { stop, task }) = self.open.remove(&port) {
            stop.cancel();
            // An error is a panic in it, which has closed the port too.
            let _ = task.await;
            info!(port, "own port closed");
        }
    }

    fn site(&self, transport: Transport) -> Option<&Site> {
        self.sites.iter().find(|site| site.server.transport() == transport)
    }
}
