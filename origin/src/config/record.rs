//! `record:` of the configuration: where recordings go and how they are made.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use weir_shared::config::{ByteSize, HumanDuration, Secret};

use crate::record::recording::Settings;

/// Recordings. Every key has a default.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Record {
    /// A folder, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`; `memory://` forgets
    /// everything with the process.
    pub store: String,
    /// Options of the store by the names that the `object_store` crate documents.
    pub options: BTreeMap<String, Secret>,
    /// Folder on a local disk for what the store does not have yet.
    pub journal: PathBuf,
    /// Every broadcast is recorded, whatever its stream's `vodEnabled` says.
    pub every_broadcast: bool,
    /// How long a recording whose stream was cut off by a restart waits for it.
    pub wait: HumanDuration,
    /// A recording that has become this long is continued in a new one, without a gap.
    pub split_after: HumanDuration,
    /// Most media that may wait in the journal, of all recordings together.
    pub backlog: ByteSize,
    /// Objects stored at the same time.
    pub parallel: usize,
    /// Memory for what viewers of recordings read.
    pub memory: ByteSize,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            store: "recordings".to_owned(),
            options: BTreeMap::new(),
            journal: PathBuf::from("recordings-journal"),
            every_broadcast: false,
            wait: HumanDuration(Duration::from_secs(10)),
            split_after: HumanDuration(Duration::from_secs(4 * 3600)),
            backlog: ByteSize(8 << 30),
            parallel: 16,
            memory: ByteSize(64 << 20),
        }
    }
}

impl Record {
    pub fn settings(&self) -> Settings {
        Settings {
            journal: self.journal.clone(),
            wait: self.wait.0,
            split_after: self.split_after.0,
            backlog_bytes: self.backlog.0,
            every_broadcast: self.every_broadcast,
        }
    }

    pub(super) fn validate(&self, expect: &mut impl FnMut(bool, &str, &str)) {
        expect(
            !self.store.is_empty()
                && self.store.split_once("://").is_none_or(|(scheme, rest)| match scheme {
                    "s3" | "gs" | "az" | "file" => !rest.is_empty(),
                    scheme => scheme == "memory",
                }),
            "record.store",
            "a folder, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or memory://",
        );
        expect(!self.journal.as_os_str().is_empty(), "record.journal", "a folder");
        expect(self.wait.0 <= Duration::from_secs(300), "record.wait", "at most 5min");
        expect(
            (Duration::from_secs(60)..=Duration::from_secs(24 * 3600)).contains(&self.split_after.0),
            "record.split_after",
            "1min to 24h",
        );
        expect((1..=1024).contains(&self.parallel), "record.parallel", "1 to 1024");
    }
}
