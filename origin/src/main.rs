//! `weir-origin`: one origin, from a configuration file.

use std::path::PathBuf;

use clap::{Parser, error::ErrorKind};
use tokio::signal::unix::{SignalKind, signal};
use weir_origin::{app::Origin, config::Config};
use weir_shared::{config, log};

/// Weir's origin: takes pushes, packages low-latency HLS, serves edges.
#[derive(Debug, Parser)]
#[command(name = "weir-origin", version)]
struct Cli {
    /// Configuration file; config/origin.yaml explains every key.
    #[arg(long, value_name = "FILE", env = "WEIR_ORIGIN_CONFIG")]
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
    let origin = Origin::start(config).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    origin.shutdown().await;
    Ok(())
}
