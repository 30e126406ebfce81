//! Text → [`MediaOutline`]: each line goes to the head, to its segment or to the tail; URIs are mapped on the way.

use std::{sync::Arc, time::Duration};

use super::{Mapped, MediaOutline, Named, Piece, Span};
use crate::hls::{
    parse::{
        MAX_PARTS_PER_SEGMENT, MAX_SEGMENTS, MAX_URI_BYTES, ParseError, Problem, integer_value, playlist_lines,
        set_once, tags,
    },
    playlist::ServerControl,
    position::MediaSequence,
    text::{self, attributes, tag},
};

/// EXT-X-KEY lines in force at once: one per KEYFORMAT.
const MAX_KEYS: usize = 8;

pub(super) fn media(text: &str, map: impl FnMut(&str) -> Mapped) -> Result<MediaOutline, ParseError> {
    let mut reader = Reader::new(text.len(), map);
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

struct Reader<M> {
    map: M,
    head: String,
    segments: Vec<Arc<Piece>>,
    tail: String,
    target_duration_seconds: Option<u32>,
    server_control: Option<ServerControl>,
    part_target: Option<Duration>,
    media_sequence: Option<u64>,
    skipped_segments: Option<u64>,
    hint: Option<Named>,
    ended: bool,
    /// The segment being read.
    open: Open,
    /// Where the last sub-range of segments ended, and of parts: one without an offset begins there.
    segment_end: Option<(Arc<str>, u64)>,
    part_end: Option<(Arc<str>, u64)>,
    map_line: String,
    /// By KEYFORMAT.
    key_lines: Vec<(String, String)>,
    in_force: Arc<str>,
}

#[derive(Default)]
struct Open {
    text: String,
    duration: Option<Duration>,
    byte_range: Option<(u64, Option<u64>)>,
    parts: u32,
    parts_duration: Duration,
    names: Vec<Named>,
}

impl<M: FnMut(&str) -> Mapped> Reader<M> {
    fn new(length: usize, map: M) -> Self {
        Self {
            map,
            head: format!("{}\n", tag::M3U),
            segments: Vec::with_capacity(length / 64),
            tail: String::new(),
            target_duration_seconds: None,
            server_control: None,
            part_target: None,
            media_sequence: None,
            skipped_segments: None,
            hint: None,
            ended: false,
            open: Open::default(),
            segment_end: None,
            part_end: None,
            map_line: String::new(),
            key_lines: Vec::new(),
            in_force: "".into(),
        }
    }

    fn line(&mut self, line: &str) -> Result<(), Problem> {
        if !line.starts_with('#') {
            return self.segment(line);
        }
        let (name, value) = text::split_tag(line);
        match name {
            tag::TARGET_DURATION => {
                let seconds = integer_value(value, tag::TARGET_DURATION)?;
                set_once(&mut self.target_duration_seconds, seconds, tag::TARGET_DURATION)?;
            }
            tag::MEDIA_SEQUENCE => {
                self.before_segments(tag::MEDIA_SEQUENCE)?;
                let number = integer_value(value, tag::MEDIA_SEQUENCE)?;
                set_once(&mut self.media_sequence, number, tag::MEDIA_SEQUENCE)?;
            }
            tag::SERVER_CONTROL => {
                if let Some(control) = tags::server_control(value)? {
                    set_once(&mut self.server_control, control, tag::SERVER_CONTROL)?;
                }
            }
            tag::PART_INF => set_once(&mut self.part_target, tags::part_inf(value)?, tag::PART_INF)?,
            tag::SKIP => {
                self.before_segments(tag::SKIP)?;
                // Written again where it is needed.
                return set_once(&mut self.skipped_segments, tags::skip(value)?, tag::SKIP);
            }
            tag::PART => return self.part(line, value),
            tag::INF => {
                let (duration, _title) = value.split_once(',').unwrap_or((value, ""));
                let duration = text::seconds(duration).ok_or(Problem::BadValue(tag::INF))?;
                set_once(&mut self.open.duration, duration, tag::INF)?;
                return self.of_segment(line);
            }
            tag::BYTE_RANGE => {
                let range = byte_range(value).ok_or(Problem::BadValue(tag::BYTE_RANGE))?;
                set_once(&mut self.open.byte_range, range, tag::BYTE_RANGE)?;
                return self.of_segment(line);
            }
            tag::MAP => return self.init(line, value),
            tag::KEY => return self.key(line, value),
            tag::DISCONTINUITY | tag::PROGRAM_DATE_TIME | tag::GAP => return self.of_segment(line),
            tag::PRELOAD_HINT => return self.preload_hint(line, value),
            tag::RENDITION_REPORT => return push_tag(&mut self.tail, line, &mut self.map).map(|_| ()),
            tag::END_LIST => {
                self.ended = true;
                self.tail.push_str(line);
                self.tail.push('\n');
                return Ok(());
            }
            _ => {}
        }
        // Of the whole playlist, or not known here: it stays where it is.
        match self.segments.is_empty() && self.open.text.is_empty() {
            true => push_tag(&mut self.head, line, &mut self.map).map(|_| ()),
            false => self.of_segment(line),
        }
    }

    fn before_segments(&self, tag: &'static str) -> Result<(), Problem> {
        match self.segments.is_empty() && self.open.text.is_empty() {
            true => Ok(()),
            false => Err(Problem::Misplaced(tag)),
        }
    }

    fn of_segment(&mut self, line: &str) -> Result<(), Problem> {
        push_tag(&mut self.open.text, line, &mut self.map).map(|_| ())
    }

    fn part(&mut self, line: &str, value: &str) -> Result<(), Problem> {
        let bad = |name| Problem::BadAttribute { tag: tag::PART, name };
        if self.open.parts as usize >= MAX_PARTS_PER_SEGMENT {
            return Err(Problem::TooMany("parts in one segment"));
        }
        let (mut range, mut duration) = (None, None);
        for attribute in attributes(value) {
            let attribute = attribute.map_err(|_| Problem::BadValue(tag::PART))?;
            match attribute.name {
                "DURATION" => duration = attribute.seconds(),
                "BYTERANGE" => range = Some(attribute.quoted().and_then(byte_range).ok_or(bad("BYTERANGE"))?),
                _ => {}
            }
        }
        let name = push_tag(&mut self.open.text, line, &mut self.map)?;
        self.open.parts += 1;
        let duration = duration.ok_or(bad("DURATION"))?;
        self.open.parts_duration = self.open.parts_duration.saturating_add(duration);
        if let Some(name) = name {
            let span = range.map(|range| span(&mut self.part_end, &name, range));
            self.open.names.push(Named { name, span });
        }
        Ok(())
    }

    fn init(&mut self, line: &str, value: &str) -> Result<(), Problem> {
        let mut range = None;
        for attribute in attributes(value) {
            let attribute = attribute.map_err(|_| Problem::BadValue(tag::MAP))?;
            if attribute.name == "BYTERANGE" {
                let read = attribute.quoted().and_then(byte_range);
                range = Some(read.ok_or(Problem::BadAttribute {
                    tag: tag::MAP,
                    name: "BYTERANGE",
                })?);
            }
        }
        let before = self.open.text.len();
        if let Some(name) = push_tag(&mut self.open.text, line, &mut self.map)? {
            let span = range.map(|(length, first)| Span {
                first: first.unwrap_or(0),
                length: Some(length),
            });
            self.open.names.push(Named { name, span });
        }
        self.map_line = self.open.text.get(before..).unwrap_or_default().to_owned();
        self.renew_in_force();
        Ok(())
    }

    fn key(&mut self, line: &str, value: &str) -> Result<(), Problem> {
        let mut format = "identity".to_owned();
        let mut none = false;
        for attribute in attributes(value) {
            let attribute = attribute.map_err(|_| Problem::BadValue(tag::KEY))?;
            match attribute.name {
                "KEYFORMAT" => format = attribute.quoted().unwrap_or_default().to_owned(),
                "METHOD" => none = attribute.word() == Some("NONE"),
                _ => {}
            }
        }
        let before = self.open.text.len();
        self.of_segment(line)?;
        let line = self.open.text.get(before..).unwrap_or_default().to_owned();
        match none {
            true => self.key_lines.clear(),
            false => self.key_lines.retain(|(known, _)| *known != format),
        }
        if self.key_lines.len() >= MAX_KEYS {
            return Err(Problem::TooMany("key formats"));
        }
        self.key_lines.push((format, line));
        self.renew_in_force();
        Ok(())
    }

    fn renew_in_force(&mut self) {
        let keys = self.key_lines.iter().map(|(_, line)| line.as_str());
        let lines: String = keys.chain([self.map_line.as_str()]).collect();
        self.in_force = lines.into();
    }

    fn preload_hint(&mut self, line: &str, value: &str) -> Result<(), Problem> {
        let (mut is_part, mut first, mut length) = (false, None, None);
        for attribute in attributes(value) {
            let attribute = attribute.map_err(|_| Problem::BadValue(tag::PRELOAD_HINT))?;
            match attribute.name {
                "TYPE" => is_part = attribute.word() == Some("PART"),
                "BYTERANGE-START" => first = attribute.integer(),
                "BYTERANGE-LENGTH" => length = attribute.integer(),
                _ => {}
            }
        }
        let name = push_tag(&mut self.tail, line, &mut self.map)?.filter(|_| is_part);
        // A whole resource unless a range is told. Of several hints, the first is the next part.
        let hint = name.map(|name| Named {
            name,
            span: (first.is_some() || length.is_some()).then_some(Span {
                first: first.unwrap_or(0),
                length,
            }),
        });
        self.hint = self.hint.take().or(hint);
        Ok(())
    }

    fn segment(&mut self, uri: &str) -> Result<(), Problem> {
        let duration = self.open.duration.ok_or(Problem::StrayUri)?;
        let name = push_uri(&mut self.open.text, uri, &mut self.map)?;
        if let Some(name) = name {
            let range = self.open.byte_range;
            let span = range.map(|range| span(&mut self.segment_end, &name, range));
            self.open.names.push(Named { name, span });
        }
        self.push(true, duration)
    }

    fn push(&mut self, complete: bool, duration: Duration) -> Result<(), Problem> {
        if self.segments.len() >= MAX_SEGMENTS {
            return Err(Problem::TooMany("segments"));
        }
        let open = std::mem::take(&mut self.open);
        self.segments.push(Arc::new(Piece {
            text: open.text,
            complete,
            duration,
            parts: open.parts,
            parts_duration: open.parts_duration,
            names: open.names,
            in_force: self.in_force.clone(),
        }));
        Ok(())
    }

    fn finish(mut self) -> Result<MediaOutline, Problem> {
        if self.open.duration.is_some() {
            return Err(Problem::Missing("the URI that belongs to the last #EXTINF"));
        }
        if self.open.parts > 0 {
            self.push(false, Duration::ZERO)?;
        } else {
            // Lines of a segment of which nothing is listed yet.
            self.tail.insert_str(0, &self.open.text);
        }
        Ok(MediaOutline {
            head: self.head,
            segments: self.segments,
            tail: self.tail,
            target_duration_seconds: self
                .target_duration_seconds
                .ok_or(Problem::Missing(tag::TARGET_DURATION))?,
            part_target: self.part_target,
            server_control: self.server_control,
            media_sequence: MediaSequence(self.media_sequence.unwrap_or(0)),
            skipped_segments: self.skipped_segments,
            hint: self.hint,
            ended: self.ended,
        })
    }
}

/// `<n>[@<o>]` (section 4.4.4.2).
fn byte_range(text: &str) -> Option<(u64, Option<u64>)> {
    match text.split_once('@') {
        Some((length, first)) => Some((text::integer(length)?, Some(text::integer(first)?))),
        None => Some((text::integer(text)?, None)),
    }
}

/// A sub-range; one without an offset begins where the last one of the same resource ended.
fn span(end: &mut Option<(Arc<str>, u64)>, name: &Arc<str>, (length, first): (u64, Option<u64>)) -> Span {
    let after = end.as_ref().filter(|(last, _)| last == name).map(|(_, end)| *end);
    let first = first.or(after).unwrap_or(0);
    *end = Some((name.clone(), first.saturating_add(length)));
    Span {
        first,
        length: Some(length),
    }
}

/// Appends a tag line with its URI mapped; gives the name of what it leads to.
pub(super) fn push_tag(
    out: &mut String,
    line: &str,
    map: &mut impl FnMut(&str) -> Mapped,
) -> Result<Option<Arc<str>>, Problem> {
    let Some((before, uri, after)) = uri_attribute(line) else {
        out.push_str(line);
        out.push('\n');
        return Ok(None);
    };
    let mapped = checked(uri, map)?;
    out.push_str(before);
    out.push_str(mapped.written.as_deref().unwrap_or(uri));
    out.push_str(after);
    out.push('\n');
    Ok(mapped.name)
}

/// Appends a URI line, mapped; gives the name of what it leads to.
pub(super) fn push_uri(
    out: &mut String,
    uri: &str,
    map: &mut impl FnMut(&str) -> Mapped,
) -> Result<Option<Arc<str>>, Problem> {
    let mapped = checked(uri, map)?;
    out.push_str(mapped.written.as_deref().unwrap_or(uri));
    out.push('\n');
    Ok(mapped.name)
}

/// A URI that refers to a variable (EXT-X-DEFINE) is the player's to resolve.
fn checked(uri: &str, map: &mut impl FnMut(&str) -> Mapped) -> Result<Mapped, Problem> {
    if uri.len() > MAX_URI_BYTES {
        return Err(Problem::LongUri);
    }
    Ok(match uri.contains("{$") {
        true => Mapped::default(),
        false => map(uri),
    })
}

/// A tag line around the value of its URI attribute.
fn uri_attribute(line: &str) -> Option<(&str, &str, &str)> {
    const MARK: &str = "URI=\"";
    let mut from = line.find(':')?;
    loop {
        let at = from + line.get(from..)?.find(MARK)?;
        let value = at + MARK.len();
        if line.get(..at)?.trim_end_matches(' ').ends_with([':', ',']) {
            let end = value + line.get(value..)?.find('"')?;
            return Some((line.get(..value)?, line.get(value..end)?, line.get(end..)?));
        }
        from = value;
    }
}
