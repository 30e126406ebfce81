//! When a packet is to be played (draft-sharabayko-srt-01, section 4.5): the sender's timestamps on our clock. Pure; times
//! are microseconds since the session began.
//!
//! The sender's clock runs a little faster or slower than ours. What the answers to our acknowledgements say of it moves
//! the play times, slowly.
//!
//! Before this: `srt/session.rs`, with every timestamp. After this: `srt/receiver.rs`, which plays by it.

/// Samples of one look at the drift: ten seconds of acknowledgements.
const DRIFT_SAMPLES: u32 = 1000;
/// Most that one look moves the play times, in microseconds.
const DRIFT_STEP_MAX: i64 = 5_000;
/// A packet that asks to be played later than this beyond the latency comes from a clock that was set: 5 s.
const AHEAD_MAX: i64 = 5_000_000;

/// A moment of the session, or a span, in microseconds.
pub type Micros = i64;

/// Turns timestamps into play times.
#[derive(Debug, Clone, Copy)]
pub struct PlayClock {
    /// When the sender's timestamp was zero, on our clock.
    zero: Micros,
    latency: Micros,
    /// The newest timestamp, its wraps counted.
    newest: Micros,
    drift: Drift,
    /// Times that the sender's clock jumped.
    jumps: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Drift {
    samples: u32,
    sum: Micros,
    /// The round trip when the first sample came: a longer one delays samples.
    first_rtt: Option<Micros>,
    /// Moved so far.
    total: Micros,
}

impl PlayClock {
    /// From the handshake packet with this timestamp, that arrived then.
    pub fn new(timestamp: u32, arrived: Micros, latency: Micros) -> Self {
        let newest = Micros::from(timestamp);
        Self {
            zero: arrived - newest,
            latency,
            newest,
            drift: Drift::default(),
            jumps: 0,
        }
    }

    /// The play time of a data packet.
    pub fn due(&mut self, timestamp: u32, now: Micros) -> Micros {
        let at = self.unwrap(timestamp);
        self.newest = self.newest.max(at);
        let due = self.zero + at + self.latency;
        if due - now <= self.latency + AHEAD_MAX {
            return due;
        }
        self.jumps += 1;
        self.newest = at;
        self.zero = now - at;
        now + self.latency
    }

    /// A packet with this timestamp arrived that was sent at once.
    pub fn sample(&mut self, timestamp: u32, now: Micros, rtt: Micros) {
        let at = self.unwrap(timestamp);
        let first_rtt = *self.drift.first_rtt.get_or_insert(rtt);
        let delay = now - (self.zero + at) - (rtt - first_rtt) / 2;
        self.drift.sum += delay;
        self.drift.samples += 1;
        if self.drift.samples < DRIFT_SAMPLES {
            return;
        }
        let mean = self.drift.sum / Micros::from(self.drift.samples);
        let step = mean.clamp(-DRIFT_STEP_MAX, DRIFT_STEP_MAX);
        self.zero += step;
        self.drift.total += step;
        (self.drift.sum, self.drift.samples) = (0, 0);
    }

    /// How far play times have moved since the handshake.
    pub const fn drift(&self) -> Micros {
        self.drift.total
    }

    pub const fn latency(&self) -> Micros {
        self.latency
    }

    pub const fn jumps(&self) -> u64 {
        self.jumps
    }

    /// The one of this timestamp's values that is nearest to the newest.
    fn unwrap(&self, timestamp: u32) -> Micros {
        let step = timestamp.wrapping_sub(self.newest as u32) as i32;
        self.newest + Micros::from(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Micros = 120_000;

    #[test]
    fn a_packet_plays_one_latency_after_it_was_sent_however_long_it_took() {
        let mut clock = PlayClock::new(1_000, 20_000, LATENCY);
        assert_eq!(clock.due(1_000, 20_000), 20_000 + LATENCY);
        assert_eq!(clock.due(11_000, 90_000), 30_000 + LATENCY);
        assert_eq!(clock.due(6_000, 91_000), 25_000 + LATENCY);
    }

    #[test]
    fn timestamps_wrap_and_play_times_do_not() {
        let start = u32::MAX - 999;
        let mut clock = PlayClock::new(start, 0, LATENCY);
        let mut last = clock.due(start, 0);
        for n in 1..5_u32 {
            let due = clock.due(start.wrapping_add(n * 500), Micros::from(n) * 500);
            assert_eq!(due - last, 500);
            last = due;
        }
        // One from before the wrap, come late.
        assert_eq!(clock.due(start, 3_000), LATENCY);
    }

    #[test]
    fn a_drifting_clock_is_followed_and_a_longer_way_is_not_taken_for_drift() {
        // 100 ppm slow: a second of the sender's takes 100 µs more of ours.
        let mut clock = PlayClock::new(0, 0, LATENCY);
        for n in 0..30_000_i64 {
            let sent = n * 10_000;
            clock.sample(sent as u32, sent + sent / 10_000, 40_000);
        }
        let (sent, real) = (300_000_000_u32, 300_030_000);
        let due = clock.due(sent, real);
        assert!((due - LATENCY - real).abs() < 1_000, "{}", due - LATENCY - real);

        let mut clock = PlayClock::new(0, 0, LATENCY);
        for n in 0..1000_i64 {
            let rtt = if n < 1 { 40_000 } else { 60_000 };
            clock.sample((n * 10_000) as u32, n * 10_000 + (rtt - 40_000) / 2, rtt);
        }
        assert_eq!(clock.drift(), 0);
    }

    #[test]
    fn a_clock_that_was_set_ahead_does_not_hold_up_the_stream() {
        let mut clock = PlayClock::new(0, 0, LATENCY);
        assert_eq!(clock.due(600_000_000, 50_000), 50_000 + LATENCY);
        assert_eq!(clock.due(600_010_000, 60_000), 60_000 + LATENCY);
        assert_eq!(clock.jumps(), 1);
        // Back: played at once.
        assert!(clock.due(0, 70_000) < 70_000);
    }
}
