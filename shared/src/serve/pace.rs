//! When a connection with many requests at once (HTTP/2 or 3) has been patient enough with its client. Pure: times are
//! durations since the connection began.
//!
//! A client is let go that makes no first request, asks nothing for long, does not take the answer it asked for, sends
//! bytes that make no request, or takes its requests back again and again.
//!
//! Before this: `limits.rs`. After this: `pulse.rs`, which tells it what happens and acts on its verdict. `h1.rs` has one
//! request at a time and minds the same limits by itself.

use std::time::Duration;

use super::limits::Limits;

/// Why a connection is ended. The words are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Eviction {
    /// The client's fault: a head that does not arrive.
    SlowHead,
    /// Nobody's fault: nothing was asked for long.
    Idle,
    /// The client's fault, or its network's: an answer that is not taken.
    SlowReader,
    /// The client's fault: bytes without requests.
    Chatter,
    /// The client's fault: requests made and taken back.
    Resets,
}

impl Eviction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SlowHead => "slow_head",
            Self::Idle => "idle",
            Self::SlowReader => "slow_reader",
            Self::Chatter => "chatter",
            Self::Resets => "resets",
        }
    }
}

/// Names an answer that is being taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerId(u64);

/// What a connection's client has done so far.
#[derive(Debug, Default)]
pub struct Pace {
    /// Of the answers under way, by number; as many as there are streams at most.
    answers: Vec<(AnswerId, Duration)>,
    next_answer: u64,
    /// Requests whose answers are being made.
    asked: usize,
    has_begun: bool,
    /// When the last answer was taken.
    idle_since: Duration,
    /// Bytes since the last request.
    chatter: u64,
    /// Requests taken back since `resets_since`.
    resets: u32,
    resets_since: Duration,
}

impl Pace {
    /// The client sent this many bytes.
    pub fn heard(&mut self, bytes: usize) {
        self.chatter = self.chatter.saturating_add(bytes as u64);
    }

    /// A request's head is complete.
    pub fn request(&mut self) {
        self.has_begun = true;
        self.asked += 1;
        self.chatter = 0;
    }

    /// The request's answer, of this many bytes, is on its way.
    pub fn answer(&mut self, bytes: u64, limits: &Limits, now: Duration) -> AnswerId {
        let id = AnswerId(self.next_answer);
        self.next_answer += 1;
        self.asked = self.asked.saturating_sub(1);
        let seconds = bytes / limits.answer_bytes_per_second.max(1);
        let deadline = now + limits.answer_grace + Duration::from_secs(seconds);
        self.answers.push((id, deadline));
        id
    }

    /// The connection has the answer's last byte no more.
    pub fn taken(&mut self, id: AnswerId, now: Duration) {
        self.answers.retain(|(other, _)| *other != id);
        self.idle_since = now;
    }

    /// The client took a request back before it was answered.
    pub fn reset(&mut self, now: Duration) {
        self.asked = self.asked.saturating_sub(1);
        self.idle_since = now;
        if now.saturating_sub(self.resets_since) > Limits::RESETS_WINDOW {
            self.resets = 0;
            self.resets_since = now;
        }
        self.resets = self.resets.saturating_add(1);
    }

    /// Whether the connection is to end, and why.
    pub fn verdict(&self, limits: &Limits, now: Duration) -> Option<Eviction> {
        let since = |then: Duration| now.saturating_sub(then);
        if let Some(flood) = self.is_flooded(limits) {
            return Some(flood);
        }
        if self.answers.iter().any(|(_, deadline)| *deadline < now) {
            return Some(Eviction::SlowReader);
        }
        if !self.has_begun && now > limits.head_timeout {
            return Some(Eviction::SlowHead);
        }
        (self.is_idle() && since(self.idle_since) > limits.idle_timeout).then_some(Eviction::Idle)
    }

    /// The part of the verdict that time has no say in.
    pub fn is_flooded(&self, limits: &Limits) -> Option<Eviction> {
        if self.resets > limits.resets {
            return Some(Eviction::Resets);
        }
        (self.chatter > limits.chatter_bytes).then_some(Eviction::Chatter)
    }

    /// Nothing is being answered.
    pub fn is_idle(&self) -> bool {
        self.asked == 0 && self.answers.is_empty()
    }

    /// Whether a request has ever been made here.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            answer_grace: Duration::from_secs(10),
            answer_bytes_per_second: 1000,
            chatter_bytes: 5000,
            resets: 3,
            ..Limits::default()
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_newcomer_has_its_time_for_a_first_request() {
        let (limits, mut pace) = (limits(), Pace::default());
        assert_eq!(pace.verdict(&limits, at(10)), None);
        assert_eq!(
            pace.verdict(&limits, at(11)),
            Some(Eviction::SlowHead),
            "a silent newcomer"
        );
        pace.request();
        assert_eq!(pace.verdict(&limits, at(11)), None);
    }

    #[test]
    fn what_a_multiplexing_client_sends_between_requests_is_no_head() {
        let (limits, mut pace) = (limits(), Pace::default());
        pace.request();
        let id = pace.answer(10, &limits, at(1));
        pace.taken(id, at(1));
        pace.heard(13);
        assert_eq!(pace.verdict(&limits, at(61)), None);
        assert_eq!(pace.verdict(&limits, at(62)), Some(Eviction::Idle));
    }

    #[test]
    fn a_held_request_may_take_its_time() {
        let (limits, mut pace) = (limits(), Pace::default());
        pace.request();
        assert_eq!(pace.verdict(&limits, at(3600)), None);
    }

    #[test]
    fn a_long_answer_has_longer_to_be_taken() {
        let (limits, mut pace) = (limits(), Pace::default());
        pace.request();
        pace.request();
        let long = pace.answer(30_000, &limits, at(0));
        assert_eq!(pace.verdict(&limits, at(40)), None);
        assert_eq!(pace.verdict(&limits, at(41)), Some(Eviction::SlowReader));
        // One that is stuck ends the connection, however well others flow.
        let short = pace.answer(0, &limits, at(0));
        assert_eq!(pace.verdict(&limits, at(11)), Some(Eviction::SlowReader));
        pace.taken(short, at(11));
        assert_eq!(pace.verdict(&limits, at(11)), None);
        pace.taken(long, at(12));
        assert_eq!(pace.verdict(&limits, at(72)), None);
        assert_eq!(pace.verdict(&limits, at(73)), Some(Eviction::Idle));
    }

    #[test]
    fn bytes_without_requests_are_counted_up_to_the_next_request() {
        let (limits, mut pace) = (limits(), Pace::default());
        pace.request();
        pace.heard(5000);
        assert_eq!(pace.verdict(&limits, at(1)), None);
        pace.request();
        pace.heard(5000);
        assert_eq!(pace.verdict(&limits, at(2)), None);
        pace.heard(1);
        assert_eq!(pace.verdict(&limits, at(2)), Some(Eviction::Chatter));
    }

    #[test]
    fn requests_may_be_taken_back_now_and_then() {
        let (limits, mut pace) = (limits(), Pace::default());
        let reset = |pace: &mut Pace, second| {
            pace.request();
            pace.reset(at(second));
            pace.verdict(&limits, at(second))
        };
        for second in [1, 5, 9, 12, 13, 14] {
            assert_eq!(reset(&mut pace, second), None, "{second}");
        }
        assert_eq!(reset(&mut pace, 15), Some(Eviction::Resets));
    }
}
