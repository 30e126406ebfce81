//! Which port is whose, and what has to change when the streams have. Pure.
//!
//! Before this: `ingest/catalog.rs`. After this: `ingest/ports.rs`, which binds and releases.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::RwLock;
use weir_shared::id::StreamKey;

use crate::ingest::{
    Transport,
    catalog::{OwnPorts, StreamPolicy},
};

/// Which port is whose, as bound at this moment.
#[derive(Debug, Default)]
pub struct PortTable {
    bound: RwLock<BTreeMap<u16, Owner>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) key: StreamKey,
    pub(super) transport: Transport,
}

/// What has to change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) release: Vec<u16>,
    /// Exactly this port.
    pub(super) fixed: Vec<(u16, Owner)>,
    /// Any port of the range.
    pub(super) any: Vec<Owner>,
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
            ports.set(owner.transport, *port);
        }
        ports
    }

    pub(super) fn count(&self, transport: Transport) -> usize {
        let bound = self.bound.read();
        bound.values().filter(|owner| owner.transport == transport).count()
    }

    pub(super) fn insert(&self, port: u16, owner: Owner) {
        self.bound.write().insert(port, owner);
    }

    pub(super) fn remove(&self, port: u16) {
        self.bound.write().remove(&port);
    }

    /// From what is bound to what the policies want. `has_range`: whether streams without a fixed port get one. Pure.
    pub(super) fn plan(&self, policies: &[Arc<StreamPolicy>], has_range: impl Fn(Transport) -> bool) -> Plan {
        let mut wanted = HashMap::new();
        for policy in policies {
            for transport in Transport::ALL {
                let fixed = policy.ports.of(transport);
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
