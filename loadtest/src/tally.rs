//! What was counted and measured. Pure; mergeable, so that threads and processes add up.
//!
//! Before this: [`crate::oracle`]. After this: [`crate::report`].

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use crate::{
    moment::micros,
    rule::{Rule, Violation},
};

/// Longest time a histogram tells apart, in microseconds: ten minutes.
const LONGEST_MICROS: u64 = 600_000_000;
/// Examples kept per broken rule.
const EXAMPLES: usize = 3;
/// Longest example, in characters.
const EXAMPLE_LENGTH: usize = 300;
/// Kinds of errors and ends told apart; the rest is counted as "other".
const MAX_KINDS: usize = 64;

/// A histogram of times. In files: pairs of microseconds and count.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Times(Histogram<u64>);

impl From<Vec<(u64, u64)>> for Times {
    fn from(buckets: Vec<(u64, u64)>) -> Self {
        Self::from_buckets(&buckets)
    }
}

impl From<Times> for Vec<(u64, u64)> {
    fn from(times: Times) -> Self {
        times.buckets()
    }
}

impl Default for Times {
    fn default() -> Self {
        // The bounds are constants that the histogram accepts (checked by a test); growing is the fallback.
        let histogram = Histogram::new_with_bounds(1, LONGEST_MICROS, 3).or_else(|_| Histogram::new(3));
        Self(histogram.unwrap_or_else(|_| unreachable!("three significant figures are allowed")))
    }
}

impl Times {
    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(micros(time).max(1));
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that `quantile` (0 to 1) of the values do not exceed; zero when there are none.
    pub fn at(&self, quantile: f64) -> Duration {
        if self.0.is_empty() {
            return Duration::ZERO;
        }
        Duration::from_micros(self.0.value_at_quantile(quantile))
    }

    pub fn max(&self) -> Duration {
        if self.0.is_empty() {
            Duration::ZERO
        } else {
            Duration::from_micros(self.0.max())
        }
    }

    pub fn add(&mut self, other: &Self) {
        // Same bounds: cannot fail.
        let _ = self.0.add(&other.0);
    }

    /// Value and count of every bucket in use, in microseconds: what is written to a file.
    pub fn buckets(&self) -> Vec<(u64, u64)> {
        self.0
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect()
    }

    pub fn from_buckets(buckets: &[(u64, u64)]) -> Self {
        let mut times = Self::default();
        for (value, count) in buckets {
            times.0.saturating_record_n(*value, *count);
        }
        times
    }

    /// The counts below or at each of `limits`.
    pub fn cumulative(&self, limits: &[Duration]) -> Vec<u64> {
        limits
            .iter()
            .map(|limit| self.0.count_between(0, micros(*limit)))
            .collect()
    }
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Plain counts.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        impl Counts {
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counts! {
    requests,
    /// Body bytes of all answers.
    bytes,
    playlists,
    parts,
    /// Parts awaited as they were made.
    live_parts,
    /// Live parts that came later than one part target after they were complete.
    late_parts,
    segments,
    joined,
    /// Viewers who gave up.
    gave_up,
    stalls,
    stall_micros,
    switches,
    seeks,
    fell_behind,
    /// Answers with a status other than success.
    refused,
    /// Requests without an answer.
    failed,
    /// Broken rules that the documents demand.
    violations,
    /// Broken rules that are good manners.
    lapses,
}

/// A broken rule: how often, and examples.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Broken {
    pub count: u64,
    pub examples: Vec<String>,
}

/// Everything of one span of time.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Tally {
    pub counts: Counts,
    /// From the first request until every rendition had its first part.
    pub join: Times,
    /// From a part's completion to its last byte here.
    pub latency: Times,
    /// From the request for something that is there to its last byte.
    pub fetch: Times,
    /// Why requests had no success: `part 404`, `playlist timeout`.
    pub errors: BTreeMap<String, u64>,
    /// Why viewers gave up.
    pub ends: BTreeMap<String, u64>,
    pub broken: BTreeMap<Rule, Broken>,
}

impl Tally {
    pub fn violation(&mut self, violation: Violation) {
        match violation.rule.is_must() {
            true => self.counts.violations += 1,
            false => self.counts.lapses += 1,
        }
        let broken = self.broken.entry(violation.rule).or_default();
        broken.count += 1;
        if broken.examples.len() < EXAMPLES {
            broken
                .examples
                .push(violation.detail.chars().take(EXAMPLE_LENGTH).collect());
        }
    }

    pub(crate) fn violations_from(&mut self, found: impl IntoIterator<Item = Violation>) {
        found.into_iter().for_each(|violation| self.violation(violation));
    }

    pub fn error(&mut self, kind: String) {
        count_kind(&mut self.errors, kind, 1);
    }

    pub fn end(&mut self, why: String) {
        count_kind(&mut self.ends, why, 1);
    }

    pub fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.join.add(&other.join);
        self.latency.add(&other.latency);
        self.fetch.add(&other.fetch);
        for (kind, n) in &other.errors {
            count_kind(&mut self.errors, kind.clone(), *n);
        }
        for (why, n) in &other.ends {
            count_kind(&mut self.ends, why.clone(), *n);
        }
        for (rule, broken) in &other.broken {
            let own = self.broken.entry(*rule).or_default();
            own.count += broken.count;
            let room = EXAMPLES.saturating_sub(own.examples.len());
            own.examples.extend(broken.examples.iter().take(room).cloned());
        }
    }

    /// Errors a person would notice: no answer, a refusal, a broken rule.
    pub fn faults(&self) -> u64 {
        self.counts.refused + self.counts.failed + self.counts.violations
    }
}

fn count_kind(kinds: &mut BTreeMap<String, u64>, kind: String, n: u64) {
    let kind = if kinds.len() < MAX_KINDS || kinds.contains_key(&kind) {
        kind
    } else {
        "other".to_owned()
    };
    *kinds.entry(kind).or_default() += n;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up_and_survive_a_file() {
        let mut one = Tally::default();
        let mut two = Tally::default();
        for ms in 1..=100 {
            one.latency.record(Duration::from_millis(ms));
            two.latency.record(Duration::from_millis(ms + 100));
        }
        one.violation(Violation::new(Rule::NoGap, "x".repeat(1000)));
        for n in 0..5 {
            two.violation(Violation::new(Rule::NoGap, n.to_string()));
        }
        one.add(&two);
        assert_eq!(one.latency.count(), 200);
        assert!(one.latency.at(0.5).abs_diff(Duration::from_millis(100)) < Duration::from_millis(1));
        assert_eq!(one.broken[&Rule::NoGap].count, 6);
        assert_eq!(one.broken[&Rule::NoGap].examples.len(), EXAMPLES);
        let copy = Times::from_buckets(&one.latency.buckets());
        for q in [0.0, 0.5, 0.99, 1.0] {
            assert_eq!(copy.at(q), one.latency.at(q));
        }
        assert_eq!(Times::default().at(0.99), Duration::ZERO);
    }

    #[test]
    fn kinds_of_errors_are_bounded() {
        let mut tally = Tally::default();
        for n in 0..1000 {
            tally.error(n.to_string());
        }
        assert!(tally.errors.len() <= MAX_KINDS + 1);
        assert_eq!(tally.errors.values().sum::<u64>(), 1000);
    }
}
