//! How many connections there may be at a time. Those that have not published yet are strangers: their number is bounded
//! more tightly, by address and in all, and when there are too many the oldest goes. A flood of silent connections thus
//! pushes out its own; an encoder needs well under a second to leave the lobby.
//!
//! Before this: `rtmp/server.rs`, `srt/server.rs`. After this: `rtmp/connection.rs`, `srt/connection.rs`.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Bounds of all listeners of one protocol together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Connections at a time, publishing or not.
    pub connections: usize,
    /// Connections that have not published yet; one more, and the oldest of them has to go.
    pub strangers: usize,
    /// Connections that have not published yet from one address (IPv6: one /64); more are closed at once.
    pub strangers_per_address: usize,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            connections: 4096,
            strangers: 1024,
            strangers_per_address: 256,
        }
    }
}

/// Counts connections of all listeners.
#[derive(Debug)]
pub struct Lobby {
    places: Places,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    connections: usize,
    next: u64,
    /// Oldest first.
    strangers: BTreeMap<u64, Stranger>,
    /// Strangers by address; no entry is zero.
    addresses: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Stranger {
    address: IpAddr,
    evicted: CancellationToken,
}

/// Why a connection has to be closed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Too many connections, all of them publishing.
    Total,
    /// Too many strangers from this address.
    Address,
}

impl Full {
    /// Label value and log word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Address => "address",
        }
    }
}

/// A connection's place. Dropping it makes room.
#[derive(Debug)]
pub struct Place {
    lobby: Arc<Lobby>,
    id: u64,
    evicted: CancellationToken,
}

impl Lobby {
    pub fn new(places: Places) -> Arc<Self> {
        Arc::new(Self {
            places,
            inner: Mutex::default(),
        })
    }

    /// A place for a new connection. It may cost the oldest stranger theirs.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let address = network_of(address);
        let mut inner = self.inner.lock();
        let of_address = inner.addresses.get(&address).copied().unwrap_or(0);
        if of_address >= self.places.strangers_per_address {
            return Err(Full::Address);
        }
        let crowded = inner.connections >= self.places.connections || inner.strangers.len() >= self.places.strangers;
        if crowded {
            let Some((_, oldest)) = inner.strangers.pop_first() else {
                return Err(Full::Total);
            };
            inner.leave(oldest.address);
            oldest.evicted.cancel();
        }
        let evicted = CancellationToken::new();
        let id = inner.next;
        inner.next += 1;
        inner.connections += 1;
        *inner.addresses.entry(address).or_insert(0) += 1;
        let stranger = Stranger {
            address,
            evicted: evicted.clone(),
        };
        inner.strangers.insert(id, stranger);
        Ok(Place {
            lobby: self.clone(),
            id,
            evicted,
        })
    }

    /// Connections that have not published yet.
    pub fn strangers(&self) -> usize {
        self.inner.lock().strangers.len()
    }
}

impl Place {
    /// Cancelled when the place is needed for another.
    pub const fn evicted(&self) -> &CancellationToken {
        &self.evicted
    }

    /// The connection publishes: a stranger no more, it can't be evicted. `false`: it has been already.
    pub fn settle(&self) -> bool {
        self.lobby.inner.lock().settle(self.id)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.lobby.inner.lock();
        inner.settle(self.id);
        inner.connections -= 1;
    }
}

impl Inner {
    fn settle(&mut self, id: u64) -> bool {
        let Some(stranger) = self.strangers.remove(&id) else {
            return false;
        };
        self.leave(stranger.address);
        true
    }

    fn leave(&mut self, address: IpAddr) {
        if let Some(count) = self.addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&address);
            }
        }
    }
}

/// What counts as one address: an IPv6 customer has at least a /64.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lobby(connections: usize, strangers: usize, strangers_per_address: usize) -> Arc<Lobby> {
        Lobby::new(Places {
            connections,
            strangers,
            strangers_per_address,
        })
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn the_oldest_stranger_makes_room_and_a_publisher_never_does() {
        let lobby = lobby(10, 2, 10);
        let publisher = lobby.enter(address(1)).unwrap();
        assert!(publisher.settle());
        let first = lobby.enter(address(2)).unwrap();
        let second = lobby.enter(address(3)).unwrap();
        let third = lobby.enter(address(4)).unwrap();
        assert!(first.evicted().is_cancelled() && !first.settle());
        for place in [&publisher, &second, &third] {
            assert!(!place.evicted().is_cancelled());
        }
        assert_eq!(lobby.strangers(), 2);
        drop((first, second, third));
        assert_eq!((lobby.strangers(), lobby.inner.lock().addresses.len()), (0, 0));
    }

    #[test]
    fn one_address_has_a_share_that_publishing_gives_back() {
        let lobby = lobby(10, 10, 2);
        let first = lobby.enter(address(1)).unwrap();
        let _second = lobby.enter(address(1)).unwrap();
        assert_eq!(lobby.enter(address(1)).err(), Some(Full::Address));
        assert!(lobby.enter(address(2)).is_ok());
        first.settle();
        assert!(lobby.enter(address(1)).is_ok());
    }

    #[test]
    fn publishers_alone_can_fill_it() {
        let lobby = lobby(2, 10, 10);
        let places: Vec<_> = (0..2).map(|n| lobby.enter(address(n)).unwrap()).collect();
        places.iter().for_each(|place| assert!(place.settle()));
        assert_eq!(lobby.enter(address(3)).err(), Some(Full::Total));
        drop(places);
        assert!(lobby.enter(address(3)).is_ok());
    }

    #[test]
    fn neighbours_in_an_ipv6_network_are_one() {
        let lobby = lobby(10, 10, 1);
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        let _first = lobby.enter(v6("2001:db8:1:2::1")).unwrap();
        assert_eq!(lobby.enter(v6("2001:db8:1:2:ffff::9")).err(), Some(Full::Address));
        assert!(lobby.enter(v6("2001:db8:1:3::1")).is_ok());
        let _mapped = lobby.enter(v6("::ffff:192.0.2.1")).unwrap();
        assert_eq!(lobby.enter(address(1)).err(), Some(Full::Address));
    }
}
