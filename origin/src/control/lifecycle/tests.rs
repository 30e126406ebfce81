use proptest::prelude::*;

use super::*;

const TIMERS: Timers = Timers {
    grace: 10_000,
    idle: 30_000,
};

/// Takes the steps that are legal, and says what was done and told.
fn run(state: &mut State, events: &[(Event, Millis)]) -> (Vec<Action>, Vec<Notice>) {
    let (mut actions, mut notices) = (Vec::new(), Vec::new());
    for (event, at) in events {
        let step = state.step(*event, *at, TIMERS).expect("a legal step");
        *state = step.state;
        actions.extend(step.actions);
        notices.extend(step.notices);
    }
    (actions, notices)
}

#[test]
fn a_broadcast_goes_from_idle_through_live_to_disabled_and_back() {
    let mut state = State::default();
    let (actions, notices) = run(
        &mut state,
        &[
            (Event::Connected(Slot::Primary), 0),
            (Event::Left(Slot::Primary), 5_000),
            (Event::Tick, 14_999),
        ],
    );
    assert_eq!(state.status(), Status::Live, "the grace time is not over");
    assert_eq!(actions, []);
    assert_eq!(
        notices,
        [Notice::Live, Notice::BroadcastingStarted, Notice::Interrupted]
    );

    let (actions, notices) = run(&mut state, &[(Event::Tick, 15_000)]);
    assert_eq!(state.status(), Status::Disabled);
    assert_eq!(actions, [Action::EndPlaylist]);
    assert_eq!(notices, [Notice::BroadcastingStopped, Notice::Ended]);
    let refused = state.step(Event::Connected(Slot::Primary), 16_000, TIMERS).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "publish is not possible while the stream is DISABLED: activate the stream first"
    );

    run(
        &mut state,
        &[(Event::Activate, 17_000), (Event::Connected(Slot::Primary), 18_000)],
    );
    assert_eq!(state.status(), Status::Live);
}

#[test]
fn an_encoder_that_comes_back_in_time_continues_the_broadcast() {
    let mut state = State::default();
    let (_, notices) = run(
        &mut state,
        &[
            (Event::Connected(Slot::Primary), 0),
            (Event::Left(Slot::Primary), 1_000),
            (Event::Connected(Slot::Primary), 10_999),
            (Event::Tick, 12_000),
        ],
    );
    assert_eq!(state.status(), Status::Live);
    assert_eq!(notices.last(), Some(&Notice::Resumed));
}

#[test]
fn the_backup_carries_the_stream_while_the_primary_is_away() {
    let mut state = State::default();
    run(
        &mut state,
        &[
            (Event::Connected(Slot::Primary), 0),
            (Event::Connected(Slot::Backup), 1),
            (Event::Left(Slot::Primary), 2),
        ],
    );
    assert_eq!((state.primary, state.backup, state.phase), (false, true, Phase::Live));
}

#[test]
fn a_publisher_that_sends_nothing_is_cut_off() {
    let mut state = State::default();
    run(
        &mut state,
        &[
            (Event::Connected(Slot::Primary), 0),
            (Event::Input, 10_000),
            (Event::Tick, 39_999),
        ],
    );
    assert_eq!(state.next_timeout(TIMERS), Some(40_000));
    let (actions, _) = run(&mut state, &[(Event::Tick, 40_000)]);
    assert_eq!(actions, [Action::Kick, Action::EndPlaylist]);
    assert_eq!(state.status(), Status::Disabled);
}

#[test]
fn an_inactive_stream_refuses_publishers_and_keeps_its_place() {
    let mut state = State::default();
    let (actions, _) = run(
        &mut state,
        &[(Event::Connected(Slot::Primary), 0), (Event::SetActive(false), 1)],
    );
    assert_eq!(actions, [Action::Kick, Action::EndPlaylist]);
    assert_eq!(state.status(), Status::Idle);
    assert!(state.step(Event::Connected(Slot::Primary), 2, TIMERS).is_err());
    run(
        &mut state,
        &[(Event::SetActive(true), 3), (Event::Connected(Slot::Primary), 4)],
    );
}

#[test]
fn a_backstage_stream_shows_nothing_before_go_live() {
    let mut state = State {
        backstage: true,
        ..State::default()
    };
    let refused = state.step(Event::StartBroadcasting, 0, TIMERS).unwrap_err();
    assert_eq!(refused.status, Status::Idle);
    run(&mut state, &[(Event::Connected(Slot::Primary), 1)]);
    assert!(!state.broadcasting);
    let (_, notices) = run(
        &mut state,
        &[(Event::StartBroadcasting, 2), (Event::StartBroadcasting, 3)],
    );
    assert!(state.broadcasting);
    assert_eq!(
        notices,
        [Notice::BroadcastingStarted],
        "once, however often it is called"
    );
}

fn events() -> impl Strategy<Value = Event> {
    let slot = || prop_oneof![Just(Slot::Primary), Just(Slot::Backup)];
    prop_oneof![
        slot().prop_map(Event::Connected),
        slot().prop_map(Event::Left),
        Just(Event::Input),
        Just(Event::Tick),
        Just(Event::Ended),
        Just(Event::Activate),
        Just(Event::Disable),
        Just(Event::Delete),
        any::<bool>().prop_map(Event::SetActive),
        any::<bool>().prop_map(Event::SetBackstage),
        Just(Event::StartBroadcasting),
        Just(Event::StopBroadcasting),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_state_makes_sense(
        history in proptest::collection::vec((events(), 0i64..20_000), 0..60),
    ) {
        let mut state = State::default();
        let (mut now, mut told_live, mut told_broadcasting) = (0, false, false);
        for (event, pause) in history {
            now += pause;
            let before = state;
            match state.step(event, now, TIMERS) {
                Ok(step) => {
                    state = step.state;
                    for notice in &step.notices {
                        match notice {
                            Notice::Live => { prop_assert!(!told_live); told_live = true; }
                            Notice::Ended => { prop_assert!(told_live); told_live = false; }
                            Notice::BroadcastingStarted => { prop_assert!(!told_broadcasting); told_broadcasting = true; }
                            Notice::BroadcastingStopped => { prop_assert!(told_broadcasting); told_broadcasting = false; }
                            _ => {}
                        }
                    }
                    let was_live = before.status() == Status::Live;
                    let ended = was_live && state.status() != Status::Live;
                    prop_assert!(!ended || step.actions.contains(&Action::EndPlaylist));
                    let kicked = step.actions.contains(&Action::Kick);
                    prop_assert!(!kicked || before.primary || before.backup);
                }
                Err(refused) => prop_assert_eq!(refused.status, before.status()),
            }
            let live = state.status() == Status::Live;
            prop_assert_eq!(live, told_live);
            prop_assert_eq!(state.broadcasting, told_broadcasting);
            prop_assert!(live || !(state.primary || state.backup || state.broadcasting));
            prop_assert_eq!(live, state.live_since.is_some());
            prop_assert_eq!(state.phase == Phase::Live, state.primary || state.backup);
            prop_assert!(!live || state.active);
        }
    }
}
