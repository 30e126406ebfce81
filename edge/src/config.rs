//! The edge's configuration: what `config/edge.yaml` explains key by key.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use weir_shared::config::{ByteSize, Fault, HumanDuration, Validate};

/// Everything an edge needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Plain HTTP/1.1 and HTTP/2.
    pub http: Option<Listen>,
    /// HTTP/1.1 and HTTP/2 over TLS.
    pub https: Option<Https>,
    pub admin: Listen,
    /// Base addresses of origins, asked in this order: `http://10.0.0.5:8081`.
    pub origins: Vec<String>,
    pub cache: Cache,
    pub follow: Follow,
    /// Connections open at once on one listener.
    pub max_connections: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    #[serde(deserialize_with = "weir_shared::config::listen_address")]
    pub listen: SocketAddr,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Https {
    #[serde(deserialize_with = "weir_shared::config::listen_address")]
    pub listen: SocketAddr,
    /// PEM files. Neither: a self-signed certificate for development.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    #[serde(default)]
    pub key: Option<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    pub max_bytes: ByteSize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
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
            http: Some(Listen { listen: local(8080) }),
            https: Some(Https {
                listen: local(8443),
                certificate: None,
                key: None,
            }),
            admin: Listen { listen: local(9080) },
            origins: vec!["http://127.0.0.1:8081".to_owned()],
            cache: Cache::default(),
            follow: Follow::default(),
            max_connections: 20_000,
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
        expect(
            !self.origins.is_empty() && self.origins.len() <= 16 && self.origins.iter().all(base),
            "origins",
            "1 to 16 addresses like http://10.0.0.5:8081, without a path",
        );
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
