//! When news of a rendition first came to any viewer of a thread. Pure.
//!
//! The first of many tells about the server's pace; how long the others wait for their copies is latency, not pace.

use std::{collections::HashMap, time::Duration};

use crate::{
    headers::Headers,
    listing::{Listing, Position},
    moment::Moment,
    rule::{Rule, Violation},
    stamp,
};

/// Renditions remembered; beyond it all are learnt anew.
const MAX_RENDITIONS: usize = 20_000;
/// What networks and schedulers may add to a gap (rules UP-03 and UP-04).
const JITTER: Duration = Duration::from_millis(150);
/// One part in so many may be late (rule UP-04: 5 %).
const LATE_ONE_IN: u64 = 20;
/// Parts from which on a share means something.
const FEWEST_PARTS: u64 = 40;
/// A playlist that is so much older than another viewer's is stale (rule HT-22).
const STALE_AFTER: Duration = Duration::from_secs(1);

/// First sights by rendition.
#[derive(Debug, Default)]
pub(super) struct Arrivals(HashMap<u64, Arrival>);

#[derive(Debug)]
struct Arrival {
    end: Position,
    at: Moment,
    /// When the open segment changed.
    segment_at: Option<Moment>,
    parts: u64,
    late: u64,
}

impl Arrivals {
    /// A viewer who had `before` and asked at `sent` got `now` at `at`.
    pub(super) fn hear(
        &mut self,
        name: &str,
        before: Option<&Listing>,
        now: &Listing,
        sent: Moment,
        at: Moment,
    ) -> Vec<Violation> {
        if self.0.len() >= MAX_RENDITIONS {
            self.0.clear();
        }
        let fresh = || Arrival {
            end: now.end,
            at,
            segment_at: None,
            parts: 0,
            late: 0,
        };
        let known = self.0.entry(stamp::stream_tag(name)).or_insert_with(fresh);
        if now.end <= known.end {
            // Numbering that began anew is learnt anew.
            if now.end.msn.0 + 1 < known.end.msn.0 && before.is_none() {
                *known = fresh();
            }
            return vec![];
        }
        // Only news to somebody who had the news before and asked again soon: nobody may have looked for a while.
        let soon = sent.since(known.at) <= now.playlist.part_target.unwrap_or_default();
        let followed = soon && before.is_some_and(|before| before.end == known.end);
        let found = if followed { known.step(name, now, at) } else { vec![] };
        if !followed {
            known.segment_at = None;
        } else if now.end.msn > known.end.msn {
            known.segment_at = Some(at);
        }
        (known.end, known.at) = (now.end, at);
        found
    }

    /// An unblocked answer, asked for at `sent`: whether it is older than what another viewer had, and does not say so.
    pub(super) fn stale(&self, name: &str, now: &Listing, headers: &Headers, sent: Moment) -> Option<Violation> {
        let known = self.0.get(&stamp::stream_tag(name))?;
        let old = now.end < known.end && sent.since(known.at) > STALE_AFTER;
        (old && headers.age.is_none()).then(|| {
            let ends = format!("ends before {}/{}", now.end.msn, now.end.part);
            let detail = format!("{name} {ends} long after {}/{} was out", known.end.msn, known.end.part);
            Violation::new(Rule::StaleWithoutAge, detail)
        })
    }
}

impl Arrival {
    fn step(&mut self, name: &str, now: &Listing, at: Moment) -> Vec<Violation> {
        let mut found = Vec::new();
        let new = now.parts.iter().rev().take_while(|part| part.at >= self.end).count();
        let new = u32::try_from(new).unwrap_or(u32::MAX);
        if let (Some(target), 1..) = (now.playlist.part_target, new) {
            let gap = at.since(self.at);
            self.parts += u64::from(new);
            if gap > target.saturating_mul(new) + JITTER {
                self.late += 1;
                if self.late > self.parts.max(FEWEST_PARTS) / LATE_ONE_IN {
                    let detail =
                        format!("{name}: {new} new after {gap:?}, PART-TARGET {target:?}, and not for the first time");
                    found.push(Violation::new(Rule::PartsInTime, detail));
                }
            }
        }
        if now.end.msn.0 == self.end.msn.0 + 1
            && let Some(before) = self.segment_at
        {
            let gap = at.since(before);
            let target = now.target_duration();
            if gap > target.mul_f64(1.5) + JITTER {
                let detail = format!("{name}: {gap:?} between two segments, TARGETDURATION {target:?}");
                found.push(Violation::new(Rule::SegmentsInTime, detail));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use weir_shared::id::RenditionName;

    use super::*;
    use crate::content::{Content, Shape};

    const START: Moment = Moment(1_795_000_000_000_000);

    struct Watched {
        content: Content,
        video: RenditionName,
        arrivals: Arrivals,
        before: Option<Listing>,
        first: u64,
        asked: Moment,
    }

    impl Watched {
        fn new() -> Self {
            let content = Content::new(Shape::default(), START);
            Self {
                video: content.renditions()[0].clone(),
                first: content.parts_at(START),
                content,
                arrivals: Arrivals::default(),
                before: None,
                asked: START,
            }
        }

        fn listing(&self, parts: u64) -> Listing {
            let parts = self.first + parts;
            Listing::new(self.content.playlist(&self.video, parts), parts)
        }

        /// The playlist with `parts` new parts came `ms` after the start.
        fn hear(&mut self, parts: u64, ms: u64) -> Vec<&'static str> {
            let now = self.listing(parts);
            let at = START.plus(Duration::from_millis(ms));
            let found = self
                .arrivals
                .hear("/video.m3u8", self.before.as_ref(), &now, self.asked, at);
            self.asked = at;
            self.before = Some(now);
            found.into_iter().map(|violation| violation.rule.id()).collect()
        }
    }

    #[test]
    fn parts_and_segments_on_time_are_nothing_to_tell() {
        let mut watched = Watched::new();
        for part in 0..60 {
            assert_eq!(watched.hear(part, part * 200 + (part % 7) * 20), [""; 0]);
        }
    }

    #[test]
    fn one_late_part_is_an_accident_and_many_are_a_habit() {
        let mut watched = Watched::new();
        let mut at = 0;
        let mut told = vec![];
        for part in 0..30 {
            at += if part % 5 == 2 { 400 } else { 150 };
            told.push(watched.hear(part, at));
        }
        let first = told.iter().position(|rules| rules == &["UP-04"]);
        assert_eq!(first, Some(12), "the third of them: {told:?}");
    }

    #[test]
    fn a_segment_that_takes_too_long_is_named() {
        let mut watched = Watched::new();
        (0..=5).for_each(|part| drop(watched.hear(part, part * 200)));
        let rules: Vec<_> = (6..=10).flat_map(|part| watched.hear(part, part * 200 + 700)).collect();
        assert_eq!(rules, ["UP-03"]);
    }

    #[test]
    fn nobody_is_blamed_for_what_nobody_looked_at() {
        let mut watched = Watched::new();
        watched.hear(1, 0);
        watched.before = None;
        assert_eq!(watched.hear(10, 10_000), [""; 0], "another viewer");
        for part in 11..30 {
            watched.asked = watched.asked.plus(Duration::from_millis(500));
            assert_eq!(watched.hear(part, 10_000 + part * 700), [""; 0], "asked too late");
        }
    }

    #[test]
    fn an_old_playlist_without_an_age_is_named() {
        let mut watched = Watched::new();
        watched.hear(9, 1_800);
        let sent = |ms| START.plus(Duration::from_millis(ms));
        let old = watched.listing(2);
        let told = |headers: Headers, at| watched.arrivals.stale("/video.m3u8", &old, &headers, at).is_some();
        assert!(told(Headers::default(), sent(3_000)));
        assert!(!told(Headers::default(), sent(2_500)), "it may have been on its way");
        let honest = Headers {
            age: Some(1),
            ..Headers::default()
        };
        assert!(!told(honest, sent(3_000)));
    }
}
