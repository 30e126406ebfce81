//! HTTP/2 viewers against servers that share no code with them: hyper's, and for what hyper never does a few bytes.

mod hyper_site;
mod scripted;

use std::{
    future::{pending, poll_fn},
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{io::AsyncWriteExt as _, net::TcpListener};
use weir_loadtest::{
    http::{Done, Manners, Protocol, Target, Wire},
    viewer::{Failure, Purpose, RequestId},
};
use xxhash_rust::xxh3::xxh3_64;

use hyper_site::{LARGE, LARGE_BYTES, Seen, acceptor, serve};
use scripted::scripted;

const PATIENCE: Duration = Duration::from_secs(20);
const MEDIA: Purpose = Purpose::Part { track: 0, hinted: true };
const TEXT: Purpose = Purpose::Multivariant;

/// A server of hyper's, and one viewer.
struct Site {
    seen: Arc<Seen>,
    viewer: Viewer,
}

struct Viewer {
    wire: Wire,
    buffer: Vec<u8>,
}

impl Viewer {
    fn new(address: SocketAddr, scheme: &str) -> Self {
        let target = Target::new(&format!("{scheme}://{address}/"), Protocol::H2, true).unwrap();
        let manners = Manners {
            judged: true,
            plain_entry: false,
        };
        Self {
            wire: Wire::new(Arc::new(target), manners),
            buffer: vec![0; 256 * 1024],
        }
    }

    fn send(&mut self, id: u32, path: &str, purpose: Purpose) {
        self.wire.send(RequestId(id), path, purpose);
    }

    async fn done(&mut self) -> Done {
        let polled = poll_fn(|cx| self.wire.poll(cx, &mut self.buffer));
        tokio::time::timeout(PATIENCE, polled).await.expect("an answer in time")
    }

    /// Polls, as a viewer does while it waits, until something else has happened.
    async fn meanwhile(&mut self, other: impl Future<Output = ()>) {
        let mut other = pin!(other);
        poll_fn(|cx| {
            assert!(self.wire.poll(cx, &mut self.buffer).is_pending());
            other.as_mut().poll(cx)
        })
        .await;
    }

    async fn get(&mut self, path: &str, purpose: Purpose) -> Done {
        self.send(1000, path, purpose);
        self.done().await
    }

    async fn get_text(&mut self, path: &str) -> Result<String, Failure> {
        let response = self.get(path, TEXT).await.result?;
        Ok(String::from_utf8_lossy(&response.text).into_owned())
    }
}

async fn site(scheme: &'static str) -> Site {
    let seen = Arc::new(Seen::default());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let viewer = Viewer::new(listener.local_addr().unwrap(), scheme);
    let (served, acceptor) = (seen.clone(), acceptor(&[b"h2"]));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            served.connections.fetch_add(1, Ordering::SeqCst);
            let (acceptor, served) = (acceptor.clone(), served.clone());
            tokio::spawn(async move {
                match scheme {
                    "https" => serve(acceptor.accept(stream).await.unwrap(), scheme, served).await,
                    _ => serve(stream, scheme, served).await,
                }
            });
        }
    });
    Site { seen, viewer }
}

impl Site {
    fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn answers_come_whole_over_one_connection() {
    for scheme in ["http", "https"] {
        let mut site = site(scheme).await;
        let viewer = &mut site.viewer;
        assert_eq!(viewer.get_text("/first").await.as_deref(), Ok("/first"));
        let media = viewer.get("/large", MEDIA).await.result.unwrap().media;
        assert_eq!((media.bytes, media.hash), (LARGE_BYTES as u64, Some(xxh3_64(&LARGE))));
        let playlist = viewer.get("/playlist", TEXT).await.result.unwrap();
        assert_eq!((playlist.status, playlist.gzip), (200, true));
        assert_eq!(playlist.text, b"not really gzip");
        let headers = playlist.headers.unwrap();
        assert_eq!((headers.max_age, headers.age, headers.length), (Some(1), Some(7), true));
        let moved = viewer.get("/moved", TEXT).await.result.unwrap();
        assert_eq!((moved.status, moved.location.as_deref()), (302, Some("/elsewhere?x=y")));
        let nothing = viewer.get("/nothing", MEDIA).await.result.unwrap();
        assert_eq!((nothing.status, nothing.media.bytes), (304, 0));
        assert_eq!(site.connections(), 1);
    }
}

#[tokio::test]
async fn requests_run_side_by_side_as_many_as_the_server_takes() {
    let mut site = site("https").await;
    assert!(site.viewer.get_text("/settings").await.is_ok());
    for id in 0..8 {
        site.viewer.send(id, "/slow", TEXT);
    }
    let mut ids = vec![];
    for _ in 0..8 {
        let done = site.viewer.done().await;
        assert_eq!(done.result.unwrap().text, b"slow");
        ids.push(done.id.0);
    }
    ids.sort_unstable();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(site.seen.most_open.load(Ordering::SeqCst), 3);
    assert_eq!(site.connections(), 1);
}

#[tokio::test]
async fn an_answer_that_fails_fails_alone() {
    for scheme in ["http", "https"] {
        let mut site = site(scheme).await;
        let viewer = &mut site.viewer;
        assert_eq!(viewer.get_text("/reset").await, Err(Failure::Reset));
        let truncated = |got, announced| Err(Failure::Truncated { got, announced });
        assert_eq!(viewer.get_text("/broken").await, truncated(4, 99));
        assert_eq!(viewer.get_text("/short").await, truncated(5, 99));
        assert_eq!(viewer.get_text("/long").await, truncated(8, 3));
        let unfit = viewer.get_text("no path").await;
        assert!(matches!(unfit, Err(Failure::Garbage(_))), "{unfit:?}");
        assert_eq!(viewer.get_text("/fine").await.as_deref(), Ok("/fine"));
        assert_eq!(site.connections(), 1);
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_is_given_up_at_the_server_too() {
    let mut site = site("https").await;
    let seen = site.seen.clone();
    site.viewer.send(1, "/never", MEDIA);
    assert_eq!(site.viewer.get_text("/other").await.as_deref(), Ok("/other"));
    site.viewer.wire.cancel(RequestId(1));
    site.viewer.meanwhile(seen.dropped.notified()).await;
    // One that is under way counts against the windows and is read to its end.
    for id in 2..12 {
        site.viewer.send(id, "/large", MEDIA);
        assert_eq!(site.viewer.get_text("/beside").await.as_deref(), Ok("/beside"));
        site.viewer.wire.cancel(RequestId(id));
    }
    assert_eq!(
        site.viewer.get("/large", MEDIA).await.result.unwrap().media.bytes,
        LARGE_BYTES as u64
    );
    assert_eq!(site.connections(), 1);
}

#[tokio::test]
async fn a_server_that_shuts_down_answers_what_it_has_and_is_asked_anew() {
    let mut site = site("https").await;
    let seen = site.seen.clone();
    site.viewer.send(1, "/held", TEXT);
    assert_eq!(site.viewer.get_text("/other").await.as_deref(), Ok("/other"));
    seen.shut_down.notify_one();
    site.viewer
        .meanwhile(tokio::time::sleep(Duration::from_millis(50)))
        .await;
    assert_eq!(site.viewer.get_text("/new").await.as_deref(), Ok("/new"));
    assert_eq!(site.connections(), 2);
    seen.release.notify_one();
    assert_eq!(site.viewer.done().await.result.unwrap().text, b"held");
}

#[tokio::test]
async fn a_connection_that_breaks_fails_its_requests_and_is_followed_by_another() {
    for scheme in ["http", "https"] {
        let mut site = site(scheme).await;
        site.viewer.send(1, "/never", TEXT);
        assert!(site.viewer.get_text("/other").await.is_ok());
        site.seen.hang_up.notify_one();
        let done = site.viewer.done().await;
        assert_eq!((done.id, done.result.err()), (RequestId(1), Some(Failure::Reset)));
        assert!(site.viewer.get_text("/other").await.is_ok());
        assert_eq!(site.connections(), 2);
        // While idle: nobody notices.
        site.seen.hang_up.notify_one();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(site.viewer.get_text("/other").await.is_ok());
        assert_eq!(site.connections(), 3);
    }
}

#[tokio::test]
async fn a_server_without_http_2_is_named_as_such() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let acceptor = acceptor(&[]);
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = acceptor.accept(stream).await;
        }
    });
    let expect_advice = |failure: Result<String, Failure>| match failure {
        Err(Failure::Connect(why)) => assert!(why.contains("--protocol h1"), "{why}"),
        other => panic!("{other:?}"),
    };
    expect_advice(Viewer::new(address, "https").get_text("/").await);
    let (_, plain) = scripted(|mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await?;
        pending().await
    })
    .await;
    expect_advice(Viewer::new(plain, "http").get_text("/").await);
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = Viewer::new(nobody, "http").get_text("/").await;
    assert!(matches!(refused, Err(Failure::Connect(_))), "{refused:?}");
}
