//! When viewers come and go. Pure.

use std::{fmt, str::FromStr, time::Duration};

use rand::{Rng, RngExt as _};

/// How a number of viewers arrives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrival {
    /// All in the first instant: a goal.
    AtOnce,
    /// Evenly over this time.
    Linear(Duration),
    /// Slowly, then fast, then slowly, over this time: a show that begins.
    Rush(Duration),
}

/// An arrival curve that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}`: expected at-once, linear:10s or rush:30s")]
pub struct BadArrival(String);

impl FromStr for Arrival {
    type Err = BadArrival;

    fn from_str(text: &str) -> Result<Self, BadArrival> {
        let bad = || BadArrival(text.to_owned());
        let over = |time: &str| {
            let parsed: Result<weir_shared::config::HumanDuration, _> = time.parse();
            parsed.map(|time| time.0).map_err(|_| bad())
        };
        match text.split_once(':') {
            None if text == "at-once" => Ok(Self::AtOnce),
            Some(("linear", time)) => Ok(Self::Linear(over(time)?)),
            Some(("rush", time)) => Ok(Self::Rush(over(time)?)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtOnce => f.write_str("at-once"),
            Self::Linear(time) => write!(f, "linear:{}", weir_shared::config::HumanDuration(*time)),
            Self::Rush(time) => write!(f, "rush:{}", weir_shared::config::HumanDuration(*time)),
        }
    }
}

impl Arrival {
    /// When viewer number `n` of `of` comes, from the start of the run.
    pub fn comes(&self, n: u32, of: u32) -> Duration {
        let share = f64::from(n) / f64::from(of.max(1));
        match self {
            Self::AtOnce => Duration::ZERO,
            Self::Linear(over) => over.mul_f64(share),
            // The inverse of a smooth step.
            Self::Rush(over) => over.mul_f64(0.5 - ((1.0 - 2.0 * share).clamp(-1.0, 1.0).asin() / 3.0).sin()),
        }
    }
}

/// How long a viewer stays, when `mean` is given: exponential, as people zap.
pub fn stays(mean: Option<Duration>, rng: &mut impl Rng) -> Option<Duration> {
    let unit: f64 = rng.random_range(f64::EPSILON..1.0);
    Some(mean?.mul_f64(-unit.ln()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_comes_in_order_and_in_time() {
        let over = Duration::from_secs(10);
        for arrival in [Arrival::AtOnce, Arrival::Linear(over), Arrival::Rush(over)] {
            let times: Vec<_> = (0..=100).map(|n| arrival.comes(n, 100)).collect();
            assert!(times.is_sorted(), "{arrival}");
            assert!(times.iter().all(|t| *t <= over));
        }
        assert_eq!(Arrival::Linear(over).comes(25, 100), Duration::from_millis(2500));
        let first_tenth = (0..100)
            .filter(|n| Arrival::Rush(over).comes(*n, 100) < over / 10)
            .count();
        assert!(first_tenth < 5, "a rush begins slowly: {first_tenth}");
    }

    #[test]
    fn curves_are_read_and_written() {
        for text in ["at-once", "linear:10s", "rush:500ms"] {
            assert_eq!(text.parse::<Arrival>().unwrap().to_string(), text);
        }
        for bad in ["", "linear", "linear:", "rush:x", "step:1s"] {
            assert!(bad.parse::<Arrival>().is_err(), "{bad}");
        }
    }
}
