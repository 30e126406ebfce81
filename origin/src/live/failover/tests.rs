use proptest::prelude::*;

use super::*;

const POLICY: Policy = Policy {
    after: Duration::from_secs(3),
    revert: Revert::WhenStable,
    stable_for: Duration::from_secs(10),
};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Two feeds of one frame in 100 ms, a key frame every second; either may be silent.
struct Bench {
    failover: Failover,
    start: Instant,
    tick: u64,
    switches: Vec<(u64, Slot, Why)>,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        let start = Instant::now();
        let mut failover = Failover::new(policy);
        failover.joined(Slot::Primary, start);
        failover.joined(Slot::Backup, start);
        Self {
            failover,
            start,
            tick: 0,
            switches: vec![],
        }
    }

    fn now(&self) -> Instant {
        self.start + ms(self.tick * 100)
    }

    /// Runs for `ticks`, in which these feeds send.
    fn run(&mut self, ticks: u64, senders: &[Slot]) {
        for _ in 0..ticks {
            self.tick += 1;
            let now = self.now();
            for slot in senders {
                self.failover.heard(*slot, self.tick.is_multiple_of(10), now);
                self.choose();
            }
            self.choose();
        }
    }

    fn choose(&mut self) {
        if let Some((slot, why)) = self.failover.choose(self.now()) {
            self.switches.push((self.tick, slot, why));
        }
    }
}

const BOTH: &[Slot] = &[Slot::Primary, Slot::Backup];

#[test]
fn the_backup_takes_over_after_the_silence_and_the_primary_returns_once_it_is_stable() {
    let mut bench = Bench::new(POLICY);
    bench.run(50, BOTH);
    bench.run(100, &[Slot::Backup]);
    bench.run(200, BOTH);
    assert_eq!(
        bench.switches,
        [
            (1, Slot::Primary, Why::OnlyOne),
            // Silent since tick 50; the backup's key frames since then wait in its buffer.
            (80, Slot::Backup, Why::Failover),
            // Back at tick 151, stable 100 ticks later; its next key frame.
            (260, Slot::Primary, Why::Revert),
        ]
    );
}

#[test]
fn a_primary_that_hiccups_is_not_taken_again_and_never_means_never() {
    let mut bench = Bench::new(POLICY);
    bench.run(10, BOTH);
    bench.run(60, &[Slot::Backup]);
    for _ in 0..5 {
        bench.run(60, BOTH);
        bench.run(40, &[Slot::Backup]);
    }
    assert_eq!(bench.failover.active(), Some(Slot::Backup));

    let mut bench = Bench::new(Policy {
        revert: Revert::Never,
        ..POLICY
    });
    bench.run(10, BOTH);
    bench.run(60, &[Slot::Backup]);
    bench.run(1000, BOTH);
    assert_eq!(bench.failover.active(), Some(Slot::Backup));
    bench.run(40, &[Slot::Primary]);
    assert_eq!(bench.failover.active(), Some(Slot::Primary));
}

#[test]
fn a_feed_that_leaves_is_replaced_without_waiting() {
    let mut bench = Bench::new(POLICY);
    bench.run(15, BOTH);
    bench.failover.left(Slot::Primary);
    bench.run(10, &[Slot::Backup]);
    // At once, but from a key frame.
    assert_eq!(bench.switches.last(), Some(&(20, Slot::Backup, Why::Failover)));
}

#[test]
fn a_newcomer_in_the_same_slot_is_shown_from_its_first_key_frame() {
    let mut bench = Bench::new(POLICY);
    bench.failover.left(Slot::Backup);
    bench.run(15, &[Slot::Primary]);
    bench.failover.joined(Slot::Primary, bench.now());
    assert_eq!(bench.failover.active(), None);
    bench.run(10, &[Slot::Primary]);
    assert_eq!(bench.switches.last(), Some(&(20, Slot::Primary, Why::Failover)));
}

#[test]
fn a_timer_is_asked_for_while_it_can_change_something() {
    let mut bench = Bench::new(POLICY);
    bench.run(10, BOTH);
    assert_eq!(
        bench.failover.next_timeout(bench.now()),
        Some(bench.now() + POLICY.after)
    );
    bench.failover.left(Slot::Backup);
    assert_eq!(bench.failover.next_timeout(bench.now()), None);
}

proptest! {
    /// Whoever is heard in time keeps being shown, and nobody is shown who is not there.
    #[test]
    fn a_switch_always_has_a_reason(phases in prop::collection::vec((1u64..80, any::<bool>(), any::<bool>()), 1..30)) {
        let mut bench = Bench::new(POLICY);
        for (ticks, primary, backup) in phases {
            for _ in 0..ticks {
                let (before, count) = (bench.failover.active(), bench.switches.len());
                let next = bench.now() + ms(100);
                let silent = before.is_some_and(|old| bench.failover.is_silent(old, next));
                let senders: Vec<Slot> = [(primary, Slot::Primary), (backup, Slot::Backup)]
                    .into_iter().filter(|(sends, _)| *sends).map(|(_, slot)| slot).collect();
                bench.run(1, &senders);
                prop_assert!(bench.switches.len() <= count + 1, "one switch at a time");
                if let Some(&(_, slot, why)) = bench.switches.get(count) {
                    prop_assert!(before != Some(slot));
                    match why {
                        Why::OnlyOne => prop_assert_eq!(before, None),
                        Why::Failover => prop_assert!(silent),
                        Why::Revert => prop_assert!(slot == Slot::Primary && bench.tick.is_multiple_of(10)),
                    }
                }
            }
        }
    }
}
