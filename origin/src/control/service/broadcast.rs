//! News of the node: who is publishing here, and under which lease. What became of broadcasts that a crash cut off is in
//! `recover.rs`.
//!
//! News are written in groups, one commit for all that waited: a thousand encoders that connect in the same second cost a
//! few commits and not a thousand.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weir_shared::id::{ProjectId, StreamKey};

use super::{ATTEMPTS, Consequences, Control, Refused, owned::Held};
use crate::{
    control::{
        events::HealthWarning,
        lifecycle::{Action, Event, IllegalMove, Slot, Status, Step, Timers},
        model::{Limits, Stream},
        node::News,
        notice::Notice,
        store::{Claim, Lease, Millis, StoreError, Tx, now},
    },
    ingest::redacted,
};

/// How long a lease holds without being renewed: an origin that died is replaced after this.
pub(super) const LEASE: Duration = Duration::from_secs(10);
/// How often leases and grace times are looked at.
const BEAT: Duration = Duration::from_millis(250);
/// Leases are renewed when less than this is left of them.
const RENEW_BELOW: Duration = Duration::from_secs(5);
/// News and leases written in one unit of work.
pub(super) const GROUP: usize = 256;
/// How often what is out of date is forgotten.
const TIDY: Duration = Duration::from_secs(3600);
/// How often is looked for broadcasts whose origin is gone.
const LOOK_FOR_ABANDONED: Duration = Duration::from_secs(5);

pub(super) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// One thing that happened to a stream of this node.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) key: StreamKey,
    pub(super) event: Event,
    /// What this node holds; a publisher that connects brings the lease of its slot.
    pub(super) held: Vec<Lease>,
}

/// What has to follow once the unit of work is committed.
struct Written {
    stream: Stream,
    limits: Limits,
    leases: Vec<Lease>,
    changed: bool,
    actions: Vec<Action>,
    /// The broadcast goes on at another origin: what is here is let go.
    elsewhere: bool,
}

impl Control {
    /// Takes the publish of a stream for this node. To be asked before a publisher is let in; `TakeOver` once its
    /// credentials were checked.
    pub async fn claim(&self, key: &StreamKey, slot: Slot, claim: Claim) -> Result<Lease, StoreError> {
        let at = now();
        let taken = self.store.take_lease((key, slot), &self.name, claim, at, millis(LEASE));
        let lease = taken.await?;
        let mut owned = self.owned.entry(key.clone()).or_default();
        owned.hold(lease.clone(), at + millis(LEASE));
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
                held: self.owned.get(&news.key).map_or(Vec::new(), |owned| owned.leases()),
            })
            .collect();
        self.metrics.news.inc_by(news.len() as u64);
        self.write(items).await
    }

    /// Writes a group in one unit of work, then lets the node follow.
    pub(super) async fn write(&self, items: Vec<Item>) -> Vec<(StreamKey, Refused)> {
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
                Ok(Some(written)) => self.follow_up(written).await,
                Ok(None) => {}
                Err(why) => {
                    let lost = matches!(why, Refused::Store(StoreError::NotOwner));
                    let reason = if lost { "owner" } else { "state" };
                    self.metrics.news_refused.with_label_values(&[reason]).inc();
                    match lost {
                        true => self.lose_what_is_lost(&item.held).await,
                        // The API switched it off while its publisher was being let in.
                        false => self.node.kick(&item.key),
                    }
                    refused.push((item.key, why));
                }
            }
        }
        refused
    }

    async fn write_once(&self, items: &[Item]) -> Result<Vec<Result<Option<Written>, Refused>>, StoreError> {
        let mut tx = self.store.begin().await?;
        let mut taken: BTreeMap<(StreamKey, Slot), Lease> = BTreeMap::new();
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
        taken: &mut BTreeMap<(StreamKey, Slot), Lease>,
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
        // A publisher that connected earlier in this group has brought a newer lease than the one held before.
        let lease_of = |slot: Slot| {
            let fresh = taken.get(&(item.key.clone(), slot));
            fresh
                .or_else(|| item.held.iter().find(|lease| lease.slot == slot))
                .cloned()
        };
        let mut leases: Vec<Lease> = Slot::ALL.into_iter().filter_map(lease_of).collect();
        let ours = |slot: Slot| leases.iter().any(|lease| lease.slot == slot);
        let known = match item.event {
            Event::Connected(_) => true,
            Event::Left(slot) => ours(slot),
            _ => !leases.is_empty(),
        };
        if !known {
            // It was never ours, or is ours no more: nobody's business.
            return Ok(None);
        }
        let (step, elsewhere) = step(&before, item.event, ours, at, &limits)?;
        if let Event::Connected(slot) = item.event
            && !taken.contains_key(&(item.key.clone(), slot))
        {
            // A publisher brings its slot here, wherever it was before.
            let of = (&item.key, slot);
            let lease = tx
                .take_lease(of, &self.name, Claim::TakeOver, at, millis(LEASE))
                .await?;
            taken.insert((item.key.clone(), slot), lease.clone());
            leases.retain(|held| held.slot != slot);
            leases.push(lease);
        }
        let mut stream = before.clone();
        let consequences = Consequences::of(step, &mut stream);
        let changed = stream != before;
        if changed {
            for lease in &leases {
                // One that was taken or confirmed in this unit of work can't be lost before the commit.
                if taken.get(&(item.key.clone(), lease.slot)) != Some(lease) {
                    tx.confirm_lease(lease).await?;
                    taken.insert((item.key.clone(), lease.slot), lease.clone());
                }
            }
            tx.update_stream(&mut stream, at).await?;
            for notice in &consequences.notices {
                self.outbox.record(tx, *notice, &stream, at).await?;
            }
        }
        Ok(Some(Written {
            stream,
            limits,
            leases,
            changed,
            actions: consequences.actions,
            elsewhere,
        }))
    }

    /// The node does what was written.
    async fn follow_up(&self, written: Written) {
        let Written { stream, leases, .. } = &written;
        if written.changed {
            self.apply(stream, &written.limits);
        }
        self.act(stream, &written.actions);
        if written.elsewhere {
            self.owned.remove(&stream.key);
            for lease in leases {
                self.node.hand_over(&stream.key, lease.slot);
            }
            self.give_back(leases).await;
        } else if stream.status() == Status::Live {
            let mut owned = self.owned.entry(stream.key.clone()).or_default();
            for lease in leases {
                // One that is held already runs out when it did before.
                if owned.lease(lease.slot) != Some(lease) {
                    owned.hold(lease.clone(), now() + millis(LEASE));
                }
            }
            owned.follow(stream);
        } else if self.owned.remove(&stream.key).is_some() {
            self.give_back(leases).await;
        }
    }

    async fn lose_what_is_lost(&self, held: &[Lease]) {
        match self.store.lost_leases(held).await {
            Ok(lost) => lost.iter().for_each(|lease| self.lose(lease)),
            Err(error) => tracing::warn!(%error, "leases could not be looked at; the next renewal does"),
        }
    }

    /// Tells of something that changes nothing about a live stream. Streams that are not live, or not known, have no news.
    pub(super) async fn tell(&self, key: &StreamKey, notice: Notice) -> Result<(), Refused> {
        let at = now();
        let mut tx = self.store.begin().await?;
        let stream = tx.stream_by_key(key).await?;
        if let Some(stream) = stream.filter(|stream| stream.status() == Status::Live) {
            self.outbox.record(&mut tx, notice, &stream, at).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Something about a stream's ingest has begun to be wrong.
    pub async fn warn(&self, key: &StreamKey, warning: HealthWarning) -> Result<(), Refused> {
        self.tell(key, Notice::HealthWarning(warning)).await
    }

    /// Hears news, renews leases and lets time go by, until told to stop.
    pub async fn run(self: Arc<Self>, mut news: mpsc::Receiver<News>, stop: CancellationToken) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut abandoned = tokio::time::interval(LOOK_FOR_ABANDONED);
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
                _ = abandoned.tick() => {
                    if let Err(error) = self.pick_up_abandoned().await {
                        tracing::warn!(%error, "broadcasts of origins that are gone were not ended");
                    }
                }
                _ = tidy.tick() => self.tidy().await,
            }
        }
    }

    async fn tidy(&self) {
        let at = now();
        if let Err(error) = self.store.forget_idempotency_keys(at).await {
            tracing::warn!(%error, "old idempotency keys were not removed");
        }
        if let Err(error) = self.store.forget_removals(at).await {
            tracing::warn!(%error, "old removals were not forgotten");
        }
    }

    async fn beat(&self) {
        let at = now();
        let (mut due, mut over) = (Vec::new(), Vec::new());
        self.metrics
            .streams_owned
            .set(i64::try_from(self.owned.len()).unwrap_or(i64::MAX));
        for owned in self.owned.iter() {
            let short = |held: &&Held| held.expires - at < millis(RENEW_BELOW);
            due.extend(owned.held().iter().filter(short).map(|held| held.lease.clone()));
            // A node that has the broadcast in its hands times it itself, and says when it is over.
            if owned.timeout.is_some_and(|until| at >= until) && !self.node.carries(owned.key()) {
                over.push(Item {
                    key: owned.key().clone(),
                    event: Event::Tick,
                    held: owned.leases(),
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
            if lost.contains(lease) {
                self.lose(lease);
            } else if let Some(mut owned) = self.owned.get_mut(&lease.key) {
                owned.renewed(lease, at + millis(LEASE));
            }
        }
    }
}

/// What the event means. Another origin may have the other publisher (`ours`: which slots are this node's): then what ends
/// here ends nothing else, and the second value says that the broadcast goes on there.
fn step(
    stream: &Stream,
    event: Event,
    ours: impl Fn(Slot) -> bool,
    at: Millis,
    limits: &Limits,
) -> Result<(Step, bool), IllegalMove> {
    // Whether media still arrives is the node's to watch: it says `Ended`. Here only the grace time runs.
    let timers = Timers {
        idle: Millis::MAX,
        ..limits.timers()
    };
    let state = &stream.state;
    let foreign = Slot::ALL.into_iter().any(|slot| state.has(slot) && !ours(slot));
    if !foreign || matches!(event, Event::Connected(_)) {
        return Ok((state.step(event, at, timers)?, false));
    }
    let mut step = state.step(Event::Tick, at, timers)?;
    for slot in Slot::ALL.into_iter().filter(|slot| ours(*slot)) {
        let gone = step.state.step(Event::Left(slot), at, timers)?;
        step.state = gone.state;
        step.notices.extend(gone.notices);
    }
    Ok((step, true))
}

fn complain(refused: Vec<(StreamKey, Refused)>) {
    for (key, why) in refused {
        tracing::warn!(key = %redacted(&key), %why, "a change of a live stream was not stored");
    }
}
