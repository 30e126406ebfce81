//! The made-up origin: an LL-HLS server without media, honest or with seeded defects.
//!
//! Before this: [`crate::content`]. After this: any LL-HLS edge or viewer. It uses the object names of Weir's origin, so
//! that Weir's edge can stand in front of it; caches that know nothing of it can, too.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, request::Parts};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::watch, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_shared::{
    hls::{
        address::{Address, Object},
        delta,
        name::{MediaObject, ObjectName},
        playlist::MediaPlaylist,
        position::{PartNumber, PartVerdict, Verdict, Want, answer, answer_part},
        reload::{Reload, Skip},
        write,
    },
    hold::{Held, hold},
    id::RenditionName,
    serve::{
        Handler, Peer,
        body::Body,
        gzip::gzip,
        respond::{self, Asked, PlaylistLifetimes},
    },
};

use crate::{
    clock,
    content::{Content, Shape},
    defect::{Defect, Defects},
    moment::Moment,
    stamp, ticket,
};

mod serve;

use serve::CutShort;

/// Longest hold, in target durations (section 6.2.5.2); then 503.
const HOLD_TARGET_DURATIONS: u32 = 3;
/// When [`Defect::StallRendition`] begins.
const STALL_AFTER: Duration = Duration::from_secs(5);

/// What to serve.
#[derive(Debug, Clone)]
pub struct Options {
    pub listen: SocketAddr,
    pub shape: Shape,
    pub defects: Defects,
    /// Entry URLs need a policy signed with this.
    pub ticket_secret: Option<String>,
}

/// A running made-up origin; it ends when dropped.
pub struct MadeUpOrigin {
    pub address: SocketAddr,
    handler: Origin,
    _running: DropGuard,
}

#[derive(Clone)]
struct Origin(Arc<Inner>);

struct Inner {
    content: Content,
    defects: Defects,
    ticket_secret: Option<String>,
    /// How many parts are complete.
    parts: watch::Receiver<u64>,
    /// When each of the latest parts was complete, by number modulo the length.
    completed: Vec<AtomicU64>,
    started: Moment,
    texts: Mutex<Texts>,
    last_ticket: Mutex<Option<String>>,
    requests: AtomicU64,
}

/// Playlists rendered for one state; all streams share them, because their names are relative.
#[derive(Default)]
struct Texts {
    parts: u64,
    made: HashMap<(usize, bool, bool, bool), Bytes>,
}

impl MadeUpOrigin {
    pub async fn start(options: Options) -> std::io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let started = clock::now();
        let content = Content::new(options.shape, started);
        let kept = content.shape.window_segments * content.shape.parts_per_segment * 2 + 8;
        let now = content.parts_at(started);
        let (publish, parts) = watch::channel(now);
        let completed: Vec<_> = (0..u64::from(kept)).map(|_| AtomicU64::new(0)).collect();
        for number in now.saturating_sub(u64::from(kept))..now {
            if let Some(slot) = completed.get((number % u64::from(kept)) as usize) {
                slot.store(content.completes(number).0, Ordering::Relaxed);
            }
        }
        let handler = Origin(Arc::new(Inner {
            content,
            defects: options.defects,
            ticket_secret: options.ticket_secret,
            parts,
            completed,
            started,
            texts: Mutex::default(),
            last_ticket: Mutex::default(),
            requests: AtomicU64::new(0),
        }));
        let stop = CancellationToken::new();
        tokio::spawn(serve::serve(listener, handler.clone(), stop.clone()));
        let ticker = handler.clone();
        let told = stop.clone();
        tokio::spawn(async move { told.run_until_cancelled(ticker.tick(publish)).await });
        Ok(Self {
            address,
            handler,
            _running: stop.drop_guard(),
        })
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.handler.0.requests.load(Ordering::Relaxed)
    }

    /// The entry URL of stream number `stream`.
    pub fn url(&self, stream: u32) -> String {
        format!("http://{}/app/{}/index.m3u8", self.address, Content::key(stream))
    }
}

impl Origin {
    /// Publishes part after part on the grid.
    async fn tick(self, publish: watch::Sender<u64>) {
        loop {
            let next = *publish.borrow();
            tokio::time::sleep_until(clock::instant(self.0.content.completes(next))).await;
            let now = clock::now();
            let parts = self.0.content.parts_at(now).max(next + 1);
            for number in next..parts {
                self.0.slot(number).store(now.0, Ordering::Relaxed);
            }
            publish.send_replace(parts);
        }
    }
}

impl Inner {
    fn slot(&self, number: u64) -> &AtomicU64 {
        static NOWHERE: AtomicU64 = AtomicU64::new(0);
        let length = (self.completed.len() as u64).max(1);
        self.completed.get((number % length) as usize).unwrap_or(&NOWHERE)
    }

    /// How many parts of this rendition are out: fewer than there are where it stands still.
    fn visible(&self, parts: u64, stream: u32, rendition: usize) -> u64 {
        if !self.defects.has(Defect::StallRendition) || stream != 0 || rendition != 0 {
            return parts;
        }
        parts.min(self.content.parts_at(self.started.plus(STALL_AFTER)))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(1) * self.content.shape.target_duration_seconds() * HOLD_TARGET_DURATIONS
    }

    async fn media_playlist(&self, asked: Asked<'_>, stream: u32, name: &RenditionName, query: Option<&str>) -> Answer {
        let rendition = self.content.rendition(name).ok_or(StatusCode::NOT_FOUND)?;
        let reload = Reload::parse(query).map_err(|_| StatusCode::BAD_REQUEST)?;
        let decide = |parts: &u64| {
            let parts = self.visible(*parts, stream, rendition);
            let edge = self.content.edge(parts);
            match answer(&edge, reload.want) {
                Verdict::Answer => Some(Ok(parts)),
                Verdict::TooFarAhead => Some(Err(StatusCode::BAD_REQUEST)),
                Verdict::Wait if self.defects.at(Defect::AnswerEarly, parts) => Some(Ok(parts)),
                Verdict::Wait => None,
            }
        };
        let parts = match hold(&mut self.parts.clone(), self.deadline(), decide).await {
            Held::Ready(parts) => parts?,
            Held::TimedOut | Held::Gone => return Err(StatusCode::SERVICE_UNAVAILABLE),
        };
        let stale = self.defects.at(Defect::StalePlaylist, parts);
        let parts = if stale { parts.saturating_sub(3) } else { parts };
        let compressed = asked.gzip();
        let text = self.text(
            rendition,
            name,
            parts,
            reload.skip == Skip::Yes,
            compressed,
            stream == 0,
        );
        let lifetimes = PlaylistLifetimes::new(self.content.shape.target_duration_seconds());
        let lifetime = if reload.want == Want::Now {
            lifetimes.plain
        } else {
            lifetimes.blocked
        };
        Ok(respond::playlist(asked, text, compressed, lifetime))
    }

    /// The text for a state, rendered once.
    fn text(&self, index: usize, name: &RenditionName, parts: u64, skip: bool, zip: bool, first: bool) -> Bytes {
        let first = first && self.defects.has(Defect::StallRendition);
        let key = (index, skip, zip, first);
        let mut texts = self.texts.lock();
        if let Some(text) = texts.made.get(&key).filter(|_| texts.parts == parts) {
            return text.clone();
        }
        let mut full = self.content.playlist(name, parts);
        self.falsify(&mut full);
        if first && index != 0 {
            self.report_stalled(&mut full, parts);
        }
        let playlist = if skip { delta::delta(&full) } else { full };
        let text = write::write(&playlist);
        let text = if zip { gzip(text.as_bytes()) } else { text.into() };
        if texts.parts != parts {
            texts.made.clear();
            texts.parts = parts;
        }
        texts.made.insert(key, text.clone());
        text
    }

    fn falsify(&self, playlist: &mut MediaPlaylist) {
        if self.defects.has(Defect::SkipPart) {
            for segment in &mut playlist.segments {
                segment.parts.retain(|part| {
                    let number = part
                        .uri
                        .rsplit_once("/p")
                        .and_then(|(_, n)| n.strip_suffix(".m4s")?.parse().ok());
                    part.independent || !number.is_some_and(|n| self.defects.at(Defect::SkipPart, n))
                });
            }
        }
    }

    /// What the other renditions say of the one that stands still.
    fn report_stalled(&self, playlist: &mut MediaPlaylist, parts: u64) {
        let last = self.visible(parts, 0, 0).saturating_sub(1);
        let edge = self.content.edge(last);
        if let Some(report) = playlist.rendition_reports.first_mut() {
            report.last_msn = edge.open;
            report.last_part = Some(edge.open_parts);
        }
    }

    async fn part(&self, asked: Asked<'_>, stream: u32, name: &RenditionName, number: PartNumber) -> Answer {
        let rendition = self.content.rendition(name).ok_or(StatusCode::NOT_FOUND)?;
        let decide = |parts: &u64| {
            let parts = self.visible(*parts, stream, rendition);
            match answer_part(&self.content.edge(parts), number) {
                PartVerdict::Lookup if self.content.held(number.0, parts) => Some(true),
                PartVerdict::Lookup | PartVerdict::Absent => Some(false),
                PartVerdict::Wait => None,
            }
        };
        match hold(&mut self.parts.clone(), self.deadline(), decide).await {
            Held::Ready(true) => Ok(self.media(asked, name, self.part_bytes(stream, rendition, number.0), number.0)),
            Held::Ready(false) => Err(StatusCode::NOT_FOUND),
            Held::TimedOut | Held::Gone => Err(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    fn part_bytes(&self, stream: u32, rendition: usize, number: u64) -> Vec<Bytes> {
        let streams = self.content.shape.streams;
        let swapped = self.defects.at(Defect::SwapStreams, number);
        let stream = if swapped { (stream + 1) % streams } else { stream };
        let completed = Moment(self.slot(number).load(Ordering::Relaxed));
        self.content.part(stream, rendition, number, completed)
    }

    fn media(&self, asked: Asked<'_>, name: &RenditionName, chunks: Vec<Bytes>, number: u64) -> Response<Body> {
        let etag = HeaderValue::try_from(format!("\"{name}-{number}\"")).unwrap_or(HeaderValue::from_static("\"0\""));
        let cut = chunks
            .first()
            .cloned()
            .filter(|_| self.defects.at(Defect::Truncate, number));
        let mut response = respond::media(asked, chunks, HeaderValue::from_static("video/mp4"), etag);
        if let Some(cut) = cut {
            // Content-Length stays: the connection ends in the middle of the body.
            response.extensions_mut().insert(CutShort(cut));
        }
        response
    }

    fn multivariant(&self, asked: Asked<'_>, key: &str, query: Option<&str>, below: &str) -> Answer {
        let policy = pair(query, "policy");
        if let Some(secret) = &self.ticket_secret {
            let signature = pair(query, "signature").unwrap_or("");
            let signed = policy.is_some_and(|policy| ticket::is_signed(secret, key, policy, signature));
            if !signed {
                return Err(StatusCode::UNAUTHORIZED);
            }
        }
        let mut ticket = policy.map(|policy| format!("{:x}", stamp::stream_tag(policy)));
        if self.defects.has(Defect::ForeignTicket) {
            let before = std::mem::replace(&mut *self.last_ticket.lock(), ticket.clone());
            ticket = before.or(ticket);
        }
        let below = ticket.map_or(below.to_owned(), |ticket| format!("~{ticket}/{below}"));
        let text = Bytes::from(self.content.multivariant(&below));
        let lifetime = PlaylistLifetimes::new(1).multivariant;
        let compressed = asked.gzip();
        let body = if compressed { gzip(&text) } else { text };
        Ok(respond::playlist(asked, body, compressed, lifetime))
    }

    async fn answer(&self, request: &Parts) -> Answer {
        let asked = Asked {
            method: &request.method,
            headers: &request.headers,
        };
        let path = request.uri.path();
        let plain: String;
        let path = if path.contains("/~") {
            plain = path
                .split('/')
                .filter(|s| !s.starts_with('~'))
                .collect::<Vec<_>>()
                .join("/");
            &plain
        } else {
            path
        };
        let address = Address::parse(path).ok_or(StatusCode::NOT_FOUND)?;
        let key = address.key.as_str();
        let stream = self.content.stream(key).ok_or(StatusCode::NOT_FOUND)?;
        match address.object {
            Object::Index => self.multivariant(asked, key, request.uri.query(), "d/"),
            Object::Direct(ObjectName::Multivariant) => self.multivariant(asked, key, request.uri.query(), ""),
            Object::Direct(ObjectName::MediaPlaylist(name)) => {
                self.media_playlist(asked, stream, &name, request.uri.query()).await
            }
            Object::Direct(ObjectName::Media { epoch, .. }) if epoch != self.content.epoch => {
                Err(StatusCode::NOT_FOUND)
            }
            Object::Direct(ObjectName::Media { rendition, object, .. }) => match object {
                MediaObject::Part(number) => self.part(asked, stream, &rendition, number).await,
                MediaObject::Init(_) => Ok(self.media(asked, &rendition, vec![self.content.init()], u64::MAX)),
                MediaObject::Segment(msn) => {
                    let index = self.content.rendition(&rendition).ok_or(StatusCode::NOT_FOUND)?;
                    let parts = *self.parts.borrow();
                    let range = self.content.segment_parts(msn, parts).ok_or(StatusCode::NOT_FOUND)?;
                    let chunks = range
                        .flat_map(|number| self.part_bytes(stream, index, number))
                        .collect();
                    Ok(self.media(asked, &rendition, chunks, u64::MAX - msn.0))
                }
            },
        }
    }
}

type Answer = Result<Response<Body>, StatusCode>;

impl Handler for Origin {
    async fn handle(&self, _: Peer, request: Parts) -> Response<Body> {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        if request.method != Method::GET && request.method != Method::HEAD {
            return respond::method_not_allowed();
        }
        if request.uri.path() == "/metrics" {
            let text = format!(
                "# HELP weir_loadtest_origin_requests_total Requests answered by the made-up origin.\n\
                 # TYPE weir_loadtest_origin_requests_total counter\n\
                 weir_loadtest_origin_requests_total {}\n",
                self.0.requests.load(Ordering::Relaxed)
            );
            let kind = HeaderValue::from_static("text/plain; version=0.0.4");
            let asked = Asked {
                method: &request.method,
                headers: &request.headers,
            };
            return respond::page(asked, kind, HeaderValue::from_static("no-store"), text.into());
        }
        self.0.answer(&request).await.unwrap_or_else(|status| {
            let code = if status == StatusCode::UNAUTHORIZED {
                "unauthorized"
            } else {
                "refused"
            };
            respond::refusal(status, code, status.canonical_reason().unwrap_or("refused"))
        })
    }
}

fn pair<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}
