//! What the other origins of the fleet do to streams and plans, seen by looking at the database that they share, and told
//! to this process's followers as if it had happened here.
//!
//! Before this: `store/removed.rs` (what changed lately). After this: `service/follow.rs` (this node's policies and leases),
//! `directory.rs` (edges). Nobody else writes to an SQLite database: there is nothing to look for there.

use std::{collections::HashMap, time::Duration};

use tokio::sync::broadcast::{Receiver, error::TryRecvError};
use tokio_util::sync::CancellationToken;
use weir_shared::id::{ProjectId, StreamKey};

use super::store::{Changed, Engine, Millis, Store, StoreError, now};

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How far back is looked: other machines' clocks may differ, and units of work end later than they begin.
const LOOK_BACK_MS: Millis = 10_000;
/// Changes read at one look, of streams and of projects. More means that some were missed.
const LOOK_LIMIT: u32 = 10_000;

/// Looks, and tells, until `stop`.
pub async fn watch(store: Store, stop: CancellationToken) {
    if store.engine() == Engine::Sqlite {
        return;
    }
    let mut watcher = Watcher::new(&store);
    let mut beat = tokio::time::interval(LOOK_EVERY);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = beat.tick() => {}
        }
        if let Err(error) = watcher.look(&store, now()).await {
            tracing::warn!(%error, "changes of other origins can't be looked for");
        }
    }
}

/// What was seen lately, here and elsewhere.
struct Watcher {
    seen: HashMap<StreamKey, (i64, Millis)>,
    /// The same of what projects may have.
    limits: HashMap<ProjectId, (i64, Millis)>,
    own: Receiver<Changed>,
}

impl Watcher {
    fn new(store: &Store) -> Self {
        Self {
            seen: HashMap::new(),
            limits: HashMap::new(),
            own: store.changes(),
        }
    }

    async fn look(&mut self, store: &Store, now: Millis) -> Result<(), StoreError> {
        let since = now.saturating_sub(LOOK_BACK_MS);
        let changed = store.changed_since(since, LOOK_LIMIT).await?;
        let limits = store.limits_changed_since(since, LOOK_LIMIT).await?;
        let whole = changed.len().max(limits.len()) < LOOK_LIMIT as usize;
        // After the look: what it found of our own was told before it was found, or is told twice.
        self.hear_own(now);
        self.seen.retain(|_, (_, at)| *at >= since);
        self.limits.retain(|_, (_, at)| *at >= since);
        for (key, version, at) in changed {
            let known = self.seen.insert(key.clone(), (version, at));
            if known.is_none_or(|(known, _)| known != version) {
                store.tell(Changed::Elsewhere { key });
            }
        }
        for (project, version) in limits {
            let known = self.limits.insert(project.clone(), (version, now));
            if known.is_none_or(|(known, _)| known != version) {
                store.tell(Changed::Limits { project, version });
            }
        }
        if !whole {
            store.tell(Changed::Missed);
        }
        Ok(())
    }

    fn hear_own(&mut self, at: Millis) {
        loop {
            match self.own.try_recv() {
                Ok(Changed::Here {
                    key,
                    version: Some(version),
                }) => {
                    self.seen.insert(key, (version, at));
                }
                Ok(Changed::Limits { project, version }) => {
                    self.limits.insert(project, (version, at));
                }
                Ok(_) | Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}
