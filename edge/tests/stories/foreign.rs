//! Somebody else's LL-HLS origin: names, queries, cookies, redirects and byte ranges of its own. Part `n` exists once `n`
//! is published.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::Instant};
use weir_shared::{
    hold::{Held, hold},
    serve::{Handler, Peer, body::Body, drain::Drain, tcp},
};

pub(crate) const PARTS_PER_SEGMENT: u64 = 4;
/// Bytes of a part.
pub(crate) const PART: u64 = 1000;
const FIRST_MSN: u64 = 50;

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Each part has a name, and a query in it.
    Named,
    /// Parts are byte ranges of their segment's file.
    Ranges,
    /// Every viewer is sent to a session of their own and told by a cookie.
    Sessions,
    /// Segments only, and no request is ever held.
    Plain,
}

#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) manner: Manner,
    pub(crate) parts: u64,
    pub(crate) ended: bool,
}

type Counts = Arc<Mutex<HashMap<String, usize>>>;

pub(crate) struct Foreign {
    pub(crate) addr: SocketAddr,
    stage: watch::Sender<Stage>,
    counts: Counts,
    serving: JoinHandle<()>,
}

#[derive(Clone)]
struct Deliver {
    addr: SocketAddr,
    stage: watch::Receiver<Stage>,
    counts: Counts,
}

impl Foreign {
    pub(crate) async fn start(manner: Manner) -> Self {
        let (stage, reader) = watch::channel(Stage {
            manner,
            parts: 10 * PARTS_PER_SEGMENT + 2,
            ended: false,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let counts = Counts::default();
        let deliver = Deliver {
            addr,
            stage: reader,
            counts: counts.clone(),
        };
        let serving = tokio::spawn(tcp::serve(
            listener,
            None,
            tcp::Limits::default(),
            deliver,
            Drain::new(),
        ));
        Self {
            addr,
            stage,
            counts,
            serving,
        }
    }

    pub(crate) fn parts(&self) -> u64 {
        self.stage.borrow().parts
    }

    /// Publishes the next part; gives its number.
    pub(crate) fn publish(&self) -> u64 {
        let number = self.parts();
        self.stage.send_modify(|stage| stage.parts += 1);
        number
    }

    /// What a viewer asks who waits for the next part.
    pub(crate) fn next(&self) -> String {
        let parts = self.parts();
        let (msn, part) = (FIRST_MSN + parts / PARTS_PER_SEGMENT, parts % PARTS_PER_SEGMENT);
        format!("_HLS_msn={msn}&_HLS_part={part}")
    }

    pub(crate) fn asked(&self, what: &str) -> usize {
        let counts = self.counts.lock().unwrap();
        counts
            .iter()
            .filter(|(path, _)| path.contains(what))
            .map(|(_, n)| n)
            .sum()
    }

    /// What was asked for more than once.
    pub(crate) fn asked_twice(&self) -> Vec<(String, usize)> {
        let counts = self.counts.lock().unwrap();
        let twice = counts.iter().filter(|(_, n)| **n > 1);
        twice.map(|(path, n)| (path.clone(), *n)).collect()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub(crate) fn part(number: u64) -> Bytes {
    let text = format!("part {number:>8};").repeat(100);
    Bytes::from(text).slice(..PART as usize)
}

pub(crate) fn segment(msn: u64) -> Bytes {
    let first = (msn - FIRST_MSN) * PARTS_PER_SEGMENT;
    let parts: Vec<_> = (first..first + PARTS_PER_SEGMENT).map(part).collect();
    parts.concat().into()
}

fn answer(status: u16, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let body = body.into();
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind)
        .header(header::CACHE_CONTROL, "private, no-cache")
        .header(header::CONTENT_LENGTH, body.len())
        .body(Body::full(body))
        .unwrap()
}

impl Handler for Deliver {
    async fn handle(&self, _: Peer, request: Box<Parts>) -> Response<Body> {
        let path = request.uri.path();
        let mut asked = request.uri.path_and_query().unwrap().to_string();
        if let Some(range) = request.headers.get(header::RANGE) {
            asked += &format!(" {}", range.to_str().unwrap());
        }
        *self.counts.lock().unwrap().entry(asked).or_default() += 1;
        assert_eq!(request.headers[header::HOST], self.addr.to_string());
        assert!(!request.headers.contains_key("x-forwarded-host"));
        let manner = self.stage.borrow().manner;
        if manner == Manner::Sessions {
            let known = request.headers.get(header::COOKIE) == Some(&HeaderValue::from_static("session=7"));
            if !path.starts_with("/hls/7/") {
                let rest = path.strip_prefix("/hls/").unwrap();
                let mut response = answer(302, "text/plain", "");
                let to = format!("/hls/7/{rest}");
                response.headers_mut().insert(header::LOCATION, to.try_into().unwrap());
                let cookie = HeaderValue::from_static("session=7; Path=/; HttpOnly");
                response.headers_mut().insert(header::SET_COOKIE, cookie);
                return response;
            }
            if !known {
                return answer(401, "text/plain", "who are you?");
            }
        }
        let Some(file) = path.strip_prefix("/hls/") else {
            return answer(404, "text/plain", "nothing here");
        };
        let file = file.strip_prefix("7/").unwrap_or(file);
        match file {
            "index" => answer(
                200,
                "application/x-mpegURL",
                format!(
                    "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\nhttp://{}/hls/{}chunks?v=1\n",
                    self.addr,
                    if manner == Manner::Sessions { "7/" } else { "" }
                ),
            ),
            "chunks" => self.playlist(request.uri.query().unwrap_or_default()).await,
            _ => self.media(file, &request).await,
        }
    }
}

impl Deliver {
    async fn playlist(&self, query: &str) -> Response<Body> {
        let value = |name: &str| -> Option<u64> {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .filter(|(n, _)| *n == name)
                .map(|(_, v)| v.parse().unwrap())
                .next()
        };
        if !query.split('&').any(|pair| pair == "v=1") {
            return answer(404, "text/plain", "which version?");
        }
        let wanted = value("_HLS_msn").map_or(0, |msn| {
            (msn - FIRST_MSN) * PARTS_PER_SEGMENT + value("_HLS_part").unwrap_or(PARTS_PER_SEGMENT - 1) + 1
        });
        let ready = |stage: &Stage| (stage.parts >= wanted || stage.ended).then(|| text(self.addr, stage));
        match hold(&mut self.stage.clone(), Instant::now() + Duration::from_secs(3), ready).await {
            Held::Ready(text) => answer(200, "application/x-mpegURL", text),
            _ => answer(503, "text/plain", "nothing new"),
        }
    }

    async fn media(&self, file: &str, request: &Parts) -> Response<Body> {
        let range = request.headers.get(header::RANGE).map(|range| {
            let range = range.to_str().unwrap().strip_prefix("bytes=").unwrap();
            let (first, last) = range.split_once('-').unwrap();
            (first.parse::<u64>().unwrap(), last.parse::<u64>().unwrap())
        });
        let number = |prefix: &str, suffix: &str| file.strip_prefix(prefix)?.strip_suffix(suffix)?.parse::<u64>().ok();
        if file == "init" {
            return answer(200, "video/mp4", "init");
        }
        if let Some(n) = number("part", "") {
            assert_eq!(request.uri.query(), Some(&*format!("t={n}")));
            let ready = |stage: &Stage| (stage.parts > n).then_some(());
            return match hold(&mut self.stage.clone(), Instant::now() + Duration::from_secs(3), ready).await {
                Held::Ready(()) => answer(200, "video/mp4", part(n)),
                _ => answer(404, "text/plain", "too early"),
            };
        }
        let Some(msn) = number("seg", "") else {
            return answer(404, "text/plain", "no such file");
        };
        let there = (self
            .stage
            .borrow()
            .parts
            .saturating_sub((msn - FIRST_MSN) * PARTS_PER_SEGMENT))
        .min(4)
            * PART;
        match range {
            None if there == PARTS_PER_SEGMENT * PART => answer(200, "video/mp4", segment(msn)),
            Some((first, last)) if last < there => {
                let mut response = answer(206, "video/mp4", segment(msn).slice(first as usize..=last as usize));
                let told = format!("bytes {first}-{last}/*");
                response
                    .headers_mut()
                    .insert(header::CONTENT_RANGE, told.try_into().unwrap());
                response
            }
            _ => answer(StatusCode::RANGE_NOT_SATISFIABLE.as_u16(), "text/plain", "not yet"),
        }
    }
}

fn text(addr: SocketAddr, stage: &Stage) -> String {
    let mut text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{FIRST_MSN}\n#EXT-X-OWN-WORDS:1\n");
    let plain = stage.manner == Manner::Plain;
    if !plain {
        text += "#EXT-X-PART-INF:PART-TARGET=0.25\n";
        text += "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.75,CAN-SKIP-UNTIL=6.0\n";
    }
    text += "#EXT-X-MAP:URI=\"init\"\n";
    for n in 0..stage.parts {
        let msn = FIRST_MSN + n / PARTS_PER_SEGMENT;
        text += &match stage.manner {
            Manner::Named | Manner::Sessions if n + 8 < stage.parts => String::new(),
            Manner::Named => format!("#EXT-X-PART:DURATION=0.25,URI=\"http://{addr}/hls/part{n}?t={n}\"\n"),
            Manner::Ranges => {
                let first = n % PARTS_PER_SEGMENT * PART;
                format!("#EXT-X-PART:DURATION=0.25,URI=\"seg{msn}\",BYTERANGE=\"{PART}@{first}\"\n")
            }
            Manner::Sessions => format!("#EXT-X-PART:DURATION=0.25,URI=\"part{n}?t={n}\"\n"),
            Manner::Plain => String::new(),
        };
        if (n + 1) % PARTS_PER_SEGMENT == 0 {
            text += &format!("#EXTINF:1.0,\nseg{msn}\n");
        }
    }
    let n = stage.parts;
    if stage.ended {
        return text + "#EXT-X-ENDLIST\n";
    }
    text + &match stage.manner {
        Manner::Named | Manner::Sessions => format!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part{n}?t={n}\"\n"),
        Manner::Ranges => format!(
            "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"seg{}\",BYTERANGE-START={}\n",
            FIRST_MSN + n / PARTS_PER_SEGMENT,
            n % PARTS_PER_SEGMENT * PART
        ),
        Manner::Plain => String::new(),
    }
}
