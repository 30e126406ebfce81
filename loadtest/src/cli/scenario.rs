//! `scenario`: phases and limits from a file; see `config/loadtest.yaml`.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::output::Output;
use crate::scenario;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// YAML; config/loadtest.yaml explains every key.
    file: PathBuf,
    /// Only check the file.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn main(args: Args, interrupt: CancellationToken) -> anyhow::Result<bool> {
    let scenario: scenario::Scenario = weir_shared::config::load(&args.file)?;
    if args.check {
        println!("{}: valid", args.file.display());
        return Ok(true);
    }
    let played = scenario::play(&scenario, &interrupt).await?;
    let mut passed = true;
    let mut runs = Vec::new();
    for phase in played {
        println!("{}\n{}", phase.run.name, phase.run.table());
        for doubt in &phase.verdict.doubts {
            println!("  note: {doubt}");
        }
        for failed in &phase.verdict.failed {
            println!("  FAILED: {failed}");
        }
        passed &= phase.verdict.failed.is_empty();
        runs.push(phase.run);
    }
    args.output.write("Scenario", &runs)?;
    println!("{}", if passed { "passed" } else { "FAILED" });
    Ok(passed)
}
