//! A load test as a file: phases one after another, faults on the way, limits.
//!
//! Before this: `weir-loadtest scenario`. Inside: [`crate::run`] per phase, [`crate::relay`] for faults.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use url::Url;
use weir_shared::config::{Fault, HumanDuration, Validate};

use crate::{
    arrival::Arrival,
    fleet::Audience,
    http::{Protocol, Target, Verify},
    limits::{Limits, Verdict},
    relay::Relay,
    report::Run,
    run::{self, Plan},
};

/// The file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Entry URLs of the edges; viewers are spread over them. `{}` is the stream's number.
    pub edges: Vec<String>,
    #[serde(default = "one")]
    pub streams: u32,
    #[serde(default = "one")]
    pub threads: u32,
    /// `h1`, `h2` or `h3`.
    #[serde(default = "h1")]
    pub protocol: String,
    #[serde(default)]
    pub insecure: bool,
    /// Environment variable that holds the secret tickets are minted with.
    #[serde(default)]
    pub ticket_secret_env: Option<String>,
    #[serde(default)]
    pub server_pid: Option<u32>,
    #[serde(default)]
    pub origin_metrics: Option<Url>,
    pub phases: Vec<Phase>,
}

/// One phase.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    pub name: String,
    pub viewers: u32,
    pub duration: HumanDuration,
    #[serde(default = "no_time")]
    pub warmup: HumanDuration,
    #[serde(default = "linear")]
    pub arrival: String,
    #[serde(default)]
    pub stay: Option<HumanDuration>,
    #[serde(default = "half")]
    pub safari_percent: u32,
    #[serde(default)]
    pub switch_every: Option<HumanDuration>,
    #[serde(default)]
    pub seek_every: Option<HumanDuration>,
    #[serde(default)]
    pub faults: Vec<NetFault>,
    #[serde(default)]
    pub limits: Limits,
}

/// What happens to the network between viewers and an edge.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetFault {
    /// From the start of the phase.
    pub at: HumanDuration,
    pub kind: FaultKind,
    /// How long a stall lasts.
    #[serde(default = "no_time", rename = "for")]
    pub lasts: HumanDuration,
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Nothing passes for a while; connections stay.
    Stall,
    /// Every connection is cut.
    Cut,
}

const fn one() -> u32 {
    1
}
const fn half() -> u32 {
    50
}
fn h1() -> String {
    "h1".to_owned()
}
fn linear() -> String {
    "linear:2s".to_owned()
}
const fn no_time() -> HumanDuration {
    HumanDuration(Duration::ZERO)
}

fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "h1" => Some(Protocol::H1),
        "h2" => Some(Protocol::H2),
        "h3" => Some(Protocol::H3),
        _ => None,
    }
}

impl Validate for Scenario {
    fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut expect = |holds: bool, key: &str, expected: &str| {
            if !holds {
                faults.push(Fault::new(key, expected));
            }
        };
        let url = |text: &String| Url::parse(&text.replace("{}", "0")).is_ok_and(|url| url.host().is_some());
        expect(
            !self.edges.is_empty() && self.edges.iter().all(url),
            "edges",
            "URLs like http://127.0.0.1:8080/app/show/index.m3u8",
        );
        let numbered = self.streams == 1 || self.edges.iter().all(|edge| edge.contains("{}"));
        expect(
            (1..=10_000).contains(&self.streams) && numbered,
            "streams",
            "1 to 10000, with {} in each URL of edges",
        );
        expect((1..=1024).contains(&self.threads), "threads", "1 to 1024");
        expect(protocol(&self.protocol).is_some(), "protocol", "h1, h2 or h3");
        expect(!self.phases.is_empty(), "phases", "at least one");
        for phase in &self.phases {
            expect(
                (1..=1_000_000).contains(&phase.viewers),
                "phases.viewers",
                "1 to 1000000",
            );
            expect(
                phase.arrival.parse::<Arrival>().is_ok(),
                "phases.arrival",
                "at-once, linear:10s or rush:30s",
            );
            expect(phase.safari_percent <= 100, "phases.safari_percent", "0 to 100");
            expect(!phase.duration.0.is_zero(), "phases.duration", "1s or more");
            let plain = self.edges.iter().all(|edge| edge.starts_with("http://"));
            expect(
                phase.faults.is_empty() || plain,
                "phases.faults",
                "edges with http:// (the relay does not speak TLS)",
            );
        }
        faults
    }
}

/// A phase that was played.
#[derive(Debug)]
pub struct Played {
    pub run: Run,
    pub verdict: Verdict,
}

/// Plays all phases; an interrupt ends it with those that were.
pub async fn play(scenario: &Scenario, interrupt: &CancellationToken) -> anyhow::Result<Vec<Played>> {
    let secret = match &scenario.ticket_secret_env {
        Some(name) => Some(
            std::env::var(name)
                .with_context(|| format!("ticket_secret_env: {name} is not set"))?
                .into(),
        ),
        None => None,
    };
    let mut played = Vec::new();
    for (index, phase) in scenario.phases.iter().enumerate() {
        if interrupt.is_cancelled() {
            break;
        }
        let (targets, relays) = targets(scenario, phase).await?;
        let plan = Plan {
            name: phase.name.clone(),
            audience: audience(scenario, phase, targets, &secret)?,
            duration: phase.duration.0,
            warmup: phase.warmup.0,
            server_pid: scenario.server_pid,
            origin_metrics: scenario.origin_metrics.clone(),
            origin_counter: None,
            progress: true,
            check_first: index == 0,
        };
        let faults = tokio::spawn(inject(phase.faults.clone(), relays));
        let run = run::run(&plan, interrupt).await.with_context(|| phase.name.clone())?;
        faults.abort();
        let verdict = phase.limits.judge(&run);
        played.push(Played { run, verdict });
    }
    Ok(played)
}

fn audience(
    scenario: &Scenario,
    phase: &Phase,
    targets: Vec<Arc<Target>>,
    secret: &Option<Arc<str>>,
) -> anyhow::Result<Audience> {
    Ok(Audience {
        targets,
        viewers: phase.viewers,
        threads: scenario.threads,
        arrival: phase.arrival.parse()?,
        stay: phase.stay.map(|stay| stay.0),
        safari_percent: phase.safari_percent,
        delta: true,
        switch_every: phase.switch_every.map(|time| time.0),
        seek_every: phase.seek_every.map(|time| time.0),
        verify: Verify { every: 1 },
        ticket_secret: secret.clone(),
        ticket_life: Duration::from_secs(3600),
    })
}

/// Every stream on every edge; behind a relay where faults are to come.
async fn targets(scenario: &Scenario, phase: &Phase) -> anyhow::Result<(Vec<Arc<Target>>, Vec<Arc<Relay>>)> {
    let protocol = protocol(&scenario.protocol).context("protocol: h1, h2 or h3")?;
    let (mut targets, mut relays) = (Vec::new(), Vec::new());
    for edge in &scenario.edges {
        let mut relay = None;
        for stream in 0..scenario.streams {
            let mut target = Target::new(&edge.replace("{}", &stream.to_string()), protocol, scenario.insecure)?;
            if !phase.faults.is_empty() {
                if relay.is_none() {
                    relay = Some(Arc::new(Relay::start(target.address).await?));
                }
                if let Some(relay) = &relay {
                    target.address = relay.address;
                }
            }
            targets.push(Arc::new(target));
        }
        relays.extend(relay);
    }
    Ok((targets, relays))
}

/// Lets the faults of a phase happen in their time.
async fn inject(mut faults: Vec<NetFault>, relays: Vec<Arc<Relay>>) {
    faults.sort_by_key(|fault| fault.at);
    let start = tokio::time::Instant::now();
    for fault in faults {
        tokio::time::sleep_until(start + fault.at.0).await;
        match fault.kind {
            FaultKind::Cut => relays.iter().for_each(|relay| relay.cut()),
            FaultKind::Stall => {
                relays.iter().for_each(|relay| relay.stall(true));
                tokio::time::sleep(fault.lasts.0).await;
                relays.iter().for_each(|relay| relay.stall(false));
            }
        }
    }
    // The relays live as long as this task.
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_file_is_valid_and_faults_are_told_with_their_key() {
        let sample = include_str!("../../config/loadtest.yaml");
        let scenario: Scenario = weir_shared::config::parse("loadtest.yaml", sample).unwrap();
        assert!(scenario.phases.len() >= 2);
        let bad = "edges: [\"nowhere\"]\nprotocol: h9\nphases:\n  - name: a\n    viewers: 0\n    duration: 1s\n";
        let error = weir_shared::config::parse::<Scenario>("x.yaml", bad)
            .unwrap_err()
            .to_string();
        for key in ["edges", "protocol", "phases.viewers"] {
            assert!(error.contains(key), "{error}");
        }
    }
}
