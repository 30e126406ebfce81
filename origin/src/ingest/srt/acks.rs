//! Acknowledgements, and what their answers say of the round trip (draft-sharabayko-srt-01, sections 4.8.1 and 4.10).
//! Pure; times are microseconds since the session began.
//!
//! Before this: `srt/session.rs`. After this: `srt/wire.rs`, which writes them.

use std::collections::VecDeque;

use super::{clock::Micros, sequence::Sequence};

/// Distance of full acknowledgements.
pub const FULL_EVERY: Micros = 10_000;
/// Data packets after which a light one goes out between them.
pub const LIGHT_EVERY: u32 = 64;
/// Acknowledgements whose answer is waited for.
const UNANSWERED_MAX: usize = 256;
/// Until the first answer (section 4.10).
const FIRST_RTT: Micros = 100_000;
/// Answers that took longer are not believed: 10 s.
const RTT_MAX: Micros = 10_000_000;

/// The round trip's length and how much it varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTrip {
    pub mean: Micros,
    pub variance: Micros,
    measured: bool,
}

impl Default for RoundTrip {
    fn default() -> Self {
        Self {
            mean: FIRST_RTT,
            variance: FIRST_RTT / 2,
            measured: false,
        }
    }
}

impl RoundTrip {
    fn sample(&mut self, rtt: Micros) {
        if self.measured {
            self.variance = (self.variance * 3 + (rtt - self.mean).abs()) / 4;
            self.mean = (self.mean * 7 + rtt) / 8;
        } else {
            (self.mean, self.variance, self.measured) = (rtt, rtt / 2, true);
        }
    }

    /// Within this, nearly every answer is here.
    pub const fn patience(&self) -> Micros {
        self.mean + 4 * self.variance
    }
}

/// What has been acknowledged to the sender.
#[derive(Debug)]
pub struct Acks {
    rtt: RoundTrip,
    number: u32,
    unanswered: VecDeque<Sent>,
    /// How many answers were waited for in vain: the sender seems to answer none.
    given_up: u64,
    /// The position last sent, when, and whether the sender has said that it knows.
    last: Option<(Sequence, Micros)>,
    known: Option<Sequence>,
    /// Data packets since the last acknowledgement of any kind.
    packets: u32,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    number: u32,
    next: Sequence,
    at: Micros,
}

impl Acks {
    /// `first`: the number of the first packet, which the sender knows we wait for.
    pub const fn new(first: Sequence) -> Self {
        Self {
            rtt: RoundTrip {
                mean: FIRST_RTT,
                variance: FIRST_RTT / 2,
                measured: false,
            },
            number: 0,
            unanswered: VecDeque::new(),
            given_up: 0,
            last: None,
            known: Some(first),
            packets: 0,
        }
    }

    pub const fn rtt(&self) -> RoundTrip {
        self.rtt
    }

    /// Acknowledgements that nothing was heard about, nor about `UNANSWERED_MAX` later ones.
    pub const fn given_up(&self) -> u64 {
        self.given_up
    }

    /// A data packet came. `true`: a light acknowledgement is due.
    pub const fn count_packet(&mut self) -> bool {
        self.packets += 1;
        if self.packets < LIGHT_EVERY {
            return false;
        }
        self.packets = 0;
        true
    }

    /// The number of the full acknowledgement to send now, if there is something to say: the position moved, or the
    /// sender seems not to know it.
    pub fn full(&mut self, next: Sequence, now: Micros) -> Option<u32> {
        if self.known == Some(next) {
            return None;
        }
        if let Some((last, at)) = self.last
            && last == next
            && now - at < self.rtt.patience()
        {
            return None;
        }
        self.number = self.number.wrapping_add(1).max(1);
        self.last = Some((next, now));
        self.packets = 0;
        if self.unanswered.len() >= UNANSWERED_MAX {
            self.unanswered.pop_front();
            self.given_up += 1;
        }
        self.unanswered.push_back(Sent {
            number: self.number,
            next,
            at: now,
        });
        Some(self.number)
    }

    /// The sender has seen this acknowledgement. `true`: it said so for the first time, and the round trip is measured.
    pub fn seen(&mut self, number: u32, now: Micros) -> bool {
        let Some(index) = self.unanswered.iter().position(|sent| sent.number == number) else {
            return false;
        };
        let mut found = None;
        for _ in 0..=index {
            found = self.unanswered.pop_front();
        }
        let Some(sent) = found else { return false };
        self.known = Some(sent.next);
        let rtt = now - sent.at;
        let plausible = (0..=RTT_MAX).contains(&rtt);
        if plausible {
            self.rtt.sample(rtt);
        }
        plausible
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_that_answers_nothing_is_noticed_and_costs_no_more_memory() {
        let mut acks = Acks::new(Sequence::new(0));
        let sent = UNANSWERED_MAX as u32 + 10;
        for n in 1..=sent {
            assert_eq!(acks.full(Sequence::new(n), Micros::from(n) * FULL_EVERY), Some(n));
        }
        assert_eq!((acks.given_up(), acks.unanswered.len()), (10, UNANSWERED_MAX));
        assert_eq!(acks.rtt(), RoundTrip::default());
        assert!(acks.seen(sent, Micros::from(sent) * FULL_EVERY + 5_000));
        assert_eq!((acks.given_up(), acks.unanswered.len()), (10, 0));
    }

    #[test]
    fn what_the_sender_knows_is_not_said_again() {
        let mut acks = Acks::new(Sequence::new(0));
        let next = Sequence::new(10);
        let number = acks.full(next, 0).unwrap();
        assert_eq!(acks.full(next, 10_000), None);
        // No answer for long: again, under another number.
        let again = acks.full(next, 400_000).unwrap();
        assert_ne!(number, again);
        assert!(acks.seen(again, 440_000));
        assert_eq!(acks.full(next, 2_000_000), None);
        assert!(acks.full(next.plus(1), 2_000_000).is_some());
    }

    #[test]
    fn the_round_trip_is_that_of_the_answers() {
        let mut acks = Acks::new(Sequence::new(0));
        assert_eq!(acks.rtt().mean, FIRST_RTT);
        for n in 0..50 {
            let number = acks.full(Sequence::new(n + 1), Micros::from(n) * 100_000).unwrap();
            assert!(acks.seen(number, Micros::from(n) * 100_000 + 40_000));
            assert!(!acks.seen(number, Micros::from(n) * 100_000 + 90_000));
        }
        assert_eq!(acks.rtt().mean, 40_000);
        assert!(acks.rtt().variance < 1_000);
        assert!(!acks.seen(12_345, 0));
    }

    #[test]
    fn a_sender_that_never_answers_costs_little() {
        let mut acks = Acks::new(Sequence::new(0));
        for n in 0..10_000 {
            acks.full(Sequence::new(n), Micros::from(n) * 10_000);
        }
        assert_eq!(acks.unanswered.len(), UNANSWERED_MAX);
    }
}
