//! The addresses a ticket is bound to. Pure.
//!
//! Before this: [`policy`](super::policy) and [`session`](super::session), which hold ranges.

use core::net::{IpAddr, Ipv4Addr};
use std::{fmt, str::FromStr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

/// Bits of an IPv6 address before the IPv4 address that it stands for (`::ffff:0:0/96`).
const MAPPED_BITS: u8 = 96;

/// One address or a CIDR range, IPv4 or IPv6. An IPv4 address that came in through an IPv6 socket is an IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange(IpNet);

/// A text that is no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an IP address or a range like 203.0.113.0/24 or 2001:db8::/32")]
pub struct BadRange;

impl AddressRange {
    /// The range of all addresses whose first `bits` are those of `address`.
    pub fn new(address: IpAddr, bits: u8) -> Result<Self, BadRange> {
        let net = IpNet::new(address, bits).map_err(|_| BadRange)?;
        Ok(Self(canonical(net)))
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// As it was given: host bits included.
    pub fn address(&self) -> IpAddr {
        self.0.addr()
    }

    pub fn bits(&self) -> u8 {
        self.0.prefix_len()
    }
}

/// `::ffff:203.0.113.0/120` is `203.0.113.0/24`.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped: Option<Ipv4Addr> = v6.addr().to_ipv4_mapped();
    let bits = v6.prefix_len().checked_sub(MAPPED_BITS);
    let v4 = mapped.zip(bits).and_then(|(v4, bits)| Ipv4Net::new(v4, bits).ok());
    v4.map_or(net, IpNet::V4)
}

impl FromStr for AddressRange {
    type Err = BadRange;
    fn from_str(text: &str) -> Result<Self, BadRange> {
        match text.split_once('/') {
            None => {
                let address: IpAddr = text.parse().map_err(|_| BadRange)?;
                Ok(Self(canonical(address.into())))
            }
            Some((address, bits)) => {
                let digits = (1..=3).contains(&bits.len()) && bits.bytes().all(|b| b.is_ascii_digit());
                let bits = bits.parse().ok().filter(|_| digits).ok_or(BadRange)?;
                Self::new(address.parse().map_err(|_| BadRange)?, bits)
            }
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.prefix_len() == self.0.max_prefix_len() {
            true => write!(f, "{}", self.0.addr()),
            false => write!(f, "{}", self.0),
        }
    }
}

impl TryFrom<String> for AddressRange {
    type Error = BadRange;
    fn try_from(text: String) -> Result<Self, BadRange> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contains(range: &str, address: &str) -> bool {
        range
            .parse::<AddressRange>()
            .unwrap()
            .contains(address.parse().unwrap())
    }

    #[test]
    fn ranges_hold_what_is_in_them_and_nothing_else() {
        assert!(
            !contains("192.168.100.0/24", "8.8.8.8"),
            "what OvenMediaEngine lets through"
        );
        for (range, inside, outside) in [
            ("192.168.100.0/24", "192.168.100.255", "192.168.101.0"),
            ("203.0.113.7", "203.0.113.7", "203.0.113.6"),
            ("203.0.113.77/26", "203.0.113.64", "203.0.113.63"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("0.0.0.0/0", "8.8.8.8", "2001:db8::1"),
            ("::/0", "2001:db8::1", "8.8.8.8"),
        ] {
            assert!(contains(range, inside), "{range} holds {inside}");
            assert!(!contains(range, outside), "{range} does not hold {outside}");
        }
    }

    #[test]
    fn an_ipv4_viewer_on_an_ipv6_socket_is_an_ipv4_viewer() {
        assert!(contains("203.0.113.0/24", "::ffff:203.0.113.9"));
        assert!(contains("::ffff:203.0.113.0/120", "203.0.113.9"));
        assert!(!contains("::ffff:203.0.113.0/120", "203.0.114.9"));
        assert!(!contains("::/0", "::ffff:203.0.113.9"));
    }

    #[test]
    fn other_texts_are_no_ranges() {
        for bad in [
            "",
            "/",
            "203.0.113.7/33",
            "203.0.113/24",
            "::/129",
            "1.2.3.4/-1",
            "1.2.3.4/+1",
            "1.2.3.4/",
            "1.2.3.4/8/8",
            "1.2.3.4/0008",
            " 1.2.3.4",
            "host",
        ] {
            assert_eq!(bad.parse::<AddressRange>(), Err(BadRange), "{bad}");
        }
    }

    #[test]
    fn a_range_is_written_as_it_was_read() {
        for text in [
            "203.0.113.7",
            "203.0.113.0/24",
            "2001:db8::1",
            "2001:db8::/32",
            "0.0.0.0/0",
        ] {
            assert_eq!(text.parse::<AddressRange>().unwrap().to_string(), text);
        }
    }

    proptest! {
        /// Every mask, against arithmetic on the numbers.
        #[test]
        fn every_mask_of_ipv4_is_right(net: u32, address: u32, flip in 0u32..32) {
            for bits in 0..=32u8 {
                let range = AddressRange::new(Ipv4Addr::from(net).into(), bits).unwrap();
                for tried in [address, net, net ^ (1 << flip)] {
                    let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                    prop_assert_eq!(range.contains(Ipv4Addr::from(tried).into()), tried & mask == net & mask);
                }
            }
        }

        #[test]
        fn every_mask_of_ipv6_is_right(net: u128, address: u128, flip in 0u32..128) {
            // Outside of the mapped addresses, which are IPv4.
            let net = net | 1 << 127;
            for bits in 0..=128u8 {
                let range = AddressRange::new(std::net::Ipv6Addr::from(net).into(), bits).unwrap();
                for tried in [address | 1 << 127, net, net ^ (1 << flip) | 1 << 126] {
                    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                    let inside = tried & mask == net & mask;
                    prop_assert_eq!(range.contains(std::net::Ipv6Addr::from(tried).into()), inside);
                }
            }
        }
    }
}
