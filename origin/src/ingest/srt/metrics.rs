//! What SRT ingest counts. Labels come from closed sets ([`End::as_str`](super::End::as_str) and the like).

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::session::Stats;

/// Upper bounds of round trips and buffers, in seconds.
const SECONDS: &[f64] = &[0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

/// Counters of all SRT ports of a process.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub calls: IntGauge,
    pub publishing: IntGauge,
    pub direct: IntGauge,
    pub handshakes: IntCounterVec,
    pub rejected: IntCounterVec,
    pub ended: IntCounterVec,
    pub dropped: IntCounterVec,
    pub packets: IntCounterVec,
    pub bytes: IntCounter,
    pub frames: IntCounterVec,
    pub frames_dropped: IntCounterVec,
    pub repairs: IntCounterVec,
    pub key_refreshes: IntCounterVec,
    pub rtt_seconds: Histogram,
    pub buffer_seconds: Histogram,
}

impl Metrics {
    /// Fails only if the names are taken.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.calls.clone()))?;
        registry.register(Box::new(self.publishing.clone()))?;
        registry.register(Box::new(self.direct.clone()))?;
        registry.register(Box::new(self.handshakes.clone()))?;
        registry.register(Box::new(self.rejected.clone()))?;
        registry.register(Box::new(self.ended.clone()))?;
        registry.register(Box::new(self.dropped.clone()))?;
        registry.register(Box::new(self.packets.clone()))?;
        registry.register(Box::new(self.bytes.clone()))?;
        registry.register(Box::new(self.frames.clone()))?;
        registry.register(Box::new(self.frames_dropped.clone()))?;
        registry.register(Box::new(self.repairs.clone()))?;
        registry.register(Box::new(self.key_refreshes.clone()))?;
        registry.register(Box::new(self.rtt_seconds.clone()))?;
        registry.register(Box::new(self.buffer_seconds.clone()))
    }

    /// Adds what has happened in one session between two looks at it.
    pub(super) fn add(&self, before: &Stats, now: &Stats) {
        let (b, n) = (&before.counts, &now.counts);
        for (fate, before, now) in [
            ("received", b.packets, n.packets),
            ("missing", b.missing, n.missing),
            ("mended", b.mended, n.mended),
            ("lost", b.lost, n.lost),
            ("duplicate", b.duplicates, n.duplicates),
            ("late", b.late, n.late),
            ("no_room", b.no_room, n.no_room),
            ("retransmitted", before.retransmitted, now.retransmitted),
            ("undecrypted", before.undecrypted, now.undecrypted),
            ("malformed", before.malformed, now.malformed),
            ("unanswered", before.unanswered, now.unanswered),
        ] {
            if now > before {
                self.packets.with_label_values(&[fate]).inc_by(now - before);
            }
        }
        self.bytes.inc_by(n.bytes - b.bytes);
        let (good, bad) = (
            now.key_refreshes - before.key_refreshes,
            now.bad_refreshes - before.bad_refreshes,
        );
        self.key_refreshes.with_label_values(&["done"]).inc_by(good);
        self.key_refreshes.with_label_values(&["refused"]).inc_by(bad);
    }

    /// How the link of one session is at this moment.
    pub(super) fn observe(&self, now: &Stats) {
        self.rtt_seconds.observe(now.rtt.as_secs_f64());
        self.buffer_seconds.observe(now.buffer.as_secs_f64());
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
        let histogram = |name, help| {
            let opts = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            Histogram::with_opts(opts).expect("valid name")
        };
        Self {
            calls: gauge("weir_origin_srt_calls", "Open SRT calls, publishing or being judged."),
            publishing: gauge("weir_origin_srt_publishing", "SRT calls that are publishing."),
            direct: gauge(
                "weir_origin_srt_direct",
                "SRT publishes with a socket of their own. The others share their port's: with many of those, or when files \
                 run out, floods of the port reach them.",
            ),
            handshakes: counters(
                "weir_origin_srt_handshakes_total",
                "Handshake packets, by outcome: induction (a first step, answered from nothing kept), knock (a second with a \
                 good cookie), rejected (it asks for what is not served); cookie, malformed and other got no answer. Many \
                 inductions and few knocks: somebody floods the port, or answers do not reach callers.",
                &["outcome"],
            ),
            rejected: counters(
                "weir_origin_srt_rejected_total",
                "Callers that were turned away, by what they were told. bad_secret and unsecure are passphrases.",
                &["reason"],
            ),
            ended: counters(
                "weir_origin_srt_ended_total",
                "SRT calls that ended, by reason. The log names the peer and the details.",
                &["reason"],
            ),
            dropped: counters(
                "weir_origin_srt_dropped_datagrams_total",
                "Datagrams left out: unknown (for no session, usually harmless after an end), overrun (a session has no time \
                 for them: the machine is too slow), limit (too many calls), backlog (the stream's pipeline is too slow; \
                 payloads).",
                &["cause"],
            ),
            packets: counters(
                "weir_origin_srt_packets_total",
                "Data packets by fate. missing were noticed by a gap; mended of these came after all, lost of these never \
                 came in time: raise the encoder's latency if lost grows. undecrypted were locked with an unknown key. One \
                 packet may count under several. unanswered are our acknowledgements that the encoder answered none of: it \
                 can't tell us the round trip.",
                &["fate"],
            ),
            bytes: counter(
                "weir_origin_srt_received_bytes_total",
                "Payload bytes received over SRT.",
            ),
            frames: counters(
                "weir_origin_srt_frames_total",
                "Access units taken from SRT, by track.",
                &["track"],
            ),
            frames_dropped: counters(
                "weir_origin_srt_frames_dropped_total",
                "Access units left out: before their configuration, or damaged by what the link lost.",
                &["track", "reason"],
            ),
            repairs: counters(
                "weir_origin_srt_timestamp_repairs_total",
                "Encoder timestamps put right: held (small step back), rebased (jump), followed (the other track jumped).",
                &["track", "kind"],
            ),
            key_refreshes: counters(
                "weir_origin_srt_key_refreshes_total",
                "Encryption keys that encoders changed under way. refused ones could not be read.",
                &["outcome"],
            ),
            rtt_seconds: histogram(
                "weir_origin_srt_rtt_seconds",
                "Round trip to encoders, each looked at once a second. Latency should be four times that.",
            ),
            buffer_seconds: histogram(
                "weir_origin_srt_buffer_seconds",
                "Media waiting for its play time, each call looked at once a second. Near the latency is right.",
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
