//! `dvr:` of the configuration: how much of live streams' past is in memory, and where the rest is.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use weir_shared::config::{ByteSize, HumanDuration, Secret};

use crate::live::memory;

/// Target durations of media that stay in memory whatever is configured: players near the live end read it, and a playlist
/// must list half of it.
const HOT_MIN_TARGETS: u32 = 6;

/// The past of live streams. Every key has a default.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dvr {
    /// The newest media of each stream that stays in memory. What is older goes to `store`.
    pub hot: HumanDuration,
    /// A folder, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`. Empty: all stays in memory.
    pub store: String,
    /// Options of the store by the names that the `object_store` crate documents.
    pub options: BTreeMap<String, Secret>,
    /// Memory for media of one stream.
    pub memory_per_stream: ByteSize,
    /// Memory for media of all streams.
    pub memory: ByteSize,
}

impl Default for Dvr {
    fn default() -> Self {
        Self {
            hot: HumanDuration(Duration::from_secs(600)),
            store: "dvr".to_owned(),
            options: BTreeMap::new(),
            memory_per_stream: ByteSize(1 << 30),
            memory: ByteSize(4 << 30),
        }
    }
}

impl Dvr {
    pub(super) fn settings(&self, target_duration: Duration) -> memory::Settings {
        memory::Settings {
            hot: self.hot.0,
            hot_min: target_duration * HOT_MIN_TARGETS,
            bytes_max: self.memory_per_stream.0,
        }
    }

    pub(super) fn validate(&self, target_duration: Duration, expect: &mut impl FnMut(bool, &str, &str)) {
        expect(
            self.hot.0 >= target_duration * HOT_MIN_TARGETS,
            "dvr.hot",
            "at least six target durations",
        );
        expect(
            self.store.split_once("://").is_none_or(|(scheme, rest)| match scheme {
                "s3" | "gs" | "az" | "file" => !rest.is_empty(),
                _ => false,
            }),
            "dvr.store",
            "a folder, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, or nothing",
        );
        expect(
            self.memory_per_stream.0 >= 1 << 20,
            "dvr.memory_per_stream",
            "at least 1MiB",
        );
        expect(
            self.memory.0 >= self.memory_per_stream.0,
            "dvr.memory",
            "at least dvr.memory_per_stream",
        );
    }
}
