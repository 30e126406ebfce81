//! [`MediaPlaylist`] → text (section 4.4).
//!
//! Before it on the data path: the origin's window, or the edge's merged copy. After it: gzip and the response body.
//!
//! [`write()`] is made of [`write_head`], [`write_segment`] and [`write_tail`]: the text of a segment whose parts are
//! gone never changes again, so a caller may keep it and put only a new head and tail around it.

use std::fmt::Write as _;

use super::date::push_date;
use super::playlist::{MediaPlaylist, Part, PlaylistType, Segment};
use super::text::{push_quoted, push_seconds, push_uri_line, tag};

/// The whole playlist, full or delta. [`parse`](super::parse::parse) reads it back to an equal value.
pub fn write(playlist: &MediaPlaylist) -> String {
    let parts: usize = playlist.segments.iter().map(|segment| segment.parts.len()).sum();
    let mut out = String::with_capacity(512 + 80 * (playlist.segments.len() + parts));
    write_head(&mut out, playlist);
    let mut map = None;
    for segment in &playlist.segments {
        write_segment(&mut out, segment, map);
        map = segment.map_uri.as_deref().or(map);
    }
    write_tail(&mut out, playlist);
    out
}

/// Smallest EXT-X-VERSION that a playlist needs (section 8; rules PL-02, PL-03, DL-05).
///
/// * 9 with EXT-X-SKIP. A playlist that offers CAN-SKIP-UNTIL says 9 as well, although it has no such tag itself: a
///   delta update and the full playlist it stands for must carry the same version, and the version must not change
///   mid-stream.
/// * 6 with EXT-X-MAP in a playlist that is not I-frames only.
/// * 3 otherwise: our EXTINF durations have decimals.
///
/// EXT-X-PART, EXT-X-PRELOAD-HINT, EXT-X-RENDITION-REPORT and EXT-X-GAP need no version of their own.
pub fn required_version(playlist: &MediaPlaylist) -> u8 {
    let offers_delta = playlist
        .server_control
        .is_some_and(|control| control.can_skip_until.is_some());
    if offers_delta || playlist.skipped_segments.is_some() {
        9
    } else if playlist.segments.iter().any(|segment| segment.map_uri.is_some()) {
        6
    } else {
        3
    }
}

/// Everything before the first segment; looks at no segment.
pub fn write_head(out: &mut String, playlist: &MediaPlaylist) {
    let _ = writeln!(out, "{}\n{}:{}", tag::M3U, tag::VERSION, playlist.version);
    if playlist.independent_segments {
        let _ = writeln!(out, "{}", tag::INDEPENDENT_SEGMENTS);
    }
    let _ = writeln!(out, "{}:{}", tag::TARGET_DURATION, playlist.target_duration_seconds);
    write_server_control(out, playlist);
    if let Some(target) = playlist.part_target {
        let _ = write!(out, "{}:PART-TARGET=", tag::PART_INF);
        push_seconds(out, target);
        out.push('\n');
    }
    let _ = writeln!(out, "{}:{}", tag::MEDIA_SEQUENCE, playlist.media_sequence);
    let _ = writeln!(
        out,
        "{}:{}",
        tag::DISCONTINUITY_SEQUENCE,
        playlist.discontinuity_sequence
    );
    if let Some(kind) = playlist.playlist_type {
        let kind = match kind {
            PlaylistType::Event => "EVENT",
            PlaylistType::Vod => "VOD",
        };
        let _ = writeln!(out, "{}:{kind}", tag::PLAYLIST_TYPE);
    }
    if let Some(skipped) = playlist.skipped_segments {
        let _ = writeln!(out, "{}:SKIPPED-SEGMENTS={skipped}", tag::SKIP);
    }
}

fn write_server_control(out: &mut String, playlist: &MediaPlaylist) {
    let Some(control) = playlist.server_control else { return };
    let mut separator = ':';
    let mut name = |out: &mut String, name: &str| {
        if separator == ':' {
            out.push_str(tag::SERVER_CONTROL);
        }
        out.push(separator);
        out.push_str(name);
        separator = ',';
    };
    if control.can_block_reload {
        name(out, "CAN-BLOCK-RELOAD=YES");
    }
    for (attribute, value) in [
        ("CAN-SKIP-UNTIL=", control.can_skip_until),
        ("HOLD-BACK=", control.hold_back),
        ("PART-HOLD-BACK=", control.part_hold_back),
    ] {
        if let Some(value) = value {
            name(out, attribute);
            push_seconds(out, value);
        }
    }
    if separator == ',' {
        out.push('\n');
    }
}

/// One segment with its tags and parts. `previous_map` is the EXT-X-MAP URI in force before it in the same text: `None`
/// for the first listed segment, so that a delta update names its map again.
///
/// Tags that apply to the segment come before its first part (section 4.4.4.9). Of an open segment without parts only a new
/// EXT-X-MAP is written: players that follow the preload hint behind it (Shaka) decode that part with the map in force there.
/// They are not shown an EXT-X-DISCONTINUITY with nothing behind it.
pub fn write_segment(out: &mut String, segment: &Segment, previous_map: Option<&str>) {
    if segment.uri.is_none() && segment.parts.is_empty() {
        if previous_map.is_some() {
            write_map(out, segment, previous_map);
        }
        return;
    }
    if segment.discontinuity {
        let _ = writeln!(out, "{}", tag::DISCONTINUITY);
    }
    write_map(out, segment, previous_map);
    if let Some(time) = segment.program_date_time {
        let before = out.len();
        let _ = write!(out, "{}:", tag::PROGRAM_DATE_TIME);
        if push_date(out, time) {
            out.push('\n');
        } else {
            out.truncate(before);
        }
    }
    if segment.gap {
        let _ = writeln!(out, "{}", tag::GAP);
    }
    for part in &segment.parts {
        write_part(out, part);
    }
    if let Some(uri) = &segment.uri {
        let _ = write!(out, "{}:", tag::INF);
        push_seconds(out, segment.duration);
        out.push_str(",\n");
        push_uri_line(out, uri);
    }
}

fn write_map(out: &mut String, segment: &Segment, previous_map: Option<&str>) {
    if let Some(map) = segment.map_uri.as_deref().filter(|map| previous_map != Some(*map)) {
        let _ = write!(out, "{}:URI=", tag::MAP);
        push_quoted(out, map);
        out.push('\n');
    }
}

fn write_part(out: &mut String, part: &Part) {
    let _ = write!(out, "{}:DURATION=", tag::PART);
    push_seconds(out, part.duration);
    out.push_str(",URI=");
    push_quoted(out, &part.uri);
    if part.independent {
        out.push_str(",INDEPENDENT=YES");
    }
    if part.gap {
        out.push_str(",GAP=YES");
    }
    out.push('\n');
}

/// Everything after the last segment: preload hint, rendition reports, end.
pub fn write_tail(out: &mut String, playlist: &MediaPlaylist) {
    if let Some(hint) = &playlist.preload_hint {
        let _ = write!(out, "{}:TYPE=PART,URI=", tag::PRELOAD_HINT);
        push_quoted(out, &hint.uri);
        out.push('\n');
    }
    for report in &playlist.rendition_reports {
        let _ = write!(out, "{}:URI=", tag::RENDITION_REPORT);
        push_quoted(out, &report.uri);
        let _ = write!(out, ",LAST-MSN={}", report.last_msn);
        if let Some(part) = report.last_part {
            let _ = write!(out, ",LAST-PART={part}");
        }
        out.push('\n');
    }
    if playlist.ended {
        let _ = writeln!(out, "{}", tag::END_LIST);
    }
}
