//! What RTMP ingest counts. Labels come from closed sets ([`End::as_str`](super::End::as_str) and the like).

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Counters of all RTMP connections of a process.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub connections: IntGauge,
    pub publishing: IntGauge,
    pub ended: IntCounterVec,
    pub over_limit: IntCounterVec,
    pub bytes: IntCounter,
    pub frames: IntCounterVec,
    pub dropped: IntCounterVec,
    pub repairs: IntCounterVec,
}

impl Metrics {
    /// Fails only if the names are taken.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.connections.clone()))?;
        registry.register(Box::new(self.publishing.clone()))?;
        registry.register(Box::new(self.ended.clone()))?;
        registry.register(Box::new(self.over_limit.clone()))?;
        registry.register(Box::new(self.bytes.clone()))?;
        registry.register(Box::new(self.frames.clone()))?;
        registry.register(Box::new(self.dropped.clone()))?;
        registry.register(Box::new(self.repairs.clone()))
    }
}

impl Default for Metrics {
    /// Not registered anywhere. The names below are valid, which is all that could fail.
    #[expect(clippy::expect_used, reason = "constant names, covered by a test")]
    fn default() -> Self {
        let counter = |name, help| IntCounter::new(name, help).expect("valid name");
        let gauge = |name, help| IntGauge::new(name, help).expect("valid name");
        let counters =
            |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels).expect("valid name");
        Self {
            connections: gauge(
                "weir_origin_rtmp_connections",
                "Open RTMP connections, publishing or not.",
            ),
            publishing: gauge("weir_origin_rtmp_publishing", "RTMP connections that are publishing."),
            ended: counters(
                "weir_origin_rtmp_ended_total",
                "RTMP connections that ended, by reason. The log names the peer and the details.",
                &["reason"],
            ),
            over_limit: counters(
                "weir_origin_rtmp_over_limit_total",
                "RTMP connections closed at once: too many in all (total), or too many from one address that had not \
                 published yet (address).",
                &["limit"],
            ),
            bytes: counter("weir_origin_rtmp_received_bytes_total", "Bytes received over RTMP."),
            frames: counters(
                "weir_origin_rtmp_frames_total",
                "Access units taken from RTMP, by track.",
                &["track"],
            ),
            dropped: counters(
                "weir_origin_rtmp_frames_dropped_total",
                "Access units left out: before their configuration, or malformed. An encoder fault if it keeps growing.",
                &["track", "reason"],
            ),
            repairs: counters(
                "weir_origin_rtmp_timestamp_repairs_total",
                "Encoder timestamps put right: held (small step back), rebased (jump), followed (the other track jumped).",
                &["track", "kind"],
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_valid_and_free() {
        let registry = Registry::new();
        Metrics::default().register(&registry).unwrap();
        assert!(Metrics::default().register(&registry).is_err());
    }
}
