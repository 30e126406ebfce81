//! Where reports go.

use std::{fs, path::PathBuf};

use anyhow::Context as _;

use crate::report::{Run, html};

#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Output {
    /// Write JSON lines: one per second, the last one holds everything (input of `merge`).
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write one HTML file with plots.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl Output {
    pub(super) fn write(&self, title: &str, runs: &[Run]) -> anyhow::Result<()> {
        if let Some(path) = &self.json {
            let lines: Result<Vec<_>, _> = runs.iter().map(Run::json_lines).collect();
            fs::write(path, lines?.concat()).with_context(|| path.display().to_string())?;
        }
        if let Some(path) = &self.html {
            fs::write(path, html::page(title, runs)).with_context(|| path.display().to_string())?;
            println!("report: {}", path.display());
        }
        Ok(())
    }
}
