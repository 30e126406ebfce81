//! The multivariant playlist as data, its text, and back (section 4.4.6).
//!
//! Before it on the data path: the codecs of a stream's tracks (origin) or an origin's response (edge). After it: the
//! response body. Only what Weir serves is kept: variants and audio renditions. Everything else is passed over.

use std::fmt::Write as _;

use super::parse::{ParseError, Problem, bounded_uri, integer_value, playlist_lines, set_once, uri_attribute};
use super::text::{self, attributes, push_quoted, push_uri_line, tag};

/// Most variants, and most renditions, in one playlist.
pub const MAX_ENTRIES: usize = 1000;

/// The EXT-X-VERSION our multivariant playlists need, and so the one to write (rule PL-03): section 8 asks for more only
/// with variables, service channels or REQ- attributes, none of which we write. Media playlists have a version of their
/// own.
pub const REQUIRED_VERSION: u8 = 1;

/// A multivariant playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multivariant {
    /// EXT-X-INDEPENDENT-SEGMENTS: every segment of every rendition starts with an independent frame.
    pub independent_segments: bool,
    /// EXT-X-VERSION: [`REQUIRED_VERSION`] for what is written here.
    pub version: u8,
    /// In the order of preference: players start with the first.
    pub variants: Vec<Variant>,
    /// EXT-X-MEDIA TYPE=AUDIO.
    pub media: Vec<Media>,
}

/// EXT-X-STREAM-INF (section 4.4.6.2). Written with CLOSED-CAPTIONS=NONE (rule MV-09).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    pub uri: String,
    /// Peak, bits per second, audio group included.
    pub bandwidth: u64,
    /// Bits per second, audio group included.
    pub average_bandwidth: Option<u64>,
    /// RFC 6381 names of every sample format, comma separated: `avc1.64001f,mp4a.40.2`.
    pub codecs: Option<String>,
    /// Width and height of the coded picture, in pixels.
    pub resolution: Option<(u32, u32)>,
    /// Frames per 1000 seconds: 29970 for 29.97 frames per second.
    pub frame_rate_milli: Option<u32>,
    /// `None`: not said, which means SDR.
    pub video_range: Option<VideoRange>,
    /// GROUP-ID of the audio renditions to go with it.
    pub audio_group: Option<String>,
}

/// The transfer function of a video track, as far as players choose by it (VIDEO-RANGE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoRange {
    Sdr,
    /// Hybrid log-gamma.
    Hlg,
    /// SMPTE ST 2084.
    Pq,
}

impl VideoRange {
    const ALL: [Self; 3] = [Self::Sdr, Self::Hlg, Self::Pq];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Sdr => "SDR",
            Self::Hlg => "HLG",
            Self::Pq => "PQ",
        }
    }
}

/// EXT-X-MEDIA TYPE=AUDIO (section 4.4.6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    pub group_id: String,
    /// For humans.
    pub name: String,
    /// `None`: the audio is in the variant itself.
    pub uri: Option<String>,
    /// RFC 5646, for example `en`.
    pub language: Option<String>,
    pub default: bool,
    /// Must be true when `default` is.
    pub autoselect: bool,
    /// CHANNELS: the count, and after a slash what is special about it: `2`, `16/JOC`.
    pub channels: Option<String>,
}

/// The playlist's text. [`parse`] reads it back to an equal value.
pub fn write(playlist: &Multivariant) -> String {
    let mut out = String::with_capacity(256 + 256 * (playlist.media.len() + playlist.variants.len()));
    let _ = writeln!(out, "{}\n{}:{}", tag::M3U, tag::VERSION, playlist.version);
    if playlist.independent_segments {
        let _ = writeln!(out, "{}", tag::INDEPENDENT_SEGMENTS);
    }
    for media in &playlist.media {
        write_media(&mut out, media);
    }
    for variant in &playlist.variants {
        write_variant(&mut out, variant);
    }
    out
}

fn write_media(out: &mut String, media: &Media) {
    let _ = write!(out, "{}:TYPE=AUDIO", tag::MEDIA);
    let mut quoted = |name: &str, value: &str| {
        out.push_str(name);
        push_quoted(out, value);
    };
    quoted(",GROUP-ID=", &media.group_id);
    quoted(",NAME=", &media.name);
    if let Some(language) = &media.language {
        quoted(",LANGUAGE=", language);
    }
    if let Some(channels) = &media.channels {
        quoted(",CHANNELS=", channels);
    }
    if let Some(uri) = &media.uri {
        quoted(",URI=", uri);
    }
    if media.default {
        out.push_str(",DEFAULT=YES");
    }
    if media.autoselect {
        out.push_str(",AUTOSELECT=YES");
    }
    out.push('\n');
}

fn write_variant(out: &mut String, variant: &Variant) {
    let _ = write!(out, "{}:BANDWIDTH={}", tag::STREAM_INF, variant.bandwidth);
    if let Some(average) = variant.average_bandwidth {
        let _ = write!(out, ",AVERAGE-BANDWIDTH={average}");
    }
    if let Some(codecs) = &variant.codecs {
        out.push_str(",CODECS=");
        push_quoted(out, codecs);
    }
    if let Some((width, height)) = variant.resolution {
        let _ = write!(out, ",RESOLUTION={width}x{height}");
    }
    if let Some(milli) = variant.frame_rate_milli {
        let _ = write!(out, ",FRAME-RATE={}.{:03}", milli / 1000, milli % 1000);
    }
    if let Some(range) = variant.video_range {
        let _ = write!(out, ",VIDEO-RANGE={}", range.as_str());
    }
    if let Some(group) = &variant.audio_group {
        out.push_str(",AUDIO=");
        push_quoted(out, group);
    }
    out.push_str(",CLOSED-CAPTIONS=NONE\n");
    push_uri_line(out, &variant.uri);
}

/// The text of a multivariant playlist for another place: `prefix` is put before every address in it, all of which must
/// be relative.
pub fn with_prefix(text: &str, prefix: &str) -> String {
    const URI: &str = "URI=\"";
    let mut out = String::with_capacity(text.len() + 16 * prefix.len());
    for line in text.lines() {
        match line.split_once(URI) {
            Some((before, after)) if line.starts_with('#') => {
                let _ = writeln!(out, "{before}{URI}{prefix}{after}");
            }
            None if !line.is_empty() && !line.starts_with('#') => {
                let _ = writeln!(out, "{prefix}{line}");
            }
            _ => {
                let _ = writeln!(out, "{line}");
            }
        }
    }
    out
}

/// Reads a multivariant playlist.
pub fn parse(text: &str) -> Result<Multivariant, ParseError> {
    let mut reader = Reader::default();
    let mut last_line = 1;
    for (line, content) in playlist_lines(text)? {
        last_line = line;
        reader.line(content).map_err(|problem| ParseError { line, problem })?;
    }
    if reader.announced.is_some() {
        return Err(ParseError {
            line: last_line,
            problem: Problem::Missing("the URI that belongs to the last #EXT-X-STREAM-INF"),
        });
    }
    Ok(Multivariant {
        independent_segments: reader.independent_segments,
        version: reader.version.unwrap_or(1),
        variants: reader.variants,
        media: reader.media,
    })
}

#[derive(Default)]
struct Reader {
    independent_segments: bool,
    version: Option<u8>,
    variants: Vec<Variant>,
    media: Vec<Media>,
    /// An EXT-X-STREAM-INF whose URI is the next line.
    announced: Option<Variant>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), Problem> {
        if !line.starts_with('#') {
            let mut variant = self.announced.take().ok_or(Problem::StrayUri)?;
            variant.uri = bounded_uri(line)?;
            self.variants.push(variant);
            return Ok(());
        }
        let (name, value) = text::split_tag(line);
        match name {
            tag::VERSION => set_once(&mut self.version, integer_value(value, tag::VERSION)?, tag::VERSION),
            tag::INDEPENDENT_SEGMENTS => {
                self.independent_segments = true;
                Ok(())
            }
            tag::STREAM_INF if self.variants.len() >= MAX_ENTRIES => Err(Problem::TooMany("variants")),
            tag::STREAM_INF => set_once(&mut self.announced, variant(value)?, tag::STREAM_INF),
            tag::MEDIA if self.media.len() >= MAX_ENTRIES => Err(Problem::TooMany("renditions")),
            tag::MEDIA => {
                self.media.extend(media(value)?);
                Ok(())
            }
            tag::DEFINE => Err(Problem::Unsupported(tag::DEFINE)),
            tag::TARGET_DURATION => Err(Problem::Media(tag::TARGET_DURATION)),
            tag::INF => Err(Problem::Media(tag::INF)),
            _ => Ok(()),
        }
    }
}

fn variant(list: &str) -> Result<Variant, Problem> {
    let bad = |name| Problem::BadAttribute {
        tag: tag::STREAM_INF,
        name,
    };
    let mut bandwidth = None;
    let mut variant = Variant {
        uri: String::new(),
        bandwidth: 0,
        average_bandwidth: None,
        codecs: None,
        resolution: None,
        frame_rate_milli: None,
        video_range: None,
        audio_group: None,
    };
    for attribute in attributes(list) {
        let attribute = attribute.map_err(|_| Problem::BadValue(tag::STREAM_INF))?;
        match attribute.name {
            "BANDWIDTH" => bandwidth = attribute.integer(),
            "AVERAGE-BANDWIDTH" => {
                variant.average_bandwidth = Some(attribute.integer().ok_or(bad("AVERAGE-BANDWIDTH"))?);
            }
            "CODECS" => variant.codecs = Some(attribute.quoted().ok_or(bad("CODECS"))?.to_owned()),
            "RESOLUTION" => {
                let size = attribute.word().and_then(resolution);
                variant.resolution = Some(size.ok_or(bad("RESOLUTION"))?);
            }
            "FRAME-RATE" => {
                // Same form as a number of seconds; thousandths are what EXT-X-STREAM-INF keeps.
                let rate = attribute.seconds().map(|rate| (rate.as_micros() + 500) / 1000);
                let milli = rate.and_then(|milli| u32::try_from(milli).ok());
                variant.frame_rate_milli = Some(milli.ok_or(bad("FRAME-RATE"))?);
            }
            // Another range than those we know is none that we could promise.
            "VIDEO-RANGE" => {
                let word = attribute.word().unwrap_or_default();
                variant.video_range = VideoRange::ALL.into_iter().find(|range| range.as_str() == word);
            }
            "AUDIO" => variant.audio_group = Some(attribute.quoted().ok_or(bad("AUDIO"))?.to_owned()),
            _ => {}
        }
    }
    variant.bandwidth = bandwidth.ok_or(bad("BANDWIDTH"))?;
    Ok(variant)
}

fn resolution(text: &str) -> Option<(u32, u32)> {
    let (width, height) = text.split_once(['x', 'X'])?;
    let side = |text| text::integer(text).and_then(|n| u32::try_from(n).ok());
    Some((side(width)?, side(height)?))
}

/// `None` for renditions that are not audio.
fn media(list: &str) -> Result<Option<Media>, Problem> {
    let bad = |name| Problem::BadAttribute { tag: tag::MEDIA, name };
    let (mut kind, mut group_id, mut name) = (None, None, None);
    let mut media = Media {
        group_id: String::new(),
        name: String::new(),
        uri: None,
        language: None,
        default: false,
        autoselect: false,
        channels: None,
    };
    for attribute in attributes(list) {
        let attribute = attribute.map_err(|_| Problem::BadValue(tag::MEDIA))?;
        let text = attribute.quoted().map(str::to_owned);
        match attribute.name {
            "TYPE" => kind = attribute.word(),
            "GROUP-ID" => group_id = text,
            "NAME" => name = text,
            "LANGUAGE" => media.language = text,
            "CHANNELS" => media.channels = text,
            "URI" => media.uri = Some(uri_attribute(attribute, tag::MEDIA)?),
            "DEFAULT" => media.default = attribute.yes(),
            "AUTOSELECT" => media.autoselect = attribute.yes(),
            _ => {}
        }
    }
    if kind.ok_or(bad("TYPE"))? != "AUDIO" {
        return Ok(None);
    }
    media.group_id = group_id.ok_or(bad("GROUP-ID"))?;
    media.name = name.ok_or(bad("NAME"))?;
    Ok(Some(media))
}

#[cfg(test)]
mod tests;
