//! Where a live playlist stands, what a reader wants of it, and whether to answer, wait or refuse.
//!
//! The same decision runs at the origin and at the edge.

use std::fmt;

/// EXT-X-MEDIA-SEQUENCE numbering of media segments (section 4.4.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MediaSequence(pub u64);

impl MediaSequence {
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for MediaSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Zero-based index of a part inside its parent segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PartIndex(pub u32);

impl PartIndex {
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for PartIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Running number of a part in its rendition's epoch, from 0. Object names use it rather than segment and index: the
/// preload hint names the next part before anyone knows whether the next key frame starts a new segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PartNumber(pub u64);

impl PartNumber {
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for PartNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The live end of a media playlist: the segment being made and how many of its parts are listed.
///
/// Every segment below `open` that the window still holds is complete. Once `ended`, `open` is one past the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveEdge {
    /// Oldest segment still listed.
    pub first: MediaSequence,
    /// The segment being made.
    pub open: MediaSequence,
    /// Parts of the open segment that are listed already.
    pub open_parts: u32,
    /// Parts of the last complete segment (`open` − 1); 0 when there is none.
    pub last_complete_parts: u32,
    /// Number of the part that comes next: the hinted one.
    pub next_part: PartNumber,
    /// EXT-X-ENDLIST is there.
    pub ended: bool,
    /// Largest `_HLS_part` beyond the listed ones that may wait: section 6.2.5.2 "Advance Part Limit"
    /// (three when the part target is a second or more, else three seconds' worth of parts).
    pub advance_parts: u32,
}

/// What a request needs before it can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Want {
    /// The playlist as it is.
    Now,
    /// The playlist once this whole segment is listed.
    Segment(MediaSequence),
    /// The playlist once this part is listed; an index past the end of a segment means part 0 of the next.
    Part(MediaSequence, PartIndex),
}

/// What to do with a request, given where the playlist stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is there: answer with the newest playlist.
    Answer,
    /// Hold the request until the playlist moved, then ask again.
    Wait,
    /// Further ahead than a request may be (400).
    TooFarAhead,
}

/// Decides a playlist request (section 6.2.5.2).
pub fn answer(edge: &LiveEdge, want: Want) -> Verdict {
    if edge.ended {
        return Verdict::Answer;
    }
    match want {
        Want::Now => Verdict::Answer,
        Want::Segment(msn) if msn < edge.open => Verdict::Answer,
        // "more than two ahead" of the last segment of the playlist: the open one is the last.
        Want::Segment(msn) if msn.0 - edge.open.0 <= 2 => Verdict::Wait,
        Want::Segment(_) => Verdict::TooFarAhead,
        Want::Part(msn, part) => {
            if msn.next() < edge.open {
                return Verdict::Answer;
            }
            if msn < edge.open {
                // Roll-over: past the end of the segment just finished means part 0 of the open one.
                return if part.0 < edge.last_complete_parts || edge.open_parts > 0 {
                    Verdict::Answer
                } else {
                    Verdict::Wait
                };
            }
            if msn == edge.open {
                return if part.0 < edge.open_parts {
                    Verdict::Answer
                } else if part.0 - edge.open_parts <= edge.advance_parts {
                    Verdict::Wait
                } else {
                    Verdict::TooFarAhead
                };
            }
            if msn.0 - edge.open.0 <= 2 && part.0 <= edge.advance_parts {
                Verdict::Wait
            } else {
                Verdict::TooFarAhead
            }
        }
    }
}

/// What to do with a request for one part's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartVerdict {
    /// Listed (or listed once): look it up in the window.
    Lookup,
    /// The very next part: hold the request.
    Wait,
    /// It is not and will not be there under this name for now (404).
    Absent,
}

/// Decides a request for a named part (section 6.2.6): only the hinted part is held open.
pub fn answer_part(edge: &LiveEdge, part: PartNumber) -> PartVerdict {
    if part < edge.next_part {
        PartVerdict::Lookup
    } else if part == edge.next_part && !edge.ended {
        PartVerdict::Wait
    } else {
        PartVerdict::Absent
    }
}

/// The Advance Part Limit for a part target in milliseconds (section 6.2.5.2).
pub fn advance_part_limit(part_target_ms: u64) -> u32 {
    if part_target_ms >= 1000 {
        3
    } else {
        3000u64.div_ceil(part_target_ms.max(1)).min(u64::from(u32::MAX)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGE: LiveEdge = LiveEdge {
        first: MediaSequence(90),
        open: MediaSequence(100),
        open_parts: 2,
        last_complete_parts: 6,
        next_part: PartNumber(602),
        ended: false,
        advance_parts: 9,
    };

    fn part(msn: u64, part: u32) -> Want {
        Want::Part(MediaSequence(msn), PartIndex(part))
    }

    #[test]
    fn the_table_of_waits() {
        use Verdict::*;
        for (want, verdict) in [
            (Want::Now, Answer),
            (Want::Segment(MediaSequence(3)), Answer),
            (Want::Segment(MediaSequence(99)), Answer),
            (Want::Segment(MediaSequence(100)), Wait),
            (Want::Segment(MediaSequence(102)), Wait),
            (Want::Segment(MediaSequence(103)), TooFarAhead),
            (Want::Segment(MediaSequence(u64::MAX)), TooFarAhead),
            (part(3, 999), Answer),
            (part(99, 5), Answer),
            (part(99, 6), Answer),
            (part(100, 1), Answer),
            (part(100, 2), Wait),
            (part(100, 11), Wait),
            (part(100, 12), TooFarAhead),
            (part(101, 0), Wait),
            (part(103, 0), TooFarAhead),
            (part(u64::MAX, u32::MAX), TooFarAhead),
        ] {
            assert_eq!(answer(&EDGE, want), verdict, "{want:?}");
        }
    }

    #[test]
    fn an_index_past_the_end_waits_for_part_0_of_the_next_segment() {
        let fresh = LiveEdge { open_parts: 0, ..EDGE };
        assert_eq!(answer(&fresh, part(99, 5)), Verdict::Answer);
        assert_eq!(answer(&fresh, part(99, 6)), Verdict::Wait);
        let opened = LiveEdge { open_parts: 1, ..EDGE };
        assert_eq!(answer(&opened, part(99, 6)), Verdict::Answer);
    }

    #[test]
    fn directives_are_ignored_once_ended() {
        let ended = LiveEdge { ended: true, ..EDGE };
        assert_eq!(answer(&ended, part(u64::MAX, 0)), Verdict::Answer);
        assert_eq!(answer(&ended, Want::Segment(MediaSequence(500))), Verdict::Answer);
    }

    #[test]
    fn only_the_hinted_part_is_held_open() {
        let ask = |edge, n| answer_part(edge, PartNumber(n));
        assert_eq!(ask(&EDGE, 0), PartVerdict::Lookup);
        assert_eq!(ask(&EDGE, 601), PartVerdict::Lookup);
        assert_eq!(ask(&EDGE, 602), PartVerdict::Wait);
        assert_eq!(ask(&EDGE, 603), PartVerdict::Absent);
        let ended = LiveEdge { ended: true, ..EDGE };
        assert_eq!(ask(&ended, 602), PartVerdict::Absent);
    }
}
