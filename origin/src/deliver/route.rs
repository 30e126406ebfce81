//! One function from request to response, top to bottom: what is asked for, which stream, the answer.

use std::{sync::Arc, time::Duration};

use http::{Method, Response, StatusCode, request::Parts};
use tokio::time::Instant;
use weir_shared::{
    hls::{
        address::{Address, Object},
        name::{MediaObject, ObjectName},
    },
    hold::{self, Held},
    id::{Epoch, RenditionName, StreamKey},
    serve::{
        Handler, Peer,
        body::Body,
        respond::{self, Asked},
    },
};

use super::{media, playlist, vod};
use crate::{
    live::{
        lifecycle::State,
        master::{Master, Rendition},
        registry::{Live, Missing, Registry},
    },
    metrics::Metrics,
    record::shelf::Shelf,
};

/// How long a request may wait for a stream that is just starting to have its first part.
const START_HOLD: Duration = Duration::from_secs(3);

/// The origin's public HTTP side.
#[derive(Clone)]
pub struct Deliver {
    pub registry: Arc<Registry>,
    /// Recordings; `None`: this origin has none.
    pub shelf: Option<Arc<Shelf>>,
    pub metrics: Arc<Metrics>,
}

/// Why there is no answer. One place turns it into a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    NoSuchObject,
    NoSuchRecording,
    StoreDown,
    UnknownStream,
    Offline,
    Starting,
    BadDirective(weir_shared::hls::reload::BadDirective),
    TooFarAhead,
    HeldTooLong,
    StreamReplaced,
    PastUnavailable,
}

impl Refusal {
    fn response(self) -> Response<Body> {
        use StatusCode as S;
        match self {
            Self::NoSuchObject => respond::refusal(S::NOT_FOUND, "not_found", "there is no such object"),
            Self::NoSuchRecording => respond::refusal(
                S::NOT_FOUND,
                "no_such_recording",
                "there is no such recording, or this is not in it",
            ),
            Self::StoreDown => respond::refusal_until(
                S::SERVICE_UNAVAILABLE,
                "recordings_unavailable",
                "recordings can't be read at the moment",
                2,
            ),
            Self::UnknownStream => respond::refusal(S::NOT_FOUND, "unknown_stream", "there is no stream with this key"),
            Self::Offline => respond::refusal(S::NOT_FOUND, "stream_offline", "nobody is publishing this stream now"),
            Self::Starting => respond::refusal_until(
                S::SERVICE_UNAVAILABLE,
                "stream_starting",
                "the publisher is connected and has sent nothing playable yet",
                1,
            ),
            Self::BadDirective(why) => respond::refusal(S::BAD_REQUEST, "bad_directive", &why.to_string()),
            Self::TooFarAhead => respond::refusal(
                S::BAD_REQUEST,
                "too_far_ahead",
                "the requested position is further ahead than a request may wait for",
            ),
            Self::HeldTooLong => respond::refusal_until(
                S::SERVICE_UNAVAILABLE,
                "held_too_long",
                "nothing new came within three target durations",
                1,
            ),
            Self::StreamReplaced => respond::refusal_until(
                S::SERVICE_UNAVAILABLE,
                "stream_replaced",
                "the stream was taken over by another publisher or is shutting down",
                1,
            ),
            Self::PastUnavailable => respond::refusal_until(
                S::SERVICE_UNAVAILABLE,
                "past_unavailable",
                "this part of the stream's past can't be read at the moment",
                2,
            ),
        }
    }
}

impl Handler for Deliver {
    async fn handle(&self, _peer: Peer, request: Box<Parts>) -> Response<Body> {
        let response = match request.method {
            Method::GET | Method::HEAD => self.answer(&request).await.unwrap_or_else(Refusal::response),
            Method::OPTIONS => respond::preflight(),
            _ => respond::method_not_allowed(),
        };
        let status = response.status();
        self.metrics.requests.with_label_values(&[status_class(status)]).inc();
        response
    }
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

impl Deliver {
    async fn answer(&self, request: &Parts) -> Result<Response<Body>, Refusal> {
        let asked = Asked {
            method: &request.method,
            headers: &request.headers,
        };
        let Address { key, object } = Address::parse(request.uri.path()).ok_or(Refusal::NoSuchObject)?;
        let live = self.registry.find(&key).map_err(|missing| match missing {
            Missing::Unknown => Refusal::UnknownStream,
            Missing::Offline => Refusal::Offline,
        });
        match object {
            Object::Recorded(recording, object) => {
                let shelf = self.shelf.as_deref().ok_or(Refusal::NoSuchRecording)?;
                vod::object(asked, shelf, &key, &recording, &object).await
            }
            Object::Index => self.multivariant(asked, &key, live, "").await,
            Object::Direct(ObjectName::Multivariant) => self.multivariant(asked, &key, live, "../").await,
            Object::Direct(ObjectName::MediaPlaylist(name)) => {
                let rendition = rendition(live?, &name).await?;
                let _held = self.metrics.hold();
                playlist::media(asked, request.uri.query(), rendition).await
            }
            Object::Direct(ObjectName::Media {
                epoch,
                rendition: name,
                object,
            }) => {
                let found = self.live_object(asked, live, epoch, &name, object).await;
                let (Err(refusal), Some(shelf)) = (&found, self.shelf.as_deref()) else {
                    return found;
                };
                // What left memory may be recorded.
                let gone = matches!(
                    refusal,
                    Refusal::NoSuchObject | Refusal::Offline | Refusal::UnknownStream | Refusal::PastUnavailable
                );
                let recorded = match gone {
                    true => vod::of_ended_broadcast(asked, shelf, &key, (epoch, &name, object)).await,
                    false => return found,
                };
                recorded.or(found)
            }
        }
    }

    /// The multivariant playlist of what is live; after the end that of the newest recording. `up` leads from its address
    /// to `/app/<key>/`.
    async fn multivariant(
        &self,
        asked: Asked<'_>,
        key: &StreamKey,
        live: Result<Live, Refusal>,
        up: &str,
    ) -> Result<Response<Body>, Refusal> {
        let is_over = live
            .as_ref()
            .map_or(true, |live| live.status.borrow().state == State::Ended);
        let recorded = match (&self.shelf, is_over) {
            (Some(shelf), true) => vod::at_live_address(asked, shelf, key, up).await,
            _ => Err(Refusal::NoSuchRecording),
        };
        if recorded.is_ok() {
            return recorded;
        }
        let live = match live {
            Ok(live) => live,
            // The store may have what nobody can see now.
            Err(_) if matches!(recorded, Err(Refusal::StoreDown)) => return recorded,
            Err(refusal) => return Err(refusal),
        };
        // The default playlists are at the stream's own address, the direct ones below it.
        if up.is_empty() {
            let master = started(live, |master| !master.resilient.is_empty()).await?;
            return Ok(playlist::multivariant(asked, &master.index));
        }
        let master = started(live, |master| !master.renditions.is_empty()).await?;
        Ok(playlist::multivariant(asked, &master.direct))
    }

    async fn live_object(
        &self,
        asked: Asked<'_>,
        live: Result<Live, Refusal>,
        epoch: Epoch,
        name: &RenditionName,
        object: MediaObject,
    ) -> Result<Response<Body>, Refusal> {
        let live = live?;
        if epoch != live.epoch {
            return Err(Refusal::NoSuchObject);
        }
        let rendition = rendition(live, name).await?;
        let _held = self.metrics.hold();
        media::object(asked, rendition, epoch, object).await
    }
}

/// Waits until a starting stream has something to play.
async fn started(mut live: Live, is_playable: fn(&Master) -> bool) -> Result<Arc<Master>, Refusal> {
    let deadline = Instant::now() + START_HOLD;
    let playable = |master: &Arc<Master>| is_playable(master).then(|| master.clone());
    match hold::hold(&mut live.master, deadline, playable).await {
        Held::Ready(master) => Ok(master),
        Held::TimedOut => Err(Refusal::Starting),
        Held::Gone => Err(Refusal::Offline),
    }
}

async fn rendition(live: Live, name: &RenditionName) -> Result<Rendition, Refusal> {
    let master = started(live, |master| !master.renditions.is_empty()).await?;
    master.rendition(name).cloned().ok_or(Refusal::NoSuchObject)
}
