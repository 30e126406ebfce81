//! Ingest's part of the configuration: ports, certificate, streams and their credentials, the admission webhook.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use http::Uri;
use serde::{Deserialize, Serialize};
use weir_shared::{config::HumanDuration, id::StreamKey, serve::tls};

use super::Config;
use crate::ingest::{
    catalog::{
        Catalog, Credential, OnRotate, OwnPorts, SaltSecret, Secrets, StreamPolicy, Takeover, TokenHash,
        policy::{PASSPHRASE_BYTES, is_credential_text},
    },
    lobby::Places,
    ports::PortRange,
    rtmp::Limits,
    secret::Secret,
    srt::{self, handshake::Offer, session::Settings},
    ts::{self, Damaged},
    webhook::{self, Fail, Style},
};

/// Shortest and longest DVR window of a stream.
const DVR_MIN: Duration = Duration::from_secs(30);
const DVR_MAX: Duration = Duration::from_secs(24 * 3600);

/// Plain RTMP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rtmp {
    /// The port of all streams.
    #[serde(deserialize_with = "weir_shared::config::listen_address")]
    pub listen: SocketAddr,
    /// Every stream gets a port of its own out of these.
    pub port_range: Option<PortRange>,
    /// RTMP and RTMPS connections at a time, publishing or not.
    pub max_connections: usize,
    /// Connections that have not published yet; one more, and the oldest of them is closed.
    pub max_waiting: usize,
    /// The same from one address (IPv6: one /64); more are closed at once.
    pub max_waiting_per_address: usize,
}

impl Default for Rtmp {
    fn default() -> Self {
        let places = Places::default();
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1935)),
            port_range: None,
            max_connections: places.connections,
            max_waiting: places.strangers,
            max_waiting_per_address: places.strangers_per_address,
        }
    }
}

/// RTMP over TLS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rtmps {
    #[serde(deserialize_with = "weir_shared::config::listen_address")]
    pub listen: SocketAddr,
    #[serde(default)]
    pub port_range: Option<PortRange>,
}

/// SRT, live mode, over UDP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Srt {
    /// The port of all streams.
    #[serde(deserialize_with = "weir_shared::config::listen_address")]
    pub listen: SocketAddr,
    /// Every stream gets a port of its own out of these.
    pub port_range: Option<PortRange>,
    /// How long packets are held back for those that have to be sent again: at least this …
    pub latency: HumanDuration,
    /// … and, if the encoder asks for more, at most this.
    pub max_latency: HumanDuration,
    /// An encoder of which nothing is heard for this long is gone.
    pub peer_idle_timeout: HumanDuration,
    /// Packets of one encoder in memory.
    pub buffer_packets: u32,
    /// What becomes of video of which a part never came.
    pub damaged: Damaged,
    /// Calls at a time, publishing or not.
    pub max_connections: usize,
    /// Calls that are not let in yet; one more, and the oldest of them is dropped.
    pub max_waiting: usize,
    /// The same from one address (IPv6: one /64); more are refused at once.
    pub max_waiting_per_address: usize,
}

impl Default for Srt {
    fn default() -> Self {
        let (offer, session, places) = (Offer::default(), Settings::default(), Places::default());
        let millis = |ms: u16| HumanDuration(Duration::from_millis(u64::from(ms)));
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9000)),
            port_range: None,
            latency: millis(offer.latency_ms),
            max_latency: millis(offer.latency_max_ms),
            peer_idle_timeout: HumanDuration(session.idle),
            buffer_packets: offer.window,
            damaged: Damaged::default(),
            max_connections: places.connections,
            max_waiting: places.strangers,
            max_waiting_per_address: places.strangers_per_address,
        }
    }
}

impl Srt {
    /// What a server is told; its counters are new ones.
    pub fn server(&self) -> srt::Config {
        let millis = |duration: HumanDuration| u16::try_from(duration.0.as_millis()).unwrap_or(u16::MAX);
        let places = Places {
            connections: self.max_connections,
            strangers: self.max_waiting,
            strangers_per_address: self.max_waiting_per_address,
        };
        srt::Config {
            limits: srt::Limits {
                places,
                ..srt::Limits::default()
            },
            offer: Offer {
                latency_ms: millis(self.latency),
                latency_max_ms: millis(self.max_latency),
                window: self.buffer_packets,
            },
            session: Settings {
                idle: self.peer_idle_timeout.0,
            },
            ts: ts::Limits {
                damaged: self.damaged,
                ..ts::Limits::default()
            },
            ..srt::Config::default()
        }
    }

    fn validate(&self, expect: &mut impl FnMut(bool, &str, &str)) {
        let ms = Duration::from_millis;
        expect(
            (ms(20)..=ms(8_000)).contains(&self.latency.0),
            "srt.latency",
            "20ms to 8s",
        );
        expect(
            (self.latency.0..=ms(30_000)).contains(&self.max_latency.0),
            "srt.max_latency",
            "latency to 30s",
        );
        expect(
            (ms(1_000)..=ms(60_000)).contains(&self.peer_idle_timeout.0),
            "srt.peer_idle_timeout",
            "1s to 60s",
        );
        expect(
            (32..=262_144).contains(&self.buffer_packets),
            "srt.buffer_packets",
            "32 to 262144",
        );
        for (value, key) in [
            (self.max_connections, "srt.max_connections"),
            (self.max_waiting, "srt.max_waiting"),
            (self.max_waiting_per_address, "srt.max_waiting_per_address"),
        ] {
            expect((1..=100_000).contains(&value), key, "1 to 100000");
        }
    }
}

/// A PEM certificate chain and its key. Neither: self-signed, for development.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// A stream that may be pushed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    pub key: StreamKey,
    #[serde(default)]
    pub username: Option<String>,
    #[serde(default)]
    pub password: Option<Secret>,
    #[serde(default)]
    pub token: Option<Secret>,
    /// Encoders over SRT have to encrypt with it, and need nothing else.
    #[serde(default)]
    pub passphrase: Option<Secret>,
    /// Whether the key alone is enough. Left out: only if the stream has neither password nor token nor passphrase.
    #[serde(default)]
    pub allow_key_only: Option<bool>,
    /// Other credentials, which feed the stream's backup input.
    #[serde(default)]
    pub backup: Option<Backup>,
    #[serde(default)]
    pub ports: OwnPorts,
    #[serde(default)]
    pub on_rotate: OnRotate,
    #[serde(default)]
    pub takeover: Takeover,
    /// How much of the past its viewers may go back in.
    #[serde(default)]
    pub dvr: Option<HumanDuration>,
    #[serde(default = "yes")]
    pub active: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backup {
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub token: Option<Secret>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    pub url: String,
    pub secret: Secret,
    /// An answer later than this is none.
    #[serde(default = "three_seconds")]
    pub timeout: HumanDuration,
    /// What happens to a publish without an answer.
    #[serde(default)]
    pub fail: Fail,
    #[serde(default)]
    pub style: Style,
    /// PEM file of the authorities to trust instead of the system's.
    #[serde(default)]
    pub authority: Option<PathBuf>,
}

const fn three_seconds() -> HumanDuration {
    HumanDuration(Duration::from_secs(3))
}

impl Stream {
    /// A stream that anybody who knows its key may publish.
    pub fn open(key: StreamKey) -> Self {
        Self {
            key,
            username: None,
            password: None,
            token: None,
            passphrase: None,
            allow_key_only: None,
            backup: None,
            ports: OwnPorts::default(),
            on_rotate: OnRotate::default(),
            takeover: Takeover::default(),
            dvr: None,
            active: true,
        }
    }

    fn policy(&self, salts: &SaltSecret) -> StreamPolicy {
        let secrets = |user: &Option<String>, password: &Option<Secret>, token: &Option<Secret>| Secrets {
            credential: user
                .as_ref()
                .zip(password.as_ref())
                .map(|(user, password)| Credential::new(user, password.expose(), salts)),
            tokens: token.iter().map(|token| TokenHash::of(token.expose())).collect(),
        };
        let mut policy = StreamPolicy {
            active: self.active,
            primary: secrets(&self.username, &self.password, &self.token),
            backup: self
                .backup
                .as_ref()
                .map(|b| secrets(&b.username, &b.password, &b.token))
                .unwrap_or_default(),
            passphrase: self.passphrase.clone(),
            ports: self.ports,
            on_rotate: self.on_rotate,
            takeover: self.takeover,
            dvr: self.dvr.map(|dvr| dvr.0),
            ..StreamPolicy::open(self.key.clone())
        };
        let has_none = policy.has_no_secrets() && policy.passphrase.is_none();
        policy.allow_key_only = self.allow_key_only.unwrap_or(has_none);
        policy
    }
}

impl Config {
    /// The streams of this file. The control plane adds its own.
    pub fn catalog(&self) -> anyhow::Result<Arc<Catalog>> {
        let catalog = Catalog::new(self.any_key, SaltSecret::random()).holding(self.control.max_known_streams);
        for stream in &self.streams {
            catalog
                .put(stream.policy(catalog.salts()))
                .with_context(|| "streams: a stream can't be taken up")?;
        }
        Ok(Arc::new(catalog))
    }

    pub fn rtmp_limits(&self) -> Limits {
        Limits {
            places: Places {
                connections: self.rtmp.max_connections,
                strangers: self.rtmp.max_waiting,
                strangers_per_address: self.rtmp.max_waiting_per_address,
            },
            ..Limits::default()
        }
    }

    /// What TLS ports of ingest answer with.
    pub fn ingest_tls(&self) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let made = match (&self.tls.certificate, &self.tls.key) {
            (Some(certificate), Some(key)) => tls::from_files(certificate, key),
            _ => tls::self_signed(&["localhost".to_owned(), "127.0.0.1".to_owned()]),
        };
        let mut config = rustls::ServerConfig::clone(&*made.context("tls")?);
        // RTMP has no name to agree on.
        config.alpn_protocols.clear();
        Ok(Arc::new(config))
    }

    pub fn webhook(&self) -> anyhow::Result<Option<webhook::Webhook>> {
        let Some(webhook) = &self.admission_webhook else {
            return Ok(None);
        };
        let settings = webhook::Settings {
            url: webhook.url.parse::<Uri>().context("admission_webhook.url")?,
            secret: webhook.secret.clone(),
            timeout: webhook.timeout.0,
            fail: webhook.fail,
            style: webhook.style,
        };
        let made = webhook::Webhook::new(settings, webhook.authority.as_deref());
        made.context("admission_webhook").map(Some)
    }

    pub(super) fn validate_ingest(&self, expect: &mut impl FnMut(bool, &str, &str)) {
        let rtmp = &self.rtmp;
        expect(
            (1..=100_000).contains(&rtmp.max_connections),
            "rtmp.max_connections",
            "1 to 100000",
        );
        expect(
            (1..=100_000).contains(&rtmp.max_waiting),
            "rtmp.max_waiting",
            "1 to 100000",
        );
        expect(
            (1..=100_000).contains(&rtmp.max_waiting_per_address),
            "rtmp.max_waiting_per_address",
            "1 to 100000",
        );
        if let Some(srt) = &self.srt {
            srt.validate(expect);
        }
        let rtmps_range = self.rtmps.as_ref().and_then(|rtmps| rtmps.port_range);
        let srt_range = self.srt.as_ref().and_then(|srt| srt.port_range);
        let apart = |a: Option<PortRange>, b: Option<PortRange>| a.zip(b).is_none_or(|(a, b)| !a.overlaps(b));
        expect(
            apart(rtmp.port_range, rtmps_range),
            "rtmps.port_range",
            "ports that rtmp.port_range does not have",
        );
        expect(
            apart(rtmp.port_range, srt_range) && apart(rtmps_range, srt_range),
            "srt.port_range",
            "ports that neither rtmp.port_range nor rtmps.port_range has",
        );
        expect(
            self.tls.certificate.is_some() == self.tls.key.is_some(),
            "tls.key",
            "certificate and key together, or neither for a self-signed one",
        );
        for stream in &self.streams {
            let backup = stream.backup.clone().unwrap_or_default();
            let dvr = stream.dvr.map_or(DVR_MIN, |dvr| dvr.0);
            expect((DVR_MIN..=DVR_MAX).contains(&dvr), "streams[].dvr", "30s to 24h");
            for (user, password, token) in [
                (&stream.username, &stream.password, &stream.token),
                (&backup.username, &backup.password, &backup.token),
            ] {
                expect(
                    user.is_some() == password.is_some(),
                    "streams.password",
                    "username and password together",
                );
                let secrets = [password, token].into_iter().flatten().map(Secret::expose);
                expect(
                    user.iter().map(String::as_str).chain(secrets).all(is_credential_text),
                    "streams.username",
                    "user names, passwords and tokens of A-Z a-z 0-9 _ - . only, 1 to 128 of them: some encoders change others",
                );
            }
            expect(
                stream.ports.rtmps.is_none() || self.rtmps.is_some(),
                "streams.ports.rtmps",
                "rtmps to be configured",
            );
            expect(
                stream.ports.srt.is_none() || self.srt.is_some(),
                "streams.ports.srt",
                "srt to be configured",
            );
            expect(
                stream.passphrase.as_ref().is_none_or(|passphrase| {
                    let text = passphrase.expose();
                    PASSPHRASE_BYTES.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
                }),
                "streams.passphrase",
                "10 to 79 printable ASCII characters without spaces",
            );
        }
        let fixed = self.streams.iter().flat_map(|s| s.ports.iter().collect::<Vec<_>>());
        let mut seen = HashSet::new();
        expect(
            fixed.into_iter().all(|port| port > 0 && seen.insert(port)),
            "streams.ports",
            "each port once",
        );
        if let Some(webhook) = &self.admission_webhook {
            let url = webhook.url.parse::<Uri>().ok();
            let known =
                url.is_some_and(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some());
            expect(known, "admission_webhook.url", "http://… or https://…");
            expect(
                (Duration::from_millis(100)..=Duration::from_secs(30)).contains(&webhook.timeout.0),
                "admission_webhook.timeout",
                "100ms to 30s",
            );
            expect(
                !webhook.secret.expose().is_empty(),
                "admission_webhook.secret",
                "a secret to sign with",
            );
        }
    }
}
