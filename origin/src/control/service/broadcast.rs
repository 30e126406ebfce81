//! News of the node: who is publishing here, under which lease, and what became of broadcasts that a crash cut off.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weir_shared::id::{StreamId, StreamKey};

use super::{Consequences, Control, Refused};
use crate::{
    control::{
        lifecycle::{Event, Slot, Status, Timers},
        model::Stream,
        node::{Happening, News, StreamPolicy},
        store::{Claim, Lease, Millis, StoreError, now},
    },
    ingest::redacted,
};

/// How long a lease holds without being renewed: an origin that died is replaced after this.
const LEASE: Duration = Duration::from_secs(10);
/// How often leases are renewed and timeouts looked at.
const BEAT: Duration = Duration::from_millis(500);
/// How often what is out of date is forgotten.
const TIDY: Duration = Duration::from_secs(3600);
/// Leases are renewed when less than this is left of them.
const RENEW_BELOW: Duration = Duration::from_secs(5);
/// Streams read at once when the node starts.
const BATCH: u32 = 500;

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

impl Control {
    /// Takes the publish of a stream for this node. To be asked before a publisher is let in; `TakeOver` once its
    /// credentials were checked.
    pub async fn claim(&self, key: &StreamKey, claim: Claim) -> Result<Lease, StoreError> {
        let lease = self
            .store
            .take_lease(key, &self.name, claim, now(), millis(LEASE))
            .await?;
        self.owned.insert(key.clone(), lease.clone());
        Ok(lease)
    }

    /// Writes down what happened on this node. Streams that the store does not know (`any_key`) are nobody's business.
    /// [`StoreError::NotOwner`]: another origin has taken the stream over; ours is cut.
    pub async fn hear(&self, news: &News) -> Result<(), Refused> {
        if self.store.stream_by_key(&news.key).await?.is_none() {
            return Ok(());
        }
        let held = self.owned.get(&news.key).map(|lease| lease.clone());
        let lease = match (held, news.what) {
            (Some(lease), _) => lease,
            (None, Happening::Connected(_)) => self.claim(&news.key, Claim::TakeOver).await?,
            // It was never ours, or is ours no more.
            (None, Happening::Left(_) | Happening::Ended) => return Ok(()),
        };
        match self.happen(&lease, news.what.into()).await {
            Err(Refused::Store(StoreError::NotOwner)) => {
                self.owned.remove(&news.key);
                self.node.kick(&news.key);
                Err(StoreError::NotOwner.into())
            }
            // Let in here while the API was switching it off.
            Err(Refused::IllegalMove(refused)) => {
                self.node.kick(&news.key);
                Err(refused.into())
            }
            other => other.map(drop),
        }
    }

    /// One step of a stream that this node owns.
    async fn happen(&self, lease: &Lease, event: Event) -> Result<Option<Stream>, Refused> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut tx = self.store.begin().await?;
            let Some(before) = tx.stream_by_key(&lease.key).await? else {
                return Ok(None);
            };
            let limits = tx.limits(&before.project).await?.ok_or(Refused::NoProject)?;
            let at = now();
            // Whether media still arrives is the node's to watch: it says `Ended`. Here only the grace time runs.
            let timers = Timers {
                idle: Millis::MAX,
                ..limits.timers()
            };
            let step = before.state.step(event, at, timers)?;
            let mut stream = before.clone();
            let consequences = Consequences::of(step, &mut stream);
            if stream != before {
                match tx.update_owned_stream(lease, &mut stream, at).await {
                    Err(StoreError::Conflict | StoreError::Busy) if attempt < super::ATTEMPTS => continue,
                    other => other?,
                }
                for notice in &consequences.notices {
                    self.outbox.record(&mut tx, *notice, &stream, at).await?;
                }
                tx.commit().await?;
                self.node.apply(StreamPolicy::of(&stream, &limits));
            } else {
                drop(tx);
            }
            self.act(&stream, &consequences.actions);
            if stream.status() != Status::Live && self.owned.remove(&lease.key).is_some() {
                // Another origin need not wait for the end of a lease that nobody uses.
                self.store.release_lease(lease).await?;
            }
            return Ok(Some(stream));
        }
    }

    /// Tells the node all it has to know, and picks up broadcasts that were live when this node died: their encoders
    /// have the grace time to come back.
    pub async fn recover(&self) -> Result<(), Refused> {
        let mut after: Option<StreamId> = None;
        let mut limits = BTreeMap::new();
        loop {
            let batch = self.store.streams_after(after.as_ref(), BATCH).await?;
            let Some(last) = batch.last() else { return Ok(()) };
            after = Some(last.id.clone());
            for stream in batch {
                if !limits.contains_key(&stream.project) {
                    limits.insert(stream.project.clone(), self.limits(&stream.project).await?);
                }
                if let Some(limits) = limits.get(&stream.project) {
                    self.node.apply(StreamPolicy::of(&stream, limits));
                }
                if stream.status() == Status::Live {
                    self.pick_up(&stream.key).await?;
                }
            }
        }
    }

    async fn pick_up(&self, key: &StreamKey) -> Result<(), Refused> {
        let lease = match self.claim(key, Claim::Free).await {
            Ok(lease) => lease,
            // It lives on another origin.
            Err(StoreError::NotOwner) => return Ok(()),
            Err(other) => return Err(other.into()),
        };
        for slot in [Slot::Primary, Slot::Backup] {
            self.happen(&lease, Event::Left(slot)).await?;
        }
        Ok(())
    }

    /// Hears news, renews leases and lets time go by, until told to stop.
    pub async fn run(self: Arc<Self>, mut news: mpsc::Receiver<News>, stop: CancellationToken) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tidy = tokio::time::interval(TIDY);
        let mut renewed: BTreeMap<StreamKey, Millis> = BTreeMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                told = news.recv() => match told {
                    Some(told) => {
                        if let Err(error) = self.hear(&told).await {
                            tracing::warn!(key = %redacted(&told.key), %error, "a change of a live stream was not stored");
                        }
                    }
                    None => return,
                },
                _ = beat.tick() => self.beat(&mut renewed).await,
                _ = tidy.tick() => {
                    if let Err(error) = self.store.forget_idempotency_keys(now()).await {
                        tracing::warn!(%error, "old idempotency keys were not removed");
                    }
                }
            }
        }
    }

    async fn beat(&self, renewed: &mut BTreeMap<StreamKey, Millis>) {
        let owned: Vec<Lease> = self.owned.iter().map(|lease| lease.value().clone()).collect();
        renewed.retain(|key, _| self.owned.contains_key(key));
        for lease in owned {
            let at = now();
            let due = renewed
                .get(&lease.key)
                .is_none_or(|until| until - at < millis(RENEW_BELOW));
            if due {
                match self.store.renew_lease(&lease, at, millis(LEASE)).await {
                    Ok(()) => {
                        renewed.insert(lease.key.clone(), at.saturating_add(millis(LEASE)));
                    }
                    Err(StoreError::NotOwner) => {
                        tracing::warn!(key = %redacted(&lease.key), "another origin has taken this stream over");
                        self.owned.remove(&lease.key);
                        self.node.kick(&lease.key);
                        continue;
                    }
                    // The stream goes on: the control plane is not on the media path.
                    Err(error) => tracing::warn!(%error, "a lease was not renewed"),
                }
            }
            if let Err(error) = self.happen(&lease, Event::Tick).await {
                tracing::warn!(key = %redacted(&lease.key), %error, "a stream's timeout was not looked at");
            }
        }
    }
}
