//! The commands of `weir-loadtest`, each in a file of its own.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

mod capacity;
mod compare;
mod merge;
mod metrics;
mod output;
mod publish;
mod scenario;
mod serve;
mod view;

/// Finds out how many viewers an LL-HLS server carries, and whether it tells them the truth.
///
/// Start with a server of your own and a hundred viewers:
///   weir-loadtest view http://127.0.0.1:8080/app/show/index.m3u8 --viewers 100 --duration 30s
/// Without a server, make one up:
///   weir-loadtest origin --listen 127.0.0.1:8081 --streams 10
///   weir-loadtest view 'http://127.0.0.1:8081/app/s{}/index.m3u8' --streams 10 --viewers 500
#[derive(Debug, Parser)]
#[command(name = "weir-loadtest", version, verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Simulated players watch a stream; what they notice is measured and checked.
    View(view::Args),
    /// Broadcasters push made-up streams or the demo clip over RTMP.
    Publish(publish::Args),
    /// A made-up LL-HLS origin that needs no media; can lie on purpose.
    Origin(serve::OriginArgs),
    /// The same content with as little work as the system allows: what no server can be faster than.
    Floor(serve::FloorArgs),
    /// Phases, faults and limits from a YAML file; the exit code says whether all held.
    Scenario(scenario::Args),
    /// Raises the number of viewers until a limit breaks.
    FindCapacity(capacity::Args),
    /// The same load on several servers in turn, repeated; one table with ratios.
    Compare(compare::Args),
    /// One report of several processes' results.
    Merge(merge::Args),
    /// Looks at a metrics page: names, units, help texts, number of series.
    CheckMetrics(metrics::Args),
}

/// The program. Exit code 0: all limits held; 1: one did not, or a rule broke; 2: it could not be run.
pub async fn main() -> ExitCode {
    weir_shared::log::init(false);
    let cli = Cli::parse();
    let interrupt = CancellationToken::new();
    let told = interrupt.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            eprintln!("ending; the report of what was seen so far follows (once more Ctrl-C to drop it)");
            told.cancel();
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
    let done = match cli.command {
        Command::View(args) => view::main(args, interrupt).await,
        Command::Publish(args) => publish::main(args, interrupt).await,
        Command::Origin(args) => serve::origin(args, interrupt).await,
        Command::Floor(args) => serve::floor(args, interrupt).await,
        Command::Scenario(args) => scenario::main(args, interrupt).await,
        Command::FindCapacity(args) => capacity::main(args, interrupt).await,
        Command::Compare(args) => compare::main(args, interrupt).await,
        Command::Merge(args) => merge::main(args),
        Command::CheckMetrics(args) => metrics::main(args).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("weir-loadtest: {error:#}");
            ExitCode::from(2)
        }
    }
}
