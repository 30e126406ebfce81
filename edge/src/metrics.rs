//! Everything this edge counts, with a help line an operator understands.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector};

/// The edge's metrics. Labels are closed sets.
#[derive(Debug)]
pub struct Metrics {
    /// By object, outcome and protocol.
    pub requests: IntCounterVec,
    /// By object.
    pub response_bytes: IntCounterVec,
    /// By `route` (names of the configuration, 256 at most) and `outcome`.
    pub route_requests: IntCounterVec,
    /// By `route` and `outcome`.
    pub route_upstream: IntCounterVec,
    /// By result: `hit`, `join`, `lead`, `negative`.
    pub lookups: IntCounterVec,
    /// By outcome: `ok`, `refused`, `failed`, `timeout`.
    pub upstream: IntCounterVec,
    pub upstream_in_flight: IntGauge,
    pub upstream_down: IntGauge,
    pub upstream_failures: IntCounter,
    pub hedges: IntCounter,
    pub followers: IntGauge,
    pub merge_failures: IntCounter,
    pub holding: IntGauge,
    pub hold_seconds: Histogram,
    pub shed: IntCounterVec,
    pub limiter_entries: IntGauge,
    pub in_progress: IntGauge,
    pub connections: IntGauge,
    pub waiting: IntGauge,
    pub sheets: IntGauge,
    pub memory: IntGauge,
    pub viewers: IntGauge,
    /// By result: `applied`, `refused`.
    pub reloads: IntCounterVec,
    /// By reason: [`weir_shared::playback::Invalid::code`].
    pub auth_refused: IntCounterVec,
    /// By form (`policy`, `ome`, `jwt`, `session`) and result (`remembered`, `genuine`, `refused`).
    pub auth_checks: IntCounterVec,
    /// By result: `remembered`, `allowed`, `refused`, `failed`, `shed`.
    pub external_checks: IntCounterVec,
    /// By result: `hit`, `negative`, `fetched`, `unknown`, `failed`, `shed`.
    pub directory_lookups: IntCounterVec,
    pub directory_connected: IntGauge,
    pub directory_records: IntGauge,
    pub directory_changes: IntCounter,
}

impl Metrics {
    /// Creates and registers. Fails only if a name is registered twice.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let vec =
            |name: &str, help: &str, labels: &[&str]| add(registry, IntCounterVec::new(Opts::new(name, help), labels)?);
        let gauge = |name: &str, help: &str| add(registry, IntGauge::new(name, help)?);
        Ok(Self {
            requests: vec(
                "weir_edge_requests_total",
                "Viewer requests answered.",
                &["object", "outcome", "protocol"],
            )?,
            response_bytes: vec(
                "weir_edge_response_bytes_total",
                "Body bytes of the answers, before TLS.",
                &["object"],
            )?,
            route_requests: vec(
                "weir_edge_route_requests_total",
                "Viewer requests below static routes. They are in weir_edge_requests_total as object=\"route\".",
                &["route", "outcome"],
            )?,
            route_upstream: vec(
                "weir_edge_route_upstream_requests_total",
                "Requests to the upstreams of static routes. They are in weir_edge_upstream_requests_total, too.",
                &["route", "outcome"],
            )?,
            lookups: vec(
                "weir_edge_cache_lookups_total",
                "Look-ups of immutable objects: hit = in memory, join = another request was already fetching it, \
                 lead = fetched from an origin, negative = known to be absent.",
                &["result"],
            )?,
            upstream: vec(
                "weir_edge_upstream_requests_total",
                "Requests to origins. Divided by the objects there are, this should stay at 1.",
                &["outcome"],
            )?,
            upstream_in_flight: gauge(
                "weir_edge_upstream_in_flight",
                "Requests to origins that are open now, held ones included.",
            )?,
            upstream_down: gauge(
                "weir_edge_upstream_down",
                "Origins, parents and routes' upstreams that failed and are asked last for a while.",
            )?,
            upstream_failures: add(
                registry,
                IntCounter::new(
                    "weir_edge_upstream_failures_total",
                    "How often one that was well failed: it did not answer, or broke off.",
                )?,
            )?,
            hedges: add(
                registry,
                IntCounter::new(
                    "weir_edge_upstream_hedges_total",
                    "Requests that were sent to another one as well, because the first said nothing for too long.",
                )?,
            )?,
            followers: gauge("weir_edge_followers", "Playlists followed now.")?,
            merge_failures: add(
                registry,
                IntCounter::new(
                    "weir_edge_delta_failures_total",
                    "Delta updates that could not be applied; the full playlist was fetched instead.",
                )?,
            )?,
            holding: gauge("weir_edge_holding", "Viewer requests being held until the next part.")?,
            hold_seconds: add(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "weir_edge_hold_seconds",
                        "How long playlist requests waited. About a part's duration is right; several seconds mean that \
                         the origin is late.",
                    )
                    .buckets(vec![0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0]),
                )?,
            )?,
            shed: vec(
                "weir_edge_shed_total",
                "What was refused or ended because a limit was reached: requests (rates, in_progress), connections (connections, \
                 memory) and clients that were too slow or sent too much (slow_head, slow_reader, chatter, resets). idle is \
                 harmless: a connection nobody used.",
                &["limit"],
            )?,
            limiter_entries: gauge(
                "weir_edge_limiter_entries",
                "Addresses and tickets whose recent requests are remembered.",
            )?,
            in_progress: gauge("weir_edge_in_progress", "Requests being held or answered.")?,
            connections: gauge("weir_edge_connections", "Connections of viewers open now.")?,
            waiting: gauge(
                "weir_edge_waiting_turns",
                "Requests of newcomers and of clients that were refused, waiting for the processor behind all others.",
            )?,
            sheets: gauge(
                "weir_edge_sheet_bytes",
                "Bytes of parts and segments that plain HTTP/1.1 connections share in the kernel's memory.",
            )?,
            memory: gauge("weir_edge_memory_bytes", "Resident memory of this process, as limits.memory sees it.")?,
            viewers: gauge(
                "weir_edge_viewers",
                "Viewers of all streams on this edge, brought up to date every five seconds.",
            )?,
            reloads: vec(
                "weir_edge_reloads_total",
                "Changes of the configuration or of certificate files, by what became of them: refused = the old goes on.",
                &["result"],
            )?,
            auth_refused: vec(
                "weir_edge_auth_refused_total",
                "Requests refused with 401 because of their ticket, or for want of one.",
                &["reason"],
            )?,
            auth_checks: vec(
                "weir_edge_auth_checks_total",
                "Tickets looked at: remembered = this very ticket was verified before, genuine and refused = its \
                 signature was computed.",
                &["form", "result"],
            )?,
            external_checks: vec(
                "weir_edge_external_checks_total",
                "Questions to the site's own check: remembered = answered from an earlier one, failed = no answer in \
                 time, shed = too many at once. Who gets no answer is not let in.",
                &["result"],
            )?,
            directory_lookups: vec(
                "weir_edge_directory_lookups_total",
                "Look-ups of streams: hit = known, negative = known to be unknown, fetched and unknown = an origin was \
                 asked, failed = no origin answered.",
                &["result"],
            )?,
            directory_connected: gauge(
                "weir_edge_directory_connected",
                "1 while an origin tells this edge of changed streams; 0: it goes on with what it knows.",
            )?,
            directory_records: gauge("weir_edge_directory_records", "Streams this edge knows.")?,
            directory_changes: add(
                registry,
                IntCounter::new(
                    "weir_edge_directory_changes_total",
                    "Changes of streams that this edge was told of.",
                )?,
            )?,
        })
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

impl Metrics {
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
