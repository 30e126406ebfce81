//! Who may come in: connections counted as a whole and by address, over all listeners of a node that share the door.
//!
//! Before this: `limits.rs`. After this: `tcp.rs` and `quic.rs`, which ask before the first byte is read.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};
use prometheus::IntCounterVec;

use super::{limits::Limits, pace::Eviction, sheets::Sheets, turnstile::Turnstile};

/// What counts as one client: an IPv4 address, or an IPv6 /64, which one household or one attacker has to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressBlock(IpAddr);

impl AddressBlock {
    const V6_MASK: u128 = !0 << 64;

    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self(IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & Self::V6_MASK))),
            v4 => Self(v4),
        }
    }
}

/// Whether an address is in one of these networks; an IPv4 address is one in any of its spellings.
pub fn is_within(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// Why a connection is turned away. The words are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    Connections,
    AddressConnections,
    /// The node said so: it has no memory for more.
    Memory,
}

impl Full {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::AddressConnections => "address_connections",
            Self::Memory => "memory",
        }
    }
}

/// Shared by the listeners of a node; clones are the same door.
#[derive(Debug, Clone)]
pub struct Door(Arc<Frame>);

#[derive(Debug)]
struct Frame {
    limits: RwLock<Arc<Limits>>,
    inside: Mutex<Inside>,
    /// Whether nobody else is let in, whatever the numbers.
    is_shut: AtomicBool,
    turnstile: Turnstile,
    sheets: Sheets,
    /// By `limit`: what was turned away or ended.
    shed: Option<IntCounterVec>,
}

/// As many entries as there are connections at most.
#[derive(Debug, Default)]
struct Inside {
    connections: usize,
    by_address: HashMap<AddressBlock, usize>,
}

/// A connection that was let in; leaves when dropped.
#[derive(Debug)]
pub struct Visit {
    door: Door,
    block: Option<AddressBlock>,
}

impl Door {
    pub fn new(limits: Limits) -> Self {
        Self::counting(limits, None)
    }

    /// With a counter by `limit` of what is turned away.
    pub fn counting(limits: Limits, shed: Option<IntCounterVec>) -> Self {
        Self(Arc::new(Frame {
            limits: RwLock::new(Arc::new(limits)),
            inside: Mutex::default(),
            is_shut: AtomicBool::new(false),
            turnstile: Turnstile::new(),
            sheets: Sheets::default(),
            shed,
        }))
    }

    pub fn limits(&self) -> Arc<Limits> {
        self.0.limits.read().clone()
    }

    /// From the next connection on; who is inside stays.
    pub fn set_limits(&self, limits: Limits) {
        *self.0.limits.write() = Arc::new(limits);
    }

    /// Whether there is memory for further connections; who is inside stays.
    pub fn shut(&self, is_shut: bool) {
        self.0.is_shut.store(is_shut, Ordering::Relaxed);
    }

    /// Lets a connection in, or counts it as turned away.
    pub fn enter(&self, address: IpAddr) -> Result<Visit, Full> {
        let limits = self.limits();
        let block = (!is_within(&limits.exempt, address)).then(|| AddressBlock::of(address));
        let entered = match self.0.is_shut.load(Ordering::Relaxed) {
            true => Err(Full::Memory),
            false => self.0.inside.lock().enter(&limits, block),
        };
        entered.inspect_err(|full| self.count(full.as_str()))?;
        Ok(Visit {
            door: self.clone(),
            block,
        })
    }

    /// Requests that wait behind those of all others: of newcomers, and of clients that were refused.
    pub fn waiting(&self) -> usize {
        self.0.turnstile.waiting()
    }

    /// Where those wait.
    pub(super) fn turnstile(&self) -> &Turnstile {
        &self.0.turnstile
    }

    /// Bytes that plain connections share in the kernel's memory; called now and then, it lets go what is no longer asked for.
    pub fn tidy_sheets(&self) -> usize {
        self.0.sheets.tidy(Instant::now())
    }

    /// Where those are.
    pub(super) fn sheets(&self) -> &Sheets {
        &self.0.sheets
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.0.inside.lock().connections
    }

    /// Counts a connection that was ended.
    pub fn evicted(&self, why: Eviction) {
        self.count(why.as_str());
    }

    fn count(&self, limit: &str) {
        if let Some(shed) = &self.0.shed {
            shed.with_label_values(&[limit]).inc();
        }
    }
}

impl Inside {
    fn enter(&mut self, limits: &Limits, block: Option<AddressBlock>) -> Result<(), Full> {
        if self.connections >= limits.connections {
            return Err(Full::Connections);
        }
        if let Some(block) = block {
            let of_block = self.by_address.get(&block).copied().unwrap_or(0);
            if of_block >= limits.connections_per_address {
                return Err(Full::AddressConnections);
            }
            self.by_address.insert(block, of_block + 1);
        }
        self.connections += 1;
        Ok(())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut inside = self.door.0.inside.lock();
        inside.connections = inside.connections.saturating_sub(1);
        let Some(block) = self.block else { return };
        let left = inside.by_address.get(&block).map_or(0, |n| n.saturating_sub(1));
        match left {
            0 => inside.by_address.remove(&block),
            left => inside.by_address.insert(block, left),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_has_its_share_and_gets_it_back() {
        let door = Door::new(Limits {
            connections: 4,
            connections_per_address: 2,
            exempt: vec!["10.0.0.0/8".parse().unwrap()],
            ..Limits::default()
        });
        let first = door.enter(ip("192.0.2.1")).unwrap();
        // The same address in IPv6 spelling.
        let _second = door.enter(ip("::ffff:192.0.2.1")).unwrap();
        assert_eq!(door.enter(ip("192.0.2.1")).unwrap_err(), Full::AddressConnections);
        let _other = door.enter(ip("192.0.2.2")).unwrap();
        drop(first);
        let _again = door.enter(ip("192.0.2.1")).unwrap();
        let _exempt = door.enter(ip("10.1.2.3")).unwrap();
        assert_eq!(door.connections(), 4);
        assert_eq!(
            door.enter(ip("10.1.2.3")).unwrap_err(),
            Full::Connections,
            "exempt from the other limit only"
        );
    }

    #[test]
    fn a_household_is_a_64_and_the_neighbours_are_not() {
        let block = |text| AddressBlock::of(ip(text));
        assert_eq!(block("2001:db8:1:2::1"), block("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(block("2001:db8:1:2::1"), block("2001:db8:1:3::1"));
        assert_ne!(block("192.0.2.1"), block("192.0.2.2"));
    }

    #[test]
    fn nothing_is_remembered_of_those_who_left() {
        let door = Door::new(Limits::default());
        for n in 0..1000u32 {
            drop(door.enter(IpAddr::V4((0x0a00_0000 + n).into())).unwrap());
        }
        assert!(door.0.inside.lock().by_address.is_empty());
        assert_eq!(door.connections(), 0);
    }
}
