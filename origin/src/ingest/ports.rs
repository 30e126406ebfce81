//! Ports that belong to one stream each: bound when the stream comes, released when it goes. Which stream a connection is
//! for is then known before its first byte, and nobody can push to another stream's port.
//!
//! One task compares the catalog with what is bound after every change ([`PortTable::plan`], pure), so that no change can be
//! missed. Publishes that came through a port outlive it.
//!
//! Before this: `ingest/catalog.rs`. After this: `rtmp/server.rs`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use prometheus::{IntCounter, IntGaugeVec, Opts, Registry};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weir_shared::id::StreamKey;

use super::{
    Entrance, Transport,
    catalog::{Catalog, OwnPorts, StreamPolicy},
    redacted,
    rtmp::server::{Server, Wrapping},
};

/// `20000-20999`, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// A text that is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}`: expected two ports from 1 to 65535, like 20000-20999")]
pub struct BadRange(String);

impl PortRange {
    fn iter(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }

    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl FromStr for PortRange {
    type Err = BadRange;
    fn from_str(text: &str) -> Result<Self, BadRange> {
        let parse = || {
            let (first, last) = text.split_once('-')?;
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first > 0 && first <= last).then_some(Self { first, last })
        };
        parse().ok_or_else(|| BadRange(text.to_owned()))
    }
}

impl TryFrom<String> for PortRange {
    type Error = BadRange;
    fn try_from(text: String) -> Result<Self, BadRange> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Which port is whose, as bound at this moment.
#[derive(Debug, Default)]
pub struct PortTable {
    bound: RwLock<BTreeMap<u16, Owner>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Owner {
    key: StreamKey,
    transport: Transport,
}

/// What has to change.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    release: Vec<u16>,
    /// Exactly this port.
    fixed: Vec<(u16, Owner)>,
    /// Any port of the range.
    any: Vec<Owner>,
}

impl PortTable {
    /// The stream that a port belongs to.
    pub fn owner(&self, port: u16) -> Option<(StreamKey, Transport)> {
        let bound = self.bound.read();
        bound.get(&port).map(|owner| (owner.key.clone(), owner.transport))
    }

    /// The ports that belong to a stream.
    pub fn of(&self, key: &StreamKey) -> OwnPorts {
        let mut ports = OwnPorts::default();
        for (port, owner) in self.bound.read().iter().filter(|(_, owner)| owner.key == *key) {
            match owner.transport {
                Transport::Rtmp => ports.rtmp = Some(*port),
                Transport::Rtmps => ports.rtmps = Some(*port),
            }
        }
        ports
    }

    /// From what is bound to what the policies want. `has_range`: whether streams without a fixed port get one. Pure.
    fn plan(&self, policies: &[Arc<StreamPolicy>], has_range: impl Fn(Transport) -> bool) -> Plan {
        let mut wanted = HashMap::new();
        for policy in policies {
            for transport in Transport::ALL {
                let fixed = match transport {
                    Transport::Rtmp => policy.ports.rtmp,
                    Transport::Rtmps => policy.ports.rtmps,
                };
                if fixed.is_some() || has_range(transport) {
                    let key = policy.key.clone();
                    wanted.insert(Owner { key, transport }, fixed);
                }
            }
        }
        let mut plan = Plan::default();
        for (port, owner) in self.bound.read().iter() {
            match wanted.get(owner) {
                Some(fixed) if fixed.is_none_or(|fixed| fixed == *port) => {
                    wanted.remove(owner);
                }
                _ => plan.release.push(*port),
            }
        }
        for (owner, fixed) in wanted {
            match fixed {
                Some(port) => plan.fixed.push((port, owner)),
                None => plan.any.push(owner),
            }
        }
        // The same configuration gives the same ports.
        plan.fixed.sort();
        plan.any.sort();
        plan
    }
}

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
    pub wrapping: Wrapping,
    pub address: IpAddr,
    pub range: Option<PortRange>,
}

/// Keeps the own ports of all streams bound.
pub struct PortKeeper {
    catalog: Arc<Catalog>,
    server: Arc<Server>,
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
    pub fn new(
        catalog: Arc<Catalog>,
        server: Arc<Server>,
        sites: Vec<Site>,
        table: Arc<PortTable>,
        metrics: Metrics,
    ) -> Self {
        Self {
            catalog,
            server,
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
            .map(|site| site.wrapping.transport())
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
            let bound = self.table.bound.read();
            let count = bound.values().filter(|owner| owner.transport == transport).count();
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
        let (address, wrapping) = (SocketAddr::new(site.address, port), site.wrapping.clone());
        let (key, transport) = (redacted(&owner.key), owner.transport.as_str());
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) => {
                warn!(key, transport, port, %error, "a stream's own port can't be bound");
                return Err(());
            }
        };
        info!(key, transport, port, "own port opened");
        let stop = CancellationToken::new();
        let entrance = Entrance::Own(owner.key.clone());
        let listen = self.server.clone().listen(listener, entrance, wrapping, stop.clone());
        let task = tokio::spawn(listen);
        self.open.insert(port, Listening { stop, task });
        self.table.bound.write().insert(port, owner.clone());
        Ok(())
    }

    /// Returns when the port is free for the next.
    async fn release(&mut self, port: u16) {
        self.table.bound.write().remove(&port);
        if let Some(Listening { stop, task }) = self.open.remove(&port) {
            stop.cancel();
            // An error is a panic in it, which has closed the port too.
            let _ = task.await;
            info!(port, "own port closed");
        }
    }

    fn site(&self, transport: Transport) -> Option<&Site> {
        self.sites.iter().find(|site| site.wrapping.transport() == transport)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(key: &str, rtmp: Option<u16>) -> Arc<StreamPolicy> {
        let mut policy = StreamPolicy::open(key.parse().unwrap());
        policy.ports.rtmp = rtmp;
        Arc::new(policy)
    }

    fn owner(key: &str) -> Owner {
        Owner {
            key: key.parse().unwrap(),
            transport: Transport::Rtmp,
        }
    }

    fn bound(ports: &[(u16, &str)]) -> PortTable {
        let bound = ports.iter().map(|(port, key)| (*port, owner(key))).collect();
        PortTable {
            bound: RwLock::new(bound),
        }
    }

    #[test]
    fn ranges_are_two_ports_in_order() {
        let range: PortRange = "20000-20010".parse().unwrap();
        assert_eq!(range.iter().count(), 11);
        assert!(range.overlaps("20010-20020".parse().unwrap()) && !range.overlaps("20011-20020".parse().unwrap()));
        for bad in ["", "1", "2-1", "0-5", "1-65536", "a-b"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_changes_for_streams_that_stay() {
        let table = bound(&[(20_000, "auto"), (5000, "fixed")]);
        let policies = [policy("auto", None), policy("fixed", Some(5000))];
        let plan = table.plan(&policies, |transport| transport == Transport::Rtmp);
        assert_eq!(plan, Plan::default());
    }

    #[test]
    fn ports_come_move_and_go_with_their_streams() {
        let table = bound(&[(20_000, "gone"), (5000, "moved")]);
        let policies = [policy("moved", Some(5001)), policy("new", None)];
        let plan = table.plan(&policies, |transport| transport == Transport::Rtmp);
        assert_eq!(plan.release, [5000, 20_000]);
        assert_eq!(plan.fixed, [(5001, owner("moved"))]);
        assert_eq!(plan.any, [owner("new")]);
        // Without a range only the fixed one.
        assert_eq!(table.plan(&policies, |_| false).any, []);
    }

    #[test]
    fn a_stream_knows_its_ports_and_a_port_its_stream() {
        let table = bound(&[(5000, "show")]);
        let key: StreamKey = "show".parse().unwrap();
        assert_eq!(table.owner(5000), Some((key.clone(), Transport::Rtmp)));
        assert_eq!(table.of(&key).rtmp, Some(5000));
        assert_eq!(table.owner(5001), None);
    }
}
