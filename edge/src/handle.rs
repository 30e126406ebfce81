//! From a viewer's request to its answer, top to bottom: what is asked for, whether its stream is shown, then a hold or
//! a look-up, then the response.
//!
//! Before this: `weir_shared::serve` (sockets). After this: `directory.rs` (streams), `live/hold.rs` (playlists), `live/view.rs` and `cache.rs`
//! (objects), `weir_shared::serve::respond` (headers).

use std::sync::Arc;

use http::{HeaderValue, Method, Response, header, request::Parts};
use tokio::time::Instant;
use weir_shared::{
    hls::{
        address::{Address, Object},
        name::{MediaObject, ObjectName},
        position::{PartNumber, PartVerdict, Want, answer_part},
        reload::{Reload, Skip},
    },
    id::{Epoch, RenditionName, StreamKey},
    serve::{
        Handler, Peer,
        body::Body,
        respond::{self, Asked},
    },
};

use crate::{
    cache::{self, Entry, Kind, Store},
    directory::Directory,
    live::{
        Moment as _,
        followers::Followers,
        hold::{self, Fate, HOLD_TARGET_DURATIONS},
        view::View,
    },
    metrics::Metrics,
    player,
    refusal::Refusal,
    route::routes::Routes,
    upstream::Resource,
};

/// The edge's public side.
#[derive(Clone)]
pub struct Edge {
    pub followers: Arc<Followers>,
    pub routes: Arc<Routes>,
    pub store: Arc<Store>,
    /// `None`: every stream is let in that an origin has.
    pub directory: Option<Arc<Directory>>,
    pub metrics: Arc<Metrics>,
}

impl Handler for Edge {
    async fn handle(&self, peer: Peer, request: Parts) -> Response<Body> {
        let address = Address::parse(request.uri.path());
        let object = label(address.as_ref(), request.uri.path());
        let response = match request.method {
            Method::GET | Method::HEAD => self.answer(&request, address).await.unwrap_or_else(Refusal::response),
            Method::OPTIONS => respond::preflight(),
            _ => respond::method_not_allowed(),
        };
        let outcome = match response.status().as_u16() {
            200..=399 => "ok",
            400..=499 => "refused",
            _ => "failed",
        };
        let metrics = &self.metrics;
        metrics
            .requests
            .with_label_values(&[object, outcome, peer.protocol.as_str()])
            .inc();
        metrics
            .response_bytes
            .with_label_values(&[object])
            .inc_by(response.body().len());
        response
    }
}

impl Edge {
    /// One line per layer: each takes what the one before gave.
    async fn answer(&self, request: &Parts, address: Option<Address>) -> Result<Response<Body>, Refusal> {
        let asked = Asked {
            method: &request.method,
            headers: &request.headers,
        };
        let path = request.uri.path();
        if let Some(route) = self.routes.find(path) {
            return self.routes.answer(route, request).await;
        }
        if let Some(page) = player::respond(asked, path) {
            return Ok(page);
        }
        let Address { key, object } = address.ok_or(Refusal::NoSuchObject)?;
        self.admit(&key, &object).await?;
        match object {
            Object::Index | Object::Direct(ObjectName::Multivariant) => {
                let entry = self.store.get(path, Kind::Multivariant).await?;
                Ok(multivariant(asked, &entry))
            }
            Object::Direct(ObjectName::MediaPlaylist(name)) => {
                let parsed = Reload::parse(request.uri.query());
                let reload = *parsed.as_ref().unwrap_or(&Reload::NOW);
                let _held = self.metrics.hold();
                let view = hold::playlist(&self.followers, &key, &name, reload.want).await?;
                // Wrong directives are ignored like all others once the playlist has ended (section 6.2.5.2).
                match parsed {
                    Err(fault) if !view.edge.ended => Err(Refusal::BadDirective(fault)),
                    _ => Ok(media_playlist(asked, &view, reload)),
                }
            }
            Object::Direct(ObjectName::Media {
                epoch,
                rendition,
                object,
            }) => self.media(asked, path, &key, &rendition, epoch, object).await,
        }
    }

    /// Refuses streams that there are not, and those that are not shown.
    async fn admit(&self, key: &StreamKey, object: &Object) -> Result<(), Refusal> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let record = directory.record(key).await?;
        match record.closed() {
            Some(why) if !self.plays_out(key, object) => Err(Refusal::Closed(why)),
            _ => Ok(()),
        }
    }

    /// Whether this belongs to a broadcast that has just ended here: who was watching sees its end, not a refusal.
    fn plays_out(&self, key: &StreamKey, object: &Object) -> bool {
        let rendition = match object {
            Object::Direct(ObjectName::MediaPlaylist(name)) => name,
            Object::Direct(ObjectName::Media { rendition, .. }) => rendition,
            Object::Index | Object::Direct(ObjectName::Multivariant) => return false,
        };
        let view = self.followers.peek(key, rendition);
        view.is_some_and(|view| view.edge.ended)
    }

    /// An init section, segment or part: from the live end if it is there, else from the store.
    async fn media(
        &self,
        asked: Asked<'_>,
        path: &str,
        key: &StreamKey,
        rendition: &RenditionName,
        epoch: Epoch,
        object: MediaObject,
    ) -> Result<Response<Body>, Refusal> {
        let view = self.followers.peek(key, rendition).filter(|v| v.epoch == Some(epoch));
        let Some(view) = view else {
            let entry = self.store.get(path, Kind::Unlisted).await?;
            return Ok(stored(asked, &entry));
        };
        let kind = match view.lists(object) {
            true => Kind::Listed,
            false => Kind::Unlisted,
        };
        match object {
            MediaObject::Part(number) => match answer_part(&view.edge, number) {
                PartVerdict::Absent => return Err(Refusal::NoSuchObject),
                PartVerdict::Wait => return self.hinted_part(asked, path, (key, rendition), &view, number).await,
                PartVerdict::Lookup => {
                    if let Some(entry) = view.part(number) {
                        return Ok(stored(asked, entry));
                    }
                }
            },
            MediaObject::Segment(msn) => {
                if msn >= view.edge.open {
                    return Err(Refusal::NoSuchObject);
                }
                if let Some(made) = view.segment(msn) {
                    return Ok(respond::media(asked, made.chunks, made.content_type, cache::etag(path)));
                }
            }
            MediaObject::Init(_) => {}
        }
        let entry = self.store.get(path, kind).await?;
        Ok(stored(asked, &entry))
    }

    /// The part that comes next: held until its bytes are here. The follower has asked for it already; all who wait
    /// share that fetch.
    async fn hinted_part(
        &self,
        asked: Asked<'_>,
        path: &str,
        (key, rendition): (&StreamKey, &RenditionName),
        view: &View,
        number: PartNumber,
    ) -> Result<Response<Body>, Refusal> {
        let _held = self.metrics.hold();
        let watched = self
            .followers
            .watched(key, rendition)
            .ok_or(Refusal::OriginUnreachable)?;
        let fate = |newest: &View| match answer_part(&newest.edge, number) {
            _ if newest.epoch != view.epoch => Fate::Never,
            PartVerdict::Wait => Fate::Coming,
            PartVerdict::Lookup => Fate::Listed,
            PartVerdict::Absent => Fate::Never,
        };
        let longest = view.target_duration() * HOLD_TARGET_DURATIONS;
        let entry = hold::part(watched, &self.store, &Resource::own(path), fate, longest).await?;
        Ok(stored(asked, &entry))
    }
}

fn media_playlist(asked: Asked<'_>, view: &View, reload: Reload) -> Response<Body> {
    let compressed = asked.gzip();
    // Directives are ignored once the playlist has ended (section 6.2.5.2).
    let skip = if view.edge.ended { Skip::No } else { reload.skip };
    let lifetime = match reload.want {
        Want::Now => view.lifetimes.plain.clone(),
        Want::Segment(_) | Want::Part(..) => view.lifetimes.blocked.clone(),
    };
    let response = respond::playlist(asked, view.text(skip, compressed), compressed, lifetime);
    aged(response, view.received)
}

fn multivariant(asked: Asked<'_>, entry: &Entry) -> Response<Body> {
    let compressed = asked.gzip();
    let body = match compressed {
        true => entry.gzipped(),
        false => entry.body.clone(),
    };
    let lifetime = respond::MULTIVARIANT_LIFETIME;
    aged(respond::playlist(asked, body, compressed, lifetime), entry.fetched)
}

fn stored(asked: Asked<'_>, entry: &Entry) -> Response<Body> {
    let (kind, etag) = (entry.content_type.clone(), entry.etag.clone());
    let response = respond::media(asked, vec![entry.body.clone()], kind, etag);
    aged(response, entry.fetched)
}

/// Says how many seconds ago the origin gave this (rule HT-22).
fn aged(mut response: Response<Body>, since: Instant) -> Response<Body> {
    if response.status().is_success() {
        let age = HeaderValue::from(since.elapsed().as_secs());
        response.headers_mut().insert(header::AGE, age);
    }
    response
}

/// The metric label of what is asked for.
fn label(address: Option<&Address>, path: &str) -> &'static str {
    match address.map(|a| &a.object) {
        Some(Object::Index | Object::Direct(ObjectName::Multivariant)) => "multivariant",
        Some(Object::Direct(ObjectName::MediaPlaylist(_))) => "playlist",
        Some(Object::Direct(ObjectName::Media { object, .. })) => match object {
            MediaObject::Init(_) => "init",
            MediaObject::Segment(_) => "segment",
            MediaObject::Part(_) => "part",
        },
        None if path.starts_with("/play/") => "page",
        None => "none",
    }
}
