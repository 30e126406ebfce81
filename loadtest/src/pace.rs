//! When the next tag is due. Pure: time is an argument.
//!
//! Before this: a [`Source`]. After this: [`crate::publisher`].

use std::time::{Duration, Instant};

use crate::{
    rhythm::{Beat, Rhythm},
    tag::{Source, Tag},
};

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Send this; it is `late` by as much (zero or more).
    Now { tag: Tag, late: Duration },
    /// Nothing before then.
    At(Instant),
    /// The source is over.
    Ended,
}

/// Holds each tag of a source until `start + its time`, or later by the rhythm. Deadlines come from the start alone, so neither a late wake-up
/// nor a slow send shifts what follows.
#[derive(Debug)]
pub struct Pacer<S> {
    source: S,
    start: Instant,
    beat: Beat,
    /// The next tag, and when it is due.
    next: Option<(Tag, Instant)>,
}

impl<S: Source> Pacer<S> {
    /// `start`: when the tag at 0 ms is due.
    pub fn new(source: S, start: Instant, rhythm: Rhythm) -> Self {
        let mut pacer = Self {
            source,
            start,
            beat: rhythm.start(),
            next: None,
        };
        pacer.advance();
        pacer
    }

    fn advance(&mut self) {
        self.next = self.source.next_tag().map(|tag| {
            let due = self.start + self.beat.leaves(Duration::from_millis(tag.at_ms));
            (tag, due)
        });
    }

    /// The tag that is due at `now`, or when to ask again.
    pub fn next_due(&mut self, now: Instant) -> Due {
        let Some((tag, due)) = self.next.take() else {
            return Due::Ended;
        };
        match now.checked_duration_since(due) {
            Some(late) => {
                self.advance();
                Due::Now { tag, late }
            }
            None => {
                self.next = Some((tag, due));
                Due::At(due)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::tag::{Metadata, Opening, Track};

    struct Times(std::vec::IntoIter<u64>);

    impl Source for Times {
        fn opening(&self) -> Opening {
            Opening {
                metadata: Metadata::new(&[]),
                video_header: None,
                audio_header: None,
            }
        }
        fn next_tag(&mut self) -> Option<Tag> {
            self.0.next().map(tag)
        }
    }

    fn tag(at_ms: u64) -> Tag {
        Tag {
            track: Track::Video,
            at_ms,
            payload: Bytes::new(),
        }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn now(at_ms: u64, late: u64) -> Due {
        Due::Now {
            tag: tag(at_ms),
            late: ms(late),
        }
    }

    #[test]
    fn a_tag_waits_for_its_time_and_a_late_one_does_not_delay_the_next() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Times(vec![0, 33, 67, 100].into_iter()), start, Rhythm::default());
        assert_eq!(pacer.next_due(start), now(0, 0));
        assert_eq!(pacer.next_due(start), Due::At(start + ms(33)));
        assert_eq!(pacer.next_due(start + ms(32)), Due::At(start + ms(33)));
        // The task was held up for 40 ms: two tags go at once, the third at its own time.
        assert_eq!(pacer.next_due(start + ms(73)), now(33, 40));
        assert_eq!(pacer.next_due(start + ms(73)), now(67, 6));
        assert_eq!(pacer.next_due(start + ms(73)), Due::At(start + ms(100)));
        assert_eq!(pacer.next_due(start + ms(100)), now(100, 0));
        assert_eq!(pacer.next_due(start + ms(100)), Due::Ended);
        assert_eq!(pacer.next_due(start + ms(101)), Due::Ended);
    }

    #[test]
    fn nothing_is_sent_before_a_start_in_the_future() {
        let asked = Instant::now();
        let start = asked + ms(500);
        let mut pacer = Pacer::new(Times(vec![0].into_iter()), start, Rhythm::default());
        assert_eq!(pacer.next_due(asked), Due::At(start));
        assert_eq!(pacer.next_due(start), now(0, 0));
    }
}
