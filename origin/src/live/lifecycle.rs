//! What a stream's ingest is doing: idle → live → grace → ended. Pure; the time is an argument, and it asks for its next
//! timeout.
//!
//! A pipeline outlives its publishers: when the last one is gone, however it went, the stream waits in [`State::Grace`]
//! for one that comes back and continues it. A newcomer who sends nothing does not count as one who came back, but gets
//! the time to begin. Which of several publishers is used is decided in `failover.rs`.
//!
//! Before this: `live/pipeline.rs`, which reports what happens. After this: `live/status.rs`, which tells others.

use std::time::{Duration, Instant};

/// How long one that was let in at the very end may take to be there.
const SPARED: Duration = Duration::from_secs(1);

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No media has come yet.
    Idle,
    Live,
    /// Nobody sends. The playlists stay open until then.
    Grace {
        until: Instant,
    },
    /// For good: the next publisher begins a new life.
    Ended,
}

impl State {
    /// Word for logs and listings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Live => "live",
            Self::Grace { .. } => "grace",
            Self::Ended => "ended",
        }
    }
}

/// One life of a stream's ingest.
#[derive(Debug)]
pub struct Lifecycle {
    grace: Duration,
    state: State,
    publishers: usize,
}

impl Lifecycle {
    /// `grace`: how long a stream that was live waits for a publisher. Zero: it ends with its last one.
    pub fn new(grace: Duration) -> Self {
        Self {
            grace,
            state: State::Idle,
            publishers: 0,
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// A publisher was let in. It has the grace time from now on to send something.
    pub fn joined(&mut self, now: Instant) {
        self.publishers += 1;
        if let State::Grace { until } = &mut self.state {
            *until = (*until).max(now + self.grace);
        }
    }

    /// Media came.
    pub fn heard(&mut self) {
        if self.state != State::Ended {
            self.state = State::Live;
        }
    }

    /// A publisher is gone.
    pub fn left(&mut self, now: Instant) {
        self.publishers = self.publishers.saturating_sub(1);
        if self.publishers > 0 {
            return;
        }
        self.state = match self.state {
            // Nothing was ever shown: there is nothing to continue.
            State::Idle => State::Ended,
            State::Live => self.wait_or_end(now),
            // It was waited for because it was silent; now it is gone.
            State::Grace { until } if until > now + self.grace => self.wait_or_end(now),
            waiting_or_ended => waiting_or_ended,
        };
    }

    /// Publishers may be there, but none sends: it ends then. A connection that is dead and not yet closed looks like this.
    pub fn fell_silent(&mut self, until: Instant) {
        if self.state == State::Live && self.publishers > 0 {
            self.state = State::Grace { until };
        }
    }

    /// It was about to end, but a publisher has just been let in: it waits for that one.
    pub fn spare(&mut self, now: Instant) {
        self.state = State::Grace {
            until: now + self.grace.max(SPARED),
        };
    }

    /// Whatever was, it is over.
    pub fn end(&mut self) {
        self.state = State::Ended;
    }

    /// When to call [`timeout`](Self::timeout).
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Grace { until } => Some(until),
            _ => None,
        }
    }

    /// The time is `now`: grace may be over.
    pub fn timeout(&mut self, now: Instant) {
        if let State::Grace { until } = self.state
            && now >= until
        {
            self.state = State::Ended;
        }
    }

    fn wait_or_end(&self, now: Instant) -> State {
        if self.grace.is_zero() {
            State::Ended
        } else {
            State::Grace {
                until: now + self.grace,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(10);
    /// How long a silent publisher is waited for.
    const IDLE: Duration = Duration::from_secs(30);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn live(now: Instant) -> Lifecycle {
        let mut stream = Lifecycle::new(GRACE);
        stream.joined(now);
        stream.heard();
        stream
    }

    #[test]
    fn whoever_comes_back_in_time_continues_the_stream() {
        let start = Instant::now();
        let mut stream = live(start);
        stream.left(start + seconds(5));
        assert_eq!(
            stream.state(),
            State::Grace {
                until: start + seconds(15)
            }
        );
        stream.timeout(start + seconds(14));
        stream.joined(start + seconds(14));
        stream.heard();
        assert_eq!((stream.state(), stream.next_timeout()), (State::Live, None));
    }

    #[test]
    fn grace_that_runs_out_ends_the_stream_for_good() {
        let start = Instant::now();
        let mut stream = live(start);
        stream.left(start);
        stream.timeout(start + GRACE);
        assert_eq!(stream.state(), State::Ended);
        stream.joined(start + seconds(11));
        stream.heard();
        assert_eq!(stream.state(), State::Ended);
    }

    #[test]
    fn a_newcomer_who_says_nothing_gets_one_grace_time() {
        let start = Instant::now();
        let mut stream = live(start);
        stream.left(start);
        stream.joined(start + seconds(9));
        stream.timeout(start + seconds(18));
        assert!(matches!(stream.state(), State::Grace { .. }));
        stream.timeout(start + seconds(19));
        assert_eq!(stream.state(), State::Ended);
    }

    #[test]
    fn a_silent_publisher_has_its_idle_time_and_one_that_left_its_grace() {
        let start = Instant::now();
        let mut stream = live(start);
        stream.fell_silent(start + IDLE);
        stream.timeout(start + GRACE);
        assert_eq!(stream.state(), State::Grace { until: start + IDLE });
        stream.left(start + GRACE);
        assert_eq!(stream.next_timeout(), Some(start + GRACE + GRACE));
        stream.left(start + seconds(15));
        assert_eq!(stream.next_timeout(), Some(start + GRACE + GRACE), "said twice");
    }

    #[test]
    fn without_grace_the_stream_ends_with_its_last_publisher() {
        let now = Instant::now();
        let mut stream = Lifecycle::new(Duration::ZERO);
        stream.joined(now);
        stream.joined(now);
        stream.heard();
        stream.left(now);
        assert_eq!(stream.state(), State::Live);
        stream.left(now);
        assert_eq!(stream.state(), State::Ended);
    }

    #[test]
    fn who_never_sent_anything_leaves_nothing_behind() {
        let now = Instant::now();
        let mut stream = Lifecycle::new(GRACE);
        stream.joined(now);
        stream.left(now);
        assert_eq!(stream.state(), State::Ended);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Join,
        Hear,
        Leave,
        Silence,
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Join),
            Just(Step::Hear),
            Just(Step::Leave),
            Just(Step::Silence),
            (0u64..15_000).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        /// The promises that players rely on, whatever happens in whatever order.
        #[test]
        fn no_stream_ends_before_its_grace_or_lives_on_after_its_end(steps in steps()) {
            let mut now = Instant::now();
            let mut stream = Lifecycle::new(GRACE);
            let mut publishers = 0usize;
            let mut heard_or_joined = now;
            let mut ended = false;
            for step in steps {
                match step {
                    Step::Join => { stream.joined(now); publishers += 1; heard_or_joined = now; }
                    Step::Hear if publishers > 0 => { stream.heard(); heard_or_joined = now; }
                    Step::Hear => {}
                    Step::Leave if publishers > 0 => { stream.left(now); publishers -= 1; }
                    Step::Leave => {}
                    Step::Silence => stream.fell_silent(now + IDLE),
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                }
                let was = stream.state();
                stream.timeout(now);
                prop_assert!(!ended || stream.state() == State::Ended, "an end is final");
                if stream.state() == State::Ended && !ended {
                    let graceless = publishers == 0 && was == State::Ended;
                    prop_assert!(graceless || now >= heard_or_joined + GRACE, "{was:?} ended too early");
                    ended = true;
                }
                if let State::Grace { until } = stream.state() {
                    let longest = if publishers > 0 { IDLE } else { GRACE };
                    prop_assert!(until > now && until <= now + longest);
                    prop_assert_eq!(stream.next_timeout(), Some(until));
                }
                if publishers == 0 {
                    prop_assert!(stream.state() != State::Live, "nobody is there");
                }
            }
        }
    }
}
