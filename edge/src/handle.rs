//! From a viewer's request to its answer, top to bottom: what is asked for, then a hold or a look-up, then the response.
//!
//! Before this: `weir_shared::serve` (sockets). After this: `live/followers.rs` (playlists), `cache.rs` (objects),
//! `weir_shared::serve::respond` (headers).

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};
use tokio::time::Instant;
use weir_shared::{
    hls::{
        address::{Address, Object},
        name::{MediaObject, ObjectName},
        position::{Verdict, answer},
        reload::{Reload, Skip},
    },
    hold::{self, Held},
    id::{RenditionName, StreamKey},
    serve::{
        Handler, Peer,
        body::Body,
        gzip::gzip,
        respond::{self, Asked},
    },
};

use crate::{
    cache::{Absent, Entry, Lifetime, Store},
    live::{
        follower::State,
        followers::{Followers, TooMany},
        view::View,
    },
    metrics::Metrics,
    player,
};

/// Longest wait for a blocking reload, in target durations (section 6.2.5.2). Later: 503.
const HOLD_TARGET_DURATIONS: u32 = 3;
/// Longest wait while not even the target duration is known.
const FIRST_HOLD: Duration = Duration::from_secs(6);

/// The edge's public side.
#[derive(Clone)]
pub struct Edge {
    pub followers: Arc<Followers>,
    pub store: Arc<Store>,
    pub metrics: Arc<Metrics>,
}

/// Every way to say no. One place turns them into responses.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    NoSuchObject,
    BadDirective(weir_shared::hls::reload::BadDirective),
    TooFarAhead,
    HeldTooLong,
    Busy,
    Absent(Absent),
}

impl Refusal {
    fn response(self) -> Response<Body> {
        use StatusCode as S;
        match self {
            Self::NoSuchObject => respond::refusal(S::NOT_FOUND, "not_found", "there is no such object"),
            Self::BadDirective(why) => respond::refusal(S::BAD_REQUEST, "bad_directive", &why.to_string()),
            Self::TooFarAhead => respond::refusal(
                S::BAD_REQUEST,
                "too_far_ahead",
                "the requested position is further ahead than a request may wait for",
            ),
            Self::HeldTooLong => respond::refusal_until(
                S::SERVICE_UNAVAILABLE,
                "held_too_long",
                "nothing new came from the origin within three target durations",
                1,
            ),
            Self::Busy | Self::Absent(Absent::Shed) => {
                respond::refusal_until(S::SERVICE_UNAVAILABLE, "busy", "this edge is at one of its limits", 1)
            }
            Self::Absent(Absent::Upstream(_)) => respond::refusal_until(
                S::SERVICE_UNAVAILABLE,
                "origin_unreachable",
                "no origin answered in time",
                1,
            ),
            Self::Absent(Absent::Refused { status, reason }) => respond::passed_on(status, reason),
        }
    }
}

impl Handler for Edge {
    async fn handle(&self, peer: Peer, request: Parts) -> Response<Body> {
        let object = label(request.uri.path());
        let response = match request.method {
            Method::GET | Method::HEAD => self.answer(&request).await.unwrap_or_else(Refusal::response),
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
    async fn answer(&self, request: &Parts) -> Result<Response<Body>, Refusal> {
        let asked = Asked {
            method: &request.method,
            headers: &request.headers,
        };
        let path = request.uri.path();
        if let Some(page) = player::respond(asked, path) {
            return Ok(page);
        }
        let address = Address::parse(path).ok_or(Refusal::NoSuchObject)?;
        match address.object {
            Object::Index | Object::Direct(ObjectName::Multivariant) => {
                let entry = self.store.get(path, Lifetime::Short).await.map_err(Refusal::Absent)?;
                Ok(multivariant(asked, &entry))
            }
            Object::Direct(ObjectName::MediaPlaylist(name)) => {
                self.media_playlist(asked, request.uri.query(), &address.key, &name)
                    .await
            }
            Object::Direct(ObjectName::Media { .. }) => {
                let found = self.store.get(path, Lifetime::Immutable).await;
                let entry = found.map_err(Refusal::Absent)?;
                let (kind, etag) = (entry.content_type.clone(), entry.etag.clone());
                Ok(respond::media(asked, vec![entry.body.clone()], kind, etag))
            }
        }
    }

    async fn media_playlist(
        &self,
        asked: Asked<'_>,
        query: Option<&str>,
        key: &StreamKey,
        name: &RenditionName,
    ) -> Result<Response<Body>, Refusal> {
        let reload = Reload::parse(query).map_err(Refusal::BadDirective)?;
        let _held = self.metrics.hold();
        let view = self.hold(reload, key, name).await?;
        let compressed = asked.gzip();
        // Directives are ignored once the playlist has ended (section 6.2.5.2).
        let skip = if view.edge.ended { Skip::No } else { reload.skip };
        let lifetime = match reload.want == Reload::NOW.want {
            true => view.lifetimes.plain.clone(),
            false => view.lifetimes.blocked.clone(),
        };
        let mut response = respond::playlist(asked, view.text(skip, compressed), compressed, lifetime);
        let age = HeaderValue::from(view.received.elapsed().as_secs());
        response.headers_mut().insert(header::AGE, age);
        Ok(response)
    }

    /// Waits until the rendition's playlist satisfies the request.
    async fn hold(&self, reload: Reload, key: &StreamKey, name: &RenditionName) -> Result<Arc<View>, Refusal> {
        let asked_at = Instant::now();
        let mut deadline = asked_at + FIRST_HOLD;
        // A follower that was just ending is replaced once.
        for _ in 0..2 {
            let mut watch = self.followers.watch(key, name).map_err(|TooMany| Refusal::Busy)?;
            if let Some(view) = &watch.borrow().view {
                deadline = asked_at + view.target_duration() * HOLD_TARGET_DURATIONS;
            }
            match hold::hold(&mut watch, deadline, |state| decide(state, reload)).await {
                Held::Ready(decided) => return decided,
                Held::TimedOut => return Err(Refusal::HeldTooLong),
                Held::Gone => {}
            }
        }
        Err(Refusal::HeldTooLong)
    }
}

/// The pure part of a hold: answer, refuse or (`None`) wait.
fn decide(state: &State, reload: Reload) -> Option<Result<Arc<View>, Refusal>> {
    if let Some((status, reason)) = &state.absent {
        return Some(Err(Refusal::Absent(Absent::Refused {
            status: *status,
            reason: reason.clone(),
        })));
    }
    let view = state.view.as_ref()?;
    // The last playlist is served while it is true: not longer than a live playlist may stand still.
    let longest = view.target_duration() * HOLD_TARGET_DURATIONS;
    if state.down_since.is_some_and(|since| since.elapsed() >= longest) {
        return Some(Err(Refusal::HeldTooLong));
    }
    match answer(&view.edge, reload.want) {
        Verdict::Answer => Some(Ok(view.clone())),
        Verdict::TooFarAhead if state.down_since.is_some() => None,
        Verdict::TooFarAhead => Some(Err(Refusal::TooFarAhead)),
        Verdict::Wait => None,
    }
}

fn multivariant(asked: Asked<'_>, entry: &Entry) -> Response<Body> {
    let compressed = asked.gzip();
    let body = if compressed {
        gzip(&entry.body)
    } else {
        entry.body.clone()
    };
    let lifetime = respond::PlaylistLifetimes::new(1).multivariant;
    let mut response = respond::playlist(asked, body, compressed, lifetime);
    let age = HeaderValue::from(entry.fetched.elapsed().as_secs());
    response.headers_mut().insert(header::AGE, age);
    response
}

/// The metric label of what a path asks for.
fn label(path: &str) -> &'static str {
    match Address::parse(path).map(|a| a.object) {
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
