//! `view`: one audience, one run.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use url::Url;
use weir_shared::config::HumanDuration;

use super::output::Output;
use crate::{
    arrival::Arrival,
    fleet::Audience,
    http::{Protocol, Target, Verify},
    limits::Limits,
    run::{self, Plan},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Entry URL of a stream (multivariant or media playlist); `{}` stands for the stream's number, see --streams.
    pub url: String,
    #[command(flatten)]
    pub crowd: Crowd,
    #[command(flatten)]
    pub measure: Measure,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub output: Output,
}

/// Who watches.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Crowd {
    /// Viewers at once.
    #[arg(long, default_value_t = 100)]
    pub viewers: u32,
    /// Streams: `{}` in the URL becomes 0 to n-1.
    #[arg(long, default_value_t = 1)]
    pub streams: u32,
    /// Threads of the harness, each good for some thousand viewers; default: half the cores.
    #[arg(long)]
    pub threads: Option<u32>,
    /// at-once, linear:10s or rush:30s.
    #[arg(long, default_value = "linear:2s")]
    pub arrival: Arrival,
    /// Mean stay (exponential); each who leaves is followed by another. Default: to the end.
    #[arg(long)]
    pub stay: Option<HumanDuration>,
    #[arg(long, value_enum, default_value = "h1")]
    pub protocol: Protocol,
    /// Accept any certificate (self-signed test servers).
    #[arg(long)]
    pub insecure: bool,
    /// Viewers in a hundred who ask for the hinted part ahead, as Safari does; the others as hls.js.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub safari: u32,
    /// Do not ask for delta updates.
    #[arg(long)]
    pub no_delta: bool,
    /// Mean time between changes of the variant.
    #[arg(long)]
    pub switch_every: Option<HumanDuration>,
    /// Mean time between seeks into the past.
    #[arg(long)]
    pub seek_every: Option<HumanDuration>,
    /// Hash the media of every n-th viewer against the first copy, and read the headers; 0: lengths and stamps only.
    #[arg(long, default_value_t = 1)]
    pub verify_every: u32,
    /// Mint each viewer a ticket with this secret (HMAC-SHA256 policies).
    #[arg(long, env = "WEIR_LOADTEST_TICKET_SECRET", hide_env_values = true)]
    pub ticket_secret: Option<String>,
    /// How long minted tickets are good.
    #[arg(long, default_value = "1h")]
    pub ticket_life: HumanDuration,
}

/// What is measured besides.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Measure {
    #[arg(long, default_value = "30s")]
    pub duration: HumanDuration,
    /// Time before the measurement begins.
    #[arg(long, default_value = "3s")]
    pub warmup: HumanDuration,
    /// The server's process: its CPU and memory are reported, children included.
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Metrics page of the origin (or of the edge): requests that reach the origin are counted on it.
    #[arg(long)]
    pub origin_metrics: Option<Url>,
    /// The counter to read there, if not one of Weir's.
    #[arg(long)]
    pub origin_counter: Option<String>,
    /// Name in the report.
    #[arg(long, default_value = "run")]
    pub name: String,
    /// Start at once instead of trying with one viewer first.
    #[arg(long)]
    pub unchecked: bool,
}

/// Limits on the command line; a scenario file has them all.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LimitArgs {
    /// Fail above this part latency (99 of 100 parts).
    #[arg(long)]
    pub max_p99: Option<HumanDuration>,
    /// Fail above this many stalls per viewer and minute.
    #[arg(long)]
    pub max_stalls: Option<f64>,
    /// Do not fail when rules break.
    #[arg(long)]
    pub allow_violations: bool,
}

impl LimitArgs {
    pub(super) fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            latency_p99: self.max_p99,
            stalls: self.max_stalls,
            violations: default.violations.filter(|_| !self.allow_violations),
            ..default
        }
    }
}

/// Threads when none are asked for: the server needs the other half.
fn default_threads() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| (n.get() as u32 / 2).max(1))
}

impl Crowd {
    pub(super) fn audience(&self, url: &str) -> anyhow::Result<Audience> {
        anyhow::ensure!(self.viewers > 0, "--viewers: at least one");
        anyhow::ensure!(
            self.streams == 1 || url.contains("{}"),
            "--streams {}: the URL must say where the stream's number goes, like http://host/app/s{{}}/index.m3u8",
            self.streams
        );
        let target = |n: u32| {
            let target = Target::new(&url.replace("{}", &n.to_string()), self.protocol, self.insecure)?;
            anyhow::Ok(Arc::new(target))
        };
        Ok(Audience {
            targets: (0..self.streams.max(1)).map(target).collect::<Result<_, _>>()?,
            viewers: self.viewers,
            threads: self.threads.unwrap_or_else(default_threads).clamp(1, 1024),
            arrival: self.arrival,
            stay: self.stay.map(|stay| stay.0),
            safari_percent: self.safari,
            delta: !self.no_delta,
            switch_every: self.switch_every.map(|time| time.0),
            seek_every: self.seek_every.map(|time| time.0),
            verify: Verify {
                every: self.verify_every,
            },
            ticket_secret: self.ticket_secret.as_deref().map(Arc::from),
            ticket_life: self.ticket_life.0,
        })
    }
}

impl Measure {
    pub(super) fn plan(&self, audience: Audience) -> Plan {
        Plan {
            name: self.name.clone(),
            audience,
            duration: self.duration.0.max(Duration::from_secs(1)),
            warmup: self.warmup.0,
            server_pid: self.server_pid,
            origin_metrics: self.origin_metrics.clone(),
            origin_counter: self.origin_counter.clone(),
            progress: true,
            check_first: !self.unchecked,
        }
    }
}

pub(super) async fn main(args: Args, interrupt: CancellationToken) -> anyhow::Result<bool> {
    let plan = args.measure.plan(args.crowd.audience(&args.url)?);
    let run = run::run(&plan, &interrupt).await?;
    println!("{}\n{}", run.name, run.table());
    let verdict = args.limits.limits().judge(&run);
    for doubt in &verdict.doubts {
        println!("  note: {doubt}");
    }
    for failed in &verdict.failed {
        println!("  FAILED: {failed}");
    }
    args.output
        .write("Load test", &[run])
        .context("the report could not be written")?;
    Ok(verdict.failed.is_empty())
}
