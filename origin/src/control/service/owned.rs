//! What this node holds of a stream that is live here: the leases that let it write, and what it was told last. Pure.
//!
//! Before this: `service/broadcast.rs` (news of the node). Beside it: `service/follow.rs` (what others write).

use crate::control::{
    lifecycle::{Phase, Slot},
    model::Stream,
    store::{Lease, Millis},
};

/// A stream that this node publishes.
#[derive(Debug, Clone, Default)]
pub(super) struct Owned {
    held: Vec<Held>,
    /// When its grace time is over.
    pub timeout: Option<Millis>,
    /// The newest version that this node wrote or followed.
    pub version: i64,
    pub broadcasting: bool,
    pub dvr_cleared: Option<Millis>,
}

/// A lease and how long it holds.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub lease: Lease,
    pub expires: Millis,
}

impl Owned {
    /// A lease that was taken or renewed.
    pub(super) fn hold(&mut self, lease: Lease, expires: Millis) {
        self.held.retain(|held| held.lease.slot != lease.slot);
        self.held.push(Held { lease, expires });
    }

    /// False when another one took its place meanwhile.
    pub(super) fn renewed(&mut self, lease: &Lease, expires: Millis) -> bool {
        let held = self.held.iter_mut().find(|held| held.lease == *lease);
        held.map(|held| held.expires = expires).is_some()
    }

    /// The lease is another origin's now. True when none is left.
    pub(super) fn lost(&mut self, lease: &Lease) -> bool {
        self.held.retain(|held| held.lease != *lease);
        self.held.is_empty()
    }

    pub(super) fn held(&self) -> &[Held] {
        &self.held
    }

    pub(super) fn leases(&self) -> Vec<Lease> {
        self.held.iter().map(|held| held.lease.clone()).collect()
    }

    pub(super) fn lease(&self, slot: Slot) -> Option<&Lease> {
        let held = self.held.iter().find(|held| held.lease.slot == slot);
        held.map(|held| &held.lease)
    }

    /// The stream as it was written now.
    pub(super) fn follow(&mut self, stream: &Stream) {
        self.version = stream.version;
        self.broadcasting = stream.state.broadcasting;
        self.dvr_cleared = stream.dvr_cleared;
        self.timeout = match stream.state.phase {
            Phase::Grace { until } => Some(until),
            Phase::Idle | Phase::Live | Phase::Disabled => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(slot: Slot, generation: i64) -> Lease {
        Lease {
            key: "show".parse().unwrap(),
            slot,
            owner: "paris".to_owned(),
            generation,
        }
    }

    #[test]
    fn a_slot_has_one_lease_the_newest() {
        let mut owned = Owned::default();
        owned.hold(lease(Slot::Primary, 1), 100);
        owned.hold(lease(Slot::Backup, 1), 100);
        owned.hold(lease(Slot::Primary, 2), 200);
        assert_eq!(owned.lease(Slot::Primary), Some(&lease(Slot::Primary, 2)));
        assert!(!owned.renewed(&lease(Slot::Primary, 1), 300), "it was replaced");
        assert!(!owned.lost(&lease(Slot::Primary, 2)), "the backup is still ours");
        assert!(owned.lost(&lease(Slot::Backup, 1)));
    }
}
