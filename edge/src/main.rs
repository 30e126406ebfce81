//! `weir-edge`: one edge, from a configuration file.

use std::path::PathBuf;

use clap::{Parser, error::ErrorKind};
use tokio::signal::unix::{SignalKind, signal};
use weir_edge::{
    Edge,
    config::Config,
    reload::{self, Watched},
};
use weir_shared::{config, log};

/// Each answer to each viewer allocates a little, all viewers at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Weir's edge: holds and coalesces viewers' requests, so that an origin sees one per object.
#[derive(Debug, Parser)]
#[command(name = "weir-edge", version)]
struct Cli {
    /// Configuration file; config/edge.yaml explains every key.
    #[arg(long, value_name = "FILE", env = "WEIR_EDGE_CONFIG")]
    config: PathBuf,
    /// Only check the file: says file, line, key and what was expected.
    #[arg(long)]
    check: bool,
    /// Log one JSON object per line.
    #[arg(long)]
    log_json: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let config: Config = config::load(&cli.config)
        .unwrap_or_else(|error| clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n")).exit());
    if cli.check {
        println!("{}: valid", cli.config.display());
        return Ok(());
    }
    log::init(cli.log_json);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let edge = Edge::start(config).await?;
    let mut file = Watched::new(vec![cli.config.clone()]);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {}
            () = tokio::time::sleep(reload::INTERVAL) => if !file.have_changed() { continue },
        }
        if let Err(error) = edge.reload_from(&cli.config) {
            tracing::error!(error = format!("{error:#}"), "the old configuration stays");
        }
    }
    edge.shutdown().await;
    Ok(())
}
