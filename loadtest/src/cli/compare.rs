//! `compare`: the same load on several servers in turn.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    output::Output,
    view::{Crowd, Measure},
};
use crate::{
    report::{self, Run},
    run, system,
};

/// How long servers may go on with what the viewers of the run before have left behind, before the next run begins all the same.
const REST_PATIENCE: Duration = Duration::from_secs(30);
/// A server rests when it takes less than this of a core for as long as it is looked at.
const REST_SHARE: f64 = 0.1;
const REST_LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Servers as NAME=URL or NAME,PID=URL; the first is the measure of the others. `{}` as for `view`.
    #[arg(required = true, value_parser = server)]
    servers: Vec<Server>,
    /// Rounds; of each server the run with the median p50 is told.
    #[arg(long, default_value_t = 3)]
    repeat: u32,
    #[command(flatten)]
    crowd: Crowd,
    #[command(flatten)]
    measure: Measure,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    name: String,
    pid: Option<u32>,
    url: String,
}

fn server(text: &str) -> Result<Server, String> {
    let expected = || format!("`{text}`: expected NAME=URL or NAME,PID=URL");
    let (name, url) = text
        .split_once('=')
        .filter(|(_, url)| url.contains("://"))
        .ok_or_else(expected)?;
    let (name, pid) = match name.split_once(',') {
        Some((name, pid)) => (name, Some(pid.parse().map_err(|_| expected())?)),
        None => (name, None),
    };
    Ok(Server {
        name: name.to_owned(),
        pid,
        url: url.to_owned(),
    })
}

pub(super) async fn main(args: Args, interrupt: CancellationToken) -> anyhow::Result<bool> {
    let mut rounds: Vec<Vec<Run>> = vec![Vec::new(); args.servers.len()];
    'all: for round in 0..args.repeat.max(1) {
        for (server, runs) in args.servers.iter().zip(&mut rounds) {
            let busy = rest(&args.servers, REST_PATIENCE, &interrupt).await;
            if interrupt.is_cancelled() {
                break 'all;
            }
            if !busy.is_empty() {
                eprintln!(
                    "note: {} still busy: {} shares the machine with that",
                    busy.join(", "),
                    server.name
                );
            }
            let mut plan = args.measure.plan(args.crowd.audience(&server.url)?);
            plan.name = server.name.clone();
            plan.server_pid = server.pid;
            plan.check_first &= round == 0;
            let run = run::run(&plan, &interrupt).await.with_context(|| server.name.clone())?;
            eprintln!(
                "round {} {:<12} p50 {:.1?} p99 {:.1?}",
                round + 1,
                server.name,
                run.total.latency.at(0.5),
                run.total.latency.at(0.99)
            );
            runs.push(run);
        }
    }
    let medians: Vec<Run> = rounds.into_iter().filter_map(median).collect();
    println!("{}", report::comparison(&medians));
    for run in medians.iter().filter(|run| run.harness_cpu_percent() > 95.0) {
        println!(
            "note: {}: the harness was at its limit; these times may be its own",
            run.name
        );
    }
    let kept = medians.iter().all(|run| run.total.counts.violations == 0);
    for run in &medians {
        for (rule, broken) in &run.total.broken {
            println!("{}: {} × {rule}", run.name, broken.count);
        }
    }
    args.output.write("Comparison", &medians)?;
    Ok(kept)
}

/// Waits until all servers whose pid is known rest; names those that do not in time.
async fn rest(servers: &[Server], patience: Duration, interrupt: &CancellationToken) -> Vec<String> {
    let cpu = |server: &Server| {
        server
            .pid
            .and_then(|pid| system::usage(pid).ok())
            .map(|usage| usage.cpu_seconds)
    };
    let deadline = Instant::now() + patience;
    loop {
        let before: Vec<_> = servers.iter().map(cpu).collect();
        if before.iter().all(Option::is_none) {
            return Vec::new();
        }
        let looked = Instant::now();
        tokio::select! {
            () = sleep(REST_LOOK) => {}
            () = interrupt.cancelled() => return Vec::new(),
        }
        let most = looked.elapsed().as_secs_f64() * REST_SHARE;
        let busy = servers.iter().zip(before).filter_map(|(server, before)| {
            let used = cpu(server)? - before?;
            (used > most).then(|| server.name.clone())
        });
        let busy: Vec<_> = busy.collect();
        if busy.is_empty() || Instant::now() >= deadline {
            return busy;
        }
    }
}

/// The run whose median latency is the median of all.
fn median(mut runs: Vec<Run>) -> Option<Run> {
    runs.sort_by_key(|run| run.total.latency.at(0.5));
    let middle = runs.len() / 2;
    (!runs.is_empty()).then(|| runs.swap_remove(middle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_works_is_waited_for_and_named_and_who_rests_is_not() {
        let interrupt = CancellationToken::new();
        let own = |name: &str| Server {
            name: name.to_owned(),
            pid: Some(std::process::id()),
            url: String::new(),
        };
        let gone = Server {
            pid: Some(u32::MAX),
            ..own("gone")
        };
        assert!(
            rest(std::slice::from_ref(&gone), Duration::ZERO, &interrupt)
                .await
                .is_empty()
        );
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let worker = std::thread::spawn(move || while !stopped.is_cancelled() {});
        let busy = rest(&[own("busy"), gone], Duration::ZERO, &interrupt).await;
        stop.cancel();
        worker.join().unwrap();
        assert_eq!(busy, ["busy"]);
    }

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[tokio::test]
    async fn who_interrupts_the_rest_before_a_run_keeps_what_was_measured() {
        let server = format!("own,{}=http://127.0.0.1:1/app/s/index.m3u8", std::process::id());
        let args = <Cli as clap::Parser>::parse_from(["compare", &server]).args;
        let interrupt = CancellationToken::new();
        let (ended, ()) = tokio::join!(main(args, interrupt.clone()), async { interrupt.cancel() });
        assert!(ended.unwrap());
    }

    #[test]
    fn servers_are_named_and_may_have_a_pid() {
        let read = server("edge,42=http://h/app/s{}/index.m3u8?x=y").unwrap();
        assert_eq!(
            (read.name.as_str(), read.pid, read.url.as_str()),
            ("edge", Some(42), "http://h/app/s{}/index.m3u8?x=y")
        );
        assert!(server("http://h/").is_err() && server("a,b=http://h/").is_err());
    }
}
