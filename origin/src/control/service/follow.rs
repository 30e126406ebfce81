//! What other origins of the fleet write about streams: this node lets in, cuts and shows accordingly, without a restart.
//!
//! Before this: `fleet.rs` by way of [`Store::changes`](crate::control::store::Store::changes). After this: `node.rs`.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
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
        store::{Changed, Lease, StoreError},
    },
    ingest::redacted,
};

/// Streams read at once.
const BATCH: usize = 500;

/// What has changed since the last look, as far as this node has not done it itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    keys: BTreeSet<StreamKey>,
    /// Projects whose streams may have more, or less, than before.
    projects: BTreeSet<ProjectId>,
    /// Something was missed: it can't be told what.
    any: bool,
}

impl News {
    fn add(&mut self, told: Result<Changed, TryRecvError>) {
        match told {
            Ok(Changed::Elsewhere { key }) => self.keys.extend([key]),
            Ok(Changed::Limits { project, .. }) => self.projects.extend([project]),
            Ok(Changed::Missed) | Err(TryRecvError::Lagged(_)) => self.any = true,
            Ok(Changed::Here { .. }) | Err(TryRecvError::Empty | TryRecvError::Closed) => {}
        }
    }
}

impl Control {
    /// Does what other origins wrote, and takes new limits to the streams they concern, until `stop`.
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
            let mut news = News::default();
            news.add(first);
            loop {
                match changes.try_recv() {
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                    told => news.add(told),
                }
            }
            let done = match news.any {
                true => self.take_in_all().await.map(drop),
                false => self.take_in_these(news).await,
            };
            if let Err(error) = done {
                tracing::warn!(%error, "what other origins changed could not be read");
            }
        }
    }

    /// Tells the node all it has to know. Gives the streams that are live, here or elsewhere.
    pub(super) async fn take_in_all(&self) -> Result<BTreeSet<StreamKey>, Refused> {
        let read = |after: Option<StreamId>| {
            let store = self.store.clone();
            tokio::spawn(async move { store.streams_after(after.as_ref(), BATCH as u32).await })
        };
        let mut live = BTreeSet::new();
        let mut next = read(None);
        loop {
            let batch = next.await.map_err(|_| StoreError::Busy)??;
            let Some(last) = batch.last() else { return Ok(live) };
            // Read while the node takes in the ones before.
            next = read(Some(last.id.clone()));
            self.take_in_streams(&batch).await?;
            live.extend(batch.into_iter().filter(|s| s.status() == Status::Live).map(|s| s.key));
        }
    }

    async fn take_in_these(&self, news: News) -> Result<(), Refused> {
        self.take_in(&news.keys.into_iter().collect::<Vec<_>>()).await?;
        for project in &news.projects {
            self.take_in_project(project).await?;
        }
        Ok(())
    }

    /// All streams of a project. What is made meanwhile has the new limits from the start.
    async fn take_in_project(&self, project: &ProjectId) -> Result<(), Refused> {
        // Known before the first stream is read: whoever writes one from now on applies them.
        self.limits(project).await?;
        let mut after: Option<Stream> = None;
        loop {
            let read = self.store.project_streams_after(project, after.as_ref(), BATCH as u32);
            let mut batch = read.await?;
            self.take_in_streams(&batch).await?;
            let Some(last) = batch.pop() else { return Ok(()) };
            after = Some(last);
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
            let limits = match known.entry(&stream.project) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(self.limits(&stream.project).await?),
            };
            self.apply(stream, limits);
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
        let (key, project): (StreamKey, ProjectId) = ("show".parse().unwrap(), "acme".parse().unwrap());
        let here = Ok(Changed::Here {
            key: key.clone(),
            version: Some(1),
        });
        let mut news = News::default();
        news.add(here);
        assert_eq!(news, News::default(), "the node did that itself");
        news.add(Ok(Changed::Elsewhere { key: key.clone() }));
        let limits = Changed::Limits {
            project: project.clone(),
            version: 1,
        };
        news.add(Ok(limits));
        assert_eq!((&news.keys, &news.projects), (&[key].into(), &[project].into()));
        assert!(!news.any);
        for missed in [Ok(Changed::Missed), Err(TryRecvError::Lagged(3))] {
            let mut news = News::default();
            news.add(missed);
            assert!(news.any);
        }
    }
}
