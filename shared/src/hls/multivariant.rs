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
mod tests {
    use super::*;

    const TEXT: &str = include_str!("golden/multivariant.m3u8");

    fn stream() -> Multivariant {
        let variant = Variant {
            uri: "d/video.m3u8".into(),
            bandwidth: 3_400_000,
            average_bandwidth: Some(2_650_000),
            codecs: Some("avc1.64001f,mp4a.40.2".into()),
            resolution: Some((1280, 720)),
            frame_rate_milli: Some(29_970),
            video_range: None,
            audio_group: Some("audio".into()),
        };
        let audio_only = Variant {
            uri: "d/audio.m3u8".into(),
            bandwidth: 130_000,
            average_bandwidth: None,
            codecs: Some("mp4a.40.2".into()),
            resolution: None,
            frame_rate_milli: None,
            video_range: None,
            audio_group: Some("audio".into()),
        };
        let media = Media {
            group_id: "audio".into(),
            name: "English".into(),
            uri: Some("d/audio.m3u8".into()),
            language: Some("en".into()),
            default: true,
            autoselect: true,
            channels: Some("2".into()),
        };
        Multivariant {
            independent_segments: true,
            version: REQUIRED_VERSION,
            variants: vec![variant, audio_only],
            media: vec![media],
        }
    }

    #[test]
    fn the_text_is_the_golden_one_and_reads_back() {
        assert_eq!(write(&stream()), TEXT);
        assert_eq!(parse(TEXT), Ok(stream()));
    }

    #[test]
    fn a_wide_range_is_named() {
        for range in VideoRange::ALL {
            let mut playlist = stream();
            playlist.variants[0].video_range = Some(range);
            let text = write(&playlist);
            assert!(text.contains(&format!(",VIDEO-RANGE={},", range.as_str())), "{text}");
            assert_eq!(parse(&text), Ok(playlist));
        }
        let other = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,VIDEO-RANGE=XYZ\nv\n";
        assert_eq!(parse(other).unwrap().variants[0].video_range, None);
    }

    #[test]
    fn a_name_cannot_break_out_of_its_quotes() {
        let mut playlist = stream();
        playlist.media[0].name = "a\",URI=\"x\n#EXT-X-EVIL".into();
        let read = parse(&write(&playlist)).unwrap();
        assert_eq!(read.media[0].name, "a,URI=x#EXT-X-EVIL");
        assert_eq!(read.media[0].uri, playlist.media[0].uri);
    }

    #[test]
    fn others_playlists_are_read_for_what_we_serve() {
        let read = parse(concat!(
            "#EXTM3U\r\n#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID=\"s\",NAME=\"x\",URI=\"s.m3u8\"\r\n\r\n",
            "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI=\"i.m3u8\"\r\n",
            "#EXT-X-STREAM-INF:BANDWIDTH=9,FRAME-RATE=59.94006,X=\"a,b\"\r\n# comment\r\nv.m3u8\r\n",
        ))
        .unwrap();
        assert_eq!(read.media, []);
        assert_eq!(read.variants.len(), 1);
        assert_eq!(read.variants[0].uri, "v.m3u8");
        assert_eq!(read.variants[0].frame_rate_milli, Some(59_940));
        assert_eq!(read.version, 1);
    }

    #[test]
    fn faults_are_named_with_their_line() {
        for (body, line, problem) in [
            ("v.m3u8\n", 2, Problem::StrayUri),
            ("#EXTINF:2,\n", 2, Problem::Media(tag::INF)),
            (
                "\n#EXT-X-STREAM-INF:CODECS=\"a\nv\n",
                3,
                Problem::BadValue(tag::STREAM_INF),
            ),
            (
                "#EXT-X-STREAM-INF:BANDWIDTH=-1\nv\n",
                2,
                Problem::BadAttribute {
                    tag: tag::STREAM_INF,
                    name: "BANDWIDTH",
                },
            ),
            (
                "#EXT-X-STREAM-INF:BANDWIDTH=1\n",
                2,
                Problem::Missing("the URI that belongs to the last #EXT-X-STREAM-INF"),
            ),
        ] {
            assert_eq!(
                parse(&format!("#EXTM3U\n{body}")),
                Err(ParseError { line, problem }),
                "{body}"
            );
        }
    }
}
