//! Everything this origin counts, with a help line an operator understands.

use prometheus::{
    CounterVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
};

/// The origin's metrics. Labels are closed sets; per-stream figures belong in the admin listing.
#[derive(Debug)]
pub struct Metrics {
    pub streams_live: IntGauge,
    pub parts: IntCounterVec,
    pub part_bytes: IntCounterVec,
    pub segments: IntCounterVec,
    pub gaps: IntCounterVec,
    pub frames_dropped: IntCounterVec,
    pub filler_seconds: CounterVec,
    pub slates: IntCounterVec,
    pub filled_gaps: IntCounterVec,
    pub frames_late: IntCounterVec,
    pub cushion_seconds: Histogram,
    pub switches: IntCounterVec,
    pub takeovers: IntCounter,
    pub ingest_warnings: IntCounterVec,
    pub requests: IntCounterVec,
    holding: IntGauge,
    hold_seconds: Histogram,
}

impl Metrics {
    /// Creates and registers. Fails only if a name is registered twice.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let by_track = |name: &str, help: &str| counter(registry, name, help, "track");
        Ok(Self {
            streams_live: gauge(
                registry,
                "weir_origin_streams_live",
                "Streams that have a publisher now, or had one within the grace time.",
            )?,
            parts: by_track("weir_origin_parts_total", "Parts published in the direct playlists.")?,
            part_bytes: by_track("weir_origin_part_bytes_total", "Bytes of the parts published in the direct playlists.")?,
            segments: by_track(
                "weir_origin_segments_total",
                "Media segments completed in the direct playlists.",
            )?,
            gaps: by_track(
                "weir_origin_ingest_gaps_total",
                "Times the input left out more than a part's worth of media.",
            )?,
            frames_dropped: by_track(
                "weir_origin_frames_dropped_total",
                "Frames received that could not be packaged, mostly those before the first key frame.",
            )?,
            filler_seconds: registered(
                registry,
                CounterVec::new(
                    Opts::new(
                        "weir_origin_resilience_filler_seconds_total",
                        "Time of the resilient playlists that was filled with a held picture or silence.",
                    ),
                    &["track"],
                )?,
            )?,
            slates: counter(
                registry,
                "weir_origin_resilience_slates_total",
                "Times ffmpeg was asked to encode the operator's picture for a form of broadcast.",
                "result",
            )?,
            filled_gaps: by_track(
                "weir_origin_resilience_gaps_total",
                "Times the input was missing for longer than the cushion, so that the resilient playlists were filled.",
            )?,
            frames_late: by_track(
                "weir_origin_resilience_late_frames_total",
                "Frames left out of the resilient playlists because their time had been filled already.",
            )?,
            cushion_seconds: registered(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "weir_origin_resilience_cushion_seconds",
                        "How long each variant's resilient playlists could go on without new input, looked at once a second.",
                    )
                    .buckets(vec![0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0]),
                )?,
            )?,
            switches: counter(
                registry,
                "weir_origin_ingest_switches_total",
                "Times another publisher of a stream was shown from then on: after the one before fell silent or left \
                 (failover), or because the primary was back (revert).",
                "reason",
            )?,
            takeovers: registered(
                registry,
                IntCounter::new(
                    "weir_origin_ingest_takeovers_total",
                    "Times a publisher took the place of one that was still connected.",
                )?,
            )?,
            ingest_warnings: counter(
                registry,
                "weir_origin_ingest_warnings_total",
                "Times something about a publisher's input became worth attention; /streams says which stream and what to \
                 do.",
                "warning",
            )?,
            requests: counter(
                registry,
                "weir_origin_requests_total",
                "HTTP requests answered to edges and direct players.",
                "status",
            )?,
            holding: gauge(
                registry,
                "weir_origin_holding",
                "Requests being held until the next part or playlist update.",
            )?,
            hold_seconds: registered(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "weir_origin_hold_seconds",
                        "How long media and playlist requests waited. Held ones wait about a part's duration.",
                    )
                    .buckets(vec![0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0]),
                )?,
            )?,
        })
    }

    /// Counts a request as held until the guard is dropped.
    pub fn hold(&self) -> impl Drop + use<> {
        self.holding.inc();
        Hold {
            holding: self.holding.clone(),
            timer: Some(self.hold_seconds.start_timer()),
        }
    }
}

struct Hold {
    holding: IntGauge,
    timer: Option<prometheus::HistogramTimer>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holding.dec();
        if let Some(timer) = self.timer.take() {
            timer.observe_duration();
        }
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    registered(registry, IntGauge::new(name, help)?)
}

fn counter(registry: &Registry, name: &str, help: &str, label: &str) -> Result<IntCounterVec, prometheus::Error> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), &[label])?)
}
