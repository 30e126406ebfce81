//! Rules that two playlists of one rendition show together, the older first. Pure.

use std::collections::HashMap;

use weir_shared::hls::{
    position::{PartIndex, Want},
    reload::Reload,
};

use crate::{
    listing::{Listing, Position},
    rule::{Rule, Violation},
};

/// Parts that a rendition report may be behind the playlist it stands in (rule RR-03).
const REPORT_SLACK_PARTS: u64 = 2;

/// The position that a blocking request must bring.
pub(super) fn wanted(reload: Reload) -> Option<Position> {
    match reload.want {
        Want::Now => None,
        // The whole segment: its successor's first position is the playlist's end.
        Want::Segment(_) => None,
        Want::Part(msn, PartIndex(part)) => Some(Position::new(msn.0, part)),
    }
}

/// Every rule that the step from `before` to `now` breaks, at most once each.
pub(super) fn faults(before: &Listing, now: &Listing, delta: bool) -> Vec<Violation> {
    let mut found = Vec::new();
    let (old, new) = (&before.playlist, &now.playlist);
    let mut broken = |rule, detail: String| found.push(Violation::new(rule, detail));
    if old.target_duration_seconds != new.target_duration_seconds {
        let (a, b) = (old.target_duration_seconds, new.target_duration_seconds);
        broken(Rule::TargetDurationFixed, format!("from {a} to {b}"));
    }
    if (old.server_control, old.part_target, old.version) != (new.server_control, new.part_target, new.version) {
        broken(Rule::HeaderFixed, "SERVER-CONTROL, PART-INF or VERSION changed".into());
    }
    if new.media_sequence < old.media_sequence {
        broken(
            Rule::SequenceBack,
            format!("MEDIA-SEQUENCE from {} to {}", old.media_sequence, new.media_sequence),
        );
    }
    if now.end < before.end {
        let (a, b) = (before.end, now.end);
        broken(
            Rule::StalePlaylist,
            format!("ends before {}/{}, after {}/{}", b.msn, b.part, a.msn, a.part),
        );
    }
    if old.ended && (now.end != before.end || !new.ended) {
        broken(Rule::AfterEnd, "the playlist goes on after ENDLIST".into());
    }
    // A merged playlist carries the old one's segments over: only a full one can contradict it.
    if !delta {
        let skip = new.media_sequence.0.saturating_sub(old.media_sequence.0);
        let known = usize::try_from(skip)
            .ok()
            .and_then(|n| old.segments.get(n..))
            .unwrap_or(&[]);
        let contradicts = known
            .iter()
            .zip(&new.segments)
            .find(|(a, b)| a.uri.is_some() && (a.uri != b.uri || a.duration != b.duration));
        if let Some((segment, _)) = contradicts {
            let uri = segment.uri.as_deref().unwrap_or("");
            broken(
                Rule::SequenceBack,
                format!("{uri} has another URI or EXTINF than before"),
            );
        }
    }
    // The newest parts of the old playlist, if still listed, are what they were.
    let changed = before.parts.iter().rev().take(16).find(|part| {
        let same = now
            .parts
            .binary_search_by_key(&part.at, |p| p.at)
            .ok()
            .and_then(|n| now.parts.get(n));
        same.is_some_and(|p| p.uri != part.uri || p.duration != part.duration)
    });
    if let Some(part) = changed {
        broken(Rule::PartsStable, format!("{} is not what it was", part.uri));
    }
    found
}

/// Rendition reports that are older than the playlist they stand in.
pub(super) fn reports(listing: &Listing) -> Vec<Violation> {
    let mut counts: HashMap<u64, u64> = HashMap::new();
    for part in &listing.parts {
        *counts.entry(part.at.msn.0).or_default() += 1;
    }
    let Some(last) = listing.parts.last().map(|part| part.at) else {
        return vec![];
    };
    let stale = listing.playlist.rendition_reports.iter().find(|report| {
        let at = Position::new(report.last_msn.0, report.last_part.unwrap_or(0));
        let newer = listing.parts.iter().rev().take_while(|part| part.at > at).count() as u64;
        // Renditions may be numbered differently: only reports in the range of the listing tell anything.
        let comparable = counts.contains_key(&at.msn.0) || at < last;
        comparable && report.last_part.is_some() && newer > REPORT_SLACK_PARTS
    });
    let violation = stale.map(|report| {
        let detail = format!(
            "{} reported at {}/{}, this one is at {}/{}",
            report.uri,
            report.last_msn,
            report.last_part.unwrap_or(0),
            last.msn,
            last.part
        );
        Violation::new(Rule::ReportFresh, detail)
    });
    violation.into_iter().collect()
}
