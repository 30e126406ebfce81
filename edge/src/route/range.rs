//! Parts that are byte ranges of a file that still grows (section 4.4.4.9): which of them answer a `Range`. Pure.
//!
//! Before this: `route/routes.rs`, with a request's header and what a view lists of the file. After this: the cached
//! sub-ranges, or a wait.

use weir_shared::hls::outline::Span;

/// What a `Range` asks for; ranges of other forms are answered with the whole object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub first: u64,
    /// Inclusive; `None`: to the end.
    pub last: Option<u64>,
}

/// What answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Covered {
    /// These sub-ranges, one after the other, of which `skip` bytes at the front and all beyond `length` are cut off.
    By { spans: Vec<Span>, skip: u64, length: u64 },
    /// The part that is hinted: it will be listed.
    Coming,
    /// Not by what is listed.
    Not,
}

impl Asked {
    /// One range of bytes with a first position.
    pub fn parse(header: &str) -> Option<Self> {
        let (first, last) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
        let number = |text: &str| -> Option<u64> {
            text.bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| text.parse().ok())
                .flatten()
        };
        let first = number(first)?;
        let last = match last {
            "" => None,
            last => Some(number(last).filter(|last| *last >= first)?),
        };
        Some(Self { first, last })
    }
}

/// `spans`: what is listed of the file, in any order. `hinted`: where its next part begins.
pub fn covered(asked: Asked, spans: &[Span], hinted: Option<u64>) -> Covered {
    let mut sorted: Vec<(u64, u64)> = spans
        .iter()
        .filter_map(|span| Some((span.first, span.first.checked_add(span.length.filter(|n| *n > 0)?)?)))
        .collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut chosen: Vec<Span> = Vec::new();
    let mut at = asked.first;
    let wanted_end = asked.last.map_or(u64::MAX, |last| last.saturating_add(1));
    let mut begin = None;
    for (first, end) in sorted {
        // The next one that goes on from here; those that are inside others are passed over.
        let goes_on = if begin.is_none() {
            first <= at && at < end
        } else {
            first == at
        };
        if goes_on && at < wanted_end {
            begin = begin.or(Some(first));
            chosen.push(Span {
                first,
                length: Some(end - first),
            });
            at = end;
        }
    }
    match begin {
        Some(begin) if asked.last.is_none() || at >= wanted_end => Covered::By {
            spans: chosen,
            skip: asked.first - begin,
            length: at.min(wanted_end) - asked.first,
        },
        _ if hinted.is_some_and(|hinted| hinted == at || (begin.is_none() && hinted <= asked.first)) => Covered::Coming,
        _ => Covered::Not,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(first: u64, length: u64) -> Span {
        Span {
            first,
            length: Some(length),
        }
    }

    fn ask(header: &str, hinted: Option<u64>) -> Covered {
        covered(
            Asked::parse(header).unwrap(),
            &[span(100, 50), span(0, 100), span(200, 10)],
            hinted,
        )
    }

    #[test]
    fn listed_parts_answer_what_they_cover() {
        let by = |spans: &[Span], skip, length| Covered::By {
            spans: spans.to_vec(),
            skip,
            length,
        };
        assert_eq!(ask("bytes=0-99", None), by(&[span(0, 100)], 0, 100));
        assert_eq!(ask("bytes=10-19", None), by(&[span(0, 100)], 10, 10));
        assert_eq!(ask("bytes=50-149", None), by(&[span(0, 100), span(100, 50)], 50, 100));
        assert_eq!(ask("bytes=100-", Some(210)), by(&[span(100, 50)], 0, 50));
        assert_eq!(ask("bytes=200-", Some(210)), by(&[span(200, 10)], 0, 10));
    }

    #[test]
    fn what_is_hinted_is_waited_for_and_nothing_else() {
        assert_eq!(ask("bytes=210-", Some(210)), Covered::Coming);
        assert_eq!(ask("bytes=205-220", Some(210)), Covered::Coming);
        assert_eq!(ask("bytes=210-", None), Covered::Not);
        assert_eq!(ask("bytes=160-", Some(210)), Covered::Not, "a hole");
        assert_eq!(ask("bytes=100-199", Some(210)), Covered::Not);
    }

    #[test]
    fn other_forms_are_not_ranges_of_parts() {
        for header in [
            "bytes=-5",
            "bytes=1-2,4-5",
            "bytes=5-1",
            "items=1-2",
            "bytes=a-b",
            "bytes=",
            "bytes=+1-2",
        ] {
            assert_eq!(Asked::parse(header), None, "{header}");
        }
    }
}
