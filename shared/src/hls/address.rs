//! Public request paths of a stream, as both nodes read them.

use super::name::ObjectName;
use crate::id::StreamKey;

/// `/app/<key>/index.m3u8` or `/app/<key>/d/<object>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    pub key: StreamKey,
    pub object: Object,
}

/// What of the stream is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Object {
    /// The default playback address: the multivariant playlist one step above the others.
    Index,
    Direct(ObjectName),
}

impl Address {
    /// Reads a raw, undecoded path. Nothing that Weir names needs percent-encoding, so an encoded path names nothing and
    /// each object has one spelling.
    pub fn parse(path: &str) -> Option<Self> {
        let (key, rest) = path.strip_prefix("/app/")?.split_once('/')?;
        let object = match rest {
            "index.m3u8" => Object::Index,
            _ => Object::Direct(ObjectName::parse(rest.strip_prefix("d/")?)?),
        };
        Some(Self {
            key: key.parse().ok()?,
            object,
        })
    }
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
}
