//! Broadcasts that nobody carries any more: those that this node had when it died, and those of an origin that is gone.
//!
//! Before this: the node's start, the beat of `broadcast.rs`. After this: `store/leases.rs`, and `broadcast.rs`, which
//! writes that their encoders have left.

use std::{collections::BTreeSet, time::Duration};

use weir_shared::id::StreamKey;

use super::{
    Control, Refused,
    broadcast::{GROUP, Item, LEASE, millis},
};
use crate::{
    control::{
        lifecycle::{Event, Slot},
        notice::Notice,
        store::{Claim, Lease, StoreError, now},
    },
    ingest::redacted,
};

/// Abandoned broadcasts looked at at once.
const BATCH: u32 = 500;
/// How long after its lease ran out an origin may still come back to its broadcasts; then another one ends them.
const ABANDONED_AFTER: Duration = Duration::from_secs(30);

impl Control {
    /// Tells the node all it has to know, and picks up broadcasts that were live when this node died: their encoders
    /// have the grace time to come back.
    pub async fn recover(&self) -> Result<(), Refused> {
        let live = self.take_in_all().await?;
        self.pick_up(live).await?;
        Ok(())
    }

    /// Takes over what of these live streams nobody owns: their publishers are gone, as far as anybody knows.
    /// Gives those of which there was something to take over.
    async fn pick_up(&self, keys: BTreeSet<StreamKey>) -> Result<BTreeSet<StreamKey>, Refused> {
        let (keys, mut found) = (Vec::from_iter(keys), BTreeSet::new());
        // One unit of work for the leases of a group, one for what follows from them.
        for group in keys.chunks(GROUP / Slot::ALL.len()) {
            let leases = self.claim_free(group).await?;
            let items = leases.iter().map(|lease| Item {
                key: lease.key.clone(),
                event: Event::Left(lease.slot),
                held: leases.iter().filter(|held| held.key == lease.key).cloned().collect(),
            });
            if let Some((_, refused)) = self.write(items.collect()).await.pop() {
                return Err(refused);
            }
            found.extend(leases.into_iter().map(|lease| lease.key));
        }
        Ok(found)
    }

    /// The slots of these streams that no other origin has. The keys are in order: nobody waits in a circle.
    async fn claim_free(&self, keys: &[StreamKey]) -> Result<Vec<Lease>, StoreError> {
        let (at, mut leases) = (now(), Vec::new());
        let mut tx = self.store.begin().await?;
        for key in keys {
            for slot in Slot::ALL {
                let taken = tx.take_lease((key, slot), &self.name, Claim::Free, at, millis(LEASE));
                match taken.await {
                    Ok(lease) => leases.push(lease),
                    // It lives on another origin.
                    Err(StoreError::NotOwner) => {}
                    Err(other) => return Err(other),
                }
            }
        }
        tx.commit().await?;
        for lease in &leases {
            let mut owned = self.owned.entry(lease.key.clone()).or_default();
            owned.hold(lease.clone(), at + millis(LEASE));
        }
        Ok(leases)
    }

    /// Ends what an origin that is gone for good has left behind.
    pub(super) async fn pick_up_abandoned(&self) -> Result<(), Refused> {
        let before = now().saturating_sub(millis(ABANDONED_AFTER));
        let abandoned: BTreeSet<_> = self.store.abandoned(before, BATCH).await?.into_iter().collect();
        for key in self.pick_up(abandoned).await? {
            tracing::warn!(key = %redacted(&key), "the origin of this broadcast is gone");
            self.tell(&key, Notice::BroadcastingFailed).await?;
        }
        Ok(())
    }
}
