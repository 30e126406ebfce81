//! `weir check`: is this configuration right, and do the things it names answer?

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use weir_origin::control::store::Store;
use weir_shared::config;

use crate::up;

pub(crate) const EXAMPLES: &str = "\
Examples:
  weir check config/weir.yaml
  weir check config/origin.yaml --kind origin --database";

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Configuration files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the files are for [default: from the name: origin.yaml, edge.yaml, else weir].
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Also open the database that a file names, and bring its schema up to date.
    #[arg(long)]
    database: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Weir,
    Origin,
    Edge,
}

impl Kind {
    fn of(file: &Path) -> Self {
        match file.file_stem().and_then(|name| name.to_str()) {
            Some("origin") => Self::Origin,
            Some("edge") => Self::Edge,
            _ => Self::Weir,
        }
    }
}

impl Check {
    /// Every file is looked at, whatever the others are like.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut wrong = 0;
        for file in &self.files {
            match self.file(file).await {
                Ok(()) => println!("{}: valid", file.display()),
                Err(error) => {
                    wrong += 1;
                    eprintln!("{error:#}");
                }
            }
        }
        anyhow::ensure!(wrong == 0, "{wrong} of {} files are not right", self.files.len());
        Ok(())
    }

    async fn file(&self, file: &Path) -> anyhow::Result<()> {
        let origin = match self.kind.unwrap_or_else(|| Kind::of(file)) {
            Kind::Edge => {
                config::load::<weir_edge::config::Config>(file)?;
                None
            }
            Kind::Origin => Some(config::load::<weir_origin::config::Config>(file)?),
            Kind::Weir => Some(config::load::<up::Config>(file)?.origin),
        };
        if let Some(origin) = origin.filter(|_| self.database) {
            let store = Store::open(&origin.database.url)
                .await
                .with_context(|| format!("{}: database.url", file.display()))?;
            store.close().await;
        }
        Ok(())
    }
}
