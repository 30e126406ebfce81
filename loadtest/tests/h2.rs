//! HTTP/2 viewers against servers that share no code with them: hyper's, and for what hyper never does a few bytes.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_rustls::TlsAcceptor;
use weir_loadtest::{
    http::{Done, Manners, Protocol, Target, Wire},
    viewer::{Failure, Purpose, RequestId},
};
use xxhash_rust::xxh3::xxh3_64;

const PATIENCE: Duration = Duration::from_secs(20);
const MEDIA: Purpose = Purpose::Part { track: 0, hinted: true };
const TEXT: Purpose = Purpose::Multivariant;
/// Longer than both windows, and no multiple of anything.
const LARGE_BYTES: usize = (17 << 20) + 7;

/// What a server saw, and when it is to do what.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    /// Requests under way, and the most there were.
    open: AtomicUsize,
    most_open: AtomicUsize,
    /// A held request was given up.
    dropped: Notify,
    /// Lets a held request go.
    release: Notify,
    /// Ends connections: once they have answered, and at once.
    shut_down: Notify,
    hang_up: Notify,
}

/// A body that breaks off, or goes on for longer than was said.
enum Sent {
    Whole(Option<Bytes>),
    Broken { piece: Option<Bytes>, written: bool },
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let broken = || Err(io::Error::other("broken off on purpose"));
        match self.get_mut() {
            Self::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Broken { piece, written } => match piece.take() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                None if std::mem::replace(written, true) => Poll::Ready(Some(broken())),
                None => {
                    // The piece leaves only when there is nothing more to be had at once.
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            },
        }
    }
}

static LARGE: LazyLock<Bytes> = LazyLock::new(|| (0..LARGE_BYTES).map(|n| (n % 251) as u8).collect());

/// Counts a request for as long as it is under way.
struct Open(Arc<Seen>);

impl Open {
    fn new(seen: &Arc<Seen>) -> Self {
        let open = seen.open.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most_open.fetch_max(open, Ordering::SeqCst);
        Self(seen.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(request: Request<Incoming>, seen: Arc<Seen>) -> Result<Response<Sent>, &'static str> {
    struct Dropped(Arc<Seen>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.dropped.notify_one();
        }
    }
    let _open = Open::new(&seen);
    let whole = |body: Bytes| Sent::Whole(Some(body));
    let head = Response::builder().header("x-many", "a value that is worth a Huffman code");
    let response = match request.uri().path() {
        "/large" => head.body(whole(LARGE.clone())),
        "/playlist" => {
            assert_eq!(request.headers()["accept-encoding"], "gzip");
            assert_eq!(request.uri().scheme_str(), request.extensions().get::<&str>().copied());
            head.header("content-encoding", "gzip")
                .header("cache-control", "max-age=1")
                .header("age", "7")
                .header("content-length", "15")
                .body(whole(Bytes::from_static(b"not really gzip")))
        }
        "/moved" => head
            .status(302)
            .header("location", "/elsewhere?x=y")
            .body(whole(Bytes::new())),
        "/nothing" => head.status(304).header("content-length", "99").body(Sent::Whole(None)),
        "/short" => head.header("content-length", "99").body(whole("short".into())),
        "/long" => head.header("content-length", "3").body(whole("too long".into())),
        "/broken" => head.header("content-length", "99").body(Sent::Broken {
            piece: Some("half".into()),
            written: false,
        }),
        "/reset" => return Err("an answer that is none"),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(20)).await;
            head.body(whole("slow".into()))
        }
        "/held" => {
            let dropped = Dropped(seen.clone());
            seen.release.notified().await;
            drop(dropped);
            head.body(whole("held".into()))
        }
        "/never" => {
            let _dropped = Dropped(seen.clone());
            pending().await
        }
        path => {
            let path = Bytes::copy_from_slice(path.as_bytes());
            head.body(whole(path))
        }
    };
    response.map_err(|_| "no response")
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, scheme: &'static str, seen: Arc<Seen>) {
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(scheme);
        answer(request, seen.clone())
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(3);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut shut_down = pin!(seen.shut_down.notified());
    loop {
        tokio::select! {
            _ = &mut connection => return,
            () = &mut shut_down => {
                connection.as_mut().graceful_shutdown();
                shut_down.set(seen.shut_down.notified());
            }
            () = seen.hang_up.notified() => return,
        }
    }
}

fn acceptor(alpn: &[&[u8]]) -> TlsAcceptor {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

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

/// A server that plays a script for each connection, which it gets with its number.
async fn scripted<F>(script: impl Fn(TcpStream, usize) -> F + Send + 'static) -> (Arc<AtomicUsize>, SocketAddr)
where
    F: Future<Output = io::Result<Infallible>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let nth = counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(script(stream, nth));
        }
    });
    (connections, address)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Kind, flags, stream and payload of the next frame.
async fn read_frame(stream: &mut TcpStream) -> io::Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).await?;
    Ok((kind, flags, u32::from_be_bytes([s0, s1, s2, s3]), payload))
}

/// Reads what a connection begins with, until so many requests have come; the number of the last one's stream.
async fn read_requests(stream: &mut TcpStream, mut requests: usize) -> io::Result<u32> {
    stream.read_exact(&mut [0; 24]).await?;
    loop {
        let (kind, _, number, _) = read_frame(stream).await?;
        requests -= usize::from(kind == HEADERS);
        if requests == 0 {
            return Ok(number);
        }
    }
}

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// An answer in odd frames: one that only announces it, a head in two, padding, trailers.
fn odd_answer(stream: u32, body: &[u8]) -> Vec<u8> {
    let padded = [&[2], body, &[0, 0]].concat();
    [
        frame(1, 4, stream, b"\x08\x03103"),
        frame(1, 0x28, stream, b"\x01\0\0\0\0\x07\x88\x5f\x03a/b\0"),
        frame(9, 0, stream, b""),
        frame(9, 4, stream, b"\x0f\x0d\x016"),
        frame(0xbe, 0, stream, b"unheard of"),
        frame(6, 0, 0, b"12345678"),
        frame(0, 8, stream, &padded),
        frame(1, 5, stream, b"\0\x03end\x02ok"),
    ]
    .concat()
}

#[tokio::test]
async fn what_a_leaving_server_did_not_look_at_is_asked_once_more_elsewhere() {
    let (connections, address) = scripted(|mut stream, nth| async move {
        let last = read_requests(&mut stream, if nth == 0 { 2 } else { 1 }).await?;
        let mut out = frame(SETTINGS, 0, 0, &[]);
        match nth {
            0 => {
                // First that it will leave, then, when that was read, how far it got.
                out.extend(frame(GOAWAY, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]));
                stream.write_all(&out).await?;
                assert_eq!(read_frame(&mut stream).await?.0, SETTINGS);
                out.clear();
                out.extend(frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]));
                out.extend(odd_answer(1, b"first."));
            }
            1 => out.extend(odd_answer(last, b"again.")),
            _ => out.extend(frame(GOAWAY, 0, 0, &[0; 8])),
        }
        // One byte at a time reads the same.
        for byte in out {
            stream.write_all(&[byte]).await?;
            tokio::task::yield_now().await;
        }
        pending().await
    })
    .await;
    let mut viewer = Viewer::new(address, "http");
    viewer.send(1, "/a", TEXT);
    viewer.send(2, "/b", TEXT);
    for (id, text) in [(1, "first."), (2, "again.")] {
        let done = viewer.done().await;
        assert_eq!(done.id, RequestId(id));
        assert_eq!(String::from_utf8_lossy(&done.result.unwrap().text), text);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn settings_and_pings_are_acknowledged() {
    let (_, address) = scripted(|mut stream, _| async move {
        let request = read_requests(&mut stream, 1).await?;
        let out = [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, b"87654321")].concat();
        stream.write_all(&out).await?;
        let (kind, flags, ..) = read_frame(&mut stream).await?;
        assert_eq!((kind, flags), (SETTINGS, 1));
        assert_eq!(read_frame(&mut stream).await?, (PING, 1, 0, b"87654321".to_vec()));
        stream.write_all(&odd_answer(request, b"heard.")).await?;
        pending().await
    })
    .await;
    assert_eq!(
        Viewer::new(address, "http").get_text("/").await.as_deref(),
        Ok("heard.")
    );
}

#[tokio::test]
async fn a_server_that_always_leaves_is_not_asked_for_ever() {
    let (connections, address) = scripted(|mut stream, _| async move {
        read_requests(&mut stream, 1).await?;
        let out = [frame(SETTINGS, 0, 0, &[]), frame(GOAWAY, 0, 0, &[0; 8])].concat();
        stream.write_all(&out).await?;
        pending().await
    })
    .await;
    let mut viewer = Viewer::new(address, "http");
    assert_eq!(viewer.get_text("/").await, Err(Failure::Reset));
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn garbage_ends_the_connection_and_all_its_requests() {
    for garbage in [
        frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff"),
        frame(1, 4, 7, b"\x88"),
        frame(0, 0, 1, b"a body without a head"),
        frame(5, 4, 1, &[0, 0, 0, 2, 0x88]),
        frame(9, 4, 1, b"\x88"),
        [frame(1, 0, 1, b"\x88"), frame(6, 0, 0, b"12345678")].concat(),
        frame(SETTINGS, 0, 0, &[0; 7]),
    ] {
        let shown = format!("{garbage:?}");
        let (_, address) = scripted(move |mut stream, nth| {
            let garbage = garbage.clone();
            async move {
                read_requests(&mut stream, if nth == 0 { 2 } else { 1 }).await?;
                let mut out = frame(SETTINGS, 0, 0, &[]);
                out.extend(if nth == 0 { garbage } else { odd_answer(1, b"better") });
                stream.write_all(&out).await?;
                pending().await
            }
        })
        .await;
        let mut viewer = Viewer::new(address, "http");
        viewer.send(1, "/a", TEXT);
        viewer.send(2, "/b", MEDIA);
        for _ in 0..2 {
            let result = viewer.done().await.result;
            assert!(matches!(result, Err(Failure::Garbage(_))), "{shown}: {result:?}");
        }
        assert_eq!(viewer.get_text("/c").await.as_deref(), Ok("better"), "{shown}");
    }
}
