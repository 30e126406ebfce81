//! Object names below `/app/<key>/d/` and the positions they stand for.
//!
//! | object | name |
//! |---|---|
//! | multivariant playlist | `llhls.m3u8` |
//! | media playlist | `<rendition>.m3u8` |
//! | init section | `<epoch>/<rendition>/init<n>.mp4` |
//! | media segment | `<epoch>/<rendition>/<msn>.m4s` |
//! | part | `<epoch>/<rendition>/p<number>.m4s` |
//!
//! Everything below an epoch is immutable. One object has exactly one spelling: numbers carry no leading zero.

use std::fmt;

use super::position::{MediaSequence, PartNumber};
use crate::id::{Epoch, RenditionName};

/// File name of the multivariant playlist of the direct flavour.
pub const MULTIVARIANT: &str = "llhls.m3u8";

/// One media object of a rendition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaObject {
    /// The `n`-th codec configuration's init section.
    Init(u32),
    Segment(MediaSequence),
    /// By running number, so that the name is known before its segment is.
    Part(PartNumber),
}

/// Whatever a stream's directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ObjectName {
    Multivariant,
    MediaPlaylist(RenditionName),
    Media {
        epoch: Epoch,
        rendition: RenditionName,
        object: MediaObject,
    },
}

impl ObjectName {
    /// Reads a path relative to the stream's directory (no leading slash, undecoded). `None`: no such object can exist.
    pub fn parse(path: &str) -> Option<Self> {
        let mut steps = path.split('/');
        let first = steps.next()?;
        let Some(rendition) = steps.next() else {
            if first == MULTIVARIANT {
                return Some(Self::Multivariant);
            }
            return Some(Self::MediaPlaylist(first.strip_suffix(".m3u8")?.parse().ok()?));
        };
        let file = steps.next()?;
        if steps.next().is_some() {
            return None;
        }
        let object = if let Some(name) = file.strip_suffix(".mp4") {
            MediaObject::Init(u32::try_from(number(name.strip_prefix("init")?)?).ok()?)
        } else {
            let name = file.strip_suffix(".m4s")?;
            match name.strip_prefix('p') {
                None => MediaObject::Segment(MediaSequence(number(name)?)),
                Some(part) => MediaObject::Part(PartNumber(number(part)?)),
            }
        };
        Some(Self::Media {
            epoch: first.parse().ok()?,
            rendition: rendition.parse().ok()?,
            object,
        })
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Multivariant => f.write_str(MULTIVARIANT),
            Self::MediaPlaylist(rendition) => write!(f, "{rendition}.m3u8"),
            Self::Media {
                epoch,
                rendition,
                object,
            } => {
                write!(f, "{epoch}/{rendition}/")?;
                match object {
                    MediaObject::Init(n) => write!(f, "init{n}.mp4"),
                    MediaObject::Segment(msn) => write!(f, "{msn}.m4s"),
                    MediaObject::Part(part) => write!(f, "p{part}.m4s"),
                }
            }
        }
    }
}

/// A decimal number in its only spelling.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_back() {
        for name in [
            "llhls.m3u8",
            "video.m3u8",
            "1z/video/init0.mp4",
            "1z/audio/897000000.m4s",
            "1z/audio/p12.m4s",
        ] {
            assert_eq!(ObjectName::parse(name).unwrap().to_string(), name);
        }
    }

    #[test]
    fn one_object_has_one_spelling_and_tricks_have_none() {
        for bad in [
            "",
            "/",
            "video",
            "..",
            "../video.m3u8",
            "%2e%2e/x.m3u8",
            "1z/video",
            "1z/video/",
            "1z/video/01.m4s",
            "1z/video/p02.m4s",
            "1z/video/p.m4s",
            "1z/video/-1.m4s",
            "1z/video/init.mp4",
            "1z/video/init00.mp4",
            "1z/video/1.m4s/x",
            "1Z/video/1.m4s",
            "1z//1.m4s",
            "1z/video/99999999999999999999.m4s",
            "1z/video/1.2.m4s",
            ".m3u8",
        ] {
            assert_eq!(ObjectName::parse(bad), None, "{bad:?}");
        }
    }
}
