//! Packets in any order in, payloads in order and at their time out (draft-sharabayko-srt-01, sections 4.4 to 4.8): the
//! buffer, what is missing from it, when to ask for it and when to give it up. Pure; times are microseconds since the
//! session began.
//!
//! A missing packet is given up only when the one behind it is to be played: nothing that has arrived is ever dropped for
//! being late.
//!
//! Before this: `srt/session.rs`. After this: the session again, which hands payloads on.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{clock::Micros, sequence::Sequence, wire};

/// Loss reports at one time. What does not fit is asked for the next time.
const REPORTS_MAX: usize = 8;

/// Longest wait before a packet is asked for that may only have been overtaken.
const OVERTAKEN_MAX: Micros = 20_000;
/// Packets in order after which that wait is a little shorter.
const CALM_PACKETS: u32 = 64;

/// One place of the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Missing,
    Here {
        due: Micros,
        payload: Bytes,
    },
    /// The sender has said that it will not come.
    Renounced,
}

/// A packet that has not come.
#[derive(Debug, Clone, Copy)]
struct Missing {
    sequence: Sequence,
    since: Micros,
    /// When it is to be asked for next.
    ask_at: Micros,
}

/// When a packet came, and whether it had been sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Came {
    pub at: Micros,
    pub retransmitted: bool,
}

/// What comes out, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Payload(Bytes),
    /// So many packets are given up.
    Gap(u32),
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The first after all others; so many before it are missing.
    Next {
        missing: u32,
    },
    /// It was missing.
    Mended,
    Duplicate,
    /// Its time was over: played without it, or in place of it.
    Late,
    /// Too far ahead of what is played.
    NoRoom,
}

/// Counts of one session. All but the last two grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Data packets, duplicates included.
    pub packets: u64,
    pub bytes: u64,
    /// Found missing when a later one came.
    pub missing: u64,
    /// Of those, came after all.
    pub mended: u64,
    /// Of those, never came in time.
    pub lost: u64,
    pub duplicates: u64,
    /// Came after their time.
    pub late: u64,
    pub no_room: u64,
    /// Now in the buffer.
    pub buffered: u32,
    pub buffered_bytes: u64,
}

/// The buffer of one session.
#[derive(Debug)]
pub struct Receiver {
    /// The number of the first place.
    front: Sequence,
    places: VecDeque<Place>,
    capacity: u32,
    /// In order of their numbers; one for every place that is missing.
    missing: VecDeque<Missing>,
    /// Given up without having had a place, and not yet said.
    skipped: u32,
    /// How long packets lately were missing that had only been overtaken by others.
    overtaken: Micros,
    /// Packets since the last that was.
    calm: u32,
    counts: Counts,
}

impl Receiver {
    /// `capacity`: packets, from the next to be played to the newest.
    pub fn new(first: Sequence, capacity: u32) -> Self {
        Self {
            front: first,
            places: VecDeque::new(),
            capacity,
            missing: VecDeque::new(),
            skipped: 0,
            overtaken: 0,
            calm: 0,
            counts: Counts::default(),
        }
    }

    /// A packet came. What is newly missing is to be asked for at once, unless packets overtake each other on this link.
    pub fn insert(&mut self, sequence: Sequence, due: Micros, payload: Bytes, came: Came) -> Arrival {
        self.counts.packets += 1;
        self.counts.bytes += payload.len() as u64;
        let arrival = self.place(sequence, due, payload, came);
        match arrival {
            Arrival::Next { missing } => self.counts.missing += u64::from(missing),
            Arrival::Mended => self.counts.mended += 1,
            Arrival::Duplicate => self.counts.duplicates += 1,
            Arrival::Late => self.counts.late += 1,
            Arrival::NoRoom => self.counts.no_room += 1,
        }
        arrival
    }

    fn place(&mut self, sequence: Sequence, due: Micros, payload: Bytes, came: Came) -> Arrival {
        let Ok(mut index) = u32::try_from(sequence.ahead_of(self.front)) else {
            return Arrival::Late;
        };
        if index >= self.capacity {
            if !self.places.is_empty() {
                return Arrival::NoRoom;
            }
            // Everything has been played: go on from here.
            self.counts.missing += u64::from(index);
            self.counts.lost += u64::from(index);
            self.skipped = self.skipped.saturating_add(index);
            self.front = sequence;
            index = 0;
        }
        let bytes = payload.len() as u64;
        let here = Place::Here { due, payload };
        let at = index as usize;
        let arrival = match self.places.get_mut(at) {
            Some(Place::Here { .. }) => return Arrival::Duplicate,
            Some(place) => {
                let was_missing = *place == Place::Missing;
                *place = here;
                if was_missing && let Some(missing) = self.found(sequence) {
                    self.judge_order(came.at - missing.since, came.retransmitted);
                }
                Arrival::Mended
            }
            None => {
                let missing = index - self.places.len() as u32;
                self.grow_calm();
                for _ in 0..missing {
                    self.missing.push_back(Missing {
                        sequence: self.end(),
                        since: came.at,
                        ask_at: came.at + self.overtaken,
                    });
                    self.places.push_back(Place::Missing);
                }
                self.places.push_back(here);
                Arrival::Next { missing }
            }
        };
        self.counts.buffered += 1;
        self.counts.buffered_bytes += bytes;
        arrival
    }

    /// The sender will not send these (again); both ends included.
    pub fn renounce(&mut self, first: Sequence, last: Sequence) {
        let begin = first.ahead_of(self.front).max(0) as usize;
        let end = last.ahead_of(self.front).saturating_add(1);
        let end = end.clamp(0, self.capacity as i32) as usize;
        if begin > self.places.len() {
            return;
        }
        while self.places.len() < end {
            self.counts.missing += 1;
            self.places.push_back(Place::Renounced);
        }
        for at in begin..end {
            if let Some(place @ Place::Missing) = self.places.get_mut(at) {
                *place = Place::Renounced;
                self.found(self.front.plus(at as u32));
            }
        }
    }

    /// The next output whose time has come.
    pub fn take(&mut self, now: Micros) -> Option<Output> {
        if self.skipped > 0 {
            return Some(Output::Gap(std::mem::take(&mut self.skipped)));
        }
        match self.places.front()? {
            Place::Here { due, .. } if *due <= now => self.pop(),
            Place::Here { .. } => None,
            Place::Missing | Place::Renounced => {
                let (gap, due) = self.gap()?;
                (due <= now).then(|| self.give_up(gap))
            }
        }
    }

    /// Everything there is, whatever its time: the sender has said goodbye.
    pub fn flush(&mut self) -> Option<Output> {
        if self.skipped > 0 {
            return Some(Output::Gap(std::mem::take(&mut self.skipped)));
        }
        match self.places.front()? {
            Place::Here { .. } => self.pop(),
            _ => {
                let gap = self.gap().map_or(self.places.len() as u32, |(gap, _)| gap);
                Some(self.give_up(gap))
            }
        }
    }

    /// When [`Receiver::take`] has something next, as far as it is known.
    pub fn due(&self) -> Option<Micros> {
        match self.places.front()? {
            Place::Here { due, .. } => Some(*due),
            _ => self.gap().map(|(_, due)| due),
        }
    }

    /// Whether there is anything to ask for, now or later.
    pub fn has_holes(&self) -> bool {
        !self.missing.is_empty()
    }

    /// The words of loss reports for what is to be asked for now. It is asked for again after `pause`, as the report itself
    /// may get lost.
    pub fn loss_reports(&mut self, now: Micros, pause: Micros) -> Vec<Vec<u32>> {
        let again = now + pause;
        let mut reports = vec![Vec::new()];
        let mut range: Option<(Sequence, Sequence)> = None;
        for missing in &mut self.missing {
            if missing.ask_at > now {
                continue;
            }
            let full = reports
                .last()
                .is_some_and(|words| words.len() + 4 > wire::LOSS_WORDS_MAX);
            if full && reports.len() == REPORTS_MAX {
                break;
            }
            missing.ask_at = again;
            range = match range {
                Some((first, last)) if last.plus(1) == missing.sequence => Some((first, missing.sequence)),
                finished => {
                    push(&mut reports, finished, full);
                    Some((missing.sequence, missing.sequence))
                }
            };
        }
        push(&mut reports, range, false);
        reports.retain(|words| !words.is_empty());
        reports
    }

    /// Everything before this number is here or given up.
    pub fn next(&self) -> Sequence {
        self.missing
            .front()
            .map_or_else(|| self.end(), |missing| missing.sequence)
    }

    /// Places left for packets ahead.
    pub fn room(&self) -> u32 {
        self.capacity - self.places.len() as u32
    }

    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// From the next to be played to the newest, in microseconds of media.
    pub fn span(&self) -> Micros {
        let first = self.due();
        let last = self.places.iter().rev().find_map(|place| match place {
            Place::Here { due, .. } => Some(*due),
            _ => None,
        });
        first.zip(last).map_or(0, |(first, last)| (last - first).max(0))
    }

    fn end(&self) -> Sequence {
        self.front.plus(self.places.len() as u32)
    }

    /// The places without a packet at the front, and when the first packet behind them is to be played.
    fn gap(&self) -> Option<(u32, Micros)> {
        self.places.iter().zip(0..).find_map(|(place, gap)| match place {
            Place::Here { due, .. } => Some((gap, *due)),
            _ => None,
        })
    }

    fn pop(&mut self) -> Option<Output> {
        let Some(Place::Here { payload, .. }) = self.places.pop_front() else {
            return None;
        };
        self.front = self.front.plus(1);
        self.counts.buffered -= 1;
        self.counts.buffered_bytes -= payload.len() as u64;
        Some(Output::Payload(payload))
    }

    fn give_up(&mut self, gap: u32) -> Output {
        self.places.drain(..gap as usize);
        self.front = self.front.plus(gap);
        self.counts.lost += u64::from(gap);
        let front = self.front;
        while self
            .missing
            .front()
            .is_some_and(|missing| missing.sequence.ahead_of(front) < 0)
        {
            self.missing.pop_front();
        }
        Output::Gap(gap)
    }

    fn found(&mut self, sequence: Sequence) -> Option<Missing> {
        let front = self.front;
        let at = sequence.ahead_of(front);
        let found = self
            .missing
            .binary_search_by_key(&at, |missing| missing.sequence.ahead_of(front));
        self.missing.remove(found.ok()?)
    }

    /// A packet that was missing for so long came: one that was never repeated had only been overtaken.
    fn judge_order(&mut self, missing_for: Micros, retransmitted: bool) {
        if !retransmitted {
            self.overtaken = self.overtaken.max(missing_for.min(OVERTAKEN_MAX));
            self.calm = 0;
        }
    }

    fn grow_calm(&mut self) {
        self.calm += 1;
        if self.calm >= CALM_PACKETS {
            self.overtaken = self.overtaken * 7 / 8;
            self.calm = 0;
        }
    }
}

fn push(reports: &mut Vec<Vec<u32>>, range: Option<(Sequence, Sequence)>, full: bool) {
    if let (Some((first, last)), Some(words)) = (range, reports.last_mut()) {
        wire::push_range(words, first, last);
    }
    if full {
        reports.push(Vec::new());
    }
}

#[cfg(test)]
mod tests;
