//! When a run passes. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_shared::config::HumanDuration;

use crate::report::Run;

/// Limits of a run; what is left out is not checked, except that rules must hold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Part latency that half the parts must keep.
    pub latency_p50: Option<HumanDuration>,
    pub latency_p99: Option<HumanDuration>,
    pub join_p99: Option<HumanDuration>,
    /// Stalls per viewer and minute.
    pub stalls: Option<f64>,
    /// Refused and failed requests in a hundred.
    pub error_percent: Option<f64>,
    /// Live parts in a hundred that were late.
    pub late_percent: Option<f64>,
    /// Broken rules.
    pub violations: Option<u64>,
    /// Origin requests per distinct object.
    pub origin_requests_per_object: Option<f64>,
    /// CPU of the harness per thread, in percent: above, the harness is the slow one.
    pub harness_cpu_percent: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            latency_p50: None,
            latency_p99: None,
            join_p99: None,
            stalls: None,
            error_percent: None,
            late_percent: None,
            violations: Some(0),
            origin_requests_per_object: None,
            harness_cpu_percent: 95.0,
        }
    }
}

/// What a run exceeded, in words; the second list doubts the run itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub failed: Vec<String>,
    pub doubts: Vec<String>,
}

impl Limits {
    pub fn judge(&self, run: &Run) -> Verdict {
        let mut verdict = Verdict::default();
        let counts = run.total.counts;
        let mut time = |name: &str, limit: Option<HumanDuration>, is: Duration| {
            if let Some(limit) = limit.filter(|limit| is > limit.0) {
                verdict.failed.push(format!("{name} {is:.1?} is above {limit}"));
            }
        };
        time("part latency p50", self.latency_p50, run.total.latency.at(0.5));
        time("part latency p99", self.latency_p99, run.total.latency.at(0.99));
        time("join p99", self.join_p99, run.total.join.at(0.99));
        let viewer_minutes = (f64::from(run.viewers) * run.seconds / 60.0).max(f64::EPSILON);
        let errors = (counts.refused + counts.failed) as f64;
        let mut number = |name: &str, limit: Option<f64>, is: f64| {
            if let Some(limit) = limit.filter(|limit| is > *limit) {
                verdict.failed.push(format!("{name} {is:.3} is above {limit}"));
            }
        };
        number(
            "stalls per viewer and minute",
            self.stalls,
            counts.stalls as f64 / viewer_minutes,
        );
        number(
            "errors in a hundred requests",
            self.error_percent,
            percent(errors, counts.requests),
        );
        number(
            "late parts in a hundred",
            self.late_percent,
            percent(counts.late_parts as f64, counts.live_parts),
        );
        number(
            "broken rules",
            self.violations.map(|n| n as f64),
            counts.violations as f64,
        );
        if let Some(origin) = &run.origin {
            number(
                "origin requests per object",
                self.origin_requests_per_object,
                origin.per_object(),
            );
        }
        if counts.parts == 0 {
            verdict.failed.push("no viewer got a part".to_owned());
        }
        let cpu = run.harness_cpu_percent();
        if cpu > self.harness_cpu_percent {
            verdict.doubts.push(format!(
                "the harness used {cpu:.0} % of its cores: times may be its own; use more --threads or more machines"
            ));
        }
        if counts.gave_up > 0 {
            verdict.doubts.push(format!(
                "{} viewers gave up and were missing from then on",
                counts.gave_up
            ));
        }
        verdict
    }
}

fn percent(part: f64, of: u64) -> f64 {
    100.0 * part / (of.max(1) as f64)
}
