//! The grammar below both playlist kinds (sections 4.1 and 4.2): lines, tag names, attribute lists, decimal durations.
//!
//! [`write`](super::write), [`parse`](super::parse) and [`multivariant`](super::multivariant) stand on it; numbers are
//! read and written without floating point, so that text → data → text gives the same text.

use std::fmt::Write as _;
use std::time::Duration;

/// Tag names, as they stand before the colon.
pub(super) mod tag {
    pub(in crate::hls) const M3U: &str = "#EXTM3U";
    pub(in crate::hls) const VERSION: &str = "#EXT-X-VERSION";
    pub(in crate::hls) const INDEPENDENT_SEGMENTS: &str = "#EXT-X-INDEPENDENT-SEGMENTS";
    pub(in crate::hls) const DEFINE: &str = "#EXT-X-DEFINE";
    pub(in crate::hls) const TARGET_DURATION: &str = "#EXT-X-TARGETDURATION";
    pub(in crate::hls) const SERVER_CONTROL: &str = "#EXT-X-SERVER-CONTROL";
    pub(in crate::hls) const PART_INF: &str = "#EXT-X-PART-INF";
    pub(in crate::hls) const MEDIA_SEQUENCE: &str = "#EXT-X-MEDIA-SEQUENCE";
    pub(in crate::hls) const DISCONTINUITY_SEQUENCE: &str = "#EXT-X-DISCONTINUITY-SEQUENCE";
    pub(in crate::hls) const PLAYLIST_TYPE: &str = "#EXT-X-PLAYLIST-TYPE";
    pub(in crate::hls) const SKIP: &str = "#EXT-X-SKIP";
    pub(in crate::hls) const I_FRAMES_ONLY: &str = "#EXT-X-I-FRAMES-ONLY";
    pub(in crate::hls) const DISCONTINUITY: &str = "#EXT-X-DISCONTINUITY";
    pub(in crate::hls) const MAP: &str = "#EXT-X-MAP";
    pub(in crate::hls) const KEY: &str = "#EXT-X-KEY";
    pub(in crate::hls) const BYTE_RANGE: &str = "#EXT-X-BYTERANGE";
    pub(in crate::hls) const PROGRAM_DATE_TIME: &str = "#EXT-X-PROGRAM-DATE-TIME";
    pub(in crate::hls) const GAP: &str = "#EXT-X-GAP";
    pub(in crate::hls) const PART: &str = "#EXT-X-PART";
    pub(in crate::hls) const INF: &str = "#EXTINF";
    pub(in crate::hls) const PRELOAD_HINT: &str = "#EXT-X-PRELOAD-HINT";
    pub(in crate::hls) const RENDITION_REPORT: &str = "#EXT-X-RENDITION-REPORT";
    pub(in crate::hls) const END_LIST: &str = "#EXT-X-ENDLIST";
    pub(in crate::hls) const MEDIA: &str = "#EXT-X-MEDIA";
    pub(in crate::hls) const STREAM_INF: &str = "#EXT-X-STREAM-INF";
}

/// Longest duration that is believed, in seconds (30 years). Sums over a whole playlist stay far from overflow.
const MAX_DURATION_SECONDS: u64 = 1_000_000_000;

// ---- lines -------------------------------------------------------------------------------------------------------

/// The lines of a playlist with their numbers from 1; line ends (LF or CRLF) and trailing spaces are taken off.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split('\n').enumerate().map(|(index, line)| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        (index + 1, line.trim_end_matches(' '))
    })
}

/// Whether a line holds a control character (U+0000–U+001F, U+007F–U+009F), which no playlist may (section 4.1).
pub(super) fn has_control(line: &str) -> bool {
    line.bytes().any(|b| b < 0x20 || b == 0x7f) || (!line.is_ascii() && line.chars().any(char::is_control))
}

/// Splits a tag line into its name and what follows the first colon.
pub(super) fn split_tag(line: &str) -> (&str, &str) {
    line.split_once(':').unwrap_or((line, ""))
}

// ---- attribute lists ---------------------------------------------------------------------------------------------

/// One `NAME=value` of an attribute list (section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attribute<'a> {
    pub(super) name: &'a str,
    value: Value<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Quoted(&'a str),
    Bare(&'a str),
}

/// The list breaks the grammar: a name without value, a quote that is never closed, text after a closing quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BrokenList;

impl<'a> Attribute<'a> {
    /// A quoted-string that is not empty.
    pub(super) fn quoted(&self) -> Option<&'a str> {
        match self.value {
            Value::Quoted(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    fn bare(&self) -> Option<&'a str> {
        match self.value {
            Value::Bare(text) => Some(text),
            Value::Quoted(_) => None,
        }
    }

    /// An enumerated-string.
    pub(super) fn word(&self) -> Option<&'a str> {
        self.bare()
    }

    /// `YES` is true; everything else a later version may bring counts as `NO`.
    pub(super) fn yes(&self) -> bool {
        self.bare() == Some("YES")
    }

    /// A decimal-integer.
    pub(super) fn integer(&self) -> Option<u64> {
        integer(self.bare()?)
    }

    /// A decimal-floating-point number of seconds.
    pub(super) fn seconds(&self) -> Option<Duration> {
        seconds(self.bare()?)
    }
}

/// Walks an attribute list. After an error it ends.
pub(super) struct Attributes<'a> {
    rest: &'a str,
}

pub(super) fn attributes(list: &str) -> Attributes<'_> {
    Attributes { rest: list }
}

impl<'a> Attributes<'a> {
    fn take(&mut self) -> Option<Attribute<'a>> {
        let (name, after) = self.rest.split_once('=')?;
        let name = name.trim_start_matches(' ');
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return None;
        }
        if let Some(after) = after.strip_prefix('"') {
            let (text, after) = after.split_once('"')?;
            let after = after.trim_start_matches(' ');
            self.rest = if after.is_empty() {
                after
            } else {
                after.strip_prefix(',')?
            };
            return Some(Attribute {
                name,
                value: Value::Quoted(text),
            });
        }
        let (text, rest) = after.split_once(',').unwrap_or((after, ""));
        if text.is_empty() || text.contains('"') {
            return None;
        }
        self.rest = rest;
        Some(Attribute {
            name,
            value: Value::Bare(text.trim_end_matches(' ')),
        })
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, BrokenList>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let attribute = self.take();
        if attribute.is_none() {
            self.rest = "";
        }
        Some(attribute.ok_or(BrokenList))
    }
}

/// Appends `"text"`. A quoted-string has no escape, so quotes and control characters are left out.
pub(super) fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    push_line(out, text, &['"']);
    out.push('"');
}

/// Appends a URI as a line of its own.
pub(super) fn push_uri_line(out: &mut String, uri: &str) {
    push_line(out, uri, &[]);
    out.push('\n');
}

fn push_line(out: &mut String, text: &str, forbidden: &[char]) {
    if has_control(text) || text.contains(forbidden) {
        out.extend(text.chars().filter(|c| !c.is_control() && !forbidden.contains(c)));
    } else {
        out.push_str(text);
    }
}

// ---- numbers -----------------------------------------------------------------------------------------------------

/// A decimal-integer: digits only, at most 2^64 − 1.
pub(super) fn integer(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// A non-negative decimal-floating-point number of seconds, rounded to the microsecond. No sign, no exponent.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { integer(whole)? };
    if whole > MAX_DURATION_SECONDS || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut digits = fraction.bytes().map(|b| u64::from(b - b'0'));
    let micros = (0..6).fold(0, |sum, _| sum * 10 + digits.next().unwrap_or(0));
    let round_up = u64::from(digits.next().is_some_and(|digit| digit >= 5));
    Some(Duration::from_micros(whole * 1_000_000 + micros + round_up))
}

/// Appends seconds with one to six decimals, rounded to the microsecond, no trailing zeros beyond the first decimal.
pub(super) fn push_seconds(out: &mut String, duration: Duration) {
    let micros = duration.as_nanos().saturating_add(500) / 1000;
    let _ = write!(out, "{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    while out.ends_with('0') && !out.ends_with(".0") {
        out.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_microseconds_and_nothing_else() {
        for (text, micros) in [
            ("4", 4_000_000),
            ("0.333333", 333_333),
            ("0.3333335", 333_334),
            ("1.9999999", 2_000_000),
            ("10.", 10_000_000),
            (".5", 500_000),
            ("1000000000", 1_000_000_000_000_000),
        ] {
            assert_eq!(seconds(text), Some(Duration::from_micros(micros)), "{text}");
        }
        for bad in [
            "",
            ".",
            "-1",
            "+1",
            "1e3",
            "1e309",
            "NaN",
            "inf",
            "1,5",
            "0x10",
            " 1",
            "1000000001",
            "1.2.3",
            "٣",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_written_short() {
        for (nanos, text) in [
            (0, "0.0"),
            (2_000_000_000, "2.0"),
            (333_333_333, "0.333333"),
            (1_500, "0.000002"),
            (1_001_000_000, "1.001"),
            (100_000_000_000, "100.0"),
        ] {
            let mut out = String::from("#EXTINF:20");
            out.truncate(8);
            push_seconds(&mut out, Duration::from_nanos(nanos));
            assert_eq!(&out[8..], text);
        }
    }

    fn names_and_values(list: &str) -> Result<Vec<(&str, &str)>, BrokenList> {
        attributes(list)
            .map(|attribute| attribute.map(|a| (a.name, a.quoted().or(a.bare()).unwrap_or(""))))
            .collect()
    }

    #[test]
    fn attribute_lists_follow_the_grammar() {
        assert_eq!(names_and_values(""), Ok(vec![]));
        assert_eq!(
            names_and_values(r#"URI="a,b=c.m4s",DURATION=0.2, X-NEW=0xAF,GAP=YES"#),
            Ok(vec![
                ("URI", "a,b=c.m4s"),
                ("DURATION", "0.2"),
                ("X-NEW", "0xAF"),
                ("GAP", "YES")
            ])
        );
        for broken in [
            "URI",
            "=1",
            "URI=",
            r#"URI="a"#,
            r#"URI="a"b"#,
            r#"A=b"c"#,
            "A B=1",
            ",A=1",
            r#"URI="a"x,B=1"#,
        ] {
            assert_eq!(names_and_values(broken), Err(BrokenList), "{broken}");
        }
    }
}
