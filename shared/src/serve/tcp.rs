//! The accept loop for HTTP/1.1 and HTTP/2, plain or over TLS.
//!
//! Before this: `door.rs` (who may come in). After this: the node's [`Handler`]; `pulse.rs` watches the client meanwhile.

use std::{
    convert::Infallible,
    io::{self, Write as _},
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use http::{HeaderValue, Request, Response, Version, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use socket2::{Domain, Protocol as Transport, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

pub use super::limits::Limits;
use super::{
    Handler, Peer, Protocol,
    body::Body,
    door::{Door, Full},
    drain::Drain,
    pace::Eviction,
    pulse::{Heard, Pulse},
};

type Answer = Response<Body>;

/// Pause after the system refused to accept (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections the kernel completes ahead of us; a crowd arrives within a moment.
const BACKLOG: i32 = 4096;
/// What a plain connection that is turned away is told.
const TURNED_AWAY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\
      access-control-allow-origin: *\r\ncache-control: no-store\r\n\r\n";
/// hyper takes no less for a head.
const SMALLEST_H1_BUFFER: usize = 8192;
/// How long a connection that came in just before the drain has for its request.
const LAST_REQUEST: Duration = Duration::from_millis(500);

/// What a listener does besides serving.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Says on HTTP/1.1 and HTTP/2 where HTTP/3 is spoken (RFC 7838).
    pub alt_svc: Option<HeaderValue>,
}

/// Binds a listening socket. `congestion`: the kernel's name of the congestion control its connections use, `bbr` say;
/// `None`: the system's.
pub fn listen(at: SocketAddr, congestion: Option<&str>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Transport::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if let Some(congestion) = congestion {
        socket.set_tcp_congestion(congestion.as_bytes())?;
    }
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// [`serve_through`] a door of the listener's own.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: Limits,
    handler: H,
    drain: Drain,
) {
    serve_through(Door::new(limits), listener, tls, Options::default(), handler, drain).await;
}

/// Accepts until draining begins, then waits for the connections to end.
pub async fn serve_through<H: Handler>(
    door: Door,
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    options: Options,
    handler: H,
    drain: Drain,
) {
    let reception = Reception {
        door,
        acceptor: tls.map(TlsAcceptor::from),
        options: Arc::new(options),
        handler,
        drain,
    };
    loop {
        let accepted = tokio::select! {
            () = reception.drain.draining() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, addr)) => reception.receive(stream, addr),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // The kernel has completed these already: their clients are about to ask.
    while let Some(Ok((stream, addr))) = accept_now(&listener).await {
        reception.receive(stream, addr);
    }
    drop(listener);
    reception.drain.drained().await;
}

/// A connection that need not be waited for.
async fn accept_now(listener: &TcpListener) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    tokio::select! {
        biased;
        accepted = listener.accept() => Some(accepted),
        () = std::future::ready(()) => None,
    }
}

/// What every connection of a listener needs.
#[derive(Clone)]
struct Reception<H> {
    door: Door,
    acceptor: Option<TlsAcceptor>,
    options: Arc<Options>,
    handler: H,
    drain: Drain,
}

impl<H: Handler> Reception<H> {
    fn receive(&self, stream: TcpStream, addr: SocketAddr) {
        match self.door.enter(addr.ip()) {
            Ok(visit) => {
                let (reception, alive) = (self.clone(), self.drain.connection());
                tokio::spawn(async move {
                    reception.connection(stream, addr).await;
                    drop((visit, alive));
                });
            }
            Err(full) => self.turn_away(stream, full),
        }
    }

    /// Says so in plain HTTP, if the kernel takes it at once; under TLS closing has to do.
    fn turn_away(&self, stream: TcpStream, full: Full) {
        tracing::debug!(limit = full.as_str(), "a connection was turned away");
        if self.acceptor.is_none()
            && let Ok(mut stream) = stream.into_std()
        {
            // Gone already: nobody to tell.
            let _ = stream.write(TURNED_AWAY);
        }
    }

    async fn connection(&self, stream: TcpStream, addr: SocketAddr) {
        // A part is many small writes' worth of latency otherwise; refused only on a socket that is gone already.
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = &self.acceptor else {
            return self.http(stream, addr).await;
        };
        match timeout(self.door.limits().head_timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.http(stream, addr).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => {
                self.door.evicted(Eviction::SlowHead);
                tracing::debug!("TLS handshake took too long");
            }
        }
    }

    async fn http<S>(&self, stream: S, addr: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = self.door.limits();
        let pulse = Pulse::new(limits.clone());
        let service = service_fn(|request| self.clone().answer(pulse.clone(), addr, request));
        let builder = builder(&limits);
        let stream = TokioIo::new(Heard::new(stream, pulse.clone()));
        let mut connection = pin!(builder.serve_connection(stream, service));
        let mut overdue = pin!(pulse.overdue());
        let mut going = pin!(self.go_away(&pulse));
        let mut is_going = false;
        let ended = loop {
            tokio::select! {
                ended = connection.as_mut() => break ended,
                why = overdue.as_mut() => {
                    tracing::debug!(why = why.as_str(), "a connection is ended");
                    return self.door.evicted(why);
                }
                () = going.as_mut(), if !is_going => {
                    is_going = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
            if let Some(why) = pulse.verdict() {
                self.door.evicted(why);
            }
        }
    }

    async fn answer(self, pulse: Pulse, addr: SocketAddr, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let (head, _body) = request.into_parts();
        let protocol = match head.version {
            Version::HTTP_2 => Protocol::H2,
            _ => Protocol::H1,
        };
        let asked = pulse.request(protocol == Protocol::H1);
        let peer = Peer {
            addr,
            protocol,
            secure: self.acceptor.is_some(),
        };
        let mut answer = self.handler.handle(peer, head).await;
        if let Some(alt_svc) = &self.options.alt_svc {
            answer.headers_mut().insert(header::ALT_SVC, alt_svc.clone());
        }
        if protocol == Protocol::H1 && self.drain.is_draining() {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
        Ok(asked.answered(answer))
    }

    /// Resolves when the connection should wind up: at once where the client can be told so between requests (GOAWAY); else
    /// when draining begins, for closing an idle HTTP/1.1 connection may meet a request that is on its way.
    async fn go_away(&self, pulse: &Pulse) {
        self.drain.announced().await;
        if pulse.is_sequential() {
            self.drain.draining().await;
        }
        if !pulse.has_begun() {
            tokio::time::sleep(LAST_REQUEST).await;
        }
    }
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Heads and idle connections are timed by the pulse: hyper's timer takes an idle connection for a slow head.
    builder
        .http1()
        .max_buf_size((limits.header_bytes as usize).max(SMALLEST_H1_BUFFER))
        .max_headers(limits.h1_headers)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_bytes)
        .keep_alive_interval(Some(limits.ping_timeout))
        .keep_alive_timeout(limits.ping_timeout);
    builder
}
