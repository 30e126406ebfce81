//! The grammar below both playlist kinds (sections 4.1 and 4.2): lines, tag names, attribute lists, decimal durations, dates.
//!
//! [`write`](super::write), [`parse`](super::parse) and [`multivariant`](super::multivariant) stand on it; numbers are
//! read and written without floating point, so that text → data → text gives the same text.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

// ---- dates -------------------------------------------------------------------------------------------------------

/// Milliseconds since 1970 of 0000-01-01T00:00:00.000Z and of 9999-12-31T23:59:59.999Z: what four-digit years can say.
const DATE_RANGE_MS: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;
const DAY_MS: i64 = 86_400_000;

/// Appends `2026-11-21T08:40:00.123Z`. False, and nothing appended, when the year has not four digits.
pub(super) fn push_date(out: &mut String, time: SystemTime) -> bool {
    let Some(ms) = unix_millis(time).filter(|ms| DATE_RANGE_MS.contains(ms)) else {
        return false;
    };
    let (year, month, day) = civil_from_days(ms.div_euclid(DAY_MS));
    let of_day = ms.rem_euclid(DAY_MS);
    let (hours, minutes) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (seconds, millis) = (of_day / 1000 % 60, of_day % 1000);
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z"
    );
    true
}

/// Reads an ISO 8601 date and time with an optional fraction (cut to milliseconds) and zone (`Z`, `±hh:mm`, `±hhmm`,
/// `±hh`; none means UTC).
pub(super) fn date(text: &str) -> Option<SystemTime> {
    let (day, time) = text.split_once(['T', 't'])?;
    let mut fields = day.split('-');
    let mut next = |width| fields.next().and_then(|field| fixed(field, width));
    let (year, month, day) = (next(4)?, next(2)?, next(2)?);
    if fields.next().is_some() || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let (clock, offset_minutes) = match time.find(['Z', 'z', '+', '-']) {
        None => (time, 0),
        Some(at) => {
            let (clock, zone) = time.split_at(at);
            (clock, zone_minutes(zone)?)
        }
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut fields = clock.split(':');
    let mut next = || fields.next().and_then(|field| fixed(field, 2));
    let (hours, minutes, seconds) = (next()?, next()?, next()?);
    // 60 is a leap second.
    if fields.next().is_some() || hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut digits = fraction.bytes().map(|b| i64::from(b - b'0'));
    let millis = (0..3).fold(0, |sum, _| sum * 10 + digits.next().unwrap_or(0));
    let minutes = hours * 60 + minutes - offset_minutes;
    let ms = days_from_civil(year, month, day) * DAY_MS + minutes * 60_000 + seconds * 1000 + millis;
    if !DATE_RANGE_MS.contains(&ms) {
        return None;
    }
    let distance = Duration::from_millis(ms.unsigned_abs());
    if ms < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    }
}

/// Milliseconds since 1970, rounded down.
fn unix_millis(time: SystemTime) -> Option<i64> {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).ok(),
        Err(before) => {
            let millis = before.duration().as_nanos().div_ceil(1_000_000);
            i64::try_from(millis).ok().map(|ms| -ms)
        }
    }
}

/// A number of exactly `width` digits.
fn fixed(text: &str, width: usize) -> Option<i64> {
    if text.len() != width {
        return None;
    }
    i64::try_from(integer(text)?).ok()
}

fn zone_minutes(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, digits) = match zone.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, zone.strip_prefix('+')?),
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some((hours, minutes)) => (fixed(hours, 2)?, fixed(minutes, 2)?),
        None => match digits.split_at_checked(2)? {
            (hours, "") => (fixed(hours, 2)?, 0),
            (hours, minutes) => (fixed(hours, 2)?, fixed(minutes, 2)?),
        },
    };
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. Years begin in March here, so that leap days come last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
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

    #[test]
    fn dates_agree_with_known_instants() {
        for (text, ms) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2026-11-21T08:40:00.123Z", 1_795_250_400_123),
            ("2024-02-29T23:59:59.999Z", 1_709_251_199_999),
            ("1969-12-31T23:59:59.999Z", -1),
            ("0000-01-01T00:00:00.000Z", -62_167_219_200_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ] {
            let time = date(text).unwrap();
            assert_eq!(unix_millis(time), Some(ms), "{text}");
            let mut out = String::new();
            assert!(push_date(&mut out, time));
            assert_eq!(out, text);
        }
    }

    #[test]
    fn zones_and_fractions_are_understood() {
        let instant = date("2026-11-21T08:40:00.100Z");
        assert!(instant.is_some());
        for same in [
            "2026-11-21T08:40:00.1",
            "2026-11-21t08:40:00.1009z",
            "2026-11-21T09:40:00.1+01:00",
            "2026-11-21T03:10:00.1-0530",
            "2026-11-20T22:40:00.1-10",
        ] {
            assert_eq!(date(same), instant, "{same}");
        }
        for bad in [
            "",
            "2026-11-21",
            "2026-11-21 08:40:00Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T08:40Z",
            "2026-11-21T08:40:00.Z",
            "2026-11-21T08:40:00+1",
            "2026-11-21T08:40:00+é",
            "0000-01-01T00:00:00+01:00",
            "99999-01-01T00:00:00Z",
        ] {
            assert_eq!(date(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_that_no_date_can_say_are_left_out() {
        let mut out = String::new();
        let far = UNIX_EPOCH + Duration::from_secs(400_000_000_000);
        assert!(!push_date(&mut out, far));
        assert_eq!(out, "");
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
