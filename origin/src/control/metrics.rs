//! What the control plane counts. Labels are closed sets: no projects, streams or addresses.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Clones share the counters.
#[derive(Debug, Clone)]
pub struct ControlMetrics {
    /// By class of status.
    pub calls: IntCounterVec,
    pub call_seconds: Histogram,
    pub connections: IntGauge,
    /// News that were not written, by reason.
    pub news_refused: IntCounterVec,
    pub news: IntCounter,
    pub leases_lost: IntCounter,
    pub streams_owned: IntGauge,
    pub streams_known: IntGauge,
    pub streams_left_out: IntCounter,
}

impl ControlMetrics {
    /// Makes them without registering.
    pub fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            calls: IntCounterVec::new(
                Opts::new(
                    "weir_origin_api_calls_total",
                    "Calls of the REST API by class of answer. 5xx are this server's fault, or its database's.",
                ),
                &["status"],
            )?,
            call_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "weir_origin_api_call_seconds",
                    "How long calls of the REST API took. When it rises, look at the database first.",
                )
                .buckets(vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 5.0]),
            )?,
            connections: IntGauge::new(
                "weir_origin_api_connections",
                "Connections to the REST API that are open now; 1024 at most.",
            )?,
            news_refused: IntCounterVec::new(
                Opts::new(
                    "weir_origin_control_news_refused_total",
                    "Changes of live streams that were not stored: owner = another origin has the stream, state = the API has \
                     switched it off, store = the database failed.",
                ),
                &["reason"],
            )?,
            news: IntCounter::new(
                "weir_origin_control_news_total",
                "Changes of live streams that were to be stored: connects, losses, ends.",
            )?,
            leases_lost: IntCounter::new(
                "weir_origin_control_leases_lost_total",
                "Streams that another origin took over while this one still had them. Their publishers were cut here.",
            )?,
            streams_owned: IntGauge::new(
                "weir_origin_control_streams_owned",
                "Streams that this origin holds the lease of.",
            )?,
            streams_known: IntGauge::new(
                "weir_origin_control_streams_known",
                "Streams that this origin lets publishers of in, live or not; control.max_known_streams at most.",
            )?,
            streams_left_out: IntCounter::new(
                "weir_origin_control_streams_left_out_total",
                "Streams that this origin could not take in: it knows as many as control.max_known_streams allows, or their \
                 port is another stream's. They can't be pushed here.",
            )?,
        })
    }

    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.calls.clone()))?;
        registry.register(Box::new(self.call_seconds.clone()))?;
        registry.register(Box::new(self.connections.clone()))?;
        registry.register(Box::new(self.news_refused.clone()))?;
        registry.register(Box::new(self.news.clone()))?;
        registry.register(Box::new(self.leases_lost.clone()))?;
        registry.register(Box::new(self.streams_owned.clone()))?;
        registry.register(Box::new(self.streams_known.clone()))?;
        registry.register(Box::new(self.streams_left_out.clone()))
    }

    /// A call of the API was answered.
    pub(super) fn answered(&self, status: http::StatusCode, seconds: f64) {
        let class = match status.as_u16() {
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.calls.with_label_values(&[class]).inc();
        self.call_seconds.observe(seconds);
    }
}
