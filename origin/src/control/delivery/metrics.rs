//! What an operator can see of events and webhooks.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, core::Collector};

/// Labels are closed sets; which endpoint fails is in its delivery log.
#[derive(Debug)]
pub struct Metrics {
    /// By type.
    pub events: IntCounterVec,
    /// By outcome: `delivered`, `refused`, `timeout`, `unreachable`, `forbidden`, `failed`.
    pub attempts: IntCounterVec,
    /// By reason: `expired`, `gone`, `queue_full`.
    pub given_up: IntCounterVec,
    pub in_flight: IntGauge,
    pub pending: IntGauge,
    pub delay_seconds: Histogram,
    /// By outcome: `served`, `shed`.
    pub feeds: IntCounterVec,
    pub feeds_open: IntGauge,
}

impl Metrics {
    /// Creates and registers. Fails only if a name is registered twice.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter =
            |name: &str, help: &str, label: &str| add(registry, IntCounterVec::new(Opts::new(name, help), &[label])?);
        let gauge = |name: &str, help: &str| add(registry, IntGauge::new(name, help)?);
        Ok(Self {
            events: counter(
                "weir_origin_events_total",
                "Events written down for webhooks and event feeds.",
                "type",
            )?,
            attempts: counter(
                "weir_origin_webhook_attempts_total",
                "Webhook requests made: refused = an answer other than 2xx, forbidden = the URL leads to an address that \
                 must not be called.",
                "outcome",
            )?,
            given_up: counter(
                "weir_origin_webhook_given_up_total",
                "Webhook deliveries that failed for good: expired = a day of retries is over, gone = the endpoint answered \
                 410, queue_full = too many wait for one endpoint.",
                "reason",
            )?,
            in_flight: gauge(
                "weir_origin_webhook_in_flight",
                "Webhook requests that are waiting for their answer.",
            )?,
            pending: gauge(
                "weir_origin_webhook_pending",
                "Webhook deliveries that wait for their first or next try. Steady growth means that an endpoint is down.",
            )?,
            delay_seconds: add(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "weir_origin_webhook_delay_seconds",
                        "From an event to its successful delivery, retries included.",
                    )
                    .buckets(vec![
                        0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0,
                    ]),
                )?,
            )?,
            feeds: counter(
                "weir_origin_event_feeds_total",
                "Event feeds asked for: shed = refused because too many are open.",
                "outcome",
            )?,
            feeds_open: gauge("weir_origin_event_feeds", "Event feeds that are open now.")?,
        })
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
