//! The origin's configuration: what `config/origin.yaml` explains key by key.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

mod dvr;
mod ingest;
mod record;

use serde::{Deserialize, Serialize};
use weir_shared::config::{Fault, HumanDuration, Secret, Validate};

use crate::{
    control::{
        directory::CREDENTIAL_MIN_BYTES,
        guard::Guard,
        store::{BadKeyFile, Vault},
    },
    ingest::catalog::{Catalog, STREAMS_MAX},
    live::{
        Settings, failover, memory,
        pipeline::{Continuity, FOREVER},
        registry, slate,
    },
    package::segmenter::Targets,
};

pub use dvr::Dvr;
pub use ingest::{Backup, Rtmp, Rtmps, Srt, Stream, Tls, Webhook};
pub use record::Record;

/// Everything an origin needs to know. Every key has a default but none is unknown.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub http: Listen,
    /// Where encoders push.
    pub rtmp: Rtmp,
    /// The same over TLS.
    pub rtmps: Option<Rtmps>,
    /// The same over SRT.
    pub srt: Option<Srt>,
    /// The certificate of every TLS port.
    pub tls: Tls,
    /// Asked about every publish, after its credentials were right.
    pub admission_webhook: Option<Webhook>,
    pub admin: Listen,
    /// The REST API: a port of its own, because its answers hold secrets.
    pub api: Listen,
    pub database: Database,
    pub control: Control,
    pub webhooks: Webhooks,
    /// What edges may ask about streams. Left out: nothing.
    pub directory: Option<Directory>,
    pub ingest: Ingest,
    pub packaging: Packaging,
    /// The past of live streams.
    pub dvr: Dvr,
    pub record: Record,
    /// The default playlists, which outlast hiccups of the input.
    pub resilience: Resilience,
    /// Streams that are made sure to exist, without the API.
    pub streams: Vec<Stream>,
    /// Development: accept a push with any well-formed key.
    pub any_key: bool,
    /// Streams held at once.
    pub max_streams: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    #[serde(deserialize_with = "weir_shared::config::listen_address")]
    pub listen: SocketAddr,
}

impl Listen {
    fn local(port: u16) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        }
    }
}

/// Where streams, keys and events are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `sqlite:<file>`, `sqlite::memory:` or `postgres://…`. May hold a password: never logged.
    pub url: String,
    /// File with the key that secrets are encrypted with. `None`: for an SQLite file its own name and `.key`, made when it
    /// is not there; for PostgreSQL secrets are kept as they are.
    pub key_file: Option<PathBuf>,
}

impl Database {
    /// What secrets are shut away with.
    pub fn vault(&self) -> Result<Vault, BadKeyFile> {
        if let Some(path) = &self.key_file {
            return Vault::with_key_file(path);
        }
        let file = self
            .url
            .strip_prefix("sqlite:")
            .filter(|file| !file.contains(":memory:"));
        let Some(file) = file.and_then(|file| file.split('?').next()) else {
            if !self.url.starts_with("sqlite:") {
                tracing::warn!("database.key_file is not set: secrets lie in the database as they are");
            }
            return Ok(Vault::open());
        };
        Vault::with_own_key_file(Path::new(&format!("{file}.key")))
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: "sqlite:weir.db".to_owned(),
            key_file: None,
        }
    }
}

/// What the control plane tells others about this node, and how much it may know.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// This node's name: unique in the fleet, the same after a restart. `None`: host name and HTTP port.
    pub node: Option<String>,
    /// Host name that encoders are given. `None`: the address that RTMP listens on, or 127.0.0.1.
    pub host: Option<String>,
    /// `https://…` of the edges, for playback addresses. `None`: this node.
    pub playback: Option<String>,
    /// Streams of the database that this node lets publishers of in; all of them are in its memory.
    pub max_known_streams: usize,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            node: None,
            host: None,
            playback: None,
            max_known_streams: STREAMS_MAX,
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhooks {
    /// Networks that webhooks may be posted to besides public addresses.
    pub allow: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// What all origins and edges of the fleet know and nobody else.
    pub credential: Secret,
    /// Base address at which edges reach this origin's media. `None`: where it listens.
    #[serde(default)]
    pub url: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Packaging {
    pub part_target: HumanDuration,
    pub segment_target: HumanDuration,
    /// Whole seconds; `None`: twice the segment target.
    pub target_duration: Option<HumanDuration>,
    /// How much of the past a live playlist lists.
    pub window: HumanDuration,
    /// How long an ended stream stays readable.
    pub linger: HumanDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http: Listen::local(8081),
            rtmp: Rtmp::default(),
            rtmps: None,
            srt: None,
            tls: Tls::default(),
            admission_webhook: None,
            admin: Listen::local(9081),
            api: Listen::local(8082),
            database: Database::default(),
            control: Control::default(),
            webhooks: Webhooks::default(),
            directory: None,
            ingest: Ingest::default(),
            packaging: Packaging::default(),
            dvr: Dvr::default(),
            record: Record::default(),
            resilience: Resilience::default(),
            streams: Vec::new(),
            any_key: false,
            max_streams: 1024,
        }
    }
}

/// How publishers come, go and follow one another.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ingest {
    /// How long a stream without a publisher waits for one before it ends.
    pub grace: HumanDuration,
    /// How long a publisher may be connected and send nothing before its stream ends. Streams of the API have both times
    /// from their project's plan.
    pub idle_timeout: HumanDuration,
    /// Silence of the shown slot after which the other one takes over.
    pub failover_after: HumanDuration,
    /// Whether the primary is shown again once it is back.
    pub revert: failover::Revert,
    /// How long it must have delivered without a break before that.
    pub stable_for: HumanDuration,
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            grace: HumanDuration(Duration::from_secs(10)),
            idle_timeout: HumanDuration(Duration::from_secs(30)),
            failover_after: HumanDuration(Duration::from_secs(3)),
            revert: failover::Revert::WhenStable,
            stable_for: HumanDuration(Duration::from_secs(10)),
        }
    }
}

/// The resilient playlists (`/app/<key>/index.m3u8`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resilience {
    /// How far they are behind the direct ones; hiccups that are shorter are not seen.
    pub cushion: HumanDuration,
    pub keep_alive: KeepAlive,
    /// The operator's own picture for long gaps.
    pub slate: Option<Slate>,
}

/// A picture that is shown instead of the last one of the broadcast. ffmpeg encodes it to match; H.264 only.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slate {
    /// A picture that ffmpeg can read.
    pub file: PathBuf,
    /// How long the last picture is held before.
    #[serde(default = "Slate::usual_delay")]
    pub after: HumanDuration,
    /// The program: a name or an absolute path.
    #[serde(default = "Slate::usual_program")]
    pub ffmpeg: String,
}

impl Slate {
    const fn usual_delay() -> HumanDuration {
        HumanDuration(Duration::from_secs(5))
    }

    fn usual_program() -> String {
        "ffmpeg".to_owned()
    }
}

/// How long a stream without a publisher goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepAlive {
    /// For `ingest.grace`, then its playlists end.
    #[default]
    Grace,
    /// Until it is told to end.
    Forever,
}

impl Default for Resilience {
    fn default() -> Self {
        Self {
            cushion: HumanDuration(Duration::from_secs(1)),
            keep_alive: KeepAlive::default(),
            slate: None,
        }
    }
}

impl Ingest {
    fn continuity(&self, keep_alive: KeepAlive) -> Continuity {
        Continuity {
            grace: match keep_alive {
                KeepAlive::Grace => self.grace.0,
                KeepAlive::Forever => FOREVER,
            },
            idle: self.idle_timeout.0,
            failover: failover::Policy {
                after: self.failover_after.0,
                revert: self.revert,
                stable_for: self.stable_for.0,
            },
        }
    }
}

impl Default for Packaging {
    fn default() -> Self {
        Self {
            part_target: HumanDuration(Duration::from_millis(200)),
            segment_target: HumanDuration(Duration::from_secs(2)),
            target_duration: None,
            window: HumanDuration(Duration::from_secs(60)),
            linger: HumanDuration(Duration::from_secs(60)),
        }
    }
}

impl Packaging {
    /// EXT-X-TARGETDURATION. It never changes in a stream's life, so it comes from here and not from what is seen.
    pub fn target_duration_seconds(&self) -> u32 {
        let chosen = self.target_duration.map_or(self.segment_target.0 * 2, |d| d.0);
        u32::try_from(chosen.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
    }
}

impl Config {
    pub fn policy(&self, catalog: Arc<Catalog>) -> registry::Policy {
        registry::Policy {
            catalog,
            max_streams: self.max_streams,
            linger: self.packaging.linger.0,
            continuity: self.ingest.continuity(self.resilience.keep_alive),
            slate: self.resilience.slate.as_ref().map(|slate| slate::Settings {
                file: slate.file.clone(),
                after: slate.after.0,
                ffmpeg: slate.ffmpeg.clone(),
            }),
        }
    }

    pub fn settings(&self) -> Settings {
        let packaging = &self.packaging;
        Settings {
            targets: Targets {
                part: packaging.part_target.0,
                segment: packaging.segment_target.0,
                target_duration_seconds: packaging.target_duration_seconds(),
            },
            window: packaging.window.0,
            dvr: false,
            cushion: self.resilience.cushion.0,
        }
    }

    pub fn memory(&self) -> memory::Settings {
        let target_duration = self.packaging.target_duration_seconds();
        self.dvr.settings(Duration::from_secs(u64::from(target_duration)))
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
            (1..=1_000_000).contains(&self.control.max_known_streams),
            "control.max_known_streams",
            "1 to 1000000",
        );
        let p = &self.packaging;
        let (part, segment) = (p.part_target.0, p.segment_target.0);
        let target = Duration::from_secs(u64::from(p.target_duration_seconds()));
        let ms = Duration::from_millis;
        expect(
            (ms(100)..=ms(2000)).contains(&part),
            "packaging.part_target",
            "100ms to 2s",
        );
        expect(
            (ms(500)..=ms(30_000)).contains(&segment) && segment >= part * 2,
            "packaging.segment_target",
            "500ms to 30s, and at least two parts",
        );
        expect(
            target >= segment && target >= Duration::from_secs(1) && target <= Duration::from_secs(60),
            "packaging.target_duration",
            "1s to 60s in whole seconds, and not below segment_target",
        );
        expect(
            p.window.0 >= target * 3 && p.window.0 <= Duration::from_secs(4 * 3600),
            "packaging.window",
            "three target durations to 4h",
        );
        expect(
            p.linger.0 <= Duration::from_secs(3600),
            "packaging.linger",
            "at most 1h",
        );
        expect(
            self.resilience.cushion.0 <= ms(5000),
            "resilience.cushion",
            "at most 5s",
        );
        if let Some(slate) = &self.resilience.slate {
            expect(
                slate.file.is_file(),
                "resilience.slate.file",
                "a picture that is there and can be read",
            );
            let after = (Duration::from_secs(1)..=Duration::from_secs(300)).contains(&slate.after.0);
            expect(after, "resilience.slate.after", "1s to 5min");
            expect(
                !slate.ffmpeg.is_empty(),
                "resilience.slate.ffmpeg",
                "a name or an absolute path",
            );
        }
        let ingest = &self.ingest;
        expect(ingest.grace.0 <= ms(300_000), "ingest.grace", "at most 5min");
        expect(
            ingest.idle_timeout.0 > ingest.failover_after.0 && ingest.idle_timeout.0 <= ms(3_600_000),
            "ingest.idle_timeout",
            "longer than ingest.failover_after, at most 1h",
        );
        expect(
            (ms(500)..=ms(10_000)).contains(&ingest.failover_after.0),
            "ingest.failover_after",
            "500ms to 10s",
        );
        expect(
            ingest.stable_for.0 >= ingest.failover_after.0 && ingest.stable_for.0 <= ms(3_600_000),
            "ingest.stable_for",
            "failover_after to 1h",
        );
        expect((1..=100_000).contains(&self.max_streams), "max_streams", "1 to 100000");
        let distinct: HashSet<_> = self.streams.iter().map(|s| &s.key).collect();
        expect(distinct.len() == self.streams.len(), "streams", "each key once");
        self.validate_ingest(&mut expect);
        self.dvr.validate(target, &mut expect);
        self.record.validate(&mut expect);
        let scheme = self.database.url.split(':').next().unwrap_or_default();
        expect(
            matches!(scheme, "sqlite" | "postgres" | "postgresql"),
            "database.url",
            "sqlite:<file>, sqlite::memory: or postgres://…",
        );
        let c = &self.control;
        expect(
            c.node.as_ref().is_none_or(|n| !n.is_empty() && n.len() <= 128),
            "control.node",
            "1 to 128 characters",
        );
        expect(
            c.playback
                .as_ref()
                .is_none_or(|p| (p.starts_with("http://") || p.starts_with("https://")) && !p.ends_with('/')),
            "control.playback",
            "http://… or https://… without a slash at the end",
        );
        expect(
            Guard::parse(&self.webhooks.allow).is_ok(),
            "webhooks.allow",
            "networks like 10.20.0.0/16 or fd00::/8",
        );
        if let Some(directory) = &self.directory {
            let credential = directory.credential.reveal();
            expect(
                credential.len() >= CREDENTIAL_MIN_BYTES && credential.bytes().all(|b| b.is_ascii_graphic()),
                "directory.credential",
                "16 or more printable ASCII characters, the same on all origins and edges",
            );
            let base = |url: &String| {
                let authority = url.strip_prefix("http://");
                authority.is_some_and(|rest| rest.parse::<http::uri::Authority>().is_ok())
            };
            expect(
                directory.url.as_ref().is_none_or(base),
                "directory.url",
                "an address like http://10.0.0.5:8081, without a path",
            );
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        config.validate().into_iter().map(|f| f.key).collect()
    }

    #[test]
    fn defaults_are_valid() {
        assert_eq!(faults(|_| ()), Vec::<String>::new());
        assert_eq!(faults(|c| c.database.url = "mysql://h/db".into()), ["database.url"]);
    }

    #[test]
    fn networks_and_the_fleets_credential_are_checked_at_start() {
        let found = faults(|c| {
            c.webhooks.allow = vec!["10.0.0.0/33".to_owned()];
            c.directory = Some(Directory {
                credential: Secret::new("short"),
                url: Some("https://10.0.0.5/x".to_owned()),
            });
        });
        assert_eq!(found, ["webhooks.allow", "directory.credential", "directory.url"]);
    }

    #[test]
    fn a_slate_that_is_not_there_is_told_at_start() {
        let found = faults(|c| {
            c.resilience.slate = Some(Slate {
                file: "no/such/picture.png".into(),
                after: HumanDuration(Duration::from_millis(100)),
                ffmpeg: String::new(),
            });
        });
        let keys = ["file", "after", "ffmpeg"].map(|key| format!("resilience.slate.{key}"));
        assert_eq!(found, keys);
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let found = faults(|c| {
            c.packaging.part_target = HumanDuration(Duration::from_millis(20));
            c.packaging.window = HumanDuration(Duration::from_secs(5));
            c.max_streams = 0;
        });
        assert_eq!(found, ["packaging.part_target", "packaging.window", "max_streams"]);
    }

    #[test]
    fn what_the_past_may_take_is_checked_at_start() {
        let found = faults(|c| {
            c.dvr.hot = HumanDuration(Duration::from_secs(23));
            c.dvr.store = "ftp://host/dvr".to_owned();
            c.dvr.memory_per_stream = weir_shared::config::ByteSize(2 << 30);
            c.dvr.memory = weir_shared::config::ByteSize(1 << 30);
        });
        assert_eq!(found, ["dvr.hot", "dvr.store", "dvr.memory"]);
        assert_eq!(faults(|c| c.dvr.store = String::new()), Vec::<String>::new());
        assert_eq!(
            faults(|c| c.dvr.store = "s3://bucket/dvr".to_owned()),
            Vec::<String>::new()
        );
    }

    #[test]
    fn the_target_duration_is_twice_the_segment_target_unless_said() {
        assert_eq!(Packaging::default().target_duration_seconds(), 4);
    }
}
