use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    content::Shape,
    theatre::{Reply, Stage, describe, entry},
};

const SECONDS_10: Duration = Duration::from_secs(10);

fn small() -> Shape {
    Shape {
        renditions: vec![80_000, 40_000],
        ..Shape::default()
    }
}

#[test]
fn a_viewer_joins_behind_the_hold_back_and_gets_each_part_once() {
    for pattern in [Pattern::Safari, Pattern::HlsJs] {
        let mut stage = Stage::new(small(), |plan| plan.pattern = pattern);
        stage.run_plainly(SECONDS_10);
        let counts = stage.tally.counts;
        assert_eq!(stage.broken(), [""; 0], "{:?}", stage.tally.broken);
        assert_eq!(counts.joined, 1);
        assert!((48..=50).contains(&counts.live_parts), "{counts:?}");
        let parts: Vec<_> = stage.requests.iter().filter(|path| path.contains("/p")).collect();
        let distinct: BTreeSet<_> = parts.iter().collect();
        assert_eq!(parts.len(), distinct.len(), "a part was asked for twice");
        assert_eq!((counts.stalls, counts.refused, counts.failed), (0, 0, 0));
        assert_eq!(
            stage.requests.iter().filter(|path| path.ends_with("init0.mp4")).count(),
            1
        );
    }
}

#[test]
fn safari_asks_ahead_and_hls_js_does_not() {
    let requested = |pattern| {
        let mut stage = Stage::new(small(), |plan| plan.pattern = pattern);
        let mut ahead = 0;
        stage.run(SECONDS_10, |path, _, reply| {
            ahead += usize::from(path.contains("/p") && reply == Reply::Hold);
            reply
        });
        assert!(stage.most_open <= 3, "{} requests at once", stage.most_open);
        ahead > 0
    };
    assert!(requested(Pattern::Safari));
    assert!(!requested(Pattern::HlsJs));
}

#[test]
fn delta_updates_are_asked_for_once_there_is_something_to_skip() {
    let mut stage = Stage::new(small(), |_| {});
    stage.run_plainly(SECONDS_10);
    let skips = stage
        .requests
        .iter()
        .filter(|path| path.contains("_HLS_skip=YES"))
        .count();
    assert!(skips > 40);
    let mut stage = Stage::new(small(), |plan| plan.delta = false);
    stage.run_plainly(SECONDS_10);
    assert!(!stage.requests.iter().any(|path| path.contains("_HLS_skip")));
}

#[test]
fn a_switch_goes_on_in_the_other_rendition_at_a_segments_start() {
    let mut stage = Stage::new(small(), |plan| plan.switch_every = Some(Duration::from_secs(2)));
    stage.run_plainly(Duration::from_secs(20));
    assert_eq!(stage.broken(), [""; 0], "{:?}", stage.tally.broken);
    assert!(stage.tally.counts.switches >= 5, "{:?}", stage.tally.counts);
    assert!(stage.tally.counts.live_parts >= 90, "{:?}", stage.tally.counts);
    assert_eq!(stage.tally.counts.stalls, 0);
}

#[test]
fn a_seek_plays_from_the_past_and_comes_back() {
    let mut stage = Stage::new(small(), |plan| plan.seek_every = Some(Duration::from_secs(8)));
    stage.run_plainly(Duration::from_secs(30));
    assert_eq!(stage.broken(), [""; 0], "{:?}", stage.tally.broken);
    let counts = stage.tally.counts;
    assert!(
        counts.seeks >= 2 && counts.segments >= 4 * (counts.seeks - 1),
        "{counts:?}"
    );
    assert!(counts.live_parts > 50, "{counts:?}");
}

#[test]
fn a_silent_server_is_left_in_the_end() {
    let mut stage = Stage::new(small(), |_| {});
    stage.run(Duration::from_secs(120), |_, _, _| Reply::Hold);
    assert!(stage.viewer.is_over());
    assert_eq!(stage.tally.counts.gave_up, 1);
    assert_eq!(stage.requests.len(), 6);
}

#[test]
fn a_refusal_is_told_at_once_with_a_remedy() {
    for (status, word) in [(401, "ticket"), (404, "not live")] {
        let mut stage = Stage::new(small(), |_| {});
        stage.run(Duration::from_secs(1), |_, _, _| Reply::Body(status, vec![]));
        assert!(stage.viewer.is_over());
        assert!(
            stage.tally.ends.keys().any(|why| why.contains(word)),
            "{:?}",
            stage.tally.ends
        );
    }
}

#[test]
fn other_servers_are_not_followed() {
    let mut stage = Stage::new(small(), |_| {});
    let text = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttp://elsewhere/v.m3u8\n";
    stage.run(Duration::from_secs(1), |_, _, _| Reply::Body(200, text.into()));
    assert!(
        stage.tally.ends.keys().any(|why| why.contains("elsewhere")),
        "{:?}",
        stage.tally.ends
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Requests that fail, late, at random: the viewer survives them, stays bounded and blames no rule on the order.
    #[test]
    fn failures_never_confuse_the_position(seed in any::<u64>(), every in 3u64..20, safari in any::<bool>()) {
        let pattern = if safari { Pattern::Safari } else { Pattern::HlsJs };
        let mut stage = Stage::new(small(), |plan| {
            plan.pattern = pattern;
            plan.switch_every = Some(Duration::from_secs(3));
            plan.seek_every = Some(Duration::from_secs(7));
            plan.seed = seed;
        });
        let mut n = seed;
        stage.run(SECONDS_10, |_, _, reply| {
            n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            match (reply, (n >> 33) % every) {
                (Reply::Hold, _) => Reply::Hold,
                (_, 0) => Reply::Fail(Failure::Reset),
                (_, 1) => Reply::Body(503, vec![]),
                (reply, _) => reply,
            }
        });
        prop_assert!(stage.most_open <= 4, "{} open", stage.most_open);
        let wrong: Vec<_> = stage.broken().into_iter().filter(|id| !matches!(*id, "PH-05" | "PH-06" | "UP-06")).collect();
        prop_assert!(wrong.is_empty(), "{:?}", stage.tally.broken);
    }

    /// Whatever bytes come, a viewer neither panics nor asks without end.
    #[test]
    fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), status in 100u16..600, head in any::<bool>()) {
        let mut shelf = Shelf::default();
        let now = Moment(1_795_000_000_000_000);
        let mut viewer = Viewer::new(Plan::new(entry(), Pattern::Safari), now);
        let mut body = if head { b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n".to_vec() } else { vec![] };
        body.extend(bytes);
        let mut sent = 0;
        while let Some(output) = viewer.poll() {
            if let Output::Send { id, .. } = output {
                sent += 1;
                viewer.answer(id, &describe(status, &body, now), &mut shelf, now);
            }
            prop_assert!(sent < 10);
        }
    }
}
