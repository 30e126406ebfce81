//! What admission counts. Labels come from closed sets ([`Refusal::as_str`](crate::ingest::Refusal::as_str) and the like).

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

/// Counters of all publishes that asked to be let in.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub admitted: IntCounterVec,
    pub refused: IntCounterVec,
    pub challenges: IntCounterVec,
    pub revoked: IntCounterVec,
    pub webhook: IntCounterVec,
    pub webhook_seconds: Histogram,
}

impl Metrics {
    /// Fails only if the names are taken.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.admitted.clone()))?;
        registry.register(Box::new(self.refused.clone()))?;
        registry.register(Box::new(self.challenges.clone()))?;
        registry.register(Box::new(self.revoked.clone()))?;
        registry.register(Box::new(self.webhook.clone()))?;
        registry.register(Box::new(self.webhook_seconds.clone()))
    }
}

impl Default for Metrics {
    /// Not registered anywhere. The names below are valid, which is all that could fail.
    #[expect(clippy::expect_used, reason = "constant names, covered by a test")]
    fn default() -> Self {
        let counters =
            |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels).expect("valid name");
        let seconds = HistogramOpts::new(
            "weir_origin_admission_webhook_seconds",
            "Time the admission webhook took to answer, failures included. An encoder waits this long for its publish.",
        );
        Self {
            admitted: counters(
                "weir_origin_admission_admitted_total",
                "Publishes let in, by what they proved: password, passphrase (SRT), token, or only the key.",
                &["proof"],
            ),
            refused: counters(
                "weir_origin_admission_refused_total",
                "Publishes refused, by reason. Many wrong_credentials or unknown_stream: somebody is guessing, or an encoder \
                 has old credentials; the log names the peer.",
                &["reason"],
            ),
            challenges: counters(
                "weir_origin_admission_challenges_total",
                "Steps of the Adobe password dialogue: need_auth and challenge are two of an ordinary login, accepted its end. \
                 expired, replayed and foreign are answers that came late, twice, or to another challenge.",
                &["step"],
            ),
            revoked: counters(
                "weir_origin_admission_revoked_total",
                "Running publishes that were ended because their stream was removed or disabled, their credentials replaced \
                 (on_rotate: kick), or their time was up.",
                &["reason"],
            ),
            webhook: counters(
                "weir_origin_admission_webhook_total",
                "Questions to the admission webhook, by outcome. failed and timed_out let in or refuse by its fail setting; \
                 crowded means too many at once.",
                &["outcome"],
            ),
            webhook_seconds: Histogram::with_opts(seconds).expect("valid name"),
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
