//! An edge that ends, over every protocol: who is connected is told, what is held is answered, and then it is over.

use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::{
    h3,
    hostile::h2::{END_HEADERS, END_STREAM, GET, HEADERS, PING, PREFACE, SETTINGS, fields, frame},
    origin::{FakeOrigin, Stage},
    site::{Site, until},
    tls::{self, https},
};

/// Requests held on each connection that can have several.
const HOLDS: usize = 10;
/// What the edge may take: announcing, waiting and answering as they are by default, and a second for a busy machine.
const LONGEST: Duration = Duration::from_secs(3);

/// What a viewer has been told in the end.
struct Told {
    status: StatusCode,
    body: Bytes,
    retry_after: bool,
    closes: bool,
}

async fn told(answer: Response<Incoming>) -> Told {
    let (head, body) = answer.into_parts();
    Told {
        status: head.status,
        retry_after: head.headers.contains_key("retry-after"),
        closes: head.headers.get("connection").is_some_and(|value| value == "close"),
        body: body.collect().await.unwrap().to_bytes(),
    }
}

/// Held requests over HTTP/1.1, HTTP/2 (both over TLS) and HTTP/3, and their connections.
struct Viewers {
    h1: JoinSet<Told>,
    h2: JoinSet<Told>,
    h3: JoinSet<Told>,
    h2_connection: JoinHandle<hyper::Result<()>>,
    h3_connection: h3::Connection,
}

impl Viewers {
    async fn wait_for(site: &Site, path: &str) -> Self {
        let at = site.edge.https.unwrap();
        let request = |uri: String| {
            hyper::Request::get(uri)
                .header("host", "localhost")
                .body(Empty::<Bytes>::new())
        };
        let mut h1 = JoinSet::new();
        for _ in 0..HOLDS {
            let stream = tls::connect(at, tls::client(None, &["http/1.1"])).await.unwrap();
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let asked = request(path.to_owned()).unwrap();
            h1.spawn(async move { told(sender.send_request(asked).await.unwrap()).await });
        }
        let stream = tls::connect(at, tls::client(None, &["h2"])).await.unwrap();
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        let h2_connection = tokio::spawn(connection);
        let quic = h3::Connection::open(at, "localhost").await;
        let (mut h2, mut h3) = (JoinSet::new(), JoinSet::new());
        for _ in 0..HOLDS {
            let asked = request(format!("https://localhost:{}{path}", at.port())).unwrap();
            let answer = sender.send_request(asked);
            h2.spawn(async move { told(answer.await.unwrap()).await });
            let answer = quic.get(path);
            h3.spawn(async move {
                let answer = answer.await.unwrap();
                Told {
                    status: answer.status,
                    retry_after: answer.headers.contains_key("retry-after"),
                    closes: false,
                    body: answer.body,
                }
            });
        }
        site.until_metric("weir_edge_holding", 3 * HOLDS as u64).await;
        Self {
            h1,
            h2,
            h3,
            h2_connection,
            h3_connection: quic,
        }
    }
}

/// An edge that is ending.
fn ending(site: Site) -> JoinHandle<Duration> {
    tokio::spawn(async move {
        let began = Instant::now();
        site.edge.shutdown().await;
        began.elapsed()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_is_answered_over_every_protocol() {
    for has_news in [true, false] {
        let origin = FakeOrigin::start(Stage::new("aa", 1000));
        let site = Site::configured(origin.addr, |config| config.https = Some(https(None))).await;
        assert_eq!(site.viewer.object("video.m3u8").await.status, StatusCode::OK);
        let path = format!("/app/show/d/video.m3u8?{}", origin.stage().next());
        let viewers = Viewers::wait_for(&site, &path).await;
        let admin = site.admin.clone();
        let ended = ending(site);
        until("readiness is off", async || {
            admin.get("/readyz").await.status == StatusCode::SERVICE_UNAVAILABLE
        })
        .await;
        let number = has_news.then(|| origin.publish());
        let h1 = viewers.h1.join_all().await;
        assert!(h1.iter().all(|told| told.closes), "Connection: close");
        for told in h1
            .into_iter()
            .chain(viewers.h2.join_all().await)
            .chain(viewers.h3.join_all().await)
        {
            match number {
                Some(number) => {
                    let text = String::from_utf8(told.body.to_vec()).unwrap();
                    assert!(text.contains(&format!("aa/video/p{number}.m4s")), "{text}");
                }
                None => assert!(
                    told.status == StatusCode::SERVICE_UNAVAILABLE && told.retry_after,
                    "{}",
                    told.status
                ),
            }
        }
        // Both connections end as agreed, not torn.
        viewers.h2_connection.await.unwrap().unwrap();
        let why = viewers.h3_connection.quic.closed().await;
        let quinn::ConnectionError::ApplicationClosed(close) = why else {
            panic!("{why}");
        };
        assert_eq!(close.error_code.into_inner(), 0x100, "H3_NO_ERROR");
        let took = ended.await.unwrap();
        assert!(took < LONGEST, "{took:?}");
    }
}

/// RFC 9113 section 6.8: a client hears of it before its answer, and asks elsewhere from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goaway_comes_first_then_the_answer_then_the_end() {
    const DATA: u8 = 0;
    const GOAWAY: u8 = 7;
    const ACK: u8 = 1;
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let site = Site::configured(origin.addr, |config| config.https = Some(https(None))).await;
    let mut stream = tls::connect(site.edge.https.unwrap(), tls::client(None, &["h2"]))
        .await
        .unwrap();
    let path = format!("/app/show/d/video.m3u8?{}", origin.stage().next());
    let get = frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(GET, &path));
    let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &get].concat();
    stream.write_all(&opening).await.unwrap();
    site.until_metric("weir_edge_holding", 1).await;
    let ended = ending(site);
    let mut seen = Vec::new();
    let reading = async {
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            if head[3] == PING && head[4] == 0 {
                // Before it says for good which request was the last, the edge asks for everything that is on its way.
                stream.write_all(&frame(PING, ACK, 0, &payload)).await.unwrap();
            }
            if head[3] == GOAWAY && seen.is_empty() {
                assert_eq!(payload[4..8], [0; 4], "NO_ERROR");
                origin.publish();
            }
            if [DATA, HEADERS, GOAWAY].contains(&head[3]) {
                seen.push(head[3]);
            }
        }
    };
    timeout(LONGEST, reading).await.expect("the connection ends");
    seen.dedup();
    assert_eq!(seen.first(), Some(&GOAWAY), "{seen:?}");
    assert!(seen.contains(&HEADERS) && seen.contains(&DATA), "{seen:?}");
    assert!(ended.await.unwrap() < LONGEST);
}
