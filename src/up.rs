//! `weir up`: one command, one machine.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::{Args as ClapArgs, error::ErrorKind};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use weir_edge::Edge;
use weir_origin::{app::Origin, config::Srt};
use weir_shared::{
    config::{self, Fault, HumanDuration, Secret, Validate},
    id::StreamKey,
    log,
};

use crate::demo;

pub(crate) const EXAMPLES: &str = "\
Examples:
  weir up --demo                      a demo broadcast and a page to watch it on
  weir up                             any stream key may be pushed to rtmp://127.0.0.1:1935/app
  weir up --listen 0.0.0.0            the same, reachable from other machines
  weir up --part-target 200ms         shorter parts: lower latency, more requests
  weir up --config config/weir.yaml   named streams, own ports and certificates
  weir up --ephemeral --json          free ports; one JSON line when ready (for tests)";

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Args {
    /// Push a built-in demo broadcast as stream `demo`.
    #[arg(long)]
    demo: bool,
    /// Take free ports and keep nothing.
    #[arg(long)]
    ephemeral: bool,
    /// Print exactly one JSON line on standard output when ready.
    #[arg(long)]
    json: bool,
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "ADDRESS")]
    listen: IpAddr,
    /// Length a part should have: 100ms to 2s [default: from the configuration, 200ms].
    #[arg(long, value_name = "DURATION")]
    part_target: Option<HumanDuration>,
    /// Length at which a segment may end: 500ms to 30s [default: from the configuration, 2s].
    #[arg(long, value_name = "DURATION")]
    segment_target: Option<HumanDuration>,
    /// Streams to name in the ready line, besides `demo`. Repeatable.
    #[arg(long = "stream", value_name = "KEY")]
    streams: Vec<StreamKey>,
    /// Read `origin:` and `edge:` sections from a file instead of the embedded defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where streams and keys are kept: sqlite:FILE or postgres://… [default: from the configuration, sqlite:weir.db].
    #[arg(long, value_name = "URL", env = "WEIR_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// Only check the configuration: says file, line, key and what was expected.
    #[arg(long)]
    check: bool,
}

/// `config/weir.yaml`: both nodes in one file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) origin: weir_origin::config::Config,
    pub(crate) edge: weir_edge::config::Config,
}

impl Validate for Config {
    fn validate(&self) -> Vec<Fault> {
        let under = |section: &str, faults: Vec<Fault>| {
            faults
                .into_iter()
                .map(|f| Fault::new(&format!("{section}.{}", f.key), &f.expected))
                .collect::<Vec<_>>()
        };
        let mut all = under("origin", self.origin.validate());
        all.extend(under("edge", self.edge.validate()));
        all
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    log::init(false);
    let config = configuration(&args)
        .unwrap_or_else(|error| clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n")).exit());
    if args.check {
        println!("the configuration is valid");
        return Ok(());
    }
    // Asked for before anything runs, so that no signal is missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let streams = named_streams(&args, &config)?;
    let playback_is_configured = config.origin.control.playback.is_some();
    let Config {
        origin: mut origin_config,
        edge: mut edge_config,
    } = config;
    let credential = fleet_credential(&mut origin_config);
    let unknown = match origin_config.any_key {
        // Keys that nobody made by the API are the origin's to know.
        true => weir_edge::config::Unknown::Open,
        false => weir_edge::config::Unknown::default(),
    };
    let origin = Origin::start(origin_config).await?;
    edge_config.origins = vec![format!("http://{}", reachable(origin.http))];
    edge_config
        .directory
        .get_or_insert_with(|| weir_edge::config::Directory {
            unknown,
            ..weir_edge::config::Directory::new(vec![format!("http://{}", reachable(origin.api))], credential)
        });
    let edge = Edge::start(edge_config).await?;
    if !playback_is_configured && let Some(base) = playback_base(&edge) {
        origin.set_playback_base(&base);
    }
    let stop = CancellationToken::new();
    let demo = match args.demo {
        true => {
            let demo = demo::Demo::prepare(origin.control.clone(), reachable(origin.rtmp)).await?;
            Some(tokio::spawn(demo.broadcast(stop.clone())))
        }
        false => None,
    };

    if args.json {
        println!("{}", ready_line(&origin, &edge, &streams));
    } else {
        print!("{}", welcome(&origin, &edge, args.demo));
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending");
    stop.cancel();
    if let Some(demo) = demo {
        let _ = demo.await;
    }
    edge.shutdown().await;
    origin.shutdown().await;
    Ok(())
}

/// What the two nodes know and nobody else: the file's, or one for this run.
fn fleet_credential(origin: &mut weir_origin::config::Config) -> Secret {
    let directory = origin.directory.get_or_insert_with(|| weir_origin::config::Directory {
        credential: Secret::new(format!("{:032x}", rand::random::<u128>())),
        url: None,
    });
    directory.credential.clone()
}

fn configuration(args: &Args) -> anyhow::Result<Config> {
    let mut config = match &args.config {
        Some(path) => config::load::<Config>(path)?,
        None => {
            let mut config = Config::default();
            config.origin.any_key = true;
            config.origin.srt = Some(Srt::default());
            config
        }
    };
    if args.config.is_none() || args.ephemeral {
        for listen in [
            &mut config.origin.http.listen,
            &mut config.origin.rtmp.listen,
            &mut config.origin.admin.listen,
            &mut config.origin.api.listen,
        ] {
            place(listen, args);
        }
        if let Some(rtmps) = &mut config.origin.rtmps {
            place(&mut rtmps.listen, args);
        }
        if let Some(srt) = &mut config.origin.srt {
            place(&mut srt.listen, args);
        }
        config.edge.place(|listen| place(listen, args));
    }
    // The API hands out secrets: it is opened to other machines only by its own key in the file.
    if args.config.is_none() {
        config.origin.api.listen.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    if let Some(url) = &args.database {
        config.origin.database.url.clone_from(url);
    } else if args.ephemeral {
        config.origin.database.url = "sqlite::memory:".to_owned();
        config.origin.record.store = "memory://".to_owned();
        config.origin.dvr.store = String::new();
    }
    let packaging = &mut config.origin.packaging;
    packaging.part_target = args.part_target.unwrap_or(packaging.part_target);
    packaging.segment_target = args.segment_target.unwrap_or(packaging.segment_target);
    let faults = config.validate();
    anyhow::ensure!(
        faults.is_empty(),
        "{}",
        faults
            .iter()
            .map(|f| format!("{}: expected {}", f.key, f.expected))
            .collect::<Vec<_>>()
            .join("\n")
    );
    Ok(config)
}

/// Moves a listening address to where the command line wants it.
fn place(listen: &mut SocketAddr, args: &Args) {
    if args.config.is_none() {
        listen.set_ip(args.listen);
    }
    if args.ephemeral {
        listen.set_port(0);
    }
}

fn named_streams(args: &Args, config: &Config) -> anyhow::Result<Vec<StreamKey>> {
    let mut keys: Vec<StreamKey> = args.streams.clone();
    keys.extend(config.origin.streams.iter().map(|s| s.key.clone()));
    if args.demo || keys.is_empty() {
        keys.insert(0, demo::KEY.parse().context("the demo's key")?);
    }
    keys.dedup();
    Ok(keys)
}

/// The address at which this machine reaches a listener that may be bound to "any".
fn reachable(mut listener: SocketAddr) -> SocketAddr {
    if listener.ip().is_unspecified() {
        listener.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    listener
}

fn playback_base(edge: &Edge) -> Option<String> {
    let plain = edge.http.map(|a| format!("http://{}", reachable(a)));
    plain.or_else(|| edge.https.map(|a| format!("https://{}", reachable(a))))
}

fn ready_line(origin: &Origin, edge: &Edge, streams: &[StreamKey]) -> serde_json::Value {
    let http = edge.http.map(|a| format!("http://{}", reachable(a)));
    let https = edge.https.map(|a| format!("https://{}", reachable(a)));
    let base = http.clone().or_else(|| https.clone()).unwrap_or_default();
    let streams: Vec<_> = streams
        .iter()
        .map(|key| {
            serde_json::json!({
                "key": key,
                "playback": {
                    "llhls": format!("{base}/app/{key}/index.m3u8"),
                    "llhlsDirect": format!("{base}/app/{key}/d/llhls.m3u8"),
                    "player": format!("{base}/play/{key}"),
                },
            })
        })
        .collect();
    serde_json::json!({
        "event": "ready",
        "edge": {
            "http": http,
            "https": https,
            "admin": format!("http://{}", reachable(edge.admin)),
        },
        "origin": {
            "http": format!("http://{}", reachable(origin.http)),
            "rtmp": format!("rtmp://{}/app", reachable(origin.rtmp)),
            "srt": origin.srt.map(|srt| format!("srt://{}", reachable(srt))),
            "admin": format!("http://{}", reachable(origin.admin)),
            "api": format!("http://{}", reachable(origin.api)),
        },
        "firstKey": origin.first_key,
        "streams": streams,
    })
}

fn welcome(origin: &Origin, edge: &Edge, demo: bool) -> String {
    let rtmp = reachable(origin.rtmp);
    let http = edge.http.map(reachable);
    let https = edge.https.map(reachable);
    let mut text = String::from("\nWeir is ready.\n\n");
    let mut line = |what: &str, value: String| text.push_str(&format!("  {what:<8}{value}\n"));
    if let Some(http) = http {
        if demo {
            line("watch", format!("http://{http}/play/{}", demo::KEY));
        }
        line("push", format!("rtmp://{rtmp}/app   with any stream key, say `show`"));
        if let Some(srt) = origin.srt.map(reachable) {
            line("", format!("srt://{srt}?streamid=show   MPEG-TS, for lossy networks"));
        }
        line("watch", format!("http://{http}/play/show"));
        line("players", format!("http://{http}/app/show/index.m3u8"));
    }
    if let Some(https) = https {
        line(
            "",
            format!("https://{https}/app/show/index.m3u8   (HTTP/2, self-signed unless configured)"),
        );
    }
    line(
        "admin",
        format!(
            "http://{}/streams   http://{}/metrics",
            reachable(origin.admin),
            reachable(edge.admin)
        ),
    );
    line("api", format!("http://{}/docs", reachable(origin.api)));
    if let Some(key) = &origin.first_key {
        line("key", format!("{key}   shown this once; `weir keys create` makes more"));
    }
    text.push_str("\n  Ctrl-C ends it.\n\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_configuration_is_valid() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/weir.yaml");
        config::load::<Config>(&file).expect("config/weir.yaml");
    }

    #[test]
    fn a_fault_names_its_section() {
        let text = "origin:\n  packaging:\n    part_target: 20ms\n  any_key: true\n";
        let error = config::parse::<Config>("weir.yaml", text).expect_err("20 ms is too short");
        let told = error.to_string();
        assert!(
            told.contains("line 3: origin.packaging.part_target: expected 100ms to 2s"),
            "{told}"
        );
    }
}
