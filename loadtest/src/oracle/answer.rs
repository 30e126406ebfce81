//! Rules that the headers of one answer show. Pure.

use std::time::Duration;

use weir_shared::hls::position::Want;

use super::ledger;
use crate::{
    headers::{Coding, Headers, MediaType},
    rule::{Rule, Violation},
    tally::Tally,
    viewer::Purpose,
};

/// Target durations that a blocked playlist, a part and a segment are to be kept at least (rules HT-12, HT-13: about six).
const KEPT_TARGET_DURATIONS: u32 = 6;
/// What "about" allows a blocked playlist.
const ABOUT_TARGET_DURATIONS: u32 = 4;
/// Target durations that a 400 or 404 may be kept at most (rule HT-14).
const REFUSAL_TARGET_DURATIONS: u32 = 4;
/// Urgencies of RFC 9218 for media (rule HT-21).
const MEDIA_URGENCIES: std::ops::RangeInclusive<u8> = 2..=6;

/// An answer as its headers show it.
pub(super) struct Shown<'a> {
    pub purpose: Purpose,
    pub path: &'a str,
    pub status: u16,
    pub headers: &'a Headers,
    /// Zero where no playlist told it yet.
    pub target_duration: Duration,
}

/// Tells every header rule that the answer breaks.
pub(super) fn judge(shown: &Shown<'_>, tally: &mut Tally) {
    let mut broken = |rule, what: &str| {
        let detail = format!("{} (status {}): {what}", ledger::plain(shown.path), shown.status);
        tally.violation(Violation::new(rule, detail));
    };
    let headers = shown.headers;
    let target = u32::try_from(shown.target_duration.as_secs()).unwrap_or(u32::MAX);
    match shown.status {
        200 | 206 => {}
        400..=599 => {
            if !headers.cors {
                broken(Rule::CorsOnErrors, "no Access-Control-Allow-Origin");
            }
            let longest = target.saturating_mul(REFUSAL_TARGET_DURATIONS);
            let kept = headers.shared_lifetime().filter(|kept| target > 0 && *kept > longest);
            if let (400 | 404, Some(kept)) = (shown.status, kept) {
                broken(Rule::RefusalLifetime, &format!("kept for {kept} s"));
            }
            return;
        }
        _ => return,
    }
    if !headers.cors {
        broken(Rule::Cors, "no Access-Control-Allow-Origin");
    } else if !headers.exposes_age {
        broken(Rule::AgeExposed, "Access-Control-Expose-Headers does not name Age");
    }
    match shown.purpose {
        Purpose::Multivariant => playlist(headers, &mut broken),
        Purpose::Playlist { reload, .. } => {
            playlist(headers, &mut broken);
            playlist_lifetime(headers, reload.want, target, &mut broken);
        }
        Purpose::Init { .. } | Purpose::Part { .. } | Purpose::Segment { .. } => media(headers, target, &mut broken),
    }
}

fn playlist(headers: &Headers, broken: &mut impl FnMut(Rule, &str)) {
    if headers.media_type != MediaType::Playlist {
        broken(Rule::PlaylistType, "the Content-Type is not that of a playlist");
    }
    match (headers.asked_gzip, headers.coding) {
        (true, Coding::Identity) => broken(Rule::Gzip, "not gzip-encoded, though the viewer takes it"),
        (false, Coding::Gzip | Coding::Other) | (true, Coding::Other) => {
            broken(Rule::UnaskedCoding, "encoded in a way the viewer does not take");
        }
        _ => {}
    }
    if !headers.varies {
        broken(Rule::Varies, "no Vary: Accept-Encoding");
    }
    if headers.urgency.is_some_and(|urgency| urgency != 1) {
        broken(Rule::Priority, "the priority of a playlist is not u=1");
    }
}

fn playlist_lifetime(headers: &Headers, want: Want, target: u32, broken: &mut impl FnMut(Rule, &str)) {
    if target == 0 {
        return;
    }
    let kept = headers.shared_lifetime();
    let said = |kept: Option<u32>| kept.map_or("no lifetime".to_owned(), |kept| format!("{kept} s"));
    match want {
        // Whole seconds: half of an odd target duration is rounded up.
        Want::Now if kept.is_none_or(|kept| kept > target.div_ceil(2)) => {
            broken(Rule::PlainLifetime, &format!("an unblocked answer: {}", said(kept)));
        }
        Want::Now => {}
        Want::Part(..) | Want::Segment(_) => {
            if kept.is_none_or(|kept| kept < target.saturating_mul(ABOUT_TARGET_DURATIONS)) {
                broken(Rule::BlockedLifetime, &format!("a blocked answer: {}", said(kept)));
            }
            if !headers.no_store && headers.max_age.is_none_or(|browser| browser > 1) {
                broken(Rule::BrowserLifetime, &format!("max-age: {}", said(headers.max_age)));
            }
        }
    }
}

fn media(headers: &Headers, target: u32, broken: &mut impl FnMut(Rule, &str)) {
    if headers.media_type != MediaType::Mp4 {
        broken(
            Rule::MediaType,
            "the Content-Type is not video/mp4, audio/mp4 or application/mp4",
        );
    }
    if headers.coding != Coding::Identity {
        broken(Rule::MediaCoding, "media is content-encoded");
    }
    if !headers.length {
        broken(Rule::LengthTold, "no Content-Length");
    }
    if !headers.validator {
        broken(Rule::Validator, "neither ETag nor Last-Modified");
    }
    let least = target.saturating_mul(KEPT_TARGET_DURATIONS);
    if headers.shared_lifetime().is_none_or(|kept| kept < least) {
        broken(Rule::MediaLifetime, "kept for less than six target durations");
    }
    if headers
        .urgency
        .is_some_and(|urgency| !MEDIA_URGENCIES.contains(&urgency))
    {
        broken(Rule::Priority, "the priority of media is not u=2 to u=6");
    }
}

#[cfg(test)]
mod tests {
    use weir_shared::hls::{
        position::{MediaSequence, PartIndex},
        reload::{Reload, Skip},
    };

    use super::*;

    const PART: Purpose = Purpose::Part { track: 0, hinted: true };

    fn reload(want: Want) -> Purpose {
        Purpose::Playlist {
            track: 0,
            reload: Reload { want, skip: Skip::No },
        }
    }

    fn blocked() -> Purpose {
        reload(Want::Part(MediaSequence(1), PartIndex(0)))
    }

    fn good_playlist() -> Headers {
        Headers {
            asked_gzip: true,
            media_type: MediaType::Playlist,
            coding: Coding::Gzip,
            varies: true,
            cors: true,
            exposes_age: true,
            length: true,
            max_age: Some(0),
            s_maxage: Some(12),
            urgency: Some(1),
            ..Headers::default()
        }
    }

    fn good_part() -> Headers {
        Headers {
            media_type: MediaType::Mp4,
            coding: Coding::Identity,
            validator: true,
            max_age: Some(31_536_000),
            s_maxage: None,
            urgency: Some(2),
            ..good_playlist()
        }
    }

    fn found(purpose: Purpose, status: u16, headers: Headers) -> Vec<&'static str> {
        let mut tally = Tally::default();
        let shown = Shown {
            purpose,
            path: "/app/s0/d/video.m3u8",
            status,
            headers: &headers,
            target_duration: Duration::from_secs(2),
        };
        judge(&shown, &mut tally);
        tally.broken.keys().map(|rule| rule.id()).collect()
    }

    #[test]
    fn good_answers_break_nothing() {
        assert_eq!(found(blocked(), 200, good_playlist()), [""; 0]);
        assert_eq!(found(PART, 206, good_part()), [""; 0]);
        let plain = Headers {
            s_maxage: Some(1),
            ..good_playlist()
        };
        assert_eq!(found(reload(Want::Now), 200, plain), [""; 0]);
        assert_eq!(
            found(
                PART,
                404,
                Headers {
                    cors: true,
                    no_store: true,
                    ..Headers::default()
                }
            ),
            [""; 0]
        );
        assert_eq!(found(PART, 304, Headers::default()), [""; 0], "no rule is about it");
    }

    /// What is changed, of which answer, and the rules that are named then.
    type Case = (fn(&mut Headers), &'static [&'static str]);

    #[test]
    fn each_wrong_header_of_a_playlist_is_named() {
        let cases: [Case; 9] = [
            (|h| h.media_type = MediaType::Other, &["HT-01"]),
            (|h| h.coding = Coding::Identity, &["HT-03"]),
            (|h| h.asked_gzip = false, &["HT-04"]),
            (|h| h.varies = false, &["HT-05"]),
            (|h| h.cors = false, &["HT-08"]),
            (|h| h.exposes_age = false, &["HT-10"]),
            (|h| h.s_maxage = Some(1), &["HT-12"]),
            (|h| h.max_age = Some(12), &["HT-23"]),
            (|h| h.urgency = Some(3), &["HT-21"]),
        ];
        for (change, rules) in cases {
            let mut headers = good_playlist();
            change(&mut headers);
            assert_eq!(found(blocked(), 200, headers), rules);
        }
        assert_eq!(
            found(reload(Want::Now), 200, good_playlist()),
            ["HT-11"],
            "kept as long as a blocked one"
        );
    }

    #[test]
    fn each_wrong_header_of_media_is_named() {
        let cases: [Case; 6] = [
            (|h| h.media_type = MediaType::Absent, &["HT-02"]),
            (|h| h.coding = Coding::Gzip, &["HT-06"]),
            (|h| h.max_age = Some(11), &["HT-13"]),
            (|h| h.length = false, &["HT-16"]),
            (|h| h.validator = false, &["HT-17"]),
            (|h| h.urgency = Some(1), &["HT-21"]),
        ];
        for (change, rules) in cases {
            let mut headers = good_part();
            change(&mut headers);
            assert_eq!(found(PART, 200, headers), rules);
        }
    }

    #[test]
    fn refusals_are_readable_by_scripts_and_soon_forgotten() {
        assert_eq!(found(blocked(), 404, Headers::default()), ["HT-09"]);
        let long = Headers {
            cors: true,
            max_age: Some(9),
            ..Headers::default()
        };
        assert_eq!(found(PART, 404, long), ["HT-14"]);
        assert_eq!(found(PART, 410, long), [""; 0]);
    }
}
