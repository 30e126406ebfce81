//! What a run found, for people and for machines.
//!
//! Before this: [`crate::run`]. Here: the value and its table; [`html`] draws it.

use std::{fmt::Write as _, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{system::Usage, tally::Tally};

pub mod html;

/// One run of one audience.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// A name given by the operator.
    pub name: String,
    /// The server, without path and tickets.
    pub server: String,
    pub protocol: String,
    pub viewers: u32,
    pub streams: u32,
    pub threads: u32,
    /// Seconds since 1970.
    pub started: f64,
    /// Measured time, warm-up apart.
    pub seconds: f64,
    pub rows: Vec<Row>,
    pub total: Tally,
    /// The harness's own use during the run.
    pub own: Usage,
    /// The server's, where its pid was given.
    pub server_usage: Option<Usage>,
    pub origin: Option<Coalescing>,
    /// The run was ended early by the operator.
    pub interrupted: bool,
}

/// One second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Since the start of the run.
    pub second: u32,
    pub watching: u64,
    pub live_parts: u64,
    pub latency_p50_ms: f64,
    pub latency_p99_ms: f64,
    pub bytes: u64,
    pub errors: u64,
    pub stalls: u64,
}

/// How well an edge spares its origin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Coalescing {
    /// Requests the origin answered during the run.
    pub requests: f64,
    /// Distinct objects that viewers got: media by name, playlists by name and content.
    pub unique_objects: u64,
}

impl Coalescing {
    pub fn per_object(&self) -> f64 {
        self.requests / (self.unique_objects.max(1) as f64)
    }
}

impl Run {
    /// CPU of the harness as a share of the cores its threads can use.
    pub fn harness_cpu_percent(&self) -> f64 {
        100.0 * self.own.cpu_seconds / (self.seconds.max(0.001) * f64::from(self.threads.max(1)))
    }

    /// Server CPU seconds per 1000 parts (each with its playlist).
    pub fn server_cpu_per_1000_parts(&self) -> Option<f64> {
        let parts = self.total.counts.parts.max(1) as f64;
        Some(1000.0 * self.server_usage?.cpu_seconds / parts)
    }

    pub fn mbit_per_second(&self) -> f64 {
        self.total.counts.bytes as f64 * 8.0 / 1e6 / self.seconds.max(0.001)
    }

    /// Several processes' halves of one run: counts add up, seconds line up by the clock. The percentiles of one second
    /// are weighted means (p50) and the worst (p99); those of the whole run are exact.
    pub fn merge(runs: &[Self]) -> Option<Self> {
        let first = runs.first()?;
        let started = runs.iter().map(|run| run.started).fold(f64::INFINITY, f64::min);
        let mut merged = Self {
            name: first.name.clone(),
            server: first.server.clone(),
            protocol: first.protocol.clone(),
            streams: first.streams,
            started,
            server_usage: first.server_usage,
            ..Self::default()
        };
        for run in runs {
            merged.viewers += run.viewers;
            merged.threads += run.threads;
            merged.seconds = merged.seconds.max(run.seconds);
            merged.own.cpu_seconds += run.own.cpu_seconds;
            merged.own.resident_bytes += run.own.resident_bytes;
            merged.total.add(&run.total);
            merged.server_usage = merged.server_usage.or(run.server_usage);
            merged.interrupted |= run.interrupted;
            if let Some(origin) = run.origin {
                // Each process watched the same origin and met about the same objects.
                let known = merged.origin.get_or_insert(origin);
                known.requests = known.requests.max(origin.requests);
                known.unique_objects = known.unique_objects.max(origin.unique_objects);
            }
            let offset = (run.started - started).round().clamp(0.0, 1e6) as u32;
            for row in &run.rows {
                let second = row.second.saturating_add(offset);
                match merged.rows.iter_mut().find(|known| known.second == second) {
                    Some(known) => known.add(row),
                    None => merged.rows.push(Row { second, ..*row }),
                }
            }
        }
        merged.rows.sort_by_key(|row| row.second);
        Some(merged)
    }

    /// The table printed at the end.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let counts = &self.total.counts;
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "  {name:<26} {value}");
        };
        let early = if self.interrupted { ", ended early" } else { "" };
        line("server", format!("{} over {}", self.server, self.protocol));
        line(
            "viewers / streams",
            format!("{} / {} for {:.1} s{early}", self.viewers, self.streams, self.seconds),
        );
        line("join (p50 p90 p99 max)", times(&self.total.join));
        line("part latency", times(&self.total.latency));
        line("fetch of what is there", times(&self.total.fetch));
        line(
            "parts",
            format!(
                "{} ({} live, {} later than a part's duration)",
                counts.parts, counts.live_parts, counts.late_parts
            ),
        );
        line(
            "stalls",
            format!("{} ({:.1} s)", counts.stalls, counts.stall_micros as f64 / 1e6),
        );
        line(
            "requests",
            format!(
                "{} ({:.0} a second)",
                counts.requests,
                counts.requests as f64 / self.seconds.max(0.001)
            ),
        );
        line("throughput", format!("{:.0} Mbit/s", self.mbit_per_second()));
        line("switches, seeks", format!("{}, {}", counts.switches, counts.seeks));
        line(
            "refused, failed, gave up",
            format!("{}, {}, {}", counts.refused, counts.failed, counts.gave_up),
        );
        let own = format!(
            "{:.1} s CPU, {:.0} % of its cores",
            self.own.cpu_seconds,
            self.harness_cpu_percent()
        );
        line("harness", own);
        if let (Some(usage), Some(per_1000)) = (self.server_usage, self.server_cpu_per_1000_parts()) {
            let memory = usage.resident_bytes >> 20;
            line(
                "server",
                format!(
                    "{:.1} s CPU, {per_1000:.3} s per 1000 parts, {memory} MiB",
                    usage.cpu_seconds
                ),
            );
        }
        if let Some(origin) = &self.origin {
            let (requests, unique) = (origin.requests, origin.unique_objects);
            line(
                "origin requests / objects",
                format!("{requests:.0} / {unique} = {:.2}", origin.per_object()),
            );
        }
        for (kind, n) in self.total.errors.iter().chain(&self.total.ends) {
            line("", format!("{n} × {kind}"));
        }
        if self.total.broken.is_empty() {
            line("rules", "all kept".to_owned());
        }
        for (rule, broken) in &self.total.broken {
            let level = if rule.is_must() { "BROKEN" } else { "should be kept" };
            line(level, format!("{} × {rule}", broken.count));
            for example in &broken.examples {
                line("", format!("e.g. {example}"));
            }
        }
        out
    }

    /// JSON lines: one per second, then one with everything.
    pub fn json_lines(&self) -> Result<String, serde_json::Error> {
        let mut out = String::new();
        for row in &self.rows {
            out.push_str(&serde_json::to_string(row)?);
            out.push('\n');
        }
        out.push_str(&serde_json::to_string(self)?);
        out.push('\n');
        Ok(out)
    }

    /// Reads what [`Run::json_lines`] wrote: the last line holds it all.
    pub fn from_json_lines(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text.lines().last().unwrap_or(""))
    }
}

impl Row {
    fn add(&mut self, other: &Self) {
        let parts = (self.live_parts + other.live_parts).max(1) as f64;
        let weighted = self.latency_p50_ms * self.live_parts as f64 + other.latency_p50_ms * other.live_parts as f64;
        self.latency_p50_ms = weighted / parts;
        self.latency_p99_ms = self.latency_p99_ms.max(other.latency_p99_ms);
        self.watching += other.watching;
        self.live_parts += other.live_parts;
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.stalls += other.stalls;
    }
}

/// A table of several runs, the first of which is the measure of the others.
pub fn comparison(runs: &[Run]) -> String {
    let mut out = String::new();
    let columns = [
        "name",
        "viewers",
        "p50 ms",
        "p90",
        "p99",
        "max",
        "stalls",
        "late",
        "orig/obj",
        "CPU s/1000",
        "MiB",
        "× p50",
        "× p99",
        "× CPU",
    ];
    let _ = writeln!(out, "| {} |", columns.join(" | "));
    let _ = writeln!(out, "|{}", "---|".repeat(columns.len()));
    let base = |q| runs.first().map_or(0.0, |run| ms(run.total.latency.at(q)));
    let base_cpu = runs.first().and_then(Run::server_cpu_per_1000_parts);
    let dash = || "–".to_owned();
    for run in runs {
        let latency = &run.total.latency;
        let at = |q| format!("{:.1}", ms(latency.at(q)));
        let cpu = run.server_cpu_per_1000_parts();
        let ratio = |is: f64, base: f64| {
            if base > 0.0 {
                format!("{:.2}", is / base)
            } else {
                dash()
            }
        };
        let cells = [
            run.name.clone(),
            run.viewers.to_string(),
            at(0.5),
            at(0.9),
            at(0.99),
            format!("{:.0}", ms(latency.max())),
            run.total.counts.stalls.to_string(),
            run.total.counts.late_parts.to_string(),
            run.origin
                .map_or_else(dash, |origin| format!("{:.2}", origin.per_object())),
            cpu.map_or_else(dash, |cpu| format!("{cpu:.3}")),
            run.server_usage
                .map_or_else(dash, |usage| (usage.resident_bytes >> 20).to_string()),
            ratio(ms(latency.at(0.5)), base(0.5)),
            ratio(ms(latency.at(0.99)), base(0.99)),
            cpu.zip(base_cpu).map_or_else(dash, |(cpu, base)| ratio(cpu, base)),
        ];
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out
}

fn times(times: &crate::tally::Times) -> String {
    if times.count() == 0 {
        return "none".to_owned();
    }
    let at = |q| ms(times.at(q));
    format!(
        "{:.1}  {:.1}  {:.1}  {:.1} ms",
        at(0.5),
        at(0.9),
        at(0.99),
        ms(times.max())
    )
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Rule, Violation};

    pub(crate) fn sample(name: &str, started: f64) -> Run {
        let mut run = Run {
            name: name.into(),
            server: "127.0.0.1:1".into(),
            viewers: 10,
            threads: 1,
            started,
            seconds: 2.0,
            ..Run::default()
        };
        for n in 1..=100 {
            run.total.latency.record(Duration::from_millis(n));
        }
        run.total.violation(Violation::new(Rule::NoGap, "<script>"));
        let row = Row {
            live_parts: 50,
            latency_p50_ms: 50.0,
            latency_p99_ms: 99.0,
            watching: 10,
            bytes: 1 << 20,
            ..Row::default()
        };
        run.rows = vec![Row { second: 1, ..row }, Row { second: 2, ..row }];
        run
    }

    #[test]
    fn a_run_survives_a_file_and_two_halves_make_a_whole() {
        let one = sample("a", 1000.0);
        let read = Run::from_json_lines(&one.json_lines().unwrap()).unwrap();
        assert_eq!(read.table(), one.table());
        let whole = Run::merge(&[one, sample("b", 1001.0)]).unwrap();
        assert_eq!((whole.viewers, whole.total.latency.count()), (20, 200));
        let watching: Vec<_> = whole.rows.iter().map(|row| (row.second, row.watching)).collect();
        assert_eq!(watching, [(1, 10), (2, 20), (3, 10)]);
        assert!(Run::merge(&[]).is_none());
        assert!(Run::from_json_lines("nonsense").is_err());
    }

    #[test]
    fn a_report_is_one_file_that_runs_nothing_from_outside() {
        let page = html::page("title", &[sample("a", 0.0), sample("b", 0.0)]);
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"));
        assert!(
            !page.contains("http://") || page.matches("http://").count() == page.matches("http://www.w3.org").count()
        );
        assert!(page.matches("<svg").count() >= 5);
    }
}
