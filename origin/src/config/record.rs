//! `record:` of the configuration: where recordings go and how they are made.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use weir_shared::config::{ByteSize, HumanDuration, Secret};

use crate::record::{recording::Settings, thumbnails};

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
    pub thumbnails: Thumbnails,
}

/// Small pictures of recordings, for the bar that viewers scrub with. Made by ffmpeg; where it is not, there are none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thumbnails {
    pub enabled: bool,
    /// From one picture to the next.
    pub every: HumanDuration,
    /// Longest side, in pixels.
    pub size: u32,
    /// Longest time for one picture.
    pub timeout: HumanDuration,
    /// Processes at once, of all recordings together.
    pub processes: usize,
    /// The program: a name that is looked for in PATH, or an absolute path.
    pub ffmpeg: String,
}

impl Default for Thumbnails {
    fn default() -> Self {
        Self {
            enabled: true,
            every: HumanDuration(Duration::from_secs(10)),
            size: 240,
            timeout: HumanDuration(Duration::from_secs(30)),
            processes: 1,
            ffmpeg: "ffmpeg".to_owned(),
        }
    }
}

impl Thumbnails {
    /// `None`: recordings have none.
    pub fn settings(&self) -> Option<thumbnails::Settings> {
        self.enabled.then(|| thumbnails::Settings {
            ffmpeg: self.ffmpeg.clone(),
            every: self.every.0,
            size: self.size,
            timeout: self.timeout.0,
            processes: self.processes,
        })
    }

    fn validate(&self, expect: &mut impl FnMut(bool, &str, &str)) {
        let seconds = Duration::from_secs;
        let every = (seconds(1)..=seconds(600)).contains(&self.every.0);
        expect(every, "record.thumbnails.every", "1s to 10min");
        let size = (32..=1920).contains(&self.size);
        expect(size, "record.thumbnails.size", "32 to 1920 pixels");
        let timeout = (Duration::from_millis(100)..=seconds(60)).contains(&self.timeout.0);
        expect(timeout, "record.thumbnails.timeout", "100ms to 1min");
        let processes = (1..=64).contains(&self.processes);
        expect(processes, "record.thumbnails.processes", "1 to 64");
        let program = !self.ffmpeg.is_empty();
        expect(program, "record.thumbnails.ffmpeg", "a name or an absolute path");
    }
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
            thumbnails: Thumbnails::default(),
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
        self.thumbnails.validate(expect);
    }
}
