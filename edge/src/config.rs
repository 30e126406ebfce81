//! The edge's configuration: what `config/edge.yaml` explains key by key.

mod limits;
mod playback;
mod routes;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use weir_shared::config::{ByteSize, Fault, HumanDuration, Secret, Validate};

pub use limits::{Limits, Requests};
pub use playback::{Algorithm, ExternalCheck, Jwt, Playback};
pub use routes::{QueryRule, Route, upstream_parts};

/// Everything an edge needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Plain HTTP/1.1 and HTTP/2.
    pub http: Option<Http>,
    /// HTTP/1.1 and HTTP/2 over TLS, HTTP/3 over QUIC.
    pub https: Option<Https>,
    pub admin: Listen,
    /// Base addresses of origins, asked in this order: `http://10.0.0.5:8081`.
    pub origins: Vec<String>,
    /// Base addresses of parent edges, asked before any origin.
    pub parents: Vec<String>,
    /// Prefixes that belong to somebody else's origin.
    pub routes: Vec<Route>,
    /// Streams as the fleet's control plane knows them. Left out: every stream is asked of `origins`.
    pub directory: Option<Directory>,
    pub playback: Playback,
    pub cache: Cache,
    pub follow: Follow,
    /// Connections open at once, on all public listeners together.
    pub max_connections: usize,
    pub limits: Limits,
    pub drain: Drain,
}

/// How this edge ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// For so long new connections are still taken while readiness is off: load balancers need to notice.
    pub announce: HumanDuration,
    /// Then for so long held requests may be answered in the ordinary way; what is still held is told to come back.
    pub holds: HumanDuration,
    /// And for so long after that answers may still be taken.
    pub answers: HumanDuration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    #[serde(deserialize_with = "weir_shared::config::listen_address")]
    pub listen: SocketAddr,
}

/// The listener without TLS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    #[serde(deserialize_with = "weir_shared::config::listen_address")]
    pub listen: SocketAddr,
    #[serde(default)]
    pub tickets: Tickets,
}

/// Whether a listener checks tickets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tickets {
    #[default]
    On,
    /// Somebody in front of it has checked already, and nobody else reaches it.
    Off,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Https {
    #[serde(deserialize_with = "weir_shared::config::listen_address")]
    pub listen: SocketAddr,
    /// PEM files. Neither: a self-signed certificate for development.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    #[serde(default)]
    pub key: Option<PathBuf>,
    #[serde(default)]
    pub tickets: Tickets,
    /// For further names; clients get the one made for the name they ask for.
    #[serde(default)]
    pub certificates: Vec<CertificateFiles>,
    /// HTTP/3 on the UDP port of the same number.
    #[serde(default = "on")]
    pub http3: bool,
    /// The UDP port as clients see it, where it is not the one listened on.
    #[serde(default)]
    pub http3_port: Option<u16>,
    /// The kernel's name of the congestion control for TCP: `bbr`. `None`: the system's.
    #[serde(default)]
    pub congestion: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

fn on() -> bool {
    true
}

impl Https {
    /// At this address, with a self-signed certificate.
    pub fn self_signed(listen: SocketAddr) -> Self {
        Self {
            listen,
            certificate: None,
            key: None,
            certificates: Vec::new(),
            http3: true,
            http3_port: None,
            congestion: None,
            tickets: Tickets::On,
        }
    }
}

/// Where this edge learns of streams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Base addresses of origins' APIs, any of which may be asked: `https://10.0.0.5:8082`.
    pub origins: Vec<String>,
    /// The fleet's credential, as the origins have it.
    pub credential: Secret,
    /// PEM file with the certificate authority of the origins. `None`: those that browsers trust.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Streams remembered.
    #[serde(default = "Directory::default_max_records")]
    pub max_records: u64,
    /// What becomes of streams that it does not know.
    #[serde(default)]
    pub unknown: Unknown,
}

/// What becomes of streams that the directory does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unknown {
    /// There are no such streams.
    #[default]
    Refuse,
    /// Open to all, if an origin has them (`any_key`): for development.
    Open,
}

impl Directory {
    /// With everything else as it is by default.
    pub fn new(origins: Vec<String>, credential: Secret) -> Self {
        Self {
            origins,
            credential,
            ca: None,
            max_records: Self::default_max_records(),
            unknown: Unknown::default(),
        }
    }

    const fn default_max_records() -> u64 {
        100_000
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    pub max_bytes: ByteSize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Follow {
    /// A rendition nobody asked for during this time is followed no longer.
    pub idle: HumanDuration,
    /// Renditions followed at once.
    pub max_renditions: usize,
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http: Some(Http {
                listen: local(8080),
                tickets: Tickets::On,
            }),
            https: Some(Https::self_signed(local(8443))),
            admin: Listen { listen: local(9080) },
            origins: vec!["http://127.0.0.1:8081".to_owned()],
            parents: Vec::new(),
            routes: Vec::new(),
            directory: None,
            playback: Playback::default(),
            cache: Cache::default(),
            follow: Follow::default(),
            max_connections: 20_000,
            limits: Limits::default(),
            drain: Drain::default(),
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            announce: HumanDuration(Duration::from_millis(500)),
            holds: HumanDuration(Duration::from_secs(1)),
            answers: HumanDuration(Duration::from_millis(500)),
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            max_bytes: ByteSize(512 << 20),
        }
    }
}

impl Default for Follow {
    fn default() -> Self {
        Self {
            idle: HumanDuration(Duration::from_secs(30)),
            max_renditions: 4096,
        }
    }
}

impl Config {
    /// The keys in which another configuration differs that take effect only at a start.
    pub fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let secure = |config: &Self| {
            let https = config.https.as_ref()?;
            Some((https.listen, https.http3, https.http3_port, https.congestion.clone()))
        };
        let plain = |config: &Self| config.http.as_ref().map(|http| http.listen);
        [
            ("http.listen", plain(self) != plain(other)),
            (
                "https (listen, http3, http3_port, congestion)",
                secure(self) != secure(other),
            ),
            ("admin.listen", self.admin != other.admin),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// Lets the caller move every listening address.
    pub fn place(&mut self, mut place: impl FnMut(&mut SocketAddr)) {
        if let Some(http) = &mut self.http {
            place(&mut http.listen);
        }
        if let Some(https) = &mut self.https {
            place(&mut https.listen);
        }
        place(&mut self.admin.listen);
    }
}

impl Validate for Config {
    fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut expect = |holds: bool, key: &str, expected: &str| {
            if !holds {
                faults.push(Fault::new(key, expected));
            }
        };
        expect(
            self.http.is_some() || self.https.is_some(),
            "http",
            "a listener here or under https",
        );
        if let Some(https) = &self.https {
            expect(
                https.certificate.is_some() == https.key.is_some(),
                "https.key",
                "certificate and key together, or neither for a self-signed one",
            );
        }
        let base = |origin: &String| {
            origin
                .strip_prefix("http://")
                .is_some_and(|rest| rest.parse::<http::uri::Authority>().is_ok())
        };
        let elsewhere = !self.routes.is_empty() || !self.parents.is_empty();
        expect(
            (elsewhere || !self.origins.is_empty()) && self.origins.len() <= 16 && self.origins.iter().all(base),
            "origins",
            "1 to 16 addresses like http://10.0.0.5:8081, without a path (none where there are parents or routes)",
        );
        if let Some(directory) = &self.directory {
            let base = |origin: &String| {
                let schemes = ["https://", "http://"].iter();
                let authority = schemes.filter_map(|scheme| origin.strip_prefix(scheme)).next();
                authority.is_some_and(|rest| rest.parse::<http::uri::Authority>().is_ok())
            };
            expect(
                (1..=16).contains(&directory.origins.len()) && directory.origins.iter().all(base),
                "directory.origins",
                "1 to 16 addresses like https://10.0.0.5:8082, without a path",
            );
            let credential = directory.credential.reveal();
            expect(
                credential.len() >= 16 && credential.bytes().all(|b| b.is_ascii_graphic()),
                "directory.credential",
                "16 or more printable ASCII characters, the same as on the origins",
            );
            expect(
                (1..=10_000_000).contains(&directory.max_records),
                "directory.max_records",
                "1 to 10000000",
            );
        }
        expect(self.cache.max_bytes.0 >= 16 << 20, "cache.max_bytes", "16MiB or more");
        let idle = self.follow.idle.0;
        expect(
            idle >= Duration::from_secs(1) && idle <= Duration::from_secs(3600),
            "follow.idle",
            "1s to 1h",
        );
        expect(
            (1..=100_000).contains(&self.follow.max_renditions),
            "follow.max_renditions",
            "1 to 100000",
        );
        expect(
            (1..=1_000_000).contains(&self.max_connections),
            "max_connections",
            "1 to 1000000",
        );
        let base = |parent: &String| upstream_parts(parent).is_some_and(|(_, path)| path.is_empty());
        expect(
            self.parents.len() <= 16 && self.parents.iter().all(base),
            "parents",
            "at most 16 addresses like https://10.0.0.6:8443, without a path",
        );
        for (key, time) in [
            ("drain.announce", self.drain.announce),
            ("drain.holds", self.drain.holds),
            ("drain.answers", self.drain.answers),
        ] {
            expect(time.0 <= Duration::from_secs(300), key, "0s to 5m");
        }
        routes::validate(&self.routes, &mut faults);
        self.playback.check(&mut faults);
        self.limits.check(&mut faults);
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(Config::default().validate(), vec![]);
    }

    #[test]
    fn a_directory_needs_origins_and_a_real_credential() {
        let config = Config {
            directory: Some(Directory {
                origins: vec!["https://10.0.0.5:8082/api".to_owned()],
                credential: Secret::new("short"),
                ca: None,
                max_records: 0,
                unknown: Unknown::Refuse,
            }),
            ..Config::default()
        };
        let keys: Vec<_> = config.validate().into_iter().map(|f| f.key).collect();
        assert_eq!(
            keys,
            ["directory.origins", "directory.credential", "directory.max_records"]
        );
        assert!(!format!("{config:?}").contains("short"));
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let config = Config {
            http: None,
            https: None,
            origins: vec!["ftp://x/y".to_owned()],
            max_connections: 0,
            ..Config::default()
        };
        let keys: Vec<_> = config.validate().into_iter().map(|f| f.key).collect();
        assert_eq!(keys, ["http", "origins", "max_connections"]);
    }
}
