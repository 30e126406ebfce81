//! Text → [`MediaPlaylist`] (section 4.4).
//!
//! Before it on the data path: the body of an origin's playlist response. After it: [`delta::merge`](super::delta::merge)
//! and the edge's view. The text may come from anybody's origin, so every size is bounded and every fault is typed.
//!
//! Unknown tags, comments and EXT-X-DATERANGE are passed over. What would change the meaning of a segment if it were
//! passed over (encryption, byte ranges, variables, I-frame playlists) is refused as [`Problem::Unsupported`].

pub(super) mod tags;

use std::time::Duration;

use super::date::date;
use super::playlist::{MediaPlaylist, Part, PlaylistType, PreloadHint, RenditionReport, Segment, ServerControl};
use super::position::MediaSequence;
use super::text::{self, Attribute, tag};

/// Longest accepted playlist, in bytes.
pub const MAX_PLAYLIST_BYTES: usize = 8 * 1024 * 1024;
/// Most segments listed in one playlist.
pub const MAX_SEGMENTS: usize = 200_000;
/// Most parts listed in one segment.
pub const MAX_PARTS_PER_SEGMENT: usize = 1000;
/// Longest accepted URI, in bytes.
pub const MAX_URI_BYTES: usize = 4096;
/// Most rendition reports in one playlist.
pub const MAX_RENDITION_REPORTS: usize = 1000;
/// Every segment carries its map's URI: bound of these copies together, in bytes.
pub const MAX_MAP_BYTES: usize = 32 * 1024 * 1024;

/// A playlist that cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("playlist line {line}: {problem}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    pub problem: Problem,
}

/// What is wrong with a playlist. Asking again does not help unless the origin mends it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("longer than {MAX_PLAYLIST_BYTES} bytes")]
    TooLong,
    #[error("starts with a byte order mark")]
    ByteOrderMark,
    #[error("holds a control character")]
    ControlCharacter,
    #[error("does not start with #EXTM3U")]
    NotAPlaylist,
    #[error("{0} belongs to a multivariant playlist, a media playlist was expected")]
    Multivariant(&'static str),
    #[error("{0} belongs to a media playlist, a multivariant playlist was expected")]
    Media(&'static str),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} appears twice")]
    Repeated(&'static str),
    #[error("{0} comes after the first segment")]
    Misplaced(&'static str),
    #[error("the value of {0} is malformed or out of range")]
    BadValue(&'static str),
    #[error("{tag}: attribute {name} is missing, malformed or out of range")]
    BadAttribute { tag: &'static str, name: &'static str },
    #[error("a URI without the tag that announces it")]
    StrayUri,
    #[error("a URI has more than {MAX_URI_BYTES} bytes")]
    LongUri,
    #[error("too many {0}")]
    TooMany(&'static str),
    #[error("{0} is not supported")]
    Unsupported(&'static str),
}

/// Reads a media playlist, full or delta.
pub fn parse(text: &str) -> Result<MediaPlaylist, ParseError> {
    let mut reader = Reader::default();
    let mut last_line = 1;
    for (line, content) in playlist_lines(text)? {
        last_line = line;
        reader.line(content).map_err(|problem| ParseError { line, problem })?;
    }
    reader.finish().map_err(|problem| ParseError {
        line: last_line,
        problem,
    })
}

/// The checks both playlist kinds share (section 4.1); gives the lines after #EXTM3U that are not blank.
pub(super) fn playlist_lines(text: &str) -> Result<impl Iterator<Item = (usize, &str)>, ParseError> {
    let fault = |line, problem| Err(ParseError { line, problem });
    if text.len() > MAX_PLAYLIST_BYTES {
        return fault(1, Problem::TooLong);
    }
    if text.starts_with('\u{feff}') {
        return fault(1, Problem::ByteOrderMark);
    }
    let mut lines = text::lines(text);
    if lines.next().is_none_or(|(_, first)| first != tag::M3U) {
        return fault(1, Problem::NotAPlaylist);
    }
    if let Some((line, _)) = lines.find(|(_, content)| text::has_control(content)) {
        return fault(line, Problem::ControlCharacter);
    }
    Ok(text::lines(text).skip(1).filter(|(_, content)| !content.is_empty()))
}

/// Stores what may be said once.
pub(super) fn set_once<T>(slot: &mut Option<T>, value: T, tag: &'static str) -> Result<(), Problem> {
    if slot.replace(value).is_some() {
        return Err(Problem::Repeated(tag));
    }
    Ok(())
}

/// The value of a quoted URI attribute.
pub(super) fn uri_attribute(attribute: Attribute<'_>, tag: &'static str) -> Result<String, Problem> {
    let uri = attribute.quoted().ok_or(Problem::BadAttribute { tag, name: "URI" })?;
    bounded_uri(uri)
}

pub(super) fn bounded_uri(uri: &str) -> Result<String, Problem> {
    if uri.len() > MAX_URI_BYTES {
        return Err(Problem::LongUri);
    }
    Ok(uri.to_owned())
}

/// Reads an integer tag value into any narrower type.
pub(super) fn integer_value<T: TryFrom<u64>>(value: &str, tag: &'static str) -> Result<T, Problem> {
    text::integer(value)
        .and_then(|n| T::try_from(n).ok())
        .ok_or(Problem::BadValue(tag))
}

/// What has been read so far.
#[derive(Default)]
struct Reader {
    version: Option<u8>,
    target_duration_seconds: Option<u32>,
    server_control: Option<ServerControl>,
    part_target: Option<Duration>,
    media_sequence: Option<u64>,
    discontinuity_sequence: Option<u64>,
    independent_segments: bool,
    playlist_type: Option<PlaylistType>,
    skipped_segments: Option<u64>,
    segments: Vec<Segment>,
    pending: Pending,
    /// EXT-X-MAP in force.
    map_uri: Option<String>,
    /// Bytes of its copies made so far.
    map_bytes: usize,
    preload_hint: Option<PreloadHint>,
    reports: Vec<tags::Report>,
    ended: bool,
}

/// Tags that wait for their segment's URI.
#[derive(Default)]
struct Pending {
    duration: Option<Duration>,
    discontinuity: bool,
    /// The map in force at the first part; `None` before there is one.
    map_uri: Option<String>,
    program_date_time: Option<std::time::SystemTime>,
    gap: bool,
    parts: Vec<Part>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), Problem> {
        if !line.starts_with('#') {
            return self.segment_uri(line);
        }
        let (name, value) = text::split_tag(line);
        match name {
            tag::PART => self.part(value),
            tag::INF => self.inf(value),
            tag::MAP => {
                self.map_uri = Some(tags::map(value)?);
                Ok(())
            }
            tag::PROGRAM_DATE_TIME => {
                let time = date(value).ok_or(Problem::BadValue(tag::PROGRAM_DATE_TIME))?;
                self.pending.program_date_time = Some(time);
                Ok(())
            }
            tag::DISCONTINUITY => {
                self.pending.discontinuity = true;
                Ok(())
            }
            tag::GAP => {
                self.pending.gap = true;
                Ok(())
            }
            tag::PRELOAD_HINT => {
                // Of several, the first is the next part.
                let hint = tags::preload_hint(value)?;
                self.preload_hint = self.preload_hint.take().or(hint);
                Ok(())
            }
            tag::RENDITION_REPORT => self.rendition_report(value),
            tag::END_LIST => {
                self.ended = true;
                Ok(())
            }
            tag::INDEPENDENT_SEGMENTS => {
                self.independent_segments = true;
                Ok(())
            }
            tag::VERSION => set_once(&mut self.version, integer_value(value, tag::VERSION)?, tag::VERSION),
            tag::TARGET_DURATION => {
                let seconds = integer_value(value, tag::TARGET_DURATION)?;
                set_once(&mut self.target_duration_seconds, seconds, tag::TARGET_DURATION)
            }
            tag::MEDIA_SEQUENCE => {
                self.before_segments(tag::MEDIA_SEQUENCE)?;
                let number = integer_value(value, tag::MEDIA_SEQUENCE)?;
                set_once(&mut self.media_sequence, number, tag::MEDIA_SEQUENCE)
            }
            tag::DISCONTINUITY_SEQUENCE => {
                self.before_segments(tag::DISCONTINUITY_SEQUENCE)?;
                let number = integer_value(value, tag::DISCONTINUITY_SEQUENCE)?;
                set_once(&mut self.discontinuity_sequence, number, tag::DISCONTINUITY_SEQUENCE)
            }
            tag::PLAYLIST_TYPE => {
                let kind = match value {
                    "EVENT" => PlaylistType::Event,
                    "VOD" => PlaylistType::Vod,
                    _ => return Err(Problem::BadValue(tag::PLAYLIST_TYPE)),
                };
                set_once(&mut self.playlist_type, kind, tag::PLAYLIST_TYPE)
            }
            tag::SERVER_CONTROL => match tags::server_control(value)? {
                Some(control) => set_once(&mut self.server_control, control, tag::SERVER_CONTROL),
                None => Ok(()),
            },
            tag::PART_INF => set_once(&mut self.part_target, tags::part_inf(value)?, tag::PART_INF),
            tag::SKIP => {
                self.before_segments(tag::SKIP)?;
                set_once(&mut self.skipped_segments, tags::skip(value)?, tag::SKIP)
            }
            tag::KEY => tags::key(value),
            tag::BYTE_RANGE => Err(Problem::Unsupported(tag::BYTE_RANGE)),
            tag::DEFINE => Err(Problem::Unsupported(tag::DEFINE)),
            tag::I_FRAMES_ONLY => Err(Problem::Unsupported(tag::I_FRAMES_ONLY)),
            tag::STREAM_INF => Err(Problem::Multivariant(tag::STREAM_INF)),
            tag::MEDIA => Err(Problem::Multivariant(tag::MEDIA)),
            _ => Ok(()),
        }
    }

    fn before_segments(&self, tag: &'static str) -> Result<(), Problem> {
        if self.segments.is_empty() && self.pending.parts.is_empty() {
            Ok(())
        } else {
            Err(Problem::Misplaced(tag))
        }
    }

    fn inf(&mut self, value: &str) -> Result<(), Problem> {
        let (duration, _title) = value.split_once(',').unwrap_or((value, ""));
        let duration = text::seconds(duration).ok_or(Problem::BadValue(tag::INF))?;
        set_once(&mut self.pending.duration, duration, tag::INF)
    }

    fn segment_uri(&mut self, uri: &str) -> Result<(), Problem> {
        let uri = bounded_uri(uri)?;
        let duration = self.pending.duration.ok_or(Problem::StrayUri)?;
        self.push_segment(Some(uri), duration)
    }

    fn push_segment(&mut self, uri: Option<String>, duration: Duration) -> Result<(), Problem> {
        if self.segments.len() >= MAX_SEGMENTS {
            return Err(Problem::TooMany("segments"));
        }
        let pending = std::mem::take(&mut self.pending);
        let map_uri = if pending.parts.is_empty() {
            self.copy_map()?
        } else {
            pending.map_uri
        };
        self.segments.push(Segment {
            uri,
            duration,
            discontinuity: pending.discontinuity,
            map_uri,
            program_date_time: pending.program_date_time,
            gap: pending.gap,
            parts: pending.parts,
        });
        Ok(())
    }

    fn copy_map(&mut self) -> Result<Option<String>, Problem> {
        self.map_bytes += self.map_uri.as_ref().map_or(0, String::len);
        if self.map_bytes > MAX_MAP_BYTES {
            return Err(Problem::TooMany("segments with so long an EXT-X-MAP URI"));
        }
        Ok(self.map_uri.clone())
    }

    fn part(&mut self, value: &str) -> Result<(), Problem> {
        if self.pending.parts.is_empty() {
            self.pending.map_uri = self.copy_map()?;
        } else if self.pending.parts.len() >= MAX_PARTS_PER_SEGMENT {
            return Err(Problem::TooMany("parts in one segment"));
        }
        self.pending.parts.push(tags::part(value)?);
        Ok(())
    }

    fn rendition_report(&mut self, value: &str) -> Result<(), Problem> {
        if self.reports.len() >= MAX_RENDITION_REPORTS {
            return Err(Problem::TooMany("rendition reports"));
        }
        self.reports.push(tags::rendition_report(value)?);
        Ok(())
    }

    fn finish(mut self) -> Result<MediaPlaylist, Problem> {
        if self.pending.duration.is_some() {
            return Err(Problem::Missing("the URI that belongs to the last #EXTINF"));
        }
        // The open segment, if there is something to say of it: its parts, or that it will have another map.
        let newest = self.segments.last().and_then(|segment| segment.map_uri.as_ref());
        let has_new_map = newest.is_some_and(|newest| self.map_uri.as_ref() != Some(newest));
        if !self.pending.parts.is_empty() {
            self.push_segment(None, Duration::ZERO)?;
        } else if has_new_map && !self.ended {
            self.pending = Pending::default();
            self.push_segment(None, Duration::ZERO)?;
        }
        let mut playlist = MediaPlaylist {
            version: self.version.unwrap_or(1),
            target_duration_seconds: self
                .target_duration_seconds
                .ok_or(Problem::Missing(tag::TARGET_DURATION))?,
            server_control: self.server_control,
            part_target: self.part_target,
            media_sequence: MediaSequence(self.media_sequence.unwrap_or(0)),
            discontinuity_sequence: self.discontinuity_sequence.unwrap_or(0),
            independent_segments: self.independent_segments,
            playlist_type: self.playlist_type,
            skipped_segments: self.skipped_segments,
            segments: self.segments,
            preload_hint: self.preload_hint,
            rendition_reports: Vec::new(),
            ended: self.ended,
        };
        let own_last = if playlist.open_parts().is_empty() {
            playlist.open_sequence().0.saturating_sub(1)
        } else {
            playlist.open_sequence().0
        };
        playlist.rendition_reports = self
            .reports
            .into_iter()
            .map(|report| RenditionReport {
                uri: report.uri,
                last_msn: MediaSequence(report.last_msn.unwrap_or(own_last)),
                last_part: report.last_part,
            })
            .collect();
        Ok(playlist)
    }
}
