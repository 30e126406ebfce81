//! From what this edge has to a response: playlists at a moment, objects in memory, and how old they are.
//!
//! Before this: `handle.rs` (the fleet's objects) and `route/routes.rs` (those of others). After this:
//! `weir_shared::serve::respond`, which writes headers and ranges.

use http::{HeaderValue, Response, StatusCode, header};
use tokio::time::Instant;
use weir_shared::{
    hls::{
        position::Want,
        reload::{Reload, Skip},
    },
    serve::{
        body::Body,
        respond::{self, Asked},
    },
};

use crate::{cache::Entry, live::Moment};

/// A media playlist, as far as the viewer has asked for it.
pub(crate) fn media_playlist(asked: Asked<'_>, view: &impl Moment, reload: Reload) -> Response<Body> {
    let compressed = asked.gzip();
    // Directives are ignored once the playlist has ended (section 6.2.5.2).
    let skip = if view.edge().ended { Skip::No } else { reload.skip };
    let lifetime = match reload.want {
        Want::Now => view.lifetimes().plain.clone(),
        Want::Segment(_) | Want::Part(..) => view.lifetimes().blocked.clone(),
    };
    let response = respond::playlist(asked, view.text(skip, compressed), compressed, lifetime);
    aged(response, view.since())
}

/// An object in memory, with the lifetime that its upstream gave it.
pub(crate) fn stored(asked: Asked<'_>, entry: &Entry) -> Response<Body> {
    let (kind, etag) = (entry.content_type.clone(), entry.etag.clone());
    let mut response = respond::media(asked, vec![entry.body.clone()], kind, etag);
    if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
        let lifetime = entry.lifetime.clone();
        response.headers_mut().insert(header::CACHE_CONTROL, lifetime);
    }
    aged(response, entry.since)
}

/// Says how many seconds ago the origin gave this (rule HT-22), all caches on the way included.
pub(crate) fn aged(mut response: Response<Body>, since: Instant) -> Response<Body> {
    if response.status().is_success() {
        let age = HeaderValue::from(since.elapsed().as_secs());
        response.headers_mut().insert(header::AGE, age);
    }
    response
}
