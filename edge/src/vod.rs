//! Recordings: objects that never change, fetched once however many watch, and gone as soon as their recording is.
//!
//! Before this: `handle.rs`. After this: `cache.rs`; the origin reads the object store.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode};
use weir_shared::{
    hls::{
        address::{VodObject, vod_path},
        name::ObjectName,
    },
    id::{RecordingName, StreamKey},
    serve::{
        body::Body,
        respond::{self, Asked},
    },
};

use crate::{
    admit::Asker,
    cache::{Absent, Entry, Kind, Store},
    refusal::Refusal,
};

/// It changes only by being deleted.
const FINAL_TEXT: HeaderValue = HeaderValue::from_static("public, max-age=60");
const GROWING_TEXT: HeaderValue = HeaderValue::from_static("public, max-age=1");

/// An object of a recording, whichever of its two addresses it was asked for by. `children`: where those of its
/// multivariant playlist are for this viewer alone.
pub(crate) async fn object(
    asked: Asked<'_>,
    store: &Arc<Store>,
    key: &StreamKey,
    recording: &RecordingName,
    object: &VodObject,
    asker: Asker<'_>,
    children: Option<&str>,
) -> Result<Response<Body>, Refusal> {
    let path = vod_path(key, recording, object);
    if object.is_immutable() {
        exists(store, key, recording, asker).await?;
        let entry = store.get(&path, Kind::Unlisted, asker).await?;
        return Ok(super::answer::stored(asked, &entry));
    }
    let entry = store.get(&path, Kind::Multivariant, asker).await?;
    if let (VodObject::Index, Some(children)) = (object, children) {
        return Ok(super::handle::personal(asked, &entry, children));
    }
    let lifetime = match object {
        VodObject::Index | VodObject::Named(ObjectName::Multivariant) => respond::MULTIVARIANT_LIFETIME,
        _ if object.is_final(&entry.body) => FINAL_TEXT,
        _ => GROWING_TEXT,
    };
    let content_type = match object {
        VodObject::Thumbnails => respond::TRACK_TYPE,
        _ => respond::PLAYLIST_TYPE,
    };
    Ok(text(asked, &entry, content_type, lifetime))
}

/// Refuses objects of a recording that was deleted, even those that this edge still holds.
async fn exists(
    store: &Arc<Store>,
    key: &StreamKey,
    recording: &RecordingName,
    asker: Asker<'_>,
) -> Result<(), Refusal> {
    let index = vod_path(key, recording, &VodObject::Index);
    match store.get(&index, Kind::Multivariant, asker).await {
        Err(absent @ Absent::Limited(_)) => Err(absent.into()),
        Err(absent @ Absent::Refused { status, .. }) if status == StatusCode::NOT_FOUND => Err(absent.into()),
        // An origin that can't be asked has not deleted anything.
        _ => Ok(()),
    }
}

fn text(asked: Asked<'_>, entry: &Entry, content_type: HeaderValue, lifetime: HeaderValue) -> Response<Body> {
    let compressed = asked.gzip();
    let body = match compressed {
        true => entry.gzipped(),
        false => entry.body.clone(),
    };
    super::answer::aged(
        respond::text(asked, content_type, body, compressed, lifetime),
        entry.since,
    )
}
