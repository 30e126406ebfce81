//! What other origins of the fleet write about streams: this node lets in, cuts and shows accordingly, without a restart.
//!
//! Before this: `fleet.rs` by way of [`Store::changes`](crate::control::store::Store::changes). After this: `node.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;
use weir_shared::id::{ProjectId, StreamId, StreamKey};

use super::{Control, Refused, owned::Owned};
use crate::{
    control::{
        lifecycle::Status,
        model::{Limits, Stream},
        node::StreamPolicy,
        store::{Changed, Lease},
    },
    ingest::redacted,
};

/// Streams read at once.
const BATCH: usize = 500;

/// What has changed elsewhere since the last look.
#[derive(Debug, PartialEq, Eq)]
enum News {
    These(BTreeSet<StreamKey>),
    /// It can't be told which.
    Any,
}

impl News {
    fn add(self, told: Result<Changed, TryRecvError>) -> Self {
        match (self, told) {
            (Self::These(mut keys), Ok(Changed::Elsewhere { key })) => {
                keys.insert(key);
                Self::These(keys)
            }
            (_, Ok(Changed::Missed) | Err(TryRecvError::Lagged(_))) => Self::Any,
            (known, _) => known,
        }
    }
}

impl Control {
    /// Does what other origins wrote, until `stop`.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut changes = self.store.changes();
        loop {
            let first = tokio::select! {
                () = stop.cancelled() => return,
                told = changes.recv() => match told {
                    Ok(told) => Ok(told),
                    Err(RecvError::Lagged(missed)) => Err(TryRecvError::Lagged(missed)),
                    Err(RecvError::Closed) => return,
                },
            };
            let mut news = News::These(BTreeSet::new()).add(first);
            loop {
                match changes.try_recv() {
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                    told => news = news.add(told),
                }
            }
            let done = match news {
                News::These(keys) => self.take_in(&keys.into_iter().collect::<Vec<_>>()).await,
                News::Any => self.take_in_all().await,
            };
            if let Err(error) = done {
                tracing::warn!(%error, "what other origins changed could not be read");
            }
        }
    }

    /// Tells the node all it has to know.
    async fn take_in_all(&self) -> Result<(), Refused> {
        let mut after: Option<StreamId> = None;
        loop {
            let batch = self.store.streams_after(after.as_ref(), BATCH as u32).await?;
            let Some(last) = batch.last() else { return Ok(()) };
            after = Some(last.id.clone());
            self.take_in_streams(&batch).await?;
        }
    }

    async fn take_in(&self, keys: &[StreamKey]) -> Result<(), Refused> {
        for keys in keys.chunks(BATCH) {
            let streams = self.store.streams_by_keys(keys).await?;
            for key in keys {
                if !streams.iter().any(|stream| stream.key == *key) {
                    self.forget(key);
                }
            }
            self.take_in_streams(&streams).await?;
        }
        Ok(())
    }

    pub(super) async fn take_in_streams(&self, streams: &[Stream]) -> Result<(), Refused> {
        let mut known: BTreeMap<&ProjectId, Limits> = BTreeMap::new();
        for stream in streams {
            let limits = match known.get(&stream.project) {
                Some(limits) => limits.clone(),
                None => self.limits(&stream.project).await?,
            };
            self.node.apply(StreamPolicy::of(stream, &limits));
            known.insert(&stream.project, limits);
            self.agree(stream).await?;
        }
        Ok(())
    }

    /// A stream that is live here, and that another origin wrote: what the owner has to do is done here.
    async fn agree(&self, stream: &Stream) -> Result<(), Refused> {
        let Some(owned) = self.owned.get(&stream.key).map(|owned| Owned::clone(&owned)) else {
            return Ok(());
        };
        for lease in self.store.lost_leases(&owned.leases()).await? {
            self.lose(&lease);
        }
        // Our own writing, or one before it.
        if stream.version <= owned.version {
            return Ok(());
        }
        if stream.status() != Status::Live {
            self.node.kick(&stream.key);
            self.node.end(&stream.key);
            if let Some((_, owned)) = self.owned.remove(&stream.key) {
                self.give_back(&owned.leases()).await;
            }
            return Ok(());
        }
        match (owned.broadcasting, stream.state.broadcasting) {
            (true, false) => self.node.hide(&stream.key),
            (false, true) => self.node.show(&stream.key),
            _ => {}
        }
        if owned.dvr_cleared != stream.dvr_cleared {
            self.node.clear_dvr(&stream.key);
        }
        if let Some(mut owned) = self.owned.get_mut(&stream.key) {
            owned.follow(stream);
        }
        Ok(())
    }

    /// Another origin publishes the slot now: ours is cut.
    pub(super) fn lose(&self, lease: &Lease) {
        tracing::warn!(
            key = %redacted(&lease.key),
            slot = lease.slot.as_str(),
            "another origin has taken this publish over"
        );
        self.metrics.leases_lost.inc();
        if let Some(mut owned) = self.owned.get_mut(&lease.key) {
            owned.lost(lease);
        }
        self.owned.remove_if(&lease.key, |_, owned| owned.held().is_empty());
        self.node.hand_over(&lease.key, lease.slot);
    }

    /// The stream is no more.
    fn forget(&self, key: &StreamKey) {
        self.owned.remove(key);
        self.node.end(key);
        self.node.remove(key);
    }

    /// Another origin need not wait for the end of leases that nobody uses.
    pub(super) async fn give_back(&self, leases: &[Lease]) {
        for lease in leases {
            if let Err(error) = self.store.release_lease(lease).await {
                tracing::debug!(%error, "a lease was not given back; it runs out by itself");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_more_than_what_was_heard() {
        let key: StreamKey = "show".parse().unwrap();
        let elsewhere = || Ok(Changed::Elsewhere { key: key.clone() });
        let here = Ok(Changed::Here {
            key: key.clone(),
            version: Some(1),
        });
        let none = || News::These(BTreeSet::new());
        assert_eq!(none().add(here), none(), "the node did that itself");
        assert_eq!(none().add(elsewhere()), News::These(BTreeSet::from([key.clone()])));
        assert_eq!(none().add(Ok(Changed::Missed)).add(elsewhere()), News::Any);
        assert_eq!(none().add(Err(TryRecvError::Lagged(3))), News::Any);
    }
}
