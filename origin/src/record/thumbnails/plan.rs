//! Which moments of a recording get a thumbnail: the first key frame at or after each multiple of the distance between two.
//! Pure.
//!
//! Before this: `ledger.rs`. After this: `thumbnails.rs`, which has them taken.

use std::time::Duration;

use weir_shared::id::RenditionName;

use crate::record::ledger::{Ledger, Position, Stage};

/// A picture to be taken: the key frame that a stored segment begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shot {
    pub at: Position,
    pub rendition: RenditionName,
    /// The init section it is decoded with.
    pub init: u32,
    /// How much of the segment it takes, from its beginning.
    pub bytes: u64,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Take(Shot),
    /// Nothing yet: more will be stored.
    Wait,
    /// Nothing more will come.
    End,
}

/// How far a recording was looked through: each position once, however long it becomes.
#[derive(Debug)]
pub struct Plan {
    every: Duration,
    after: Option<Position>,
    /// Where the position after `after` begins.
    time: Duration,
    due: Duration,
}

impl Plan {
    pub fn new(every: Duration) -> Self {
        Self {
            every,
            after: None,
            time: Duration::ZERO,
            due: Duration::ZERO,
        }
    }

    /// Goes on to the next moment that wants a picture and has none. Whoever is told to take one need not succeed: this
    /// one is not named again.
    pub fn next(&mut self, ledger: &Ledger) -> Next {
        for (at, duration) in ledger.positions_after(self.after) {
            let here = || {
                let all = ledger.renditions.iter();
                all.filter_map(move |(rendition, of)| Some((rendition, of.takes.get(&at)?)))
            };
            // The smallest is the cheapest to decode.
            let stored = here().filter(|(_, take)| take.stage == Stage::Stored);
            let shots = stored.filter_map(|(rendition, take)| {
                Some(Shot {
                    at,
                    rendition: rendition.clone(),
                    init: take.init,
                    bytes: take.key_frame_bytes?,
                })
            });
            let smallest = shots.min_by_key(|shot| shot.bytes);
            let is_settled = here().all(|(_, take)| matches!(take.stage, Stage::Stored | Stage::Lost));
            // Its picture may be among what is still to be stored.
            if smallest.is_none() && !is_settled {
                return Next::Wait;
            }
            let begins = self.time;
            let was_taken = ledger.pictures.contains_key(&at);
            let is_due = begins >= self.due && (was_taken || smallest.is_some());
            self.after = Some(at);
            self.time += duration;
            if !is_due {
                continue;
            }
            while self.due <= begins {
                self.due += self.every;
            }
            if let Some(shot) = smallest.filter(|_| !was_taken) {
                return Next::Take(shot);
            }
        }
        match ledger.finished && ledger.is_settled() {
            true => Next::End,
            false => Next::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ledger::{
        Line,
        tests::{begin, init, rendition, segment, stored},
    };

    fn pictured(msn: u64) -> Line {
        Line::Picture {
            rendition: rendition("video"),
            epoch: 9,
            msn,
        }
    }

    /// `count` segments of two seconds, recorded; the first `stored_segments` of them are stored.
    fn ledger(count: u64, stored_segments: u64) -> Ledger {
        let mut lines = vec![begin(), init("video", 9)];
        for msn in 0..count {
            lines.extend(segment("video", 9, msn, false));
        }
        lines.extend((0..stored_segments).map(|msn| stored("video", 9, msn)));
        Ledger::replay(&lines).unwrap().0
    }

    fn taken(plan: &mut Plan, ledger: &Ledger) -> (Vec<u64>, Next) {
        let mut taken = Vec::new();
        loop {
            match plan.next(ledger) {
                Next::Take(shot) => taken.push(shot.at.msn.0),
                next => return (taken, next),
            }
        }
    }

    #[test]
    fn a_picture_every_so_often_as_the_recording_grows() {
        let mut plan = Plan::new(Duration::from_secs(5));
        assert_eq!(
            taken(&mut plan, &ledger(2, 0)),
            (vec![], Next::Wait),
            "nothing is stored"
        );
        assert_eq!(taken(&mut plan, &ledger(4, 1)), (vec![0], Next::Wait));
        // At 6 s for 5 s, at 10 s for 10 s, at 16 s for 15 s.
        let mut grown = ledger(9, 9);
        assert_eq!(taken(&mut plan, &grown), (vec![3, 5, 8], Next::Wait));
        grown.apply(&Line::Finish { failure: None }).unwrap();
        assert_eq!(
            taken(&mut plan, &grown),
            (vec![], Next::Wait),
            "the init section is missing"
        );
        let init_stored = Line::InitStored {
            rendition: rendition("video"),
            epoch: 9,
            index: 0,
        };
        grown.apply(&init_stored).unwrap();
        assert_eq!(taken(&mut plan, &grown), (vec![], Next::End));
    }

    #[test]
    fn segments_longer_than_the_distance_have_one_each() {
        let mut plan = Plan::new(Duration::from_millis(500));
        assert_eq!(taken(&mut plan, &ledger(3, 3)).0, [0, 1, 2]);
    }

    #[test]
    fn what_an_earlier_process_took_is_not_taken_again() {
        let mut ledger = ledger(9, 9);
        for msn in [0, 3] {
            ledger.apply(&pictured(msn)).unwrap();
        }
        assert_eq!(taken(&mut Plan::new(Duration::from_secs(5)), &ledger).0, [5, 8]);
    }

    #[test]
    fn a_lost_segment_leaves_its_moment_to_the_next() {
        let mut ledger = ledger(4, 0);
        for msn in [1, 2, 3] {
            ledger.apply(&stored("video", 9, msn)).unwrap();
        }
        let mut plan = Plan::new(Duration::from_secs(5));
        assert_eq!(
            taken(&mut plan, &ledger),
            (vec![], Next::Wait),
            "the first is on its way"
        );
        let lost = Line::Lost {
            rendition: rendition("video"),
            epoch: 9,
            msn: 0,
        };
        ledger.apply(&lost).unwrap();
        assert_eq!(taken(&mut plan, &ledger).0, [1]);
    }

    #[test]
    fn sound_alone_has_no_pictures() {
        let mut lines = vec![begin(), init("audio", 9)];
        for msn in 0..3 {
            let mut sound = segment("audio", 9, msn, false);
            for line in &mut sound {
                if let Line::Part { key_frame_bytes, .. } = line {
                    *key_frame_bytes = None;
                }
            }
            lines.extend(sound);
            lines.push(stored("audio", 9, msn));
        }
        let (ledger, _) = Ledger::replay(&lines).unwrap();
        assert_eq!(
            taken(&mut Plan::new(Duration::from_secs(5)), &ledger),
            (vec![], Next::Wait)
        );
    }
}
