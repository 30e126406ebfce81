//! The fleet's renditions that are followed.
//!
//! Before this: `handle.rs`. After this: `live/roster.rs` (who is followed) and `live/own.rs` (how).

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use weir_shared::id::{RenditionName, StreamKey};

use super::{
    follower::Follower,
    own::OwnRendition,
    roster::{NotFollowed, Roster, Watched},
    view::View,
};
use crate::{admit::Asker, cache::Store, metrics::Metrics, upstream::Upstream};

/// All followers of the fleet's renditions at this edge.
pub struct Followers {
    roster: Arc<Roster<(StreamKey, RenditionName), View>>,
    upstream: Arc<Upstream>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
}

impl Followers {
    pub fn new(
        idle: Duration,
        limit: usize,
        upstream: Arc<Upstream>,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            roster: Roster::new(idle, limit, metrics.clone(), stop),
            upstream,
            store,
            metrics,
        })
    }

    /// What is known of a rendition; starts to follow it if nobody does, on `asker`'s word that it exists.
    pub fn watch(&self, key: &StreamKey, name: &RenditionName, asker: Asker<'_>) -> Result<Watched<View>, NotFollowed> {
        self.roster.watch(&(key.clone(), name.clone()), asker, |state| {
            let follower = Follower {
                source: OwnRendition {
                    directory: format!("/app/{key}/d/"),
                    file: format!("{name}.m3u8"),
                    store: self.store.clone(),
                },
                upstream: self.upstream.clone(),
                store: self.store.clone(),
                metrics: self.metrics.clone(),
                state,
                first: None,
            };
            follower.run()
        })
    }

    /// What is known of a rendition that is followed already, as it changes.
    pub fn watched(&self, key: &StreamKey, name: &RenditionName) -> Option<Watched<View>> {
        self.roster.peek(&(key.clone(), name.clone()))
    }

    /// The newest view of a rendition that is followed already.
    pub fn peek(&self, key: &StreamKey, name: &RenditionName) -> Option<Arc<View>> {
        self.roster.view(&(key.clone(), name.clone()))
    }
}
