//! A recording's playlists: what of it can be played, as text. Pure.
//!
//! All renditions list the same positions, so that their media and discontinuity sequence numbers agree (RFC 8216bis section
//! 6.2.4): where a rendition has nothing, it lists a gap. A running recording lists what is stored without a hole before
//! it, and only ever appends; a finished one lists everything.
//!
//! Before this: `ledger.rs`. After this: `upload.rs` (the store's copies), `shelf.rs` (viewers of a running recording).

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    time::{Duration, UNIX_EPOCH},
};

use weir_shared::{
    hls::{
        address::INDEX_END,
        multivariant::{self, Multivariant, Variant},
        name::MediaObject,
        playlist::{MediaPlaylist, PlaylistType, Segment},
        position::MediaSequence,
        write,
    },
    id::RenditionName,
};

use super::ledger::{Ledger, Position, RenditionLedger, Stage, Take, name};

mod summary;
mod track;

pub use summary::{Summary, SummaryObject, SummaryRendition, summary};
pub use track::thumbnails;

/// What the name of a rendition's playlist for trick play ends in.
pub const IFRAMES: &str = "-iframes";

/// Whether a recording is still growing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    Running,
    Finished,
}

/// One position that is listed.
struct Row<'a> {
    at: Position,
    discontinuity: bool,
    /// `None`: this rendition has nothing here.
    own: Option<&'a Take>,
    /// Any rendition's segment here, for its times.
    like: &'a Take,
}

/// The media playlist of a rendition (section 4.4.3), `None` while it has nothing to list.
pub fn media_playlist(ledger: &Ledger, rendition: &RenditionName, growth: Growth) -> Option<String> {
    let of = ledger.renditions.get(rendition)?;
    let rows = rows(ledger, of, growth);
    if !rows.iter().any(|row| row.own.is_some()) {
        return None;
    }
    let mut out = String::with_capacity(256 + rows.len() * 128);
    let head = head(ledger, of, &rows, growth);
    write::write_head(&mut out, &head);
    let mut map: Option<String> = None;
    let mut bitrate = None;
    for row in &rows {
        let segment = segment(rendition, of, row);
        if let Some(take) = row.own {
            let kilobits = kilobits_per_second(take.bytes, take.duration);
            if bitrate != Some(kilobits) {
                bitrate = Some(kilobits);
                let _ = writeln!(out, "#EXT-X-BITRATE:{kilobits}");
            }
        }
        write::write_segment(&mut out, &segment, map.as_deref());
        map = segment.map_uri.or(map);
    }
    write::write_tail(&mut out, &head);
    Some(out)
}

/// The playlist for trick play: of each segment its first picture (section 4.4.3.6). `None` where there is no picture.
pub fn iframe_playlist(ledger: &Ledger, rendition: &RenditionName, growth: Growth) -> Option<String> {
    let of = ledger.renditions.get(rendition)?;
    let rows = rows(ledger, of, growth);
    let has_picture = |row: &Row<'_>| row.own.is_some_and(|take| take.key_frame_bytes.is_some());
    if !rows.iter().any(has_picture) {
        return None;
    }
    let mut out = String::with_capacity(256 + rows.len() * 128);
    let head = head(ledger, of, &rows, growth);
    write::write_head(&mut out, &head);
    out.push_str("#EXT-X-I-FRAMES-ONLY\n");
    let mut map: Option<String> = None;
    // Rows without a picture lengthen the time until the next one.
    let mut pending_discontinuity = false;
    let mut at = 0;
    while let Some(row) = rows.get(at) {
        let followers = rows.iter().skip(at + 1).take_while(|next| !has_picture(next)).count();
        pending_discontinuity |= row.discontinuity;
        let Some((take, length)) = row.own.and_then(|take| Some((take, take.key_frame_bytes?))) else {
            at += 1;
            continue;
        };
        let span: Duration = rows.iter().skip(at).take(followers + 1).map(Row::duration).sum();
        let mut picture = segment(rendition, of, row);
        picture.discontinuity = std::mem::take(&mut pending_discontinuity);
        picture.duration = span;
        let uri = picture.uri.take();
        // What stands before the EXTINF of a segment, then the range.
        let (discontinuity, date) = (picture.discontinuity, picture.program_date_time);
        if discontinuity {
            out.push_str("#EXT-X-DISCONTINUITY\n");
        }
        if map != picture.map_uri {
            if let Some(map) = &picture.map_uri {
                let _ = writeln!(out, "#EXT-X-MAP:URI=\"{map}\"");
            }
            map = picture.map_uri;
        }
        if let Some(date) = date {
            out.push_str("#EXT-X-PROGRAM-DATE-TIME:");
            weir_shared::hls::date::push_date(&mut out, date);
            out.push('\n');
        }
        let _ = writeln!(out, "#EXT-X-BITRATE:{}", kilobits_per_second(take.bytes, take.duration));
        let micros = span.as_micros();
        let _ = writeln!(out, "#EXTINF:{}.{:06},", micros / 1_000_000, micros % 1_000_000);
        let _ = writeln!(out, "#EXT-X-BYTERANGE:{length}@0");
        let _ = writeln!(out, "{}", uri.unwrap_or_default());
        at += followers + 1;
    }
    write::write_tail(&mut out, &head);
    Some(out)
}

/// The multivariant playlist. `prefix` leads from it to the media playlists. `None` while nothing can be played.
pub fn index(ledger: &Ledger, prefix: &str, growth: Growth) -> Option<String> {
    let live = multivariant::parse(&ledger.master).ok()?;
    let playable = |uri: &str| {
        let rendition: RenditionName = uri.strip_suffix(".m3u8")?.parse().ok()?;
        let of = ledger.renditions.get(&rendition)?;
        let listed = rows(ledger, of, growth).iter().any(|row| row.own.is_some());
        listed.then(|| (rendition, rates(of)))
    };
    let mut media = live.media;
    media.retain_mut(|media| {
        let Some(uri) = &mut media.uri else { return false };
        let there = playable(uri).is_some();
        *uri = format!("{prefix}{uri}");
        there
    });
    let mut variants: Vec<Variant> = Vec::new();
    let mut pictures: BTreeSet<RenditionName> = BTreeSet::new();
    for mut variant in live.variants {
        let Some((rendition, own)) = playable(&variant.uri) else {
            continue;
        };
        // BANDWIDTH holds for every combination with the group (section 4.4.6.2).
        let group = media
            .iter()
            .filter(|m| Some(&m.group_id) == variant.audio_group.as_ref());
        let others = group.filter_map(|m| {
            let uri = m.uri.as_deref()?.strip_prefix(prefix)?;
            // Audio on its own is a variant and a rendition of its group at once.
            (uri != variant.uri).then(|| playable(uri))?
        });
        let (peak, mean) = others.fold((0, 0), |(peak, mean), (_, rates)| {
            (rates.peak.max(peak), rates.mean.max(mean))
        });
        if media.iter().all(|m| Some(&m.group_id) != variant.audio_group.as_ref()) {
            variant.audio_group = None;
        }
        variant.bandwidth = own.peak.saturating_add(peak).max(1);
        variant.average_bandwidth = Some(own.mean.saturating_add(mean).max(1));
        variant.uri = format!("{prefix}{}", variant.uri);
        pictures.insert(rendition);
        variants.push(variant);
    }
    if variants.is_empty() {
        return None;
    }
    let trick_play = trick_play(ledger, &variants, &pictures, prefix);
    let mut text = multivariant::write(&Multivariant {
        independent_segments: live.independent_segments
            && ledger.renditions.values().all(RenditionLedger::is_independent),
        version: multivariant::REQUIRED_VERSION,
        variants,
        media,
    });
    text.push_str(&trick_play);
    if growth == Growth::Finished {
        text.push_str(INDEX_END);
    }
    Some(text)
}

/// EXT-X-I-FRAME-STREAM-INF of every video rendition (section 4.4.6.3).
fn trick_play(ledger: &Ledger, variants: &[Variant], names: &BTreeSet<RenditionName>, prefix: &str) -> String {
    let mut out = String::new();
    for rendition in names {
        let Some(of) = ledger.renditions.get(rendition) else {
            continue;
        };
        let uri = format!("{prefix}{rendition}.m3u8");
        let Some(variant) = variants.iter().find(|v| v.uri == uri) else {
            continue;
        };
        let pictures = of.takes.values().filter(|take| take.stage == Stage::Stored);
        let rate = |take: &Take| Some(bits_per_second(take.key_frame_bytes?, take.duration));
        let Some(peak) = pictures.filter_map(rate).max() else {
            continue;
        };
        let _ = write!(out, "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH={}", peak.max(1));
        // Of the variant's formats the one of the picture comes first.
        if let Some(codec) = variant.codecs.as_deref().and_then(|codecs| codecs.split(',').next()) {
            let _ = write!(out, ",CODECS=\"{codec}\"");
        }
        if let Some((width, height)) = variant.resolution {
            let _ = write!(out, ",RESOLUTION={width}x{height}");
        }
        let _ = writeln!(out, ",URI=\"{prefix}{rendition}{IFRAMES}.m3u8\"");
    }
    out
}

/// The newest multivariant playlist of the live stream, with what only an earlier one named: renditions that came and
/// went are part of the recording.
pub fn merged_master(old: &str, new: &str) -> String {
    let (Ok(old), Ok(mut merged)) = (multivariant::parse(old), multivariant::parse(new)) else {
        return new.to_owned();
    };
    for media in old.media {
        if !merged.media.iter().any(|m| m.uri == media.uri) && merged.media.len() < multivariant::MAX_ENTRIES {
            merged.media.push(media);
        }
    }
    for variant in old.variants {
        let same = |v: &Variant| v.uri == variant.uri && v.audio_group == variant.audio_group;
        if !merged.variants.iter().any(same) && merged.variants.len() < multivariant::MAX_ENTRIES {
            merged.variants.push(variant);
        }
    }
    multivariant::write(&merged)
}

/// Less than this at the end, of some renditions only, is left out.
const SCRAP: Duration = Duration::from_millis(100);

fn rows<'a>(ledger: &'a Ledger, of: &'a RenditionLedger, growth: Growth) -> Vec<Row<'a>> {
    let positions: BTreeSet<Position> = ledger
        .renditions
        .values()
        .flat_map(|of| of.takes.keys().copied())
        .collect();
    let last_own = of.takes.keys().next_back();
    let mut rows: Vec<Row<'a>> = Vec::with_capacity(positions.len());
    let mut before: Option<Position> = None;
    // A break before a position that nobody lists is one before the next that somebody does.
    let mut broken = false;
    for at in positions {
        let here = || ledger.renditions.values().filter_map(|of| of.takes.get(&at));
        let own = of.takes.get(&at);
        let settled = match own {
            Some(take) => matches!(take.stage, Stage::Stored | Stage::Lost),
            None => last_own.is_some_and(|last| at < *last),
        };
        if growth == Growth::Running && !settled {
            break;
        }
        let skipped = before.is_some_and(|b| b.epoch != at.epoch || b.msn.next() != at.msn);
        broken |= skipped || here().any(|take| take.discontinuity || take.new_publisher);
        before = Some(at);
        // Times of what is there before those of what is not.
        let there = here().filter(|take| take.stage == Stage::Stored);
        let like = there.max_by_key(|take| take.duration).or(own);
        let Some(like) = like.or_else(|| here().next().filter(|_| growth == Growth::Finished)) else {
            break;
        };
        rows.push(Row {
            at,
            discontinuity: std::mem::take(&mut broken) && !rows.is_empty(),
            own: own.filter(|take| take.stage == Stage::Stored),
            like,
        });
    }
    // An encoder that stops leaves a frame or two of one rendition that begin a segment which no other has: no player
    // should be sent looking for the rest.
    while let Some(last) = rows.last()
        && last.like.duration < SCRAP
        && ledger.renditions.values().any(|of| !of.takes.contains_key(&last.at))
    {
        rows.pop();
    }
    rows
}

impl Row<'_> {
    fn duration(&self) -> Duration {
        self.own.unwrap_or(self.like).duration
    }
}

fn segment(rendition: &RenditionName, of: &RenditionLedger, row: &Row<'_>) -> Segment {
    // A gap belongs to whatever init section the next segment has, so that there is one.
    let map = row.own.map(|take| (row.at.epoch, take.init)).or_else(|| {
        let later = of.takes.range(row.at..).next();
        let any = later.or_else(|| of.takes.iter().next_back());
        any.map(|(at, take)| (at.epoch, take.init))
    });
    let like = row.own.unwrap_or(row.like);
    Segment {
        uri: Some(name(rendition, row.at.epoch, MediaObject::Segment(row.at.msn)).to_string()),
        duration: row.duration(),
        discontinuity: row.discontinuity,
        map_uri: map.map(|(epoch, init)| name(rendition, epoch, MediaObject::Init(init)).to_string()),
        program_date_time: UNIX_EPOCH.checked_add(Duration::from_millis(like.pdt_ms)),
        gap: row.own.is_none(),
        parts: Vec::new(),
    }
}

fn head(ledger: &Ledger, of: &RenditionLedger, rows: &[Row<'_>], growth: Growth) -> MediaPlaylist {
    // No EXTINF, rounded, may be above it (section 4.4.3.1). It never changes: so it is what the live playlist said.
    let longest = rows.iter().map(|row| (row.duration().as_millis() + 500) / 1000).max();
    let longest = u32::try_from(longest.unwrap_or(1)).unwrap_or(u32::MAX);
    let told = ledger.renditions.values().map(|of| of.target_duration_seconds).max();
    MediaPlaylist {
        version: 6,
        target_duration_seconds: told.unwrap_or(1).max(longest),
        server_control: None,
        part_target: None,
        media_sequence: MediaSequence(0),
        discontinuity_sequence: 0,
        independent_segments: of.is_independent(),
        playlist_type: Some(match growth {
            Growth::Running => PlaylistType::Event,
            Growth::Finished => PlaylistType::Vod,
        }),
        skipped_segments: None,
        segments: Vec::new(),
        preload_hint: None,
        rendition_reports: Vec::new(),
        ended: growth == Growth::Finished,
    }
}

impl RenditionLedger {
    fn is_independent(&self) -> bool {
        self.takes.values().all(|take| take.independent)
    }
}

/// Bits per second.
struct Rates {
    peak: u64,
    mean: u64,
}

fn rates(of: &RenditionLedger) -> Rates {
    let mut peak = 0;
    let (mut bytes, mut time) = (0u64, Duration::ZERO);
    // A stub says nothing about the peak (section 4.4.6.2 looks at 0.5 to 1.5 target durations).
    let stub = Duration::from_secs(u64::from(of.target_duration_seconds)) / 4;
    for take in of.takes.values().filter(|take| take.stage == Stage::Stored) {
        bytes = bytes.saturating_add(take.bytes);
        time = time.saturating_add(take.duration);
        if take.duration >= stub {
            peak = peak.max(bits_per_second(take.bytes, take.duration));
        }
    }
    let mean = bits_per_second(bytes, time);
    Rates {
        peak: peak.max(mean),
        mean,
    }
}

fn bits_per_second(bytes: u64, duration: Duration) -> u64 {
    let bits = u128::from(bytes) * 8 * 1_000_000;
    u64::try_from(bits / duration.as_micros().max(1)).unwrap_or(u64::MAX)
}

/// EXT-X-BITRATE (section 4.4.4.8): kilobits per second, within 10 %, so rounded up.
fn kilobits_per_second(bytes: u64, duration: Duration) -> u64 {
    bits_per_second(bytes, duration).div_ceil(1000)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
