//! One measured run: a fleet for a while, what it and the servers used meanwhile, a line of progress.
//!
//! Before this: [`crate::cli`]. Inside: [`crate::fleet`]. After this: [`crate::report`].

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    arrival::Arrival,
    clock,
    fleet::{Audience, Fleet, Slice},
    http::Protocol,
    moment::Moment,
    report::{Coalescing, Row, Run, ms},
    scrape, system,
    tally::Tally,
};

/// Files a viewer may have open: two connections, with room for a third at a switch.
const FILES_PER_VIEWER: u64 = 3;
/// Files the process needs besides.
const OTHER_FILES: u64 = 256;
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long the first viewer may take to join before the run is not started.
const FIRST_JOIN_PATIENCE: Duration = Duration::from_secs(20);

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub name: String,
    pub audience: Audience,
    pub duration: Duration,
    /// Time at the start whose times are not counted.
    pub warmup: Duration,
    pub server_pid: Option<u32>,
    /// Metrics page on which requests to the origin are counted.
    pub origin_metrics: Option<Url>,
    /// Counter on it; otherwise those known to the harness.
    pub origin_counter: Option<String>,
    pub progress: bool,
    /// Try with one viewer first.
    pub check_first: bool,
}

/// Runs it; `interrupt` ends it early, with a report of what was seen until then.
pub async fn run(plan: &Plan, interrupt: &CancellationToken) -> anyhow::Result<Run> {
    system::allow_files(u64::from(plan.audience.viewers) * FILES_PER_VIEWER + OTHER_FILES)?;
    if plan.check_first {
        tokio::select! {
            checked = check(&plan.audience) => checked?,
            () = interrupt.cancelled() => bail!("interrupted before the run began"),
        }
    }
    // Read once now, so that a wrong address is told before the run; counted from the end of the warm-up.
    let mut origin_before = origin_requests(plan).await?.map(|requests| (requests, 0));
    let mut warming = !plan.warmup.is_zero();
    if let Some(pid) = plan.server_pid {
        system::usage(pid).with_context(|| format!("--server-pid {pid}: there is no such process here"))?;
    }
    let stop = CancellationToken::new();
    let started = clock::now();
    let mut watched = Watched::new(plan, started);
    let mut fleet = Fleet::start(plan.audience.clone(), stop.clone())?;
    let bar = progress_bar(plan);
    let deadline = clock::instant(started.plus(plan.warmup + plan.duration));
    let mut interrupted = false;
    loop {
        let slice = tokio::select! {
            slice = fleet.slices.recv() => slice,
            () = tokio::time::sleep_until(deadline), if !stop.is_cancelled() => {
                watched.measure_end();
                stop.cancel();
                continue;
            }
            () = interrupt.cancelled(), if !stop.is_cancelled() => {
                interrupted = true;
                watched.measure_end();
                stop.cancel();
                continue;
            }
        };
        match slice {
            Some(slice) => {
                watched.take(slice);
                if warming && watched.begun.is_some() {
                    warming = false;
                    let unique = watched.unique_objects();
                    origin_before = origin_requests(plan).await?.map(|requests| (requests, unique));
                }
                bar.set_message(watched.message());
                bar.set_position(clock::now().since(started).as_secs());
            }
            None => break,
        }
    }
    fleet.join();
    bar.finish_and_clear();
    let origin_after = origin_requests(plan).await?;
    let mut run = watched.finish(interrupted);
    run.origin = origin_before
        .zip(origin_after)
        .map(|((before, unique), after)| Coalescing {
            requests: (after - before).max(0.0),
            unique_objects: watched.unique_objects().saturating_sub(unique),
        });
    Ok(run)
}

async fn origin_requests(plan: &Plan) -> anyhow::Result<Option<f64>> {
    let Some(url) = &plan.origin_metrics else {
        return Ok(None);
    };
    let counters: Vec<&str> = match &plan.origin_counter {
        Some(counter) => vec![counter],
        None => scrape::ORIGIN_COUNTERS.to_vec(),
    };
    Ok(Some(scrape::counter(url, &counters).await?))
}

/// One viewer on the first target: what is wrong with the URL is told before thousands try.
async fn check(audience: &Audience) -> anyhow::Result<()> {
    let target = audience.targets.first().context("there is nothing to watch")?;
    if target.protocol != Protocol::H3 {
        let connect = timeout(CONNECT_PATIENCE, TcpStream::connect(target.address)).await;
        match connect {
            Err(_) => bail!(
                "{}: no answer from {} in {CONNECT_PATIENCE:?}: is a firewall in between?",
                target.url,
                target.address
            ),
            Ok(Err(error)) => bail!(
                "{}: {} does not take connections ({error}): is the server running there?",
                target.url,
                target.address
            ),
            Ok(Ok(_)) => {}
        }
    }
    let stop = CancellationToken::new();
    let one = Audience {
        targets: vec![target.clone()],
        viewers: 1,
        threads: 1,
        arrival: Arrival::AtOnce,
        stay: None,
        switch_every: None,
        seek_every: None,
        ..audience.clone()
    };
    let mut fleet = Fleet::start(one, stop.clone())?;
    let mut seen = Tally::default();
    let look = async {
        while let Some(slice) = fleet.slices.recv().await {
            seen.add(&slice.tally);
            if seen.counts.joined > 0 || seen.counts.gave_up > 0 {
                break;
            }
        }
    };
    let _ = timeout(FIRST_JOIN_PATIENCE, look).await;
    stop.cancel();
    while fleet.slices.recv().await.is_some() {}
    fleet.join();
    if seen.counts.joined > 0 {
        return Ok(());
    }
    let why: Vec<_> = seen.ends.keys().chain(seen.errors.keys()).cloned().collect();
    let rules: Vec<_> = seen
        .broken
        .iter()
        .map(|(rule, broken)| format!("{rule} ({})", broken.examples.join("; ")))
        .collect();
    let path = target.url.path();
    bail!(
        "{}{path}: one viewer could not join: {}",
        target.authority,
        if why.is_empty() && rules.is_empty() {
            "no part came".to_owned()
        } else {
            [why, rules].concat().join("; ")
        }
    )
}

fn progress_bar(plan: &Plan) -> ProgressBar {
    if !plan.progress {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new((plan.warmup + plan.duration).as_secs());
    if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:20} {pos:>4}/{len}s  {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(plan.name.clone());
    bar
}

/// What was seen so far.
struct Watched<'a> {
    plan: &'a Plan,
    started: Moment,
    rows: BTreeMap<u32, (Row, Tally)>,
    watching: BTreeMap<u32, u64>,
    unique: BTreeMap<u32, u64>,
    total: Tally,
    begun: Option<(Moment, system::Usage, Option<system::Usage>)>,
    ended: Option<(Moment, system::Usage, Option<system::Usage>)>,
}

impl<'a> Watched<'a> {
    fn new(plan: &'a Plan, started: Moment) -> Self {
        let mut watched = Self {
            plan,
            started,
            rows: BTreeMap::new(),
            watching: BTreeMap::new(),
            unique: BTreeMap::new(),
            total: Tally::default(),
            begun: None,
            ended: None,
        };
        if plan.warmup.is_zero() {
            watched.begun = Some(watched.measure());
        }
        watched
    }

    fn measure(&self) -> (Moment, system::Usage, Option<system::Usage>) {
        let server = self.plan.server_pid.and_then(|pid| system::usage(pid).ok());
        (clock::now(), system::own_usage(), server)
    }

    fn measure_end(&mut self) {
        self.ended = Some(self.measure());
    }

    fn take(&mut self, slice: Slice) {
        let second = slice.at.since(self.started).as_secs_f64().round() as u32;
        self.watching.insert(slice.thread, slice.watching);
        self.unique.insert(slice.thread, slice.unique);
        let warm =
            slice.at.since(self.started) + Duration::from_millis(100) > self.plan.warmup + Duration::from_secs(1);
        if warm {
            self.total.add(&slice.tally);
        } else {
            // Rules hold in the warm-up, too, and who joined then is watching now.
            let early = Tally {
                broken: slice.tally.broken.clone(),
                join: slice.tally.join.clone(),
                ends: slice.tally.ends.clone(),
                ..Tally::default()
            };
            self.total.add(&early);
            self.total.counts.joined += slice.tally.counts.joined;
            self.total.counts.violations += slice.tally.counts.violations;
            self.total.counts.lapses += slice.tally.counts.lapses;
            self.total.counts.gave_up += slice.tally.counts.gave_up;
        }
        let entry = self.rows.entry(second).or_default();
        entry.1.add(&slice.tally);
        let (row, tally) = entry;
        *row = Row {
            second,
            watching: self.watching.values().sum(),
            live_parts: tally.counts.live_parts,
            latency_p50_ms: ms(tally.latency.at(0.5)),
            latency_p99_ms: ms(tally.latency.at(0.99)),
            bytes: tally.counts.bytes,
            errors: tally.faults(),
            stalls: tally.counts.stalls,
        };
        if self.begun.is_none() && slice.at.since(self.started) + Duration::from_millis(100) > self.plan.warmup {
            self.begun = Some(self.measure());
        }
        // Only the newest second still grows.
        let newest = self.rows.keys().next_back().copied().unwrap_or(0);
        for (_, (_, tally)) in self.rows.range_mut(..newest.saturating_sub(2)) {
            *tally = Tally::default();
        }
    }

    /// Each thread meets nearly all objects: the most that one met.
    fn unique_objects(&self) -> u64 {
        self.unique.values().copied().max().unwrap_or(0)
    }

    fn message(&self) -> String {
        let Some((row, _)) = self.rows.values().next_back() else {
            return String::new();
        };
        let counts = &self.total.counts;
        format!(
            "{} viewers  p50 {:.1} ms  p99 {:.1} ms  {:.0} Mbit/s  {} stalls  {} errors  {} broken rules",
            row.watching,
            row.latency_p50_ms,
            row.latency_p99_ms,
            row.bytes as f64 * 8.0 / 1e6,
            counts.stalls,
            counts.refused + counts.failed,
            counts.violations
        )
    }

    fn finish(&self, interrupted: bool) -> Run {
        let audience = &self.plan.audience;
        let end = self.ended.unwrap_or_else(|| self.measure());
        let begin = self.begun.unwrap_or((self.started, system::Usage::default(), None));
        let used = |before: system::Usage, after: system::Usage| system::Usage {
            cpu_seconds: (after.cpu_seconds - before.cpu_seconds).max(0.0),
            resident_bytes: after.resident_bytes,
        };
        let target = audience.targets.first();
        Run {
            name: self.plan.name.clone(),
            server: target.map_or(String::new(), |target| target.authority.clone()),
            protocol: target.map_or("", |target| target.protocol.as_str()).to_owned(),
            viewers: audience.viewers,
            streams: audience.targets.len() as u32,
            threads: audience.threads,
            started: self.started.0 as f64 / 1e6,
            seconds: end.0.since(begin.0).as_secs_f64(),
            rows: self.rows.values().map(|(row, _)| *row).collect(),
            total: self.total.clone(),
            own: used(begin.1, end.1),
            server_usage: begin.2.zip(end.2).map(|(before, after)| used(before, after)),
            origin: None,
            interrupted,
        }
    }
}
