//! What operators see of the cold tier and of memory for media.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// How an attempt to write or to read a segment ended.
pub const OUTCOMES: [&str; 2] = ["ok", "failed"];

#[derive(Debug, Clone)]
pub struct Metrics {
    pub writes: IntCounterVec,
    pub reads: IntCounterVec,
    pub cold_bytes: IntGauge,
    pub waiting: IntGauge,
    pub left_behind: IntCounter,
    pub memory_bytes: IntGauge,
    pub cuts: IntCounter,
    pub degraded: IntGauge,
}

impl Metrics {
    /// Creates and registers. Fails only if a name is registered twice.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let by_outcome = |name, help| IntCounterVec::new(Opts::new(name, help), &["outcome"]);
        let metrics = Self {
            writes: by_outcome(
                "weir_origin_dvr_cold_writes_total",
                "Segments that were to be moved out of memory. failed: the disk or the object store did not take one.",
            )?,
            reads: by_outcome(
                "weir_origin_dvr_cold_reads_total",
                "Segments read back from the cold tier; requests at the same time share one. failed: 503 was answered.",
            )?,
            cold_bytes: IntGauge::new(
                "weir_origin_dvr_cold_bytes",
                "Media outside memory that live playlists list, or listed a while ago.",
            )?,
            waiting: IntGauge::new(
                "weir_origin_dvr_cold_waiting",
                "Segments that wait to be moved out of memory; they stay readable meanwhile.",
            )?,
            left_behind: IntCounter::new(
                "weir_origin_dvr_cold_left_behind_total",
                "Objects of the cold tier that could not be removed; the next start of the origin removes them.",
            )?,
            memory_bytes: IntGauge::new(
                "weir_origin_dvr_memory_bytes",
                "Media of live streams in memory, of which dvr.memory is the limit.",
            )?,
            cuts: IntCounter::new(
                "weir_origin_dvr_cuts_total",
                "Times that a stream's past was cut because memory was full and the cold tier did not take it.",
            )?,
            degraded: IntGauge::new(
                "weir_origin_dvr_degraded",
                "Sets of playlists (each stream has a direct and a resilient one) whose past is cut short now.",
            )?,
        };
        for outcome in OUTCOMES {
            metrics.writes.with_label_values(&[outcome]);
            metrics.reads.with_label_values(&[outcome]);
        }
        registry.register(Box::new(metrics.writes.clone()))?;
        registry.register(Box::new(metrics.reads.clone()))?;
        for gauge in [
            &metrics.cold_bytes,
            &metrics.waiting,
            &metrics.memory_bytes,
            &metrics.degraded,
        ] {
            registry.register(Box::new(gauge.clone()))?;
        }
        for counter in [&metrics.left_behind, &metrics.cuts] {
            registry.register(Box::new(counter.clone()))?;
        }
        Ok(metrics)
    }
}

/// The label of an attempt.
pub const fn outcome(ok: bool) -> &'static str {
    if ok { "ok" } else { "failed" }
}
