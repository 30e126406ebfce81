//! `limits` of the edge's configuration.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use weir_shared::{
    config::{ByteSize, Fault, HumanDuration},
    serve::limits,
};

/// What one client may take of the edge, and what all may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Of one address (IPv6: one /64).
    pub address_requests: Requests,
    /// With one viewer's ticket.
    pub ticket_requests: Requests,
    /// Questions to an origin that one address may cause by names that nothing here vouches for.
    pub address_unknown: Requests,
    /// The same of all addresses.
    pub unknown: Requests,
    /// Requests held or answered at once.
    pub in_progress: usize,
    pub in_progress_per_address: usize,
    pub connections_per_address: usize,
    /// Addresses, and tickets, that are told apart.
    pub remembered: usize,
    /// Networks to which the limits by address do not apply.
    pub exempt: Vec<IpNet>,
    /// Memory of the process from which on no further connection is let in.
    pub memory: ByteSize,
    pub head_timeout: HumanDuration,
    pub idle_timeout: HumanDuration,
    /// An answer must be taken within `answer_grace` plus what its length takes at `answer_rate`, bytes per second.
    pub answer_grace: HumanDuration,
    pub answer_rate: ByteSize,
}

/// So many per second on the long run, so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    pub per_second: NonZeroU32,
    pub burst: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        let requests = |per_second, burst| Requests {
            per_second: NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MAX),
            burst: NonZeroU32::new(burst).unwrap_or(NonZeroU32::MAX),
        };
        Self {
            address_requests: requests(2000, 4000),
            ticket_requests: requests(100, 300),
            address_unknown: requests(100, 500),
            unknown: requests(500, 500),
            in_progress: 100_000,
            in_progress_per_address: 4000,
            connections_per_address: 2000,
            remembered: 200_000,
            exempt: vec![LOOPBACK_V4, LOOPBACK_V6],
            memory: ByteSize(4 << 30),
            head_timeout: HumanDuration(Duration::from_secs(10)),
            idle_timeout: HumanDuration(Duration::from_secs(60)),
            answer_grace: HumanDuration(Duration::from_secs(10)),
            answer_rate: ByteSize(16 << 10),
        }
    }
}

/// What the machine itself asks of itself, a local proxy in front included, whose viewers all seem to be here.
const LOOPBACK_V4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));
const LOOPBACK_V6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128));

impl Limits {
    pub(super) fn check(&self, faults: &mut Vec<Fault>) {
        let mut expect = |holds: bool, key: &str, expected: &str| {
            if !holds {
                faults.push(Fault::new(key, expected));
            }
        };
        for (key, requests) in [
            ("limits.address_requests", self.address_requests),
            ("limits.ticket_requests", self.ticket_requests),
            ("limits.address_unknown", self.address_unknown),
            ("limits.unknown", self.unknown),
        ] {
            let fits = |n: NonZeroU32| n.get() <= 10_000_000;
            expect(
                fits(requests.per_second) && fits(requests.burst),
                key,
                "1 to 10000000 each",
            );
        }
        for (key, count) in [
            ("limits.in_progress", self.in_progress),
            ("limits.in_progress_per_address", self.in_progress_per_address),
            ("limits.connections_per_address", self.connections_per_address),
            ("limits.remembered", self.remembered),
        ] {
            expect((1..=10_000_000).contains(&count), key, "1 to 10000000");
        }
        expect(self.exempt.len() <= 64, "limits.exempt", "at most 64 networks");
        expect(self.memory.0 >= 64 << 20, "limits.memory", "64MiB or more");
        for (key, time) in [
            ("limits.head_timeout", self.head_timeout),
            ("limits.idle_timeout", self.idle_timeout),
            ("limits.answer_grace", self.answer_grace),
        ] {
            let fits = time.0 >= Duration::from_millis(100) && time.0 <= Duration::from_secs(3600);
            expect(fits, key, "100ms to 1h");
        }
        expect(
            (256..=1 << 30).contains(&self.answer_rate.0),
            "limits.answer_rate",
            "256B to 1GiB (a second)",
        );
    }

    /// What listeners keep of it; `connections`: on all of them together.
    pub fn of_connections(&self, connections: usize) -> limits::Limits {
        limits::Limits {
            connections,
            connections_per_address: self.connections_per_address,
            exempt: self.exempt.clone(),
            head_timeout: self.head_timeout.0,
            idle_timeout: self.idle_timeout.0,
            answer_grace: self.answer_grace.0,
            answer_bytes_per_second: self.answer_rate.0,
            ..limits::Limits::default()
        }
    }
}
