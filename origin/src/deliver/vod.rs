//! Recordings over HTTP: at addresses of their own, and the newest one at the live address once the broadcast is over.
//!
//! Before this: `deliver/route.rs`. After this: `record/shelf.rs`.

use bytes::Bytes;
use http::{HeaderValue, Response};
use weir_shared::{
    hls::{
        address::{VodObject, vod_path},
        multivariant,
        name::{MediaObject, ObjectName},
    },
    id::{Epoch, RecordingName, RenditionName, StreamKey},
    serve::{
        body::Body,
        gzip::gzip,
        respond::{self, Asked, PlaylistLifetimes},
    },
};

use super::route::Refusal;
use crate::record::shelf::{Found, Missing, Shelf};

/// What a finished recording has changes only by being deleted.
const FINAL_TEXT: HeaderValue = HeaderValue::from_static("public, max-age=60");

impl From<Missing> for Refusal {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Absent => Self::NoSuchRecording,
            Missing::StoreDown => Self::StoreDown,
        }
    }
}

/// An object of a recording.
pub(super) async fn object(
    asked: Asked<'_>,
    shelf: &Shelf,
    key: &StreamKey,
    recording: &RecordingName,
    object: &VodObject,
) -> Result<Response<Body>, Refusal> {
    let found = shelf.get(key, recording, object).await?;
    Ok(match object {
        VodObject::Index | VodObject::Named(ObjectName::Multivariant) => index(asked, found.bytes),
        VodObject::Named(ObjectName::MediaPlaylist(_)) => text(asked, found, respond::PLAYLIST_TYPE),
        VodObject::Thumbnails => text(asked, found, respond::TRACK_TYPE),
        VodObject::Picture { .. } => respond::media(
            asked,
            vec![found.bytes],
            respond::PICTURE_TYPE,
            etag(key, recording, object),
        ),
        VodObject::Named(ObjectName::Media { rendition, .. }) => {
            let etag = etag(key, recording, object);
            respond::media(asked, vec![found.bytes], content_type(rendition), etag)
        }
    })
}

/// The validator of an object that never changes: its name.
fn etag(key: &StreamKey, recording: &RecordingName, object: &VodObject) -> HeaderValue {
    let etag = format!("\"{}\"", vod_path(key, recording, object));
    HeaderValue::try_from(etag).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// The newest recording's multivariant playlist at the live address. `up` leads from there to `/app/<key>/`.
pub(super) async fn at_live_address(
    asked: Asked<'_>,
    shelf: &Shelf,
    key: &StreamKey,
    up: &str,
) -> Result<Response<Body>, Refusal> {
    let newest = shelf.newest(key).await?;
    let prefix = format!("{up}vod/{}/", newest.recording);
    let text = String::from_utf8_lossy(&newest.index.bytes);
    let text = Bytes::from(multivariant::with_prefix(&text, &prefix));
    Ok(index(asked, text))
}

/// A segment or init section of a broadcast that is over, by the name it had while it was live: for who looks back in the
/// playlist of a live stream that has ended.
pub(super) async fn of_ended_broadcast(
    asked: Asked<'_>,
    shelf: &Shelf,
    key: &StreamKey,
    (epoch, rendition, media): (Epoch, &RenditionName, MediaObject),
) -> Result<Response<Body>, Refusal> {
    if matches!(media, MediaObject::Part(_)) {
        return Err(Refusal::NoSuchObject);
    }
    let newest = shelf.newest(key).await.map_err(|_| Refusal::NoSuchObject)?;
    let name = VodObject::Named(ObjectName::Media {
        epoch,
        rendition: rendition.clone(),
        object: media,
    });
    object(asked, shelf, key, &newest.recording, &name)
        .await
        .map_err(|_| Refusal::NoSuchObject)
}

fn index(asked: Asked<'_>, text: Bytes) -> Response<Body> {
    let compressed = asked.gzip();
    let body = if compressed { gzip(&text) } else { text };
    respond::playlist(asked, body, compressed, respond::MULTIVARIANT_LIFETIME)
}

/// A media playlist or a track of thumbnails.
fn text(asked: Asked<'_>, found: Found, content_type: HeaderValue) -> Response<Body> {
    let compressed = asked.gzip();
    let body = if compressed { gzip(&found.bytes) } else { found.bytes };
    let lifetime = match found.is_final {
        true => FINAL_TEXT,
        false => PlaylistLifetimes::new(1).plain,
    };
    respond::text(asked, content_type, body, compressed, lifetime)
}

/// Renditions are named after what they carry.
fn content_type(rendition: &RenditionName) -> HeaderValue {
    match rendition.as_str().starts_with("audio") {
        true => respond::AUDIO_TYPE,
        false => respond::VIDEO_TYPE,
    }
}
