//! Public request paths of a stream, as both nodes read them.

use std::fmt;

use super::name::{MediaObject, ObjectName};
use crate::{
    hls::position::MediaSequence,
    id::{Epoch, RecordingName, RenditionName, StreamKey},
};

/// File name of a recording's multivariant playlist.
pub const INDEX: &str = "index.m3u8";
/// File name of a recording's track of thumbnails.
pub const THUMBNAILS: &str = "thumbnails.vtt";

/// The last line of a finished recording's multivariant playlist; a comment for players (section 4.1).
pub const INDEX_END: &str = "# finished\n";
/// The last line of its track of thumbnails; a comment block (WebVTT section 4.1).
pub const THUMBNAILS_END: &str = "NOTE finished\n";
/// The last line of its media playlists.
const PLAYLIST_END: &str = "#EXT-X-ENDLIST\n";

/// `/app/<key>/index.m3u8`, `/app/<key>/d/<object>`, or `/vod/<key>/<recording>/<object>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    pub key: StreamKey,
    pub object: Object,
}

/// What of the stream is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Object {
    /// The default playback address: the multivariant playlist one step above the others. After the end of the broadcast
    /// it is that of the newest recording.
    Index,
    Direct(ObjectName),
    Recorded(RecordingName, VodObject),
}

/// What of a recording is asked for. Its segments and init sections keep the names they had while they were live.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VodObject {
    Index,
    /// A media playlist, an init section or a segment.
    Named(ObjectName),
    /// WebVTT: which picture belongs to which moment.
    Thumbnails,
    /// The first picture of a segment, as JPEG.
    Picture {
        epoch: Epoch,
        rendition: RenditionName,
        msn: MediaSequence,
    },
}

impl VodObject {
    /// Reads a path relative to the recording's directory.
    pub fn parse(path: &str) -> Option<Self> {
        if path == INDEX {
            return Some(Self::Index);
        }
        if path == THUMBNAILS {
            return Some(Self::Thumbnails);
        }
        if let Some(segment) = path.strip_suffix(".jpg") {
            return Self::picture(segment);
        }
        match ObjectName::parse(path)? {
            ObjectName::Multivariant => None,
            ObjectName::Media {
                object: MediaObject::Part(_),
                ..
            } => None,
            name => Some(Self::Named(name)),
        }
    }

    /// Named after its segment: `<epoch>/<rendition>/<msn>.jpg`.
    fn picture(segment: &str) -> Option<Self> {
        match ObjectName::parse(&format!("{segment}.m4s"))? {
            ObjectName::Media {
                epoch,
                rendition,
                object: MediaObject::Segment(msn),
            } => Some(Self::Picture { epoch, rendition, msn }),
            _ => None,
        }
    }

    /// Never changes once it is there.
    pub const fn is_immutable(&self) -> bool {
        matches!(self, Self::Named(ObjectName::Media { .. }) | Self::Picture { .. })
    }

    /// Whether what it says now can't change any more: its name tells, or its last line.
    pub fn is_final(&self, bytes: &[u8]) -> bool {
        let end = match self {
            Self::Index => INDEX_END,
            Self::Thumbnails => THUMBNAILS_END,
            Self::Named(ObjectName::MediaPlaylist(_)) => PLAYLIST_END,
            Self::Named(_) | Self::Picture { .. } => return true,
        };
        bytes.ends_with(end.as_bytes())
    }
}

impl fmt::Display for VodObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index => f.write_str(INDEX),
            Self::Named(name) => name.fmt(f),
            Self::Thumbnails => f.write_str(THUMBNAILS),
            Self::Picture { epoch, rendition, msn } => write!(f, "{epoch}/{rendition}/{msn}.jpg"),
        }
    }
}

impl Address {
    /// Reads a raw, undecoded path. Nothing that Weir names needs percent-encoding, so an encoded path names nothing and
    /// each object has one spelling. Recordings have two: below `/app/<key>/vod/` they are found from the live address.
    pub fn parse(path: &str) -> Option<Self> {
        if let Some(rest) = path.strip_prefix("/vod/") {
            let (key, rest) = rest.split_once('/')?;
            return recorded(key, rest);
        }
        let (key, rest) = path.strip_prefix("/app/")?.split_once('/')?;
        if let Some(rest) = rest.strip_prefix("vod/") {
            return recorded(key, rest);
        }
        let object = match rest {
            INDEX => Object::Index,
            _ => Object::Direct(ObjectName::parse(rest.strip_prefix("d/")?)?),
        };
        Some(Self {
            key: key.parse().ok()?,
            object,
        })
    }
}

fn recorded(key: &str, rest: &str) -> Option<Address> {
    let (recording, object) = rest.split_once('/')?;
    Some(Address {
        key: key.parse().ok()?,
        object: Object::Recorded(recording.parse().ok()?, VodObject::parse(object)?),
    })
}

/// The one path that names a recording's object to origins and in caches.
pub fn vod_path(key: &StreamKey, recording: &RecordingName, object: &VodObject) -> String {
    format!("/vod/{key}/{recording}/{object}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_objects_or_nothing() {
        let index = Address::parse("/app/show/index.m3u8").unwrap();
        assert_eq!((index.key.as_str(), index.object), ("show", Object::Index));
        assert!(Address::parse("/app/show/d/llhls.m3u8").is_some());
        assert!(Address::parse("/app/show/d/1z/video/p4.m4s").is_some());
        for nothing in [
            "/",
            "/app",
            "/app/show",
            "/app/show/",
            "/app//index.m3u8",
            "/app/show//index.m3u8",
            "/app/show/d/../d/llhls.m3u8",
            "/app/sh%6fw/index.m3u8",
            "/app/show/index.m3u8/",
            "/app/show/D/llhls.m3u8",
            "//app/show/index.m3u8",
        ] {
            assert_eq!(Address::parse(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_recording_is_found_at_its_own_address_and_below_the_live_one() {
        for object in [
            "index.m3u8",
            "video.m3u8",
            "1z/video/init0.mp4",
            "1z/video/897.m4s",
            "thumbnails.vtt",
            "1z/video/897.jpg",
        ] {
            let own = format!("/vod/show/r1/{object}");
            let address = Address::parse(&own).unwrap();
            assert_eq!(
                Address::parse(&format!("/app/show/vod/r1/{object}")),
                Some(address.clone())
            );
            let Object::Recorded(recording, object) = &address.object else {
                panic!("{address:?}");
            };
            assert_eq!(vod_path(&address.key, recording, object), own);
        }
        for nothing in [
            "/vod/show/r1",
            "/vod/show/r1/",
            "/vod/show/index.m3u8",
            "/vod/show/../index.m3u8",
            "/vod/show/r.1/index.m3u8",
            "/vod/show/r1/llhls.m3u8",
            "/vod/show/r1/1z/video/p4.m4s",
            "/vod/show/r1/1z/video/p4.jpg",
            "/vod/show/r1/1z/video/init0.jpg",
            "/vod/show/r1/1z/video/08.jpg",
            "/vod/show/r1/video.jpg",
            "/app/show/d/1z/video/897.jpg",
            "/app/show/thumbnails.vtt",
            "/vod/show/r1/recording.json",
            "/vod/sh/ow/r1/index.m3u8",
            "/app/show/d/vod/r1/index.m3u8",
        ] {
            assert_eq!(Address::parse(nothing), None, "{nothing}");
        }
    }
}
