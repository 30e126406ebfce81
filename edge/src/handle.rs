//! From a viewer's request to its answer, top to bottom: what is asked for, what is known of its stream, whether the viewer
//! may have it, then a hold or a look-up, then the response.
//!
//! Before this: `weir_shared::serve` (sockets). After this: `target.rs`, `directory.rs`, `auth.rs`, `live/hold.rs` (playlists), `live/view.rs` and `cache.rs`
//! (objects), `answer.rs` (responses).

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{Method, Response, request::Parts};
use tokio::time::{Instant, timeout};
use weir_shared::{
    hls::{
        address::Object,
        name::{MediaObject, ObjectName},
        position::{PartNumber, PartVerdict, answer_part},
        reload::Reload,
    },
    hold::{self as watch, Held},
    id::{Epoch, RenditionName, StreamKey},
    playback::{Invalid, UnixMillis},
    serve::{
        Handler, Peer,
        body::Body,
        respond::{self, Asked},
    },
};

use crate::{
    admit::{Asker, Limits},
    answer::{aged, media_playlist, stored},
    auth::{Auth, Granted, Known, Verdict},
    cache::{self, Entry, Kind, Store},
    directory::{Directory, NoRecord},
    entrance,
    live::{
        follower::State,
        followers::Followers,
        hold::{self, Fate},
        view::View,
    },
    metrics::Metrics,
    player,
    refusal::Refusal,
    route::{Route, routes::Routes},
    target::Target,
    upstream::Resource,
    viewers::Viewers,
    vod,
};

/// How long who was watching waits for the end of a broadcast that the directory calls over already.
const END_WAIT: Duration = Duration::from_secs(1);

/// The edge's public side, as one listener serves it.
#[derive(Clone)]
pub struct Edge {
    pub followers: Arc<Followers>,
    pub routes: Arc<Routes>,
    pub store: Arc<Store>,
    /// `None`: every stream is let in that an origin has.
    pub directory: Option<Arc<Directory>>,
    /// This listener's.
    pub auth: Auth,
    pub limits: Arc<Limits>,
    pub viewers: Arc<Viewers>,
    pub metrics: Arc<Metrics>,
}

impl Handler for Edge {
    async fn handle(&self, peer: Peer, request: Box<Parts>) -> Response<Body> {
        let path = request.uri.path();
        let route = self.routes.find(path);
        let target = Target::parse(path);
        let object = match route {
            Some(_) => "route",
            None => label(target.as_ref(), path),
        };
        let response = match request.method {
            Method::GET | Method::HEAD => match route {
                // Boxed, as all that few requests need: thousands that wait would keep room for it.
                Some(route) => Box::pin(self.below(route, peer, &request)).await,
                None => self.answer(peer, &request, target).await,
            }
            .unwrap_or_else(Refusal::response),
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
        if let Some(route) = route {
            metrics.route_requests.with_label_values(&[&*route.name, outcome]).inc();
        }
        metrics
            .response_bytes
            .with_label_values(&[object])
            .inc_by(response.body().len());
        response
    }
}

impl Edge {
    /// One line per layer: each takes what the one before gave.
    async fn answer(&self, peer: Peer, request: &Parts, target: Option<Target>) -> Result<Response<Body>, Refusal> {
        let asked = Asked {
            method: &request.method,
            headers: &request.headers,
        };
        if let Some(page) = player::respond(asked, request.uri.path()) {
            return Ok(page);
        }
        let target = target.ok_or(Refusal::NoSuchObject)?;
        let known = self.known(&target).await?;
        let (from, in_directory) = ((peer, request), known.record.is_some());
        // The record may be faster than the broadcast's own end.
        let told_of = known.closed.is_some().then(|| Box::new(target.clone()));
        let verdict = match (self.admit(target, &known, from).await, told_of) {
            (Err(Refusal::Closed(_)), Some(target)) if Box::pin(self.ends(&target)).await => {
                let known = Known { closed: None, ..known };
                Box::pin(self.admit(*target, &known, from)).await?
            }
            (verdict, _) => verdict?,
        };
        let granted = match verdict {
            Verdict::Enter(granted) => granted,
            Verdict::Redirect(location) => return Ok(respond::redirect(&location)),
        };
        let address = peer.addr.ip();
        let (permit, asker) = match granted.is_viewers() {
            true => (
                self.limits.enter(address, granted.viewer().as_ref())?,
                Asker::Viewer {
                    limits: &self.limits,
                    address,
                    in_directory,
                },
            ),
            false => (self.limits.enter_child()?, Asker::Trusted),
        };
        let answer = match granted.until() {
            None => self.object(asked, (peer, request), &granted, asker).await?,
            // A viewer's time ends their holds, too.
            Some(until) => {
                let left = Duration::from_millis(until.saturating_sub(unix_now()));
                let over = Err(Refusal::Unauthorised(Invalid::StreamExpired));
                let answer = timeout(left, self.object(asked, (peer, request), &granted, asker));
                Box::pin(answer).await.unwrap_or(over)?
            }
        };
        // Before the first byte leaves.
        granted.holds(unix_now())?;
        Ok(permit.leave_with(answer))
    }

    /// Whether this request may have this.
    async fn admit(&self, target: Target, known: &Known, (peer, request): (Peer, &Parts)) -> Result<Verdict, Refusal> {
        match self.auth.asks_who(known, &request.headers) {
            false => Granted::to_all(target, known).map(Verdict::Enter),
            true => Box::pin(self.auth.grant(target, known, peer, request, unix_now())).await,
        }
    }

    /// What belongs to somebody else's origin, whose viewers are not looked at.
    async fn below(&self, route: &Arc<Route>, peer: Peer, request: &Parts) -> Result<Response<Body>, Refusal> {
        let permit = self.limits.enter(peer.addr.ip(), None)?;
        Ok(permit.leave_with(self.routes.answer(route, request).await?))
    }

    /// The object itself, after a wait perhaps.
    async fn object(
        &self,
        asked: Asked<'_>,
        (peer, request): (Peer, &Parts),
        granted: &Granted,
        asker: Asker<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let (key, path) = (granted.key(), granted.path());
        match granted.object().ok_or(Refusal::NoSuchObject)? {
            Object::Index | Object::Direct(ObjectName::Multivariant) => {
                let entry = self.store.get(path, Kind::Multivariant, asker).await?;
                Ok(match granted.directory_of_children() {
                    None => multivariant(asked, &entry),
                    Some(directory) => personal(asked, &entry, &directory),
                })
            }
            Object::Recorded(recording, object) => {
                let children = granted.directory_of_children();
                Box::pin(vod::object(
                    asked,
                    &self.store,
                    key,
                    recording,
                    object,
                    asker,
                    children.as_deref(),
                ))
                .await
            }
            Object::Direct(ObjectName::MediaPlaylist(name)) => {
                let parsed = Reload::parse(request.uri.query());
                let reload = *parsed.as_ref().unwrap_or(&Reload::NOW);
                let from = (peer, &request.headers);
                // An edge is not a viewer; its own it reports itself.
                let see = || self.viewers.see(key, name, reload.want, granted.viewer(), from);
                let _watching = granted.is_viewers().then(see);
                let _held = self.metrics.hold();
                let view = hold::playlist(&self.followers, key, name, reload.want, asker).await?;
                // Wrong directives are ignored like all others once the playlist has ended (section 6.2.5.2).
                match parsed {
                    Err(fault) if !view.edge.ended => Err(Refusal::BadDirective(fault)),
                    _ => Ok(media_playlist(asked, &*view, reload)),
                }
            }
            Object::Direct(ObjectName::Media {
                epoch,
                rendition,
                object,
            }) => {
                let of = (key, rendition, *epoch);
                self.media((asked, asker), path, of, *object).await
            }
        }
    }

    /// What the directory says of the stream; refuses streams that there are not.
    async fn known(&self, target: &Target) -> Result<Known, Refusal> {
        let Some(directory) = &self.directory else {
            return Ok(Known::default());
        };
        let record = match Box::pin(directory.record(target.key())).await {
            Err(NoRecord::Unknown) if directory.opens_unknown() => return Ok(Known::default()),
            record => record?,
        };
        Ok(Known {
            closed: record.closed().filter(|_| !plays_on(target)),
            record: Some(record),
        })
    }

    /// Whether this belongs to a broadcast that ends here now, or has just ended: who was watching sees its end, not a
    /// refusal.
    async fn ends(&self, target: &Target) -> bool {
        let rendition = match target.object() {
            Some(Object::Direct(ObjectName::MediaPlaylist(name))) => name,
            Some(Object::Direct(ObjectName::Media { rendition, .. })) => rendition,
            _ => return false,
        };
        let Some(mut watched) = self.followers.watched(target.key(), rendition) else {
            return false;
        };
        let _held = self.metrics.hold();
        let ended = |state: &State<View>| state.view.as_ref().filter(|view| view.edge.ended).map(|_| ());
        let end = watch::hold(&mut watched, Instant::now() + END_WAIT, ended).await;
        end == Held::Ready(())
    }

    /// An init section, segment or part: from the live end if it is there, else from the store.
    async fn media(
        &self,
        (asked, asker): (Asked<'_>, Asker<'_>),
        path: &str,
        (key, rendition, epoch): (&StreamKey, &RenditionName, Epoch),
        object: MediaObject,
    ) -> Result<Response<Body>, Refusal> {
        let view = self.followers.peek(key, rendition).filter(|v| v.epoch == Some(epoch));
        let Some(view) = view else {
            let entry = self.store.get(path, Kind::Unlisted, asker).await?;
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
        let entry = self.store.get(path, kind, asker).await?;
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
        let entry = hold::part(watched, &self.store, &Resource::own(path), fate).await?;
        Ok(stored(asked, &entry))
    }
}

fn multivariant(asked: Asked<'_>, entry: &Entry) -> Response<Body> {
    let compressed = asked.gzip();
    let body = match compressed {
        true => entry.gzipped(),
        false => entry.body.clone(),
    };
    let lifetime = respond::MULTIVARIANT_LIFETIME;
    aged(respond::playlist(asked, body, compressed, lifetime), entry.since)
}

/// For one viewer: kept by nobody, and too short to be worth compressing for one.
pub(crate) fn personal(asked: Asked<'_>, entry: &Entry, directory: &str) -> Response<Body> {
    let body = entrance::below(directory, &entry.body);
    respond::playlist(asked, body, false, respond::NO_STORE)
}

/// A recording can be watched whatever its stream is doing.
fn plays_on(target: &Target) -> bool {
    matches!(target.object(), Some(Object::Recorded(..)))
}

/// The metric label of what is asked for.
fn label(target: Option<&Target>, path: &str) -> &'static str {
    match target {
        Some(target) => target.label(),
        None if path.starts_with("/play/") => "page",
        None => "none",
    }
}

/// The wall clock, as tickets are written in it.
fn unix_now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis::try_from(since.as_millis()).unwrap_or(UnixMillis::MAX)
}
