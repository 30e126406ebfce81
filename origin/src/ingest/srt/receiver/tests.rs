use proptest::prelude::*;

use super::*;

const FIRST: u32 = (1 << 31) - 20;

fn number(n: u32) -> Sequence {
    Sequence::new(FIRST).plus(n)
}

fn payload(n: u32) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

/// Packet `n` plays at `n` milliseconds.
fn insert(receiver: &mut Receiver, n: u32, now: Micros) -> Arrival {
    let came = Came {
        at: now,
        retransmitted: true,
    };
    receiver.insert(number(n), Micros::from(n) * 1000, payload(n), came)
}

fn take_all(receiver: &mut Receiver, now: Micros) -> Vec<Output> {
    std::iter::from_fn(|| receiver.take(now)).collect()
}

fn receiver() -> Receiver {
    Receiver::new(number(0), 1000)
}

#[test]
fn packets_play_in_order_and_not_before_their_time() {
    let mut receiver = receiver();
    for n in [0, 2, 1, 3] {
        insert(&mut receiver, n, 0);
    }
    assert_eq!(
        take_all(&mut receiver, 1_999),
        [Output::Payload(payload(0)), Output::Payload(payload(1))]
    );
    assert_eq!(receiver.due(), Some(2_000));
    assert_eq!(take_all(&mut receiver, 3_000).len(), 2);
    assert_eq!(receiver.counts().buffered, 0);
}

#[test]
fn a_hole_is_given_up_when_what_follows_is_to_be_played_and_nothing_else_with_it() {
    let mut receiver = receiver();
    assert_eq!(insert(&mut receiver, 0, 0), Arrival::Next { missing: 0 });
    assert_eq!(insert(&mut receiver, 3, 0), Arrival::Next { missing: 2 });
    insert(&mut receiver, 4, 0);
    assert_eq!(take_all(&mut receiver, 2_999), [Output::Payload(payload(0))]);
    assert_eq!(insert(&mut receiver, 2, 2_999), Arrival::Mended);
    assert_eq!(receiver.next(), number(1));
    let played = take_all(&mut receiver, 10_000);
    let wanted = [2, 3, 4].map(|n| Output::Payload(payload(n)));
    assert_eq!(played[0], Output::Gap(1));
    assert_eq!(played[1..], wanted);
    assert_eq!(insert(&mut receiver, 1, 10_000), Arrival::Late);
    let counts = receiver.counts();
    assert_eq!((counts.missing, counts.mended, counts.lost, counts.late), (2, 1, 1, 1));
    assert_eq!(receiver.next(), number(5));
}

#[test]
fn what_is_missing_is_asked_for_at_once_and_again_while_there_is_time() {
    let mut receiver = receiver();
    insert(&mut receiver, 0, 0);
    insert(&mut receiver, 5, 0);
    insert(&mut receiver, 7, 0);
    let mut wanted = Vec::new();
    wire::push_range(&mut wanted, number(1), number(4));
    wire::push_range(&mut wanted, number(6), number(6));
    let pause = 50_000;
    assert_eq!(receiver.loss_reports(0, pause), [wanted]);
    assert!(receiver.loss_reports(49_999, pause).is_empty());
    insert(&mut receiver, 2, 49_999);
    let mut rest = Vec::new();
    for (first, last) in [(1, 1), (3, 4), (6, 6)] {
        wire::push_range(&mut rest, number(first), number(last));
    }
    assert_eq!(receiver.loss_reports(50_000, pause), [rest]);
}

#[test]
fn a_long_loss_report_goes_out_in_pieces_that_fit_a_packet() {
    let mut receiver = Receiver::new(number(0), 20_000);
    for n in (0..8_000).step_by(2) {
        insert(&mut receiver, n, 0);
    }
    let reports = receiver.loss_reports(0, 100_000);
    assert_eq!(reports.len(), REPORTS_MAX);
    assert!(reports.iter().all(|words| words.len() <= wire::LOSS_WORDS_MAX));
    let asked: usize = reports.iter().map(Vec::len).sum();
    let later: usize = receiver.loss_reports(0, 100_000).iter().map(Vec::len).sum();
    assert_eq!(asked + later, 3_999);
}

#[test]
fn what_the_sender_renounces_is_not_asked_for_and_may_still_come() {
    let mut receiver = receiver();
    insert(&mut receiver, 0, 0);
    insert(&mut receiver, 5, 0);
    receiver.renounce(number(1), number(3));
    let mut wanted = Vec::new();
    wire::push_range(&mut wanted, number(4), number(4));
    assert_eq!(receiver.loss_reports(0, 0), [wanted]);
    assert_eq!(insert(&mut receiver, 2, 0), Arrival::Mended);
    // Beyond the newest: the sender dropped what it never sent.
    receiver.renounce(number(6), number(9));
    assert_eq!(receiver.next(), number(4));
    insert(&mut receiver, 10, 0);
    assert_eq!(
        take_all(&mut receiver, 20_000),
        [
            Output::Payload(payload(0)),
            Output::Gap(1),
            Output::Payload(payload(2)),
            Output::Gap(2),
            Output::Payload(payload(5)),
            Output::Gap(4),
            Output::Payload(payload(10)),
        ]
    );
    assert_eq!(receiver.counts().lost, 7);
    // Nonsense changes nothing.
    receiver.renounce(number(5), number(2));
    receiver.renounce(number(500), number(600));
    receiver.renounce(number(0), number(4));
    assert_eq!(receiver.next(), number(11));
}

#[test]
fn memory_is_bounded_and_a_sender_far_ahead_is_caught_up_with() {
    let mut receiver = Receiver::new(number(0), 100);
    insert(&mut receiver, 0, 0);
    assert_eq!(insert(&mut receiver, 100, 0), Arrival::NoRoom);
    assert_eq!(insert(&mut receiver, 99, 0), Arrival::Next { missing: 98 });
    assert_eq!(receiver.room(), 0);
    take_all(&mut receiver, 200_000);
    // All is played: the next packet is where the stream goes on.
    assert_eq!(insert(&mut receiver, 5_000, 200_000), Arrival::Next { missing: 0 });
    assert_eq!(receiver.next(), number(5_001));
}

#[derive(Debug, Clone)]
enum Act {
    Insert(u32),
    Renounce(u32, u32),
    Wait(Micros),
    Ask,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => (0..300_u32).prop_map(Act::Insert),
        1 => (0..300_u32, 0..20_u32).prop_map(|(first, count)| Act::Renounce(first, first + count)),
        2 => (0..20_000_i64).prop_map(Act::Wait),
        1 => Just(Act::Ask),
    ];
    prop::collection::vec(act, 1..400)
}

proptest! {
    #[test]
    fn whatever_comes_the_output_is_in_order_on_time_and_adds_up(acts in acts()) {
        let mut receiver = Receiver::new(number(0), 128);
        let (mut now, mut next, mut arrived) = (0, 0_u32, std::collections::BTreeSet::new());
        let mut lost = 0;
        for act in acts {
            match act {
                Act::Insert(n) => {
                    if matches!(insert(&mut receiver, n, now), Arrival::Next { .. } | Arrival::Mended) {
                        prop_assert!(arrived.insert(n), "{n} was taken twice");
                    }
                }
                Act::Renounce(first, last) => receiver.renounce(number(first), number(last)),
                Act::Wait(span) => now += span,
                Act::Ask => {
                    for words in receiver.loss_reports(now, 10_000) {
                        prop_assert!(words.len() <= wire::LOSS_WORDS_MAX);
                    }
                }
            }
            while let Some(output) = receiver.take(now) {
                match output {
                    Output::Payload(bytes) => {
                        prop_assert_eq!(&bytes, &payload(next), "order");
                        prop_assert!(arrived.contains(&next));
                        prop_assert!(Micros::from(next) * 1000 <= now, "too early");
                        next += 1;
                    }
                    Output::Gap(count) => {
                        lost += u64::from(count);
                        for n in next..next + count {
                            prop_assert!(!arrived.contains(&n), "{n} was here and given up");
                        }
                        next += count;
                    }
                }
            }
            prop_assert!(receiver.due().is_none_or(|due| due > now));
            let counts = receiver.counts();
            prop_assert_eq!(counts.lost, lost);
            prop_assert_eq!(receiver.room() + receiver.places.len() as u32, 128);
            let holes = receiver.places.iter().filter(|place| **place == Place::Missing).count();
            prop_assert_eq!(receiver.missing.len(), holes);
            let empty = receiver.places.len() as u64 - u64::from(counts.buffered);
            prop_assert_eq!(counts.missing, counts.mended + counts.lost + empty);
        }
    }
}
