//! News of the node: who is publishing here, under which lease, and what became of broadcasts that a crash cut off.
//!
//! News are written in groups, one commit for all that waited: a thousand encoders that connect in the same second cost a
//! few commits and not a thousand.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weir_shared::id::{ProjectId, StreamId, StreamKey};

use super::{ATTEMPTS, Consequences, Control, Owned, Refused};
use crate::{
    control::{
        lifecycle::{Action, Event, Phase, Slot, Status, Timers},
        model::{Limits, Stream},
        node::{Happening, News, StreamPolicy},
        store::{Claim, Lease, Millis, StoreError, Tx, now},
    },
    ingest::redacted,
};

/// How long a lease holds without being renewed: an origin that died is replaced after this.
const LEASE: Duration = Duration::from_secs(10);
/// How often leases and grace times are looked at.
const BEAT: Duration = Duration::from_millis(250);
/// Leases are renewed when less than this is left of them.
const RENEW_BELOW: Duration = Duration::from_secs(5);
/// News and leases written in one unit of work.
const GROUP: usize = 256;
/// How often what is out of date is forgotten.
const TIDY: Duration = Duration::from_secs(3600);
/// Streams read at once when the node starts.
const BATCH: u32 = 500;

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// One thing that happened to a stream of this node.
#[derive(Debug, Clone)]
struct Item {
    key: StreamKey,
    event: Event,
    /// The lease it is written under. `None`: the one that a publisher brings, in this group.
    lease: Option<Lease>,
}

/// What has to follow once the unit of work is committed.
struct Written {
    stream: Stream,
    limits: Limits,
    lease: Lease,
    changed: bool,
    actions: Vec<Action>,
}

impl Control {
    /// Takes the publish of a stream for this node. To be asked before a publisher is let in; `TakeOver` once its
    /// credentials were checked.
    pub async fn claim(&self, key: &StreamKey, claim: Claim) -> Result<Lease, StoreError> {
        let at = now();
        let lease = self.store.take_lease(key, &self.name, claim, at, millis(LEASE)).await?;
        self.owned
            .insert(key.clone(), Owned::new(lease.clone(), at + millis(LEASE)));
        Ok(lease)
    }

    /// Writes down what happened on this node. Streams that the store does not know (`any_key`) are nobody's business.
    /// [`StoreError::NotOwner`]: another origin has taken the stream over; ours is cut.
    pub async fn hear(&self, news: &News) -> Result<(), Refused> {
        match self.hear_all(std::slice::from_ref(news)).await.pop() {
            Some((_, refused)) => Err(refused),
            None => Ok(()),
        }
    }

    /// The same for several, in their order. Gives back what was not written, and why.
    pub async fn hear_all(&self, news: &[News]) -> Vec<(StreamKey, Refused)> {
        let items = news
            .iter()
            .map(|news| Item {
                key: news.key.clone(),
                event: news.what.into(),
                lease: match news.what {
                    // A publisher brings its stream here, wherever it was before.
                    Happening::Connected(_) => None,
                    Happening::Left(_) | Happening::Ended => self.owned.get(&news.key).map(|o| o.lease.clone()),
                },
            })
            .collect();
        self.metrics.news.inc_by(news.len() as u64);
        self.write(items).await
    }

    /// Writes a group in one unit of work, then lets the node follow.
    async fn write(&self, items: Vec<Item>) -> Vec<(StreamKey, Refused)> {
        let mut attempt = 0;
        let results = loop {
            attempt += 1;
            match self.write_once(&items).await {
                Ok(results) => break results,
                Err(StoreError::Conflict | StoreError::Busy) if attempt < ATTEMPTS => {}
                Err(error) if items.len() > 1 => {
                    tracing::warn!(%error, "a group of changes was not stored, trying one by one");
                    let mut refused = Vec::new();
                    for item in items {
                        refused.extend(Box::pin(self.write(vec![item])).await);
                    }
                    return refused;
                }
                Err(error) => {
                    self.metrics.news_refused.with_label_values(&["store"]).inc();
                    let one = items.into_iter().next().map(|item| (item.key, error.into()));
                    return one.into_iter().collect();
                }
            }
        };
        let mut refused = Vec::new();
        for (item, result) in items.into_iter().zip(results) {
            match result {
                Ok(Some(written)) => self.follow(written).await,
                Ok(None) => {}
                Err(why) => {
                    let lost = matches!(why, Refused::Store(StoreError::NotOwner));
                    if lost {
                        self.owned.remove(&item.key);
                        self.metrics.leases_lost.inc();
                    }
                    let reason = if lost { "owner" } else { "state" };
                    self.metrics.news_refused.with_label_values(&[reason]).inc();
                    // Another origin has it, or the API switched it off while its publisher was being let in.
                    self.node.kick(&item.key);
                    refused.push((item.key, why));
                }
            }
        }
        refused
    }

    async fn write_once(&self, items: &[Item]) -> Result<Vec<Result<Option<Written>, Refused>>, StoreError> {
        let mut tx = self.store.begin().await?;
        let mut taken: BTreeMap<StreamKey, Lease> = BTreeMap::new();
        let mut known: BTreeMap<ProjectId, Limits> = BTreeMap::new();
        let mut results = Vec::with_capacity(items.len());
        for item in items {
            match self.write_one(&mut tx, item, &mut taken, &mut known).await {
                // What concerns one stream does not concern the others; what concerns the database does.
                Err(Refused::Store(error)) if !matches!(error, StoreError::NotOwner) => return Err(error),
                result => results.push(result),
            }
        }
        tx.commit().await?;
        Ok(results)
    }

    async fn write_one(
        &self,
        tx: &mut Tx,
        item: &Item,
        taken: &mut BTreeMap<StreamKey, Lease>,
        known: &mut BTreeMap<ProjectId, Limits>,
    ) -> Result<Option<Written>, Refused> {
        let Some(before) = tx.stream_by_key(&item.key).await? else {
            return Ok(None);
        };
        let limits = match known.get(&before.project) {
            Some(limits) => limits.clone(),
            None => tx.limits(&before.project).await?.ok_or(Refused::NoProject)?,
        };
        known.insert(before.project.clone(), limits.clone());
        let at = now();
        // Whether media still arrives is the node's to watch: it says `Ended`. Here only the grace time runs.
        let timers = Timers {
            idle: Millis::MAX,
            ..limits.timers()
        };
        let step = before.state.step(item.event, at, timers)?;
        // A lease that was taken or confirmed in this unit of work can't be lost before the commit.
        let fresh = matches!(item.event, Event::Connected(_)) || taken.contains_key(&item.key);
        // A publisher that connected earlier in this group has brought a newer one.
        let lease = match taken.get(&item.key).or(item.lease.as_ref()) {
            Some(lease) => lease.clone(),
            // It was never ours, or is ours no more: nobody's business.
            None if !matches!(item.event, Event::Connected(_)) => return Ok(None),
            None => {
                tx.take_lease(&item.key, &self.name, Claim::TakeOver, at, millis(LEASE))
                    .await?
            }
        };
        if fresh {
            taken.insert(item.key.clone(), lease.clone());
        }
        let mut stream = before.clone();
        let consequences = Consequences::of(step, &mut stream);
        let changed = stream != before;
        if changed {
            match fresh {
                true => tx.update_stream(&mut stream, at).await?,
                false => {
                    tx.update_owned_stream(&lease, &mut stream, at).await?;
                    taken.insert(item.key.clone(), lease.clone());
                }
            }
            for notice in &consequences.notices {
                self.outbox.record(tx, *notice, &stream, at).await?;
            }
        }
        Ok(Some(Written {
            stream,
            limits,
            lease,
            changed,
            actions: consequences.actions,
        }))
    }

    /// The node does what was written.
    async fn follow(&self, written: Written) {
        let Written { stream, lease, .. } = &written;
        if written.changed {
            self.node.apply(StreamPolicy::of(stream, &written.limits));
        }
        self.act(stream, &written.actions);
        if stream.status() == Status::Live {
            let mut owned = self
                .owned
                .entry(stream.key.clone())
                .or_insert_with(|| Owned::new(lease.clone(), now() + millis(LEASE)));
            owned.lease = lease.clone();
            owned.timeout = match stream.state.phase {
                Phase::Grace { until } => Some(until),
                _ => None,
            };
        } else if self.owned.remove(&stream.key).is_some() {
            // Another origin need not wait for the end of a lease that nobody uses.
            if let Err(error) = self.store.release_lease(lease).await {
                tracing::debug!(%error, "a lease was not given back; it runs out by itself");
            }
        }
    }

    /// Tells the node all it has to know, and picks up broadcasts that were live when this node died: their encoders
    /// have the grace time to come back.
    pub async fn recover(&self) -> Result<(), Refused> {
        let mut after: Option<StreamId> = None;
        let mut limits: BTreeMap<_, Limits> = BTreeMap::new();
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
        let left = |slot| Item {
            key: key.clone(),
            event: Event::Left(slot),
            lease: Some(lease.clone()),
        };
        match self.write(vec![left(Slot::Primary), left(Slot::Backup)]).await.pop() {
            Some((_, refused)) => Err(refused),
            None => Ok(()),
        }
    }

    /// Hears news, renews leases and lets time go by, until told to stop.
    pub async fn run(self: Arc<Self>, mut news: mpsc::Receiver<News>, stop: CancellationToken) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tidy = tokio::time::interval(TIDY);
        let mut group = Vec::with_capacity(GROUP);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                heard = news.recv_many(&mut group, GROUP) => {
                    if heard == 0 {
                        return;
                    }
                    complain(self.hear_all(&group).await);
                    group.clear();
                }
                _ = beat.tick() => self.beat().await,
                _ = tidy.tick() => {
                    if let Err(error) = self.store.forget_idempotency_keys(now()).await {
                        tracing::warn!(%error, "old idempotency keys were not removed");
                    }
                }
            }
        }
    }

    async fn beat(&self) {
        let at = now();
        let (mut due, mut over) = (Vec::new(), Vec::new());
        self.metrics
            .streams_owned
            .set(i64::try_from(self.owned.len()).unwrap_or(i64::MAX));
        for owned in self.owned.iter() {
            if owned.expires - at < millis(RENEW_BELOW) {
                due.push(owned.lease.clone());
            }
            if owned.timeout.is_some_and(|until| at >= until) {
                over.push(Item {
                    key: owned.key().clone(),
                    event: Event::Tick,
                    lease: Some(owned.lease.clone()),
                });
            }
        }
        for group in due.chunks(GROUP) {
            self.renew(group, at).await;
        }
        while !over.is_empty() {
            let rest = over.split_off(over.len().min(GROUP));
            complain(self.write(std::mem::replace(&mut over, rest)).await);
        }
    }

    async fn renew(&self, leases: &[Lease], at: Millis) {
        let lost = match self.store.renew_leases(leases, at, millis(LEASE)).await {
            Ok(lost) => lost,
            // The streams go on: the control plane is not on the media path.
            Err(error) => {
                tracing::warn!(%error, "leases were not renewed");
                return;
            }
        };
        for lease in leases {
            if lost.contains(&lease.key) {
                tracing::warn!(key = %redacted(&lease.key), "another origin has taken this stream over");
                self.metrics.leases_lost.inc();
                self.owned.remove_if(&lease.key, |_, owned| owned.lease == *lease);
                self.node.kick(&lease.key);
            } else if let Some(mut owned) = self.owned.get_mut(&lease.key) {
                owned.expires = at + millis(LEASE);
            }
        }
    }
}

fn complain(refused: Vec<(StreamKey, Refused)>) {
    for (key, why) in refused {
        tracing::warn!(key = %redacted(&key), %why, "a change of a live stream was not stored");
    }
}
