//! `weir`: origin and edge in one process, with embedded defaults.

mod up;

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
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let args = match cli.command {
        Some(Command::Up(args)) => args,
        None => cli.up,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(up::run(args))
}
