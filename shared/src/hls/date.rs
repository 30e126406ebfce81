//! EXT-X-PROGRAM-DATE-TIME values ↔ [`SystemTime`] (section 4.4.4.6): ISO 8601 in the proleptic Gregorian calendar.
//!
//! Written in UTC with milliseconds; read in every form players accept.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::text::integer;

/// Milliseconds since 1970 of 0000-01-01T00:00:00.000Z and of 9999-12-31T23:59:59.999Z: what four-digit years can say.
const DATE_RANGE_MS: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;
const DAY_MS: i64 = 86_400_000;

/// `2026-11-21T08:40:00.123Z`; empty when the year has not four digits.
pub fn utc(time: SystemTime) -> String {
    let mut text = String::new();
    push_date(&mut text, time);
    text
}

/// Appends `2026-11-21T08:40:00.123Z`. False, and nothing appended, when the year has not four digits.
pub fn push_date(out: &mut String, time: SystemTime) -> bool {
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
pub fn date(text: &str) -> Option<SystemTime> {
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
}
