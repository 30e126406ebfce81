//! The media side, as the control plane sees it.

use std::sync::{Arc, atomic::Ordering};

use dashmap::DashSet;
use weir_shared::id::StreamKey;

use crate::{
    control::node::{Health, Node, StreamPolicy},
    live::registry::Registry,
};

/// Keys that may be pushed, and the registry of what is live.
pub(super) struct MediaNode {
    registry: Arc<Registry>,
    known: Arc<DashSet<StreamKey>>,
}

impl MediaNode {
    pub(super) fn new(registry: Arc<Registry>, known: Arc<DashSet<StreamKey>>) -> Self {
        Self { registry, known }
    }
}

impl Node for MediaNode {
    fn apply(&self, policy: StreamPolicy) {
        if policy.accepts_publisher {
            self.known.insert(policy.key);
        } else {
            self.known.remove(&policy.key);
        }
    }

    fn remove(&self, key: &StreamKey) {
        self.known.remove(key);
    }

    fn kick(&self, _: &StreamKey) {}

    fn end(&self, _: &StreamKey) {}

    fn clear_dvr(&self, _: &StreamKey) {}

    fn health(&self, key: &StreamKey) -> Option<Health> {
        let live = self.registry.find(key).ok()?;
        let told = &live.health;
        let mut warnings = Vec::new();
        if told.key_frames_too_rare.load(Ordering::Relaxed) {
            warnings
                .push("key frames are further apart than the target duration; set the interval to 1–2 s".to_owned());
        }
        Some(Health {
            window_bytes: told.window_bytes.load(Ordering::Relaxed),
            frames_dropped: told.frames_dropped.load(Ordering::Relaxed),
            warnings,
            ..Health::default()
        })
    }
}
