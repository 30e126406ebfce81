//! From a request's path to what is asked for. Pure.
//!
//! Before this: `handle.rs`, with a raw path. After this: `auth.rs`, which takes the ticket off, and the path without it, which
//! is all that a cache key and an upstream ever see: one object has one spelling, whoever asks and with whatever query.

use std::fmt;

use weir_shared::{
    hls::{
        address::{Address, Object, VodObject},
        name::{MediaObject, ObjectName},
    },
    id::StreamKey,
    playback::session::MARK,
};

/// Where streams are, and where their recordings are.
const ROOTS: [&str; 2] = ["/app/", "/vod/"];
/// The default playback address of a stream, below its key.
const INDEX: &str = "index.m3u8";
/// Names that OvenMediaEngine gives it: addresses that were signed for it go on working.
const INDEX_ALIASES: [&str; 2] = ["llhls.m3u8", "master.m3u8"];

/// A session ticket as it was sent: nobody has looked at it yet.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketText(String);

impl TicketText {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TicketText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketText(…)")
    }
}

/// What of which stream is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// One of [`ROOTS`].
    root: &'static str,
    key: StreamKey,
    object: Option<Object>,
    path: String,
    ticket: Option<TicketText>,
}

impl Target {
    /// Reads a raw, undecoded path. `None`: it names no stream.
    pub fn parse(path: &str) -> Option<Self> {
        let root = ROOTS.into_iter().find(|root| path.starts_with(root))?;
        let (key, rest) = path.strip_prefix(root)?.split_once('/')?;
        let ticketed = rest.strip_prefix(MARK).and_then(|rest| rest.split_once('/'));
        let (ticket, rest) = match ticketed {
            Some((ticket, rest)) => (Some(TicketText(ticket.to_owned())), rest),
            None => (None, rest),
        };
        let key: StreamKey = key.parse().ok()?;
        let rest = if INDEX_ALIASES.contains(&rest) { INDEX } else { rest };
        let path = format!("{root}{key}/{rest}");
        let object = Address::parse(&path).map(|address| address.object);
        Some(Self {
            root,
            key,
            object,
            path,
            ticket,
        })
    }

    pub fn key(&self) -> &StreamKey {
        &self.key
    }

    /// `None`: nothing of this name can exist, whatever the stream.
    pub fn object(&self) -> Option<&Object> {
        self.object.as_ref()
    }

    /// The object's address at every origin, and its key in every cache.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn ticket(&self) -> Option<&TicketText> {
        self.ticket.as_ref()
    }

    /// What to go in by: a signed address opens it.
    pub const fn is_entrance(&self) -> bool {
        matches!(
            self.object,
            Some(Object::Index | Object::Direct(ObjectName::Multivariant) | Object::Recorded(_, VodObject::Index))
        )
    }

    /// From this object's own address to its stream's ticketed directory: `../~<ticket>/`.
    pub fn ticketed_directory(&self, ticket: &str) -> String {
        format!("{}{MARK}{ticket}/", "../".repeat(self.below_key().matches('/').count()))
    }

    /// The path below the stream's key: `d/video.m3u8`.
    pub fn below_key(&self) -> &str {
        self.path
            .get(self.root.len() + self.key.as_str().len() + 1..)
            .unwrap_or_default()
    }

    /// The metric label of what is asked for.
    pub fn label(&self) -> &'static str {
        match &self.object {
            Some(Object::Index | Object::Direct(ObjectName::Multivariant)) => "multivariant",
            Some(Object::Direct(ObjectName::MediaPlaylist(_))) => "playlist",
            Some(Object::Direct(ObjectName::Media { object, .. })) => match object {
                MediaObject::Init(_) => "init",
                MediaObject::Segment(_) => "segment",
                MediaObject::Part(_) => "part",
            },
            Some(Object::Recorded(_, object)) => match object {
                VodObject::Index => "vod_multivariant",
                object if object.is_immutable() => "vod_media",
                VodObject::Thumbnails => "vod_thumbnails",
                _ => "vod_playlist",
            },
            None => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target {
        Target::parse(path).unwrap()
    }

    #[test]
    fn a_ticket_reaches_neither_key_nor_upstream() {
        for path in [
            "index.m3u8",
            "d/llhls.m3u8",
            "d/video.m3u8",
            "d/1z/video/p4.m4s",
            "d/1z/video/init0.mp4",
        ] {
            let plain = target(&format!("/app/show/{path}"));
            let ticketed = target(&format!("/app/show/~AbC-_9/{path}"));
            assert_eq!(plain.path(), format!("/app/show/{path}"));
            assert_eq!((ticketed.path(), ticketed.object()), (plain.path(), plain.object()));
            assert!(plain.object().is_some());
            assert_eq!(plain.ticket(), None);
            assert_eq!(ticketed.ticket().unwrap().as_str(), "AbC-_9");
        }
    }

    #[test]
    fn a_ticket_stands_in_one_place_only() {
        for path in [
            "/app/~t/show/index.m3u8",
            "/~t/app/show/index.m3u8",
            "/app/show~t/index.m3u8",
            "/app/",
            "/app/show",
            "/",
            "*",
        ] {
            assert_eq!(Target::parse(path), None, "{path}");
        }
        for path in [
            "/app/show/~t/~u/index.m3u8",
            "/app/show/d/~t/video.m3u8",
            "/app/show/~t",
            "/app/show/~t/",
            "/app/show/~t//d/video.m3u8",
            "/app/show/%7Et/d/video.m3u8",
            "/app/show/./~t/d/video.m3u8",
            "/app/show/~t/../d/video.m3u8",
            "/app/show/~t/d/video.m3u8;x",
            "/app/show/~t/d%2fvideo.m3u8",
        ] {
            assert_eq!(target(path).object(), None, "{path}");
        }
    }

    #[test]
    fn names_of_ovenmediaengine_are_the_default_address() {
        for alias in ["/app/show/llhls.m3u8", "/app/show/~t/master.m3u8"] {
            assert_eq!(
                (target(alias).path(), target(alias).is_entrance()),
                ("/app/show/index.m3u8", true)
            );
        }
        assert!(!target("/app/show/d/master.m3u8").is_entrance());
    }

    #[test]
    fn a_stream_is_found_from_each_of_its_objects() {
        for (path, directory) in [
            ("index.m3u8", "~t/"),
            ("d/llhls.m3u8", "../~t/"),
            ("d/1z/video/p4.m4s", "../../../~t/"),
            ("vod/r1/index.m3u8", "../../~t/"),
        ] {
            assert_eq!(target(&format!("/app/show/{path}")).ticketed_directory("t"), directory);
        }
        assert_eq!(target("/vod/show/r1/index.m3u8").ticketed_directory("t"), "../~t/");
    }

    #[test]
    fn a_recording_is_one_object_at_two_addresses() {
        for object in ["index.m3u8", "video.m3u8", "1z/video/7.m4s"] {
            let own = target(&format!("/vod/show/r1/{object}"));
            for other in ["/vod/show/~t/r1/", "/app/show/vod/r1/", "/app/show/~t/vod/r1/"] {
                let other = target(&format!("{other}{object}"));
                assert_eq!((other.key(), other.object()), (own.key(), own.object()));
            }
            assert!(own.object().is_some());
            assert_eq!(own.is_entrance(), object == "index.m3u8");
        }
        for nothing in [
            "/vod/show/index.m3u8",
            "/vod/show/r1/~t/index.m3u8",
            "/vod/show/d/video.m3u8/x",
        ] {
            assert_eq!(target(nothing).object(), None, "{nothing}");
        }
    }

    #[test]
    fn a_ticket_is_not_printed() {
        assert!(!format!("{:?}", target("/app/show/~secret/index.m3u8")).contains("secret"));
    }
}
