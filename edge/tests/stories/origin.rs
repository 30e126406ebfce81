//! An origin made of a counter: part `n` exists once `n` is published. It runs in a runtime of its own, so that it can
//! die with all its connections.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, request::Parts};
use tokio::{net::TcpListener, runtime::Runtime, sync::watch, time::Instant};
use weir_shared::{
    hls::{
        address::{Address, Object},
        name::{MediaObject, ObjectName},
        parse::parse,
        playlist::MediaPlaylist,
        position::{LiveEdge, MediaSequence, PartNumber, PartVerdict, Verdict, answer, answer_part},
        reload::{Reload, Skip},
        {delta, write},
    },
    hold::{Held, hold},
    serve::{Handler, Peer, body::Body, drain::Drain, respond, respond::Asked, tcp},
};

pub(crate) const PARTS_PER_SEGMENT: u64 = 4;
pub(crate) const TARGET_DURATION: Duration = Duration::from_secs(1);

/// What there is to play, and how the origin behaves.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) epoch: &'static str,
    /// EXT-X-TARGETDURATION: how patient everybody is.
    pub(crate) target_duration: Duration,
    pub(crate) first_msn: u64,
    /// Parts published.
    pub(crate) parts: u64,
    /// Parts whose bytes are given out, if fewer.
    pub(crate) withheld_from: u64,
    pub(crate) ended: bool,
    /// Delta updates are those of another life.
    pub(crate) broken_deltas: bool,
    /// Nobody broadcasts here.
    pub(crate) off_air: bool,
    /// Requests are taken and never answered.
    pub(crate) hangs: bool,
}

impl Stage {
    /// Ten complete segments and two parts of the next.
    pub(crate) fn new(epoch: &'static str, first_msn: u64) -> Self {
        Self {
            epoch,
            target_duration: TARGET_DURATION,
            first_msn,
            parts: 10 * PARTS_PER_SEGMENT + 2,
            withheld_from: u64::MAX,
            ended: false,
            broken_deltas: false,
            off_air: false,
            hangs: false,
        }
    }

    fn edge(&self) -> LiveEdge {
        LiveEdge {
            first: MediaSequence(self.first_msn),
            open: MediaSequence(self.first_msn + self.parts / PARTS_PER_SEGMENT),
            open_parts: (self.parts % PARTS_PER_SEGMENT) as u32,
            last_complete_parts: PARTS_PER_SEGMENT as u32,
            next_part: PartNumber(self.parts),
            ended: self.ended,
            advance_parts: 12,
        }
    }

    /// Where a viewer waits for the next part: its segment and index.
    pub(crate) fn next(&self) -> String {
        let edge = self.edge();
        format!("_HLS_msn={}&_HLS_part={}", edge.open, edge.open_parts)
    }

    pub(crate) fn playlist(&self) -> MediaPlaylist {
        let (epoch, target) = (self.epoch, self.target_duration.as_secs());
        let mut text = format!(
            "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:{target}\n\
             #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL={}.0,PART-HOLD-BACK=0.75\n\
             #EXT-X-PART-INF:PART-TARGET=0.25\n#EXT-X-MEDIA-SEQUENCE:{}\n#EXT-X-DISCONTINUITY-SEQUENCE:0\n\
             #EXT-X-MAP:URI=\"{epoch}/video/init0.mp4\"\n",
            6 * target,
            self.first_msn
        );
        for part in 0..self.parts {
            text += &format!("#EXT-X-PART:DURATION=0.25,URI=\"{epoch}/video/p{part}.m4s\"\n");
            if (part + 1) % PARTS_PER_SEGMENT == 0 {
                let msn = self.first_msn + part / PARTS_PER_SEGMENT;
                text += &format!("#EXTINF:1.0,\n{epoch}/video/{msn}.m4s\n");
            }
        }
        if self.ended {
            text += "#EXT-X-ENDLIST\n";
        } else {
            text += &format!(
                "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{epoch}/video/p{}.m4s\"\n",
                self.parts
            );
        }
        let mut playlist = parse(&text).unwrap();
        delta::strip_old_parts(&mut playlist);
        playlist
    }

    fn text(&self, skip: Skip) -> String {
        match skip {
            Skip::No => write::write(&self.playlist()),
            Skip::Yes if self.broken_deltas => {
                let other_life = Self {
                    epoch: "otherlife",
                    ..self.clone()
                };
                write::write(&delta::delta(&other_life.playlist()))
            }
            Skip::Yes => write::write(&delta::delta(&self.playlist())),
        }
    }

    /// A part's bytes: its life and number, a thousand times.
    pub(crate) fn part(&self, number: u64) -> Bytes {
        format!("{} {number:>6};", self.epoch).repeat(1000).into()
    }

    pub(crate) fn segment(&self, msn: u64) -> Bytes {
        let first = (msn - self.first_msn) * PARTS_PER_SEGMENT;
        let parts = (first..first + PARTS_PER_SEGMENT).map(|n| self.part(n));
        parts.collect::<Vec<_>>().concat().into()
    }
}

/// Requests by path and query.
type Counts = Arc<Mutex<HashMap<String, usize>>>;

pub(crate) struct FakeOrigin {
    pub(crate) addr: SocketAddr,
    stage: watch::Sender<Stage>,
    counts: Counts,
    runtime: Option<Runtime>,
}

#[derive(Clone)]
struct Deliver {
    stage: watch::Receiver<Stage>,
    counts: Counts,
}

impl FakeOrigin {
    pub(crate) fn start(stage: Stage) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), stage)
    }

    /// Takes a port that a dead origin held.
    pub(crate) fn start_at(addr: SocketAddr, stage: Stage) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (stage, reader) = watch::channel(stage);
        let counts = Counts::default();
        let deliver = Deliver {
            stage: reader,
            counts: counts.clone(),
        };
        let (bound, port) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(addr).await.unwrap();
            bound.send(listener.local_addr().unwrap()).unwrap();
            tcp::serve(listener, None, tcp::Limits::default(), deliver, Drain::new()).await;
        });
        Self {
            addr: port.recv().unwrap(),
            stage,
            counts,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage.borrow().clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Stage)) {
        self.stage.send_modify(change);
    }

    /// Publishes the next part; gives its number.
    pub(crate) fn publish(&self) -> u64 {
        let number = self.stage().parts;
        self.change(|stage| stage.parts += 1);
        number
    }

    /// Requests whose path and query end so.
    pub(crate) fn asked(&self, end: &str) -> usize {
        let counts = self.counts.lock().unwrap();
        counts
            .iter()
            .filter(|(path, _)| path.ends_with(end))
            .map(|(_, n)| n)
            .sum()
    }

    /// Requests in whose path or query this occurs.
    pub(crate) fn asked_with(&self, piece: &str) -> usize {
        let counts = self.counts.lock().unwrap();
        counts
            .iter()
            .filter(|(path, _)| path.contains(piece))
            .map(|(_, n)| n)
            .sum()
    }

    /// What was asked for more than once.
    pub(crate) fn asked_twice(&self) -> Vec<(String, usize)> {
        let counts = self.counts.lock().unwrap();
        let twice = counts.iter().filter(|(_, n)| **n > 1);
        twice.map(|(path, n)| (path.clone(), *n)).collect()
    }

    /// Dies as a process does: every socket closes.
    pub(crate) fn die(mut self) -> SocketAddr {
        self.end();
        self.addr
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for the worker here would block the test's own runtime; a thread may wait.
            std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5)))
                .join()
                .unwrap();
        }
    }
}

impl Drop for FakeOrigin {
    fn drop(&mut self) {
        self.end();
    }
}

/// What is broadcast, all of them the same. The others are those of OvenMediaEngine's signed addresses.
const KEYS: [&str; 3] = ["show", "hkr_abc123", "stream"];

impl Handler for Deliver {
    async fn handle(&self, _: Peer, request: Box<Parts>) -> Response<Body> {
        let asked = request.uri.path_and_query().unwrap().to_string();
        *self.counts.lock().unwrap().entry(asked).or_default() += 1;
        // Fails only if the origin ends.
        let _ = self.stage.clone().wait_for(|stage| !stage.hangs).await;
        let off_air = self.stage.borrow().off_air;
        let no_such = || respond::refusal(StatusCode::NOT_FOUND, "not_found", "no such object");
        let Some(address) = Address::parse(request.uri.path()).filter(|a| KEYS.contains(&a.key.as_str()) && !off_air)
        else {
            return no_such();
        };
        match address.object {
            Object::Index => playlist("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nd/video.m3u8\n".into()),
            Object::Direct(ObjectName::Multivariant) => {
                playlist("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nvideo.m3u8\n".into())
            }
            Object::Direct(ObjectName::MediaPlaylist(name)) if name.as_str() == "video" => {
                self.media_playlist(request.uri.query()).await
            }
            Object::Direct(ObjectName::Media { epoch, object, .. }) => {
                if epoch.to_string() != self.stage.borrow().epoch {
                    return no_such();
                }
                self.media(object).await.map_or_else(no_such, media)
            }
            _ => no_such(),
        }
    }
}

impl Deliver {
    async fn media_playlist(&self, query: Option<&str>) -> Response<Body> {
        let reload = Reload::parse(query).unwrap();
        let ready = |stage: &Stage| match answer(&stage.edge(), reload.want) {
            Verdict::Answer => Some(Some(stage.text(reload.skip))),
            Verdict::TooFarAhead => Some(None),
            Verdict::Wait => None,
        };
        let deadline = Instant::now() + self.stage.borrow().target_duration * 3;
        match hold(&mut self.stage.clone(), deadline, ready).await {
            Held::Ready(Some(text)) => playlist(text),
            Held::Ready(None) => respond::refusal(StatusCode::BAD_REQUEST, "too_far_ahead", "too far ahead"),
            Held::TimedOut | Held::Gone => {
                respond::refusal_until(StatusCode::SERVICE_UNAVAILABLE, "held_too_long", "nothing new", 1)
            }
        }
    }

    async fn media(&self, object: MediaObject) -> Option<Bytes> {
        let ready = |stage: &Stage| match object {
            MediaObject::Init(n) => Some(Some(format!("init {n}").into())),
            MediaObject::Segment(msn) => {
                let there = msn >= stage.edge().first && msn < stage.edge().open;
                Some(there.then(|| stage.segment(msn.0)))
            }
            MediaObject::Part(number) => match answer_part(&stage.edge(), number) {
                _ if number.0 >= stage.withheld_from && number.0 <= stage.parts => None,
                PartVerdict::Lookup => Some(Some(stage.part(number.0))),
                PartVerdict::Absent => Some(None),
                PartVerdict::Wait => None,
            },
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        match hold(&mut self.stage.clone(), deadline, ready).await {
            Held::Ready(found) => found,
            Held::TimedOut | Held::Gone => None,
        }
    }
}

const GET: Method = Method::GET;

fn playlist(text: String) -> Response<Body> {
    let headers = HeaderMap::new();
    let asked = Asked {
        method: &GET,
        headers: &headers,
    };
    respond::playlist(asked, Bytes::from(text), false, respond::NO_STORE)
}

fn media(bytes: Bytes) -> Response<Body> {
    let headers = HeaderMap::new();
    let asked = Asked {
        method: &GET,
        headers: &headers,
    };
    let etag = http::HeaderValue::from_static("\"x\"");
    respond::media(asked, vec![bytes], respond::VIDEO_TYPE, etag)
}
