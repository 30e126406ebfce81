//! Rules that a full media playlist shows by itself. Pure.

use std::time::Duration;

use weir_shared::hls::playlist::{MediaPlaylist, Segment};

use crate::rule::{Rule, Violation};

/// How far the parts of a segment may be off its EXTINF (rule PL-23).
const PART_SUM_SLACK: Duration = Duration::from_millis(10);
/// Durations are written with rounding: this much is not a difference.
const ROUNDING: Duration = Duration::from_micros(50);
/// How far program dates may be off the EXTINF sum (rule PL-30).
const DATE_SLACK: Duration = Duration::from_secs(1);

/// Every rule that `playlist` breaks, at most once each.
pub(super) fn faults(playlist: &MediaPlaylist) -> Vec<Violation> {
    let mut found = Vec::new();
    header(playlist, &mut found);
    segments(playlist, &mut found);
    parts(playlist, &mut found);
    dates(playlist, &mut found);
    found
}

fn header(playlist: &MediaPlaylist, found: &mut Vec<Violation>) {
    let mut broken = |rule, detail: String| found.push(Violation::new(rule, detail));
    let target = Duration::from_secs(u64::from(playlist.target_duration_seconds));
    let has_parts = playlist.segments.iter().any(|s| !s.parts.is_empty());
    if has_parts && playlist.part_target.is_none() {
        broken(Rule::PartInf, "parts without EXT-X-PART-INF".into());
    }
    let control = playlist.server_control;
    if has_parts && !control.is_some_and(|c| c.can_block_reload) && !playlist.ended {
        broken(Rule::BlockReload, "parts without CAN-BLOCK-RELOAD=YES".into());
    }
    if let (Some(part), true) = (playlist.part_target, has_parts) {
        let hold_back = control.and_then(|c| c.part_hold_back).unwrap_or_default();
        if hold_back < part * 2 {
            broken(Rule::PartHoldBack, format!("{hold_back:?} with PART-TARGET {part:?}"));
        }
    }
    if let Some(hold_back) = control.and_then(|c| c.hold_back).filter(|h| *h < target * 3) {
        broken(Rule::HoldBack, format!("{hold_back:?} with TARGETDURATION {target:?}"));
    }
    if let Some(until) = control.and_then(|c| c.can_skip_until).filter(|u| *u < target * 6) {
        broken(Rule::SkipUntil, format!("{until:?} with TARGETDURATION {target:?}"));
    }
    match (&playlist.preload_hint, playlist.ended) {
        (None, false) if has_parts => broken(Rule::HintPresent, "no EXT-X-PRELOAD-HINT".into()),
        (Some(hint), true) => broken(Rule::HintAfterEnd, hint.uri.clone()),
        _ => {}
    }
}

fn segments(playlist: &MediaPlaylist, found: &mut Vec<Violation>) {
    let target = u64::from(playlist.target_duration_seconds);
    let rounded = |s: &Segment| (s.duration + Duration::from_millis(500)).as_secs();
    if let Some(long) = playlist.segments.iter().find(|s| rounded(s) > target) {
        let detail = format!("EXTINF {:?} with TARGETDURATION {target}", long.duration);
        found.push(Violation::new(Rule::TargetDuration, detail));
    }
    let fmp4 = |s: &&Segment| s.parts.iter().any(|p| p.uri.contains(".m4s") || p.uri.contains(".mp4"));
    if let Some(segment) = playlist.segments.iter().find(|s| fmp4(s) && s.map_uri.is_none()) {
        let uri = segment.parts.first().map_or("", |p| p.uri.as_str());
        found.push(Violation::new(Rule::MapPresent, format!("{uri} has no EXT-X-MAP")));
    }
}

fn parts(playlist: &MediaPlaylist, found: &mut Vec<Violation>) {
    let Some(target) = playlist.part_target else { return };
    let (mut long, mut short, mut sum) = (None, None, None);
    for segment in &playlist.segments {
        for (index, part) in segment.parts.iter().enumerate() {
            if part.duration > target + ROUNDING {
                long.get_or_insert_with(|| format!("{} lasts {:?}, PART-TARGET {target:?}", part.uri, part.duration));
            }
            let next = segment.parts.get(index + 1);
            let excepted = part.independent || part.gap || next.is_none_or(|n| n.gap);
            if !excepted && (part.duration + ROUNDING) * 100 < target * 85 {
                short.get_or_insert_with(|| format!("{} lasts {:?}, PART-TARGET {target:?}", part.uri, part.duration));
            }
        }
        if segment.uri.is_some() && !segment.parts.is_empty() {
            let total = segment
                .parts
                .iter()
                .fold(Duration::ZERO, |sum, p| sum.saturating_add(p.duration));
            if total.abs_diff(segment.duration) > PART_SUM_SLACK {
                let uri = segment.uri.as_deref().unwrap_or("");
                sum.get_or_insert_with(|| format!("{uri}: parts add up to {total:?}, EXTINF {:?}", segment.duration));
            }
        }
    }
    for (rule, detail) in [
        (Rule::PartTooLong, long),
        (Rule::PartTooShort, short),
        (Rule::PartSum, sum),
    ] {
        found.extend(detail.map(|detail| Violation::new(rule, detail)));
    }
}

fn dates(playlist: &MediaPlaylist, found: &mut Vec<Violation>) {
    let mut expected = None;
    for segment in &playlist.segments {
        if let (Some(expected), Some(date), false) = (expected, segment.program_date_time, segment.discontinuity) {
            let off = match date.duration_since(expected) {
                Ok(later) => later,
                Err(earlier) => earlier.duration(),
            };
            if off >= DATE_SLACK {
                let uri = segment.uri.as_deref().unwrap_or("the open segment");
                found.push(Violation::new(Rule::DateContinuous, format!("{uri} is {off:?} off")));
                return;
            }
        }
        expected = segment
            .program_date_time
            .or(expected)
            .and_then(|at| at.checked_add(segment.duration));
    }
}
