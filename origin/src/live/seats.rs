//! Who publishes a stream now: one seat per slot and variant. Taking one and closing the row are decided under one lock, so
//! that nobody is let in to a stream that has just ended.
//!
//! Before this: `live/registry.rs` (takes seats). After this: `live/pipeline.rs` (gives them back, and closes).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::ingest::{Slot, catalog::Takeover};

/// Publishers of one stream at a time: both slots of every variant (`<key>/1` to `<key>/8`).
pub(super) const SEATS_MAX: usize = 16;

/// Who wants a seat.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub variant: u8,
    pub slot: Slot,
    /// How much it proved.
    pub rank: u8,
    pub takeover: Takeover,
}

/// A seat as its pipeline knows it.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub id: u64,
    pub variant: u8,
    pub slot: Slot,
    rank: u8,
    /// Media comes. A publisher that sends nothing is a ghost, which blocks nobody.
    pub sends: Arc<AtomicBool>,
    /// Ends its session.
    pub stop: CancellationToken,
}

/// Why there is no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// By a publisher that stays.
    Busy,
    /// The stream has ended: a new life begins.
    Closed,
    /// All of them.
    Full,
}

#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<Row>);

#[derive(Debug, Default)]
struct Row {
    closed: bool,
    last_id: u64,
    seats: Vec<Seat>,
}

impl Seats {
    /// Takes a seat, from the one who has it if the policy says so. `stop` ends the new session.
    pub(super) fn take(&self, claim: Claim, stop: CancellationToken) -> Result<Seat, Taken> {
        let mut row = self.0.lock();
        if row.closed {
            return Err(Taken::Closed);
        }
        let same = |seat: &Seat| (seat.variant, seat.slot) == (claim.variant, claim.slot);
        if let Some(old) = row.seats.iter().find(|seat| same(seat)) {
            if !yields(old, claim) {
                return Err(Taken::Busy);
            }
            old.stop.cancel();
            row.seats.retain(|seat| !same(seat));
        }
        if row.seats.len() >= SEATS_MAX {
            return Err(Taken::Full);
        }
        row.last_id += 1;
        let seat = Seat {
            id: row.last_id,
            variant: claim.variant,
            slot: claim.slot,
            rank: claim.rank,
            // Until it has had the time to begin, it is no ghost.
            sends: Arc::new(AtomicBool::new(true)),
            stop,
        };
        row.seats.push(seat.clone());
        Ok(seat)
    }

    pub(super) fn leave(&self, id: u64) {
        self.0.lock().seats.retain(|seat| seat.id != id);
    }

    /// Tells everybody who is there to go.
    pub(super) fn send_away(&self) {
        for seat in &self.0.lock().seats {
            seat.stop.cancel();
        }
    }

    /// Tells the publishers of one slot to go. True when the other slot has some, who stay.
    pub(super) fn send_slot_away(&self, slot: Slot) -> bool {
        let row = self.0.lock();
        for seat in row.seats.iter().filter(|seat| seat.slot == slot) {
            seat.stop.cancel();
        }
        row.seats.iter().any(|seat| seat.slot != slot)
    }

    /// Nobody is let in from now on; who is there is told to go.
    pub(super) fn close(&self) {
        let mut row = self.0.lock();
        row.closed = true;
        for seat in row.seats.drain(..) {
            seat.stop.cancel();
        }
    }

    /// Closes unless somebody has a seat. True when closed.
    pub(super) fn close_if_empty(&self) -> bool {
        let mut row = self.0.lock();
        row.closed |= row.seats.is_empty();
        row.closed
    }
}

fn yields(old: &Seat, claim: Claim) -> bool {
    let is_ghost = !old.sends.load(Ordering::Relaxed) || old.stop.is_cancelled();
    is_ghost
        || match claim.takeover {
            Takeover::Takeover => true,
            Takeover::Refuse => false,
            Takeover::Priority => claim.rank >= old.rank,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(takeover: Takeover, rank: u8) -> Claim {
        Claim {
            variant: 1,
            slot: Slot::Primary,
            rank,
            takeover,
        }
    }

    fn take(seats: &Seats, claim: Claim) -> Result<Seat, Taken> {
        seats.take(claim, CancellationToken::new())
    }

    #[test]
    fn the_newest_takes_the_seat_unless_the_policy_says_no() {
        let seats = Seats::default();
        let first = take(&seats, claim(Takeover::Takeover, 1)).unwrap();
        let second = take(&seats, claim(Takeover::Takeover, 1)).unwrap();
        assert!(first.stop.is_cancelled() && !second.stop.is_cancelled());
        assert_eq!(take(&seats, claim(Takeover::Refuse, 2)).unwrap_err(), Taken::Busy);
        assert_eq!(take(&seats, claim(Takeover::Priority, 0)).unwrap_err(), Taken::Busy);
        assert!(take(&seats, claim(Takeover::Priority, 1)).is_ok());
        let backup = Claim {
            slot: Slot::Backup,
            ..claim(Takeover::Refuse, 0)
        };
        assert!(take(&seats, backup).is_ok());
    }

    #[test]
    fn a_ghost_blocks_nobody() {
        let seats = Seats::default();
        let ghost = take(&seats, claim(Takeover::Refuse, 2)).unwrap();
        ghost.sends.store(false, Ordering::Relaxed);
        assert!(take(&seats, claim(Takeover::Refuse, 0)).is_ok());
        assert!(ghost.stop.is_cancelled());
    }

    #[test]
    fn a_row_closes_only_when_nobody_sits_there() {
        let seats = Seats::default();
        let first = take(&seats, claim(Takeover::Takeover, 0)).unwrap();
        let heir = take(&seats, claim(Takeover::Takeover, 0)).unwrap();
        seats.leave(first.id);
        assert!(!seats.close_if_empty());
        seats.leave(heir.id);
        assert!(seats.close_if_empty());
        assert_eq!(take(&seats, claim(Takeover::Takeover, 0)).unwrap_err(), Taken::Closed);
    }
}
