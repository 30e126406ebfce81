//! Which addresses this origin may call on somebody else's behalf (webhooks, pulls).
//!
//! Pure. Before this: a URL from the API. After this: `delivery/post.rs`, which resolves its host, asks [`Guard::check`]
//! about every address found and connects to those that passed, and to nothing else: what was checked is what is called,
//! whatever the name resolves to a moment later. Redirects are not followed: they would begin anew with an unchecked URL.
//!
//! What is not plainly a public unicast address is refused. Registries: RFC 6890 (IPv4 and IPv6 special purpose) and its
//! successors.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, Url};

/// Longest URL that is accepted, in bytes.
pub const URL_LIMIT: usize = 2048;

/// Why an address is not called. Label of a metric and word of the delivery log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Forbidden {
    #[error("a loopback or unspecified address")]
    Loopback,
    #[error("a private address")]
    Private,
    #[error("a link-local address")]
    LinkLocal,
    #[error("an address of a carrier's shared space")]
    Shared,
    #[error("a multicast or broadcast address")]
    Multicast,
    #[error("an address that is reserved, for documentation, or of a cloud's metadata service")]
    Reserved,
}

/// What the operator allows beyond public addresses.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allowed: Vec<IpNet>,
}

/// An address that may be called. Only [`Guard::check`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Callable(IpAddr);

impl Callable {
    pub fn addr(self) -> IpAddr {
        self.0
    }
}

/// A network in the operator's list that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}: expected a network like 10.20.0.0/16 or fd00::/8")]
pub struct BadNetwork(String);

impl Guard {
    /// Public addresses only.
    pub fn strict() -> Self {
        Self::default()
    }

    /// Public addresses and those of these networks.
    pub fn allowing(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            allowed: networks.into_iter().collect(),
        }
    }

    /// As [`Guard::allowing`], from text; a bare address is a network of one.
    pub fn parse(networks: &[String]) -> Result<Self, BadNetwork> {
        let network = |text: &String| {
            let bare = || IpAddr::from_str(text).map(IpNet::from);
            text.parse().or_else(|_| bare()).map_err(|_| BadNetwork(text.clone()))
        };
        Ok(Self::allowing(
            networks.iter().map(network).collect::<Result<Vec<_>, _>>()?,
        ))
    }

    /// Whether this resolved address may be called. Forms of IPv6 that carry an IPv4 address are that address.
    pub fn check(&self, addr: IpAddr) -> Result<Callable, Forbidden> {
        let addr = match addr {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(addr, IpAddr::V4),
            IpAddr::V4(_) => addr,
        };
        if self.allowed.iter().any(|network| network.contains(&addr)) {
            return Ok(Callable(addr));
        }
        let forbidden = match addr {
            IpAddr::V4(v4) => forbidden_v4(v4),
            IpAddr::V6(v6) => forbidden_v6(v6),
        };
        forbidden.map_or(Ok(Callable(addr)), Err)
    }
}

/// What is not to be called of IPv4.
const V4: &[(Ipv4Addr, u8, Forbidden)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, Forbidden::Loopback),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Forbidden::Loopback),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Forbidden::Private),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Forbidden::Private),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Forbidden::Private),
    // The metadata service of most clouds, 169.254.169.254, among them.
    (Ipv4Addr::new(169, 254, 0, 0), 16, Forbidden::LinkLocal),
    // RFC 6598; a cloud's metadata service, 100.100.100.200, among them.
    (Ipv4Addr::new(100, 64, 0, 0), 10, Forbidden::Shared),
    // IETF protocol assignments, DS-Lite, a cloud's metadata service.
    (Ipv4Addr::new(192, 0, 0, 0), 24, Forbidden::Reserved),
    (Ipv4Addr::new(192, 0, 2, 0), 24, Forbidden::Reserved),
    (Ipv4Addr::new(198, 51, 100, 0), 24, Forbidden::Reserved),
    (Ipv4Addr::new(203, 0, 113, 0), 24, Forbidden::Reserved),
    // 6to4 relays, AS112, AMT: not a host of anybody's.
    (Ipv4Addr::new(192, 88, 99, 0), 24, Forbidden::Reserved),
    (Ipv4Addr::new(192, 31, 196, 0), 24, Forbidden::Reserved),
    (Ipv4Addr::new(192, 52, 193, 0), 24, Forbidden::Reserved),
    (Ipv4Addr::new(192, 175, 48, 0), 24, Forbidden::Reserved),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Forbidden::Reserved),
    // A cloud's metadata service on a public address.
    (Ipv4Addr::new(168, 63, 129, 16), 32, Forbidden::Reserved),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Forbidden::Multicast),
    (Ipv4Addr::new(255, 255, 255, 255), 32, Forbidden::Multicast),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Forbidden::Reserved),
];

/// What is not to be called of IPv6 beside what lies outside 2000::/3.
const V6: &[(Ipv6Addr, u8, Forbidden)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, Forbidden::Loopback),
    (Ipv6Addr::LOCALHOST, 128, Forbidden::Loopback),
    // Unique local; a cloud's metadata service, fd00:ec2::254, among them.
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, Forbidden::Private),
    // Site-local, deprecated (RFC 3879).
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, Forbidden::Private),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, Forbidden::LinkLocal),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, Forbidden::Multicast),
    // IETF assignments: Teredo (an IPv4 address inside), benchmarking, ORCHID.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, Forbidden::Reserved),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, Forbidden::Reserved),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, Forbidden::Reserved),
];

fn forbidden_v4(addr: Ipv4Addr) -> Option<Forbidden> {
    let inside = |(network, prefix, _): &&(Ipv4Addr, u8, Forbidden)| {
        Ipv4Net::new(*network, *prefix).is_ok_and(|net| net.contains(&addr))
    };
    V4.iter().find(inside).map(|(_, _, why)| *why)
}

fn forbidden_v6(addr: Ipv6Addr) -> Option<Forbidden> {
    let inside = |(network, prefix, _): &&(Ipv6Addr, u8, Forbidden)| {
        Ipv6Net::new(*network, *prefix).is_ok_and(|net| net.contains(&addr))
    };
    if let Some((_, _, why)) = V6.iter().find(inside) {
        return Some(*why);
    }
    let s = addr.segments();
    match s {
        // NAT64 (RFC 6052) and 6to4 (RFC 3056) lead to the IPv4 address inside.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => forbidden_v4(embedded(high, low)),
        [0x2002, high, low, ..] => forbidden_v4(embedded(high, low)),
        // Only 2000::/3 is given out as global unicast.
        [first, ..] if first & 0xe000 != 0x2000 => Some(Forbidden::Reserved),
        _ => None,
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

/// A URL that may be a webhook's.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination {
    url: Url,
}

/// Why a URL is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    #[error("expected at most 2048 bytes")]
    TooLong,
    #[error("expected an absolute URL like https://example.com/hook")]
    Form,
    #[error("expected https:// or http://")]
    Scheme,
    #[error("expected no user name or password in the URL")]
    Credentials,
    #[error("expected no fragment (#…) in the URL")]
    Fragment,
    /// Known at once: the host is an address. Names are checked each time they are resolved.
    #[error("expected a public address, this is {0}")]
    Forbidden(#[from] Forbidden),
}

impl Destination {
    /// Checks what can be checked without resolving the host.
    pub fn parse(text: &str, guard: &Guard) -> Result<Self, BadUrl> {
        if text.len() > URL_LIMIT {
            return Err(BadUrl::TooLong);
        }
        let url = Url::parse(text).map_err(|_| BadUrl::Form)?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(BadUrl::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadUrl::Credentials);
        }
        if url.fragment().is_some() {
            return Err(BadUrl::Fragment);
        }
        match url.host() {
            Some(Host::Ipv4(addr)) => drop(guard.check(addr.into())?),
            Some(Host::Ipv6(addr)) => drop(guard.check(addr.into())?),
            Some(Host::Domain(name)) if !name.is_empty() => {}
            _ => return Err(BadUrl::Form),
        }
        if url.port() == Some(0) {
            return Err(BadUrl::Form);
        }
        Ok(Self { url })
    }

    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// A name or an address, without brackets.
    pub fn host(&self) -> &str {
        let host = self.url.host_str().unwrap_or_default();
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
    }

    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(443)
    }

    /// The `Host` header.
    pub fn authority(&self) -> &str {
        self.url.authority()
    }

    /// Path and query: the target of the request.
    pub fn target(&self) -> &str {
        &self.url[url::Position::BeforePath..url::Position::AfterQuery]
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Paths and queries of webhooks often hold a secret.
        write!(f, "Destination({}://{}/…)", self.url.scheme(), self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(guard: &Guard, addr: &str) -> Result<String, Forbidden> {
        guard.check(addr.parse().unwrap()).map(|a| a.addr().to_string())
    }

    #[test]
    fn only_public_addresses_are_called() {
        use Forbidden as F;
        let guard = Guard::strict();
        for (addr, why) in [
            ("0.0.0.0", F::Loopback),
            ("0.1.2.3", F::Loopback),
            ("127.0.0.1", F::Loopback),
            ("127.255.255.254", F::Loopback),
            ("10.0.0.1", F::Private),
            ("10.255.255.255", F::Private),
            ("172.16.0.1", F::Private),
            ("172.31.255.255", F::Private),
            ("192.168.0.1", F::Private),
            ("169.254.169.254", F::LinkLocal),
            ("169.254.0.1", F::LinkLocal),
            ("100.64.0.1", F::Shared),
            ("100.100.100.200", F::Shared),
            ("100.127.255.255", F::Shared),
            ("168.63.129.16", F::Reserved),
            ("192.0.0.192", F::Reserved),
            ("192.0.2.1", F::Reserved),
            ("198.51.100.7", F::Reserved),
            ("203.0.113.255", F::Reserved),
            ("198.18.0.1", F::Reserved),
            ("198.19.255.255", F::Reserved),
            ("192.88.99.1", F::Reserved),
            ("224.0.0.1", F::Multicast),
            ("239.255.255.250", F::Multicast),
            ("240.0.0.1", F::Reserved),
            ("255.255.255.255", F::Multicast),
            ("::", F::Loopback),
            ("::1", F::Loopback),
            ("::2", F::Reserved),
            ("::127.0.0.1", F::Reserved),
            ("::ffff:127.0.0.1", F::Loopback),
            ("::ffff:10.1.2.3", F::Private),
            ("::ffff:169.254.169.254", F::LinkLocal),
            ("::ffff:0:127.0.0.1", F::Reserved),
            ("64:ff9b::127.0.0.1", F::Loopback),
            ("64:ff9b::a9fe:a9fe", F::LinkLocal),
            ("64:ff9b:1::1", F::Reserved),
            ("2002:7f00:1::", F::Loopback),
            ("2002:a00:1::1", F::Private),
            ("2001::1", F::Reserved),
            ("2001:2::1", F::Reserved),
            ("2001:10::1", F::Reserved),
            ("2001:db8::1", F::Reserved),
            ("3fff::1", F::Reserved),
            ("100::1", F::Reserved),
            ("5f00::1", F::Reserved),
            ("4000::1", F::Reserved),
            ("fc00::1", F::Private),
            ("fd00:ec2::254", F::Private),
            ("fdff:ffff::1", F::Private),
            ("fe80::1", F::LinkLocal),
            ("febf::1", F::LinkLocal),
            ("fec0::1", F::Private),
            ("ff02::1", F::Multicast),
            ("ff0e::1", F::Multicast),
        ] {
            assert_eq!(checked(&guard, addr), Err(why), "{addr}");
        }
    }

    #[test]
    fn neighbours_of_forbidden_networks_are_called() {
        let guard = Guard::strict();
        for addr in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "192.0.1.0",
            "198.17.255.255",
            "198.20.0.0",
            "168.63.129.15",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860:4860::8888",
            "2001:200::1",
            "2002:808:808::1",
            "64:ff9b::8.8.8.8",
        ] {
            assert_eq!(checked(&guard, addr), Ok(addr.parse::<IpAddr>().unwrap().to_string()));
        }
        assert_eq!(checked(&guard, "::ffff:8.8.8.8").as_deref(), Ok("8.8.8.8"));
    }

    #[test]
    fn the_operator_may_allow_networks_and_nothing_next_to_them() {
        let guard = Guard::parse(&[
            "10.20.0.0/16".to_owned(),
            "fd12::/16".to_owned(),
            "127.0.0.1".to_owned(),
        ])
        .unwrap();
        for addr in ["10.20.0.1", "::ffff:10.20.255.255", "fd12::1", "127.0.0.1"] {
            assert!(checked(&guard, addr).is_ok(), "{addr}");
        }
        for addr in ["10.21.0.1", "fd13::1", "127.0.0.2", "::1", "169.254.169.254"] {
            assert!(checked(&guard, addr).is_err(), "{addr}");
        }
        for bad in ["", "10.0.0.0/33", "example.com", "10.0.0/8"] {
            assert!(Guard::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_destination_is_a_plain_http_url() {
        let guard = Guard::strict();
        let parsed = Destination::parse("https://Example.com/hook?x=1", &guard).unwrap();
        assert_eq!(
            (parsed.host(), parsed.port(), parsed.target()),
            ("example.com", 443, "/hook?x=1")
        );
        assert!(parsed.is_https());
        assert_eq!(format!("{parsed:?}"), "Destination(https://example.com/…)");
        let v6 = Destination::parse("http://[2606:4700::1111]:8080", &guard).unwrap();
        assert_eq!((v6.host(), v6.port(), v6.target()), ("2606:4700::1111", 8080, "/"));
        assert_eq!(v6.authority(), "[2606:4700::1111]:8080");
    }

    #[test]
    fn other_urls_are_refused_with_what_would_be_right() {
        let guard = Guard::strict();
        for (url, why) in [
            ("", BadUrl::Form),
            ("example.com/hook", BadUrl::Form),
            ("/hook", BadUrl::Form),
            ("ftp://example.com/", BadUrl::Scheme),
            ("file:///etc/passwd", BadUrl::Scheme),
            ("gopher://example.com/", BadUrl::Scheme),
            ("https://user@example.com/", BadUrl::Credentials),
            ("https://user:pass@example.com/", BadUrl::Credentials),
            ("https://example.com/#x", BadUrl::Fragment),
            ("https://example.com:0/", BadUrl::Form),
            ("http://127.0.0.1/", BadUrl::Forbidden(Forbidden::Loopback)),
            // Other spellings of addresses are addresses, too.
            ("http://2130706433/", BadUrl::Forbidden(Forbidden::Loopback)),
            ("http://0x7f.1/", BadUrl::Forbidden(Forbidden::Loopback)),
            ("http://017700000001/", BadUrl::Forbidden(Forbidden::Loopback)),
            ("http://[::ffff:a9fe:a9fe]/", BadUrl::Forbidden(Forbidden::LinkLocal)),
            ("http://169.254.169.254/latest", BadUrl::Forbidden(Forbidden::LinkLocal)),
        ] {
            assert_eq!(Destination::parse(url, &guard), Err(why), "{url}");
        }
        let long = format!("https://example.com/{}", "a".repeat(URL_LIMIT));
        assert_eq!(Destination::parse(&long, &guard), Err(BadUrl::TooLong));
    }
}
