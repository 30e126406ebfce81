//! `merge`: results of several processes or machines as one.

use std::{fs, path::PathBuf};

use anyhow::Context as _;

use super::output::Output;
use crate::report::Run;

/// Largest result file, in bytes.
const FILE_LIMIT: u64 = 256 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files written with --json by processes that ran at the same time.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn main(args: Args) -> anyhow::Result<bool> {
    let read = |path: &PathBuf| {
        let name = path.display().to_string();
        let length = fs::metadata(path).with_context(|| name.clone())?.len();
        anyhow::ensure!(length <= FILE_LIMIT, "{name}: larger than any result");
        let text = fs::read_to_string(path).with_context(|| name.clone())?;
        Run::from_json_lines(&text).with_context(|| format!("{name}: not a result written with --json"))
    };
    let runs = args.files.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    let merged = Run::merge(&runs).context("nothing to merge")?;
    println!("{}\n{}", merged.name, merged.table());
    let broken = merged.total.counts.violations;
    args.output.write("Load test, merged", &[merged])?;
    Ok(broken == 0)
}
