//! The media side, as the control plane sees it.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use weir_shared::id::StreamKey;

use crate::{
    control::{
        model,
        node::{Health, Node, StreamPolicy},
    },
    ingest::catalog::{self, Catalog, Credential, Secrets, TokenHash},
    live::registry::Registry,
};

/// The catalog of who may push, and the registry of what is live.
pub(super) struct MediaNode {
    registry: Arc<Registry>,
    catalog: Arc<Catalog>,
    /// Streams of the configuration file: its credentials and ports hold, whatever the database made up for them.
    configured: HashMap<StreamKey, Arc<catalog::StreamPolicy>>,
}

impl MediaNode {
    pub(super) fn new(registry: Arc<Registry>, catalog: Arc<Catalog>) -> Self {
        let configured = catalog.list().into_iter().map(|p| (p.key.clone(), p)).collect();
        Self {
            registry,
            catalog,
            configured,
        }
    }

    /// What admission has to know of what the control plane says. Passwords and tokens are not in it, only what they can
    /// be checked with.
    fn admission_policy(&self, policy: StreamPolicy) -> catalog::StreamPolicy {
        let active = policy.accepts_publisher;
        if let Some(configured) = self.configured.get(&policy.key) {
            let mut same = catalog::StreamPolicy::clone(configured);
            same.active &= active;
            return same;
        }
        let secrets = |user: &str, password: &str, token: &str| Secrets {
            credential: Some(Credential::new(user, password, self.catalog.salts())),
            tokens: vec![TokenHash::of(token)],
        };
        let told = &policy.credentials;
        catalog::StreamPolicy {
            active,
            allow_key_only: false,
            primary: secrets(&told.username, &told.password, &told.token),
            backup: secrets(&told.username, &told.backup_password, &told.backup_token),
            on_rotate: match policy.on_rotate {
                model::OnRotate::Keep => catalog::OnRotate::Keep,
                model::OnRotate::Kick => catalog::OnRotate::Kick,
            },
            ..catalog::StreamPolicy::open(policy.key)
        }
    }
}

impl Node for MediaNode {
    fn apply(&self, policy: StreamPolicy) {
        if let Err(error) = self.catalog.put(self.admission_policy(policy)) {
            tracing::error!(%error, "a stream can't be pushed here");
        }
    }

    fn remove(&self, key: &StreamKey) {
        self.catalog.remove(key);
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
