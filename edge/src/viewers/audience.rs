//! Who watches one stream, as far as its requests tell. Pure: times are durations since the edge began.
//!
//! A viewer with a ticket is that ticket, and one who sends a session id (CTA-5004, `sid`) is that session: each counts once,
//! however many connections or renditions they use. Of the others a player of low latency is known by having exactly one
//! playlist request open at any time (two with audio of its own): as many of them watch as wait at once for pictures, or
//! for sound. Who asks without waiting, again and again, counts by address and program.
//!
//! Before this: `viewers.rs`.

use std::{collections::HashMap, time::Duration};

/// Viewers told apart by who they are, for one stream. Further ones are not counted.
const MAX_KNOWN: usize = 100_000;
/// Who was not heard of for this long watches no more: a player asks once per segment at least.
pub const PRESENCE: Duration = Duration::from_secs(10);
/// Who asks without waiting must do so for this long to be a viewer, and not one who only begins.
const STAYS: Duration = Duration::from_secs(2);

/// How one request tells its viewer apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// By ticket or session id.
    Named(u64),
    /// By address and program; waits for what comes next.
    Waiting(u64),
    /// By address and program; takes what is there.
    Asking(u64),
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Track {
    Picture,
    Sound,
}

#[derive(Debug, Default)]
pub struct Audience {
    named: HashMap<u64, Duration>,
    asking: HashMap<u64, Asking>,
    pictures: Crowd,
    sounds: Crowd,
}

#[derive(Debug)]
struct Asking {
    first: Duration,
    last: Duration,
    /// Counted among those who wait.
    waits: bool,
}

/// How many wait at once.
#[derive(Debug, Default)]
struct Crowd {
    now: usize,
    /// The most of this interval, and of the one before.
    most: usize,
    most_before: usize,
}

impl Crowd {
    fn count(&self) -> usize {
        self.most.max(self.most_before)
    }
}

impl Audience {
    /// A playlist request. If the viewer [waits](Who::Waiting), [`Self::leave`] is called when it is answered.
    pub fn see(&mut self, who: Who, track: Track, now: Duration) {
        match who {
            Who::Named(name) => {
                if self.named.len() < MAX_KNOWN || self.named.contains_key(&name) {
                    self.named.insert(name, now);
                }
            }
            Who::Waiting(from) => {
                let crowd = self.crowd(track);
                crowd.now += 1;
                crowd.most = crowd.most.max(crowd.now);
                if let Some(asking) = self.asking.get_mut(&from) {
                    (asking.waits, asking.last) = (true, now);
                }
            }
            Who::Asking(from) => {
                if self.asking.len() < MAX_KNOWN || self.asking.contains_key(&from) {
                    let new = Asking {
                        first: now,
                        last: now,
                        waits: false,
                    };
                    self.asking.entry(from).or_insert(new).last = now;
                }
            }
        }
    }

    pub fn leave(&mut self, track: Track) {
        let crowd = self.crowd(track);
        crowd.now = crowd.now.saturating_sub(1);
    }

    /// How many watch.
    pub fn count(&self) -> usize {
        let asking = self.asking.values();
        let staying = asking.filter(|asking| !asking.waits && asking.last.saturating_sub(asking.first) >= STAYS);
        self.named.len() + staying.count() + self.pictures.count().max(self.sounds.count())
    }

    /// Forgets who has gone. To be called every [`PRESENCE`] ÷ 2 or so.
    pub fn tidy(&mut self, now: Duration) {
        let is_here = |last: Duration| now.saturating_sub(last) < PRESENCE;
        self.named.retain(|_, last| is_here(*last));
        self.asking.retain(|_, asking| is_here(asking.last));
        for crowd in [&mut self.pictures, &mut self.sounds] {
            crowd.most_before = crowd.most;
            crowd.most = crowd.now;
        }
    }

    /// Nobody watches, and nobody has lately.
    pub fn is_gone(&self) -> bool {
        self.count() == 0 && self.asking.is_empty()
    }

    fn crowd(&mut self, track: Track) -> &mut Crowd {
        match track {
            Track::Picture => &mut self.pictures,
            Track::Sound => &mut self.sounds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_ticket_is_one_viewer_on_any_number_of_renditions() {
        let mut audience = Audience::default();
        for ticket in 0..500 {
            for second in 0..5 {
                audience.see(Who::Named(ticket), Track::Picture, at(second));
                audience.see(Who::Named(ticket), Track::Sound, at(second));
            }
        }
        assert_eq!(audience.count(), 500);
        audience.tidy(at(13));
        assert_eq!(audience.count(), 500);
        audience.see(Who::Named(7), Track::Picture, at(13));
        audience.tidy(at(14));
        assert_eq!(audience.count(), 1, "the others were last heard of ten seconds ago");
    }

    #[test]
    fn viewers_without_a_name_are_those_who_wait_at_once() {
        let mut audience = Audience::default();
        // 300 viewers, in two parts' time; every tenth is late for the first. They switch renditions as they like.
        for round in 0..2 {
            let waiting = (0..300).filter(|n| round == 1 || n % 10 != 0).count();
            for _ in 0..waiting {
                audience.see(Who::Waiting(1), Track::Picture, at(round));
                audience.see(Who::Waiting(1), Track::Sound, at(round));
            }
            for _ in 0..waiting {
                audience.leave(Track::Picture);
                audience.leave(Track::Sound);
            }
        }
        assert_eq!(audience.count(), 300);
        audience.tidy(at(5));
        assert_eq!(audience.count(), 300, "nobody waits at this moment");
        audience.tidy(at(10));
        assert!(audience.is_gone());
    }

    #[test]
    fn who_begins_is_not_counted_twice_and_who_never_waits_once() {
        let mut audience = Audience::default();
        for second in [0, 3, 6] {
            // A player of low latency begins with a plain request, and does so again after a seek.
            audience.see(Who::Asking(1), Track::Picture, at(second));
            audience.see(Who::Waiting(1), Track::Picture, at(second));
            audience.leave(Track::Picture);
            // A plain player.
            audience.see(Who::Asking(2), Track::Picture, at(second));
        }
        // A passer-by.
        audience.see(Who::Asking(3), Track::Picture, at(6));
        assert_eq!(audience.count(), 2);
    }
}
