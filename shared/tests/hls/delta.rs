//! `merge(old, delta(new)) == new`, and what happens where that cannot be.

use std::time::Duration;

use proptest::prelude::*;
use weir_shared::hls::delta::{MergeError, delta, merge, skippable, strip_old_parts};
use weir_shared::hls::parse::parse;
use weir_shared::hls::position::MediaSequence;
use weir_shared::hls::write::write;

use crate::broadcast::{Broadcast, evolution};

const SECOND: Duration = Duration::from_secs(1);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A reader that is any number of updates behind gets the full playlist, or is told what it lacks.
    #[test]
    fn merging_a_delta_gives_the_full_playlist(
        published in evolution(),
        behind in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
    ) {
        let at = at.index(published.len());
        let (old, new) = (&published[behind.index(at + 1)], &published[at]);
        let update = parse(&write(&delta(new))).unwrap();
        let skipped_end = new.media_sequence.0 + skippable(new) as u64;
        match merge(old, update) {
            Ok(merged) => prop_assert_eq!(&merged, new),
            Err(MergeError::MissingSkipped(_)) => prop_assert!(skipped_end > old.open_sequence().0),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    /// A reader that takes every update never needs the full playlist again, and never drifts from it.
    #[test]
    fn a_reader_that_follows_stays_exact(published in evolution()) {
        let mut copy = published[0].clone();
        for new in &published[1..] {
            copy = merge(&copy, delta(new)).unwrap();
            prop_assert_eq!(&copy, new);
            prop_assert_eq!(write(&copy), write(new));
        }
    }

    /// UP-05: a part that left the playlist does not come back, whatever rounding does to the open segment.
    #[test]
    fn stripped_parts_stay_stripped(published in evolution()) {
        let first_with_parts = |playlist: &weir_shared::hls::playlist::MediaPlaylist| {
            let index = playlist.segments.iter().position(|segment| !segment.parts.is_empty());
            index.map(|index| playlist.media_sequence.0 + index as u64)
        };
        for pair in published.windows(2) {
            if let (Some(before), Some(after)) = (first_with_parts(&pair[0]), first_with_parts(&pair[1])) {
                prop_assert!(after >= before, "{} after {}", after, before);
            }
        }
    }

    /// DL-02 and DL-05: exactly the segments beyond the boundary are gone, and the head is the full playlist's.
    #[test]
    fn exactly_the_segments_beyond_the_boundary_are_skipped(published in evolution()) {
        let full = published.last().unwrap();
        let update = delta(full);
        let boundary = full.server_control.unwrap().can_skip_until.unwrap();
        let skipped = skippable(full);
        let after = |index: usize| -> Duration {
            full.segments[index + 1..].iter().map(|segment| segment.duration).sum()
        };
        for index in 0..full.segments.len() {
            prop_assert_eq!(index < skipped, after(index) > boundary, "segment {}", index);
        }
        prop_assert_eq!(update.skipped_segments, (skipped > 0).then_some(skipped as u64));
        prop_assert_eq!(&update.segments[..], &full.segments[skipped..]);
        prop_assert_eq!(update.version, full.version);
        prop_assert_eq!(update.media_sequence, full.media_sequence);
        prop_assert_eq!(update.discontinuity_sequence, full.discontinuity_sequence);
        prop_assert_eq!(update.open_sequence(), full.open_sequence());
    }
}

fn ten_minutes() -> Broadcast {
    let mut origin = Broadcast::new("video", 1, SECOND);
    origin.run(600, 1, SECOND);
    origin
}

#[test]
fn a_short_playlist_or_one_without_boundary_comes_back_whole() {
    let mut origin = Broadcast::new("video", 1, SECOND);
    origin.run(6, 1, SECOND);
    assert_eq!(delta(&origin.published()), origin.published());

    let mut silent = ten_minutes().published();
    silent.server_control = None;
    assert_eq!(delta(&silent), silent);

    let update = delta(&ten_minutes().published());
    assert_eq!(delta(&update), update, "a delta update of a delta update");
}

#[test]
fn a_reader_that_slept_too_long_is_told_to_ask_for_everything() {
    let mut origin = ten_minutes();
    let old = origin.published();
    let end = old.open_sequence();
    origin.run(20, 1, SECOND);
    let update = delta(&origin.published());
    assert_eq!(merge(&old, update.clone()), Err(MergeError::MissingSkipped(end)));

    // The window moved on past everything it knew.
    origin.evict(615);
    origin.run(20, 1, SECOND);
    let update = delta(&origin.published());
    let first = update.media_sequence;
    assert!(first > end);
    assert_eq!(merge(&old, update), Err(MergeError::MissingSkipped(first)));
}

#[test]
fn time_does_not_run_backwards() {
    let mut origin = ten_minutes();
    let before = origin.published();
    origin.part(SECOND / 3, true, false);
    let later = origin.published();
    assert!(matches!(merge(&later, delta(&before)), Err(MergeError::Older { .. })));
    assert!(matches!(merge(&later, before.clone()), Err(MergeError::Older { .. })));
    assert_eq!(
        merge(&later, delta(&later)),
        Ok(later.clone()),
        "the same again is no fault"
    );

    origin.evict(1);
    let slid = origin.published();
    assert!(matches!(merge(&slid, delta(&later)), Err(MergeError::WentBack { .. })));

    origin.end();
    let ended = origin.published();
    let mut reopened = ended.clone();
    reopened.ended = false;
    assert!(matches!(merge(&ended, reopened), Err(MergeError::Older { .. })));
}

#[test]
fn another_life_of_the_stream_is_not_mixed_in() {
    let old = ten_minutes().published();
    let mut other = ten_minutes();
    other.run(2, 1, SECOND);
    let mut other = other.published();
    for segment in &mut other.segments {
        segment.uri = segment.uri.as_ref().map(|uri| uri.replace("1z/", "20/"));
    }
    let update = delta(&other);
    let first_seen = MediaSequence(update.first_listed().0);
    assert_eq!(merge(&old, update), Err(MergeError::Contradiction(first_seen)));
}

#[test]
fn nothing_is_merged_into_a_delta_update() {
    let full = ten_minutes().published();
    assert_eq!(merge(&delta(&full), delta(&full)), Err(MergeError::OldIsDelta));
}

#[test]
fn an_origin_that_names_no_map_in_its_delta_means_the_last_one() {
    let full = ten_minutes().published();
    let text = write(&delta(&full));
    let without_map: String = text
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("#EXT-X-MAP"))
        .collect();
    assert_ne!(text, without_map);
    assert_eq!(merge(&full, parse(&without_map).unwrap()), Ok(full));
}

#[test]
fn numbers_at_the_end_of_their_range_are_errors_not_panics() {
    let text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:18446744073709551615\n";
    let segments = "#EXTINF:1,\na\n#EXTINF:1,\nb\n#EXTINF:1,\nc\n";
    let old = parse(&format!("{text}{segments}")).unwrap();
    assert_eq!(merge(&old, old.clone()), Ok(old.clone()));
    let skip = "#EXT-X-SKIP:SKIPPED-SEGMENTS=18446744073709551615\n";
    let update = parse(&format!("{text}{skip}{segments}")).unwrap();
    assert!(merge(&old, update).is_err());
    let mut endless = old;
    endless.segments[0].duration = Duration::MAX;
    endless.segments[1].duration = Duration::MAX;
    strip_old_parts(&mut endless);
    assert_eq!(delta(&endless), endless);
}
