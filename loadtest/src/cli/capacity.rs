//! `find-capacity`: how many viewers until a limit breaks.

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use weir_shared::config::HumanDuration;

use super::{
    output::Output,
    view::{Crowd, LimitArgs, Measure},
};
use crate::{
    limits::Limits,
    report::{self, Run},
    run,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Entry URL, as for `view`.
    url: String,
    #[command(flatten)]
    crowd: Crowd,
    #[command(flatten)]
    measure: Measure,
    #[command(flatten)]
    limits: LimitArgs,
    /// Largest audience tried.
    #[arg(long, default_value_t = 20_000)]
    most: u32,
    /// Steps between the last audience that passed and the first that failed.
    #[arg(long, default_value_t = 3)]
    refine: u32,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn main(args: Args, interrupt: CancellationToken) -> anyhow::Result<bool> {
    let mut limits = args.limits.limits();
    limits.latency_p99 = limits.latency_p99.or("1s".parse::<HumanDuration>().ok());
    limits.stalls = limits.stalls.or(Some(0.1));
    limits.error_percent = Some(0.1);
    let mut search = Search {
        passed: None,
        failed: None,
        most: args.most,
        refine: args.refine,
    };
    let mut runs: Vec<Run> = Vec::new();
    let mut doubted = false;
    while let Some(viewers) = search.next(args.crowd.viewers) {
        if interrupt.is_cancelled() {
            break;
        }
        let crowd = Crowd {
            viewers,
            ..args.crowd.clone()
        };
        let mut plan = args.measure.plan(crowd.audience(&args.url)?);
        plan.name = format!("{viewers}");
        plan.check_first &= runs.is_empty();
        let run = run::run(&plan, &interrupt).await?;
        let failed = judge(&limits, &run, &mut doubted);
        search.tell(viewers, !failed);
        runs.push(run);
    }
    runs.sort_by_key(|run| run.viewers);
    println!("{}", report::comparison(&runs));
    let best = search.passed.and_then(|n| runs.iter().find(|run| run.viewers == n));
    match best {
        Some(run) => println!("capacity: {}", capacity(run)),
        None => println!(
            "capacity: below {} viewers",
            search.failed.unwrap_or(args.crowd.viewers)
        ),
    }
    if doubted {
        println!("note: the harness itself was near its limit; the server may carry more");
    }
    args.output
        .write("Capacity", &runs)
        .context("the report could not be written")?;
    Ok(best.is_some())
}

fn judge(limits: &Limits, run: &Run, doubted: &mut bool) -> bool {
    let verdict = limits.judge(run);
    *doubted |= !verdict.doubts.is_empty();
    let told = if verdict.failed.is_empty() {
        "held".to_owned()
    } else {
        verdict.failed.join("; ")
    };
    println!("{:>7} viewers: {told}", run.viewers);
    !verdict.failed.is_empty()
}

fn capacity(run: &Run) -> String {
    let viewers = run.viewers;
    match run.server_usage {
        Some(usage) if usage.cpu_seconds > 0.0 => {
            let cores = usage.cpu_seconds / run.seconds.max(0.001);
            let per_core = f64::from(viewers) / cores;
            format!("{viewers} viewers at {cores:.2} cores: {per_core:.0} viewers per core")
        }
        _ => format!("{viewers} viewers (give --server-pid to learn how many per core)"),
    }
}

/// Doubles until something breaks, then halves the interval.
struct Search {
    passed: Option<u32>,
    failed: Option<u32>,
    most: u32,
    refine: u32,
}

impl Search {
    fn next(&mut self, first: u32) -> Option<u32> {
        match (self.passed, self.failed) {
            (None, None) => Some(first.min(self.most)),
            (Some(passed), None) if passed >= self.most => None,
            (Some(passed), None) => Some(passed.saturating_mul(2).min(self.most)),
            (passed, Some(failed)) => {
                let low = passed.unwrap_or(0);
                let middle = low + (failed - low) / 2;
                self.refine = self.refine.checked_sub(1)?;
                (middle > low && middle < failed).then_some(middle)
            }
        }
    }

    fn tell(&mut self, viewers: u32, passed: bool) {
        if passed {
            self.passed = self.passed.max(Some(viewers));
        } else {
            self.failed = Some(self.failed.map_or(viewers, |failed| failed.min(viewers)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(limit: u32, most: u32) -> (Option<u32>, Vec<u32>) {
        let mut search = Search {
            passed: None,
            failed: None,
            most,
            refine: 4,
        };
        let mut tried = vec![];
        while let Some(viewers) = search.next(100) {
            tried.push(viewers);
            search.tell(viewers, viewers <= limit);
        }
        (search.passed, tried)
    }

    #[test]
    fn the_limit_is_closed_in_upon() {
        assert_eq!(
            search(1000, 10_000),
            (Some(1000), vec![100, 200, 400, 800, 1600, 1200, 1000, 1100, 1050])
        );
        assert_eq!(search(10, 10_000).0, Some(6));
        assert_eq!(search(9999, 300), (Some(300), vec![100, 200, 300]));
    }
}
