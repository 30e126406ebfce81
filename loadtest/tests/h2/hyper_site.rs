//! A server of hyper's, and what it answers.

use std::{
    future::pending,
    io,
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
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};
use tokio_rustls::TlsAcceptor;

/// Longer than both windows, and no multiple of anything.
pub(crate) const LARGE_BYTES: usize = (17 << 20) + 7;

/// What a server saw, and when it is to do what.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    /// Requests under way, and the most there were.
    pub(crate) open: AtomicUsize,
    pub(crate) most_open: AtomicUsize,
    /// A held request was given up.
    pub(crate) dropped: Notify,
    /// Lets a held request go.
    pub(crate) release: Notify,
    /// Ends connections: once they have answered, and at once.
    pub(crate) shut_down: Notify,
    pub(crate) hang_up: Notify,
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

pub(crate) static LARGE: LazyLock<Bytes> = LazyLock::new(|| (0..LARGE_BYTES).map(|n| (n % 251) as u8).collect());

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

pub(crate) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    scheme: &'static str,
    seen: Arc<Seen>,
) {
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

pub(crate) fn acceptor(alpn: &[&[u8]]) -> TlsAcceptor {
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
