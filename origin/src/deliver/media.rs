//! Init sections, segments and parts by name. Only the part that comes next is held; it is answered whole. Old
//! segments come out of the cold tier.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response};
use weir_shared::{
    hls::{
        name::MediaObject,
        position::{PartVerdict, answer_part},
    },
    hold::{self, Held},
    id::Epoch,
    serve::{
        body::Body,
        respond::{self, Asked},
    },
};

use super::{playlist::hold_deadline, route::Refusal};
use crate::{
    live::{master::Rendition, snapshot::Snapshot},
    package::{
        frame::TrackKind,
        window::{Cold, Segment},
    },
};

pub(super) async fn object(
    asked: Asked<'_>,
    mut rendition: Rendition,
    epoch: Epoch,
    object: MediaObject,
) -> Result<Response<Body>, Refusal> {
    let target_duration_seconds = rendition.feed.borrow().settings.target_duration_seconds;
    let decide = |snapshot: &Arc<Snapshot>| match object {
        MediaObject::Part(part) => match answer_part(&snapshot.edge, part) {
            PartVerdict::Lookup => Some(snapshot.window.part(part).map(|p| Found::Here(vec![p.bytes.clone()]))),
            PartVerdict::Wait => None,
            PartVerdict::Absent => Some(None),
        },
        MediaObject::Segment(msn) => Some(snapshot.window.segment(msn).map(segment)),
        MediaObject::Init(n) => Some(snapshot.window.init(n).map(|b| Found::Here(vec![b]))),
    };
    let deadline = hold_deadline(target_duration_seconds);
    let found = match hold::hold(&mut rendition.feed, deadline, decide).await {
        Held::Ready(found) => found.ok_or(Refusal::NoSuchObject)?,
        Held::TimedOut => return Err(Refusal::HeldTooLong),
        Held::Gone => return Err(Refusal::StreamReplaced),
    };
    let chunks = match found {
        Found::Here(chunks) => chunks,
        Found::Elsewhere(cold) => vec![cold.read().await.map_err(|_| Refusal::PastUnavailable)?],
    };
    let content_type = match rendition.track {
        TrackKind::Video => respond::VIDEO_TYPE,
        TrackKind::Audio => respond::AUDIO_TYPE,
    };
    Ok(respond::media(asked, chunks, content_type, etag(epoch, object)))
}

/// Where an object's bytes are.
enum Found {
    /// In memory, in pieces.
    Here(Vec<Bytes>),
    /// In the cold tier.
    Elsewhere(Cold),
}

/// A segment is its parts in order: no second copy.
fn segment(segment: &Arc<Segment>) -> Found {
    match &segment.cold {
        Some(cold) => Found::Elsewhere(cold.clone()),
        None => Found::Here(segment.parts.iter().map(|p| p.bytes.clone()).collect()),
    }
}

/// A name is never reused, so it is its own validator.
fn etag(epoch: Epoch, object: MediaObject) -> HeaderValue {
    let text = match object {
        MediaObject::Init(n) => format!("\"{epoch}-i{n}\""),
        MediaObject::Segment(msn) => format!("\"{epoch}-{msn}\""),
        MediaObject::Part(part) => format!("\"{epoch}-p{part}\""),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"0\""))
}
