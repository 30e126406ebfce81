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
    ingest::{
        catalog::{self, Catalog, Credential, OwnPorts, Secrets, Takeover, TokenHash},
        redacted,
    },
    live::registry::Registry,
};

/// Who may push, and the registry of what is live.
pub(super) struct MediaNode {
    registry: Arc<Registry>,
    catalog: Arc<Catalog>,
    /// Streams of the configuration file keep the credentials and ports that stand there.
    from_file: HashMap<StreamKey, Arc<catalog::StreamPolicy>>,
}

impl MediaNode {
    /// `catalog` holds the streams of the configuration file, and nothing else yet.
    pub(super) fn new(registry: Arc<Registry>, catalog: Arc<Catalog>) -> Self {
        Self {
            registry,
            from_file: catalog
                .list()
                .into_iter()
                .map(|policy| (policy.key.clone(), policy))
                .collect(),
            catalog,
        }
    }

    /// What admission checks with: of passwords and tokens only digests.
    fn admission(&self, policy: StreamPolicy) -> catalog::StreamPolicy {
        if let Some(file) = self.from_file.get(&policy.key) {
            return catalog::StreamPolicy {
                active: file.active && policy.accepts_publisher,
                ..file.as_ref().clone()
            };
        }
        let held = &policy.credentials;
        let secrets = |password: &str, token: &str| Secrets {
            credential: Some(Credential::new(&held.username, password, self.catalog.salts())),
            tokens: vec![TokenHash::of(token)],
        };
        catalog::StreamPolicy {
            active: policy.accepts_publisher,
            // The key is part of every playback address: whoever watches knows it.
            allow_key_only: false,
            primary: secrets(&held.password, &held.token),
            backup: secrets(&held.backup_password, &held.backup_token),
            ports: OwnPorts::default(),
            on_rotate: match policy.on_rotate {
                model::OnRotate::Keep => catalog::OnRotate::Keep,
                model::OnRotate::Kick => catalog::OnRotate::Kick,
            },
            takeover: Takeover::default(),
            key: policy.key,
        }
    }
}

impl Node for MediaNode {
    /// An inactive stream's publishers are ended by the catalog, and so are those whose credentials were rotated away.
    fn apply(&self, policy: StreamPolicy) {
        let policy = self.admission(policy);
        let key = policy.key.clone();
        // A change of what viewers see is none for admission: running publishes are not disturbed.
        if self.catalog.get(&key).is_some_and(|known| *known == policy) {
            return;
        }
        if let Err(error) = self.catalog.put(policy) {
            tracing::warn!(key = %redacted(&key), %error, "this node can't take the stream");
        }
    }

    fn remove(&self, key: &StreamKey) {
        self.catalog.remove(key);
    }

    /// Nothing to do beyond [`Node::apply`].
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
