//! An object in memory, and what an upstream's answer means for one.
//!
//! Before this: `upstream.rs`. After this: `cache.rs`, which keeps it, and `handle.rs`, which answers with it.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use tokio::time::Instant;
use weir_shared::{
    hls::{
        name::{MediaObject, ObjectName},
        outline::Span,
    },
    serve::{gzip::gzip, respond},
};

use super::{Absent, Kind, freshness};
use crate::upstream::{Answer, Resource, UpstreamError, Via};

/// How long a part is kept. Playlists name parts of their last three target durations; who comes later asks for segments.
const PART_LIFE: Duration = Duration::from_secs(60);

/// An object in memory.
#[derive(Debug)]
pub struct Entry {
    pub body: Bytes,
    pub content_type: HeaderValue,
    pub etag: HeaderValue,
    /// When its origin gave it.
    pub since: Instant,
    /// When it came to this edge.
    fetched: Instant,
    /// What a viewer's cache may make of it.
    pub lifetime: HeaderValue,
    /// Where a route's upstream had it in the end: what relative addresses in it refer to.
    pub url: Uri,
    /// Length of the resource of which this is a sub-range, if its server knows it.
    pub whole: Option<u64>,
    /// `None`: its name is never used again.
    good_for: Option<Duration>,
    /// Nobody asks for it later than this.
    wanted_for: Option<Duration>,
    gzipped: OnceLock<Bytes>,
}

impl Entry {
    /// The body gzip-encoded (playlists only), made once.
    pub fn gzipped(&self) -> Bytes {
        self.gzipped.get_or_init(|| gzip(&self.body)).clone()
    }

    pub(super) fn is_good(&self) -> bool {
        self.good_for.is_none_or(|life| self.fetched.elapsed() < life)
    }

    /// How long it is worth its place in memory, if that is known.
    pub(super) fn life(&self) -> Option<Duration> {
        self.good_for.or(self.wanted_for)
    }

    /// A playlist of either kind, by its content.
    pub fn is_playlist(&self) -> bool {
        self.body.starts_with(b"#EXTM3U")
    }
}

/// The validator of an object: its name, because names are never reused. The same for a segment that was fetched and one
/// that was put together from its parts.
pub fn etag(path: &str) -> HeaderValue {
    let name = path.split_once("/d/").map_or(path, |(_, name)| name);
    HeaderValue::try_from(format!("\"{name}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// Others use names again: their objects are told apart by their bytes, at every edge in the same way.
fn etag_of(body: &Bytes) -> HeaderValue {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let text = format!("\"{:x}-{:016x}\"", body.len(), hasher.finish());
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// What an answer means for an object.
pub(super) fn found(resource: &Resource, kind: Kind, answer: Answer) -> Result<Arc<Entry>, Absent> {
    let status = answer.status;
    if status.is_client_error() || status.is_server_error() {
        return Err(Absent::Refused {
            status,
            reason: answer.into_reason(),
        });
    }
    let unexpected = Absent::Upstream(UpstreamError::Unexpected);
    let span = match &resource.via {
        Via::Route { span, .. } => *span,
        Via::Fleet => None,
    };
    let (body, whole) = match (status, span) {
        (StatusCode::OK, None) => (answer.body.clone(), None),
        // It was not asked for ranges before.
        (StatusCode::OK, Some(span)) => {
            let whole = answer.body.len();
            (cut(&answer.body, span).ok_or(unexpected)?, Some(whole as u64))
        }
        (StatusCode::PARTIAL_CONTENT, Some(span)) => {
            let whole = sub_range(&answer.headers, span, answer.body.len()).ok_or(unexpected)?;
            (answer.body.clone(), whole)
        }
        // Nothing else was asked for.
        _ => return Err(unexpected),
    };
    let since = answer.since();
    let content_type = answer.headers.get(header::CONTENT_TYPE).cloned();
    let foreign = matches!(resource.via, Via::Route { .. });
    let good_for = foreign.then(|| freshness::lifetime(&answer.headers, matches!(kind, Kind::Listed | Kind::Named)));
    Ok(Arc::new(Entry {
        content_type: content_type.unwrap_or(match foreign {
            true => HeaderValue::from_static("application/octet-stream"),
            false => HeaderValue::from_static("application/mp4"),
        }),
        etag: match foreign {
            true => etag_of(&body),
            false => etag(&resource.key),
        },
        lifetime: good_for.map_or(respond::IMMUTABLE, lifetime),
        wanted_for: is_part(&resource.key).then_some(PART_LIFE),
        body,
        since,
        fetched: Instant::now(),
        url: answer.url,
        whole,
        good_for,
        gzipped: OnceLock::new(),
    }))
}

/// Whether an origin path is that of a part.
fn is_part(path: &str) -> bool {
    let name = path.split_once("/d/").and_then(|(_, name)| ObjectName::parse(name));
    matches!(
        name,
        Some(ObjectName::Media {
            object: MediaObject::Part(_),
            ..
        })
    )
}

fn lifetime(good_for: Duration) -> HeaderValue {
    match good_for.as_secs() {
        0 => respond::NO_STORE,
        seconds => HeaderValue::try_from(format!("public, max-age={seconds}")).unwrap_or(respond::NO_STORE),
    }
}

fn cut(body: &Bytes, span: Span) -> Option<Bytes> {
    let first = usize::try_from(span.first).ok()?;
    let length = usize::try_from(span.length?).ok()?;
    let end = first.checked_add(length)?;
    (end <= body.len() && length > 0).then(|| body.slice(first..end))
}

/// Checks that a 206 is the sub-range that was asked for; gives the length of the whole, if it is told.
fn sub_range(headers: &HeaderMap, span: Span, length: usize) -> Option<Option<u64>> {
    let told = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, whole) = told.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let told_length = last.checked_sub(first)?.checked_add(1)?;
    let right = first == span.first && span.length.is_none_or(|n| n == told_length) && told_length == length as u64;
    right.then(|| whole.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parts_are_forgotten_for_their_age() {
        assert!(is_part("/app/show/d/aa/video/p17.m4s"));
        for other in [
            "/app/show/d/aa/video/17.m4s",
            "/app/show/d/aa/video/init0.mp4",
            "/app/show/index.m3u8",
            "/live/p17.m4s",
        ] {
            assert!(!is_part(other), "{other}");
        }
    }

    #[test]
    fn a_sub_range_is_the_one_that_was_asked_for() {
        let span = Span {
            first: 10,
            length: Some(5),
        };
        for (told, length, expected) in [
            ("bytes 10-14/99", 5, Some(Some(99))),
            ("bytes 10-14/*", 5, Some(None)),
            ("bytes 10-13/99", 4, None),
            ("bytes 0-4/99", 5, None),
            ("bytes 10-14/99", 4, None),
            ("bytes 14-10/99", 5, None),
            ("bytes */99", 5, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_RANGE, HeaderValue::from_static(told));
            assert_eq!(sub_range(&headers, span, length), expected, "{told}");
        }
    }

    #[test]
    fn of_a_whole_the_sub_range_is_taken() {
        let body = Bytes::from_static(b"0123456789");
        let at = |first, length| {
            cut(
                &body,
                Span {
                    first,
                    length: Some(length),
                },
            )
        };
        assert_eq!(at(2, 3).as_deref(), Some(&b"234"[..]));
        for (first, length) in [(8, 3), (0, 0), (u64::MAX, 2)] {
            assert_eq!(at(first, length), None);
        }
    }
}
