//! One function from request to response, top to bottom: what is asked for, which stream, the answer.

use std::{sync::Arc, time::Duration};

use http::{Method, Response, StatusCode, request::Parts};
use tokio::time::Instant;
use weir_shared::{
    hls::{
        address::{Address, Object},
        name::ObjectName,
    },
    hold::{self, Held},
    id::RenditionName,
    serve::{
        Handler, Peer,
        body::Body,
        respond::{self, Asked},
    },
};

use super::{media, playlist};
use crate::{
    live::{
        master::{Master, Rendition},
        registry::{Live, Missing, Registry},
    },
    metrics::Metrics,
};

/// How long a request may wait for a stream that is just starting to have its first part.
const START_HOLD: Duration = Duration::from_secs(3);

/// The origin's public HTTP side.
#[derive(Clone)]
pub struct Deliver {
    pub registry: Arc<Registry>,
    pub metrics: Arc<Metrics>,
}

/// Why there is no answer. One place turns it into a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    NoSuchObject,
    UnknownStream,
    Offline,
    Starting,
    BadDirective(weir_shared::hls::reload::BadDirective),
    TooFarAhead,
    HeldTooLong,
    StreamReplaced,
}

impl Refusal {
    fn response(self) -> Response<Body> {
        use StatusCode as S;
        match self {
            Self::NoSuchObject => respond::refusal(S::NOT_FOUND, "not_found", "there is no such object"),
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
        }
    }
}

impl Handler for Deliver {
    async fn handle(&self, _peer: Peer, request: Parts) -> Response<Body> {
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
        let target = Address::parse(request.uri.path()).ok_or(Refusal::NoSuchObject)?;
        let live = self.registry.find(&target.key).map_err(|missing| match missing {
            Missing::Unknown => Refusal::UnknownStream,
            Missing::Offline => Refusal::Offline,
        })?;
        match target.object {
            Object::Index => {
                let master = started(live, |master| !master.resilient.is_empty()).await?;
                Ok(playlist::multivariant(asked, &master.index))
            }
            Object::Direct(ObjectName::Multivariant) => {
                let master = started(live, |master| !master.renditions.is_empty()).await?;
                Ok(playlist::multivariant(asked, &master.direct))
            }
            Object::Direct(ObjectName::MediaPlaylist(name)) => {
                let rendition = rendition(live, &name).await?;
                let _held = self.metrics.hold();
                playlist::media(asked, request.uri.query(), rendition).await
            }
            Object::Direct(ObjectName::Media {
                epoch,
                rendition: name,
                object,
            }) => {
                if epoch != live.epoch {
                    return Err(Refusal::NoSuchObject);
                }
                let rendition = rendition(live, &name).await?;
                let _held = self.metrics.hold();
                media::object(asked, rendition, epoch, object).await
            }
        }
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
