//! `weir`: origin and edge in one process with embedded defaults, and the operator's command line.

mod check;
mod client;
mod demo;
mod keys;
mod sign;
mod streams;
mod table;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Self-hosted low-latency live streaming.
///
/// Without a subcommand this is `weir up`: an origin and an edge on this machine, ready for a push.
#[derive(Debug, Parser)]
#[command(name = "weir", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    up: up::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an origin and an edge in this process.
    #[command(after_help = up::EXAMPLES)]
    Up(up::Args),
    /// Streams, over the API of any origin.
    #[command(subcommand, after_help = streams::EXAMPLES)]
    Streams(streams::Streams),
    /// API keys.
    #[command(subcommand, after_help = keys::EXAMPLES)]
    Keys(keys::Keys),
    /// Make a signed playback address, offline.
    #[command(after_help = sign::EXAMPLES)]
    Sign(sign::Sign),
    /// Check configuration files.
    #[command(after_help = check::EXAMPLES)]
    Check(check::Check),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            None => up::run(cli.up).await,
            Some(Command::Up(args)) => up::run(args).await,
            Some(Command::Streams(streams)) => streams.run().await,
            Some(Command::Keys(keys)) => keys.run().await,
            Some(Command::Sign(sign)) => sign.run(),
            Some(Command::Check(check)) => check.run().await,
        }
    })
}
