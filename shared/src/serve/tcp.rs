//! The accept loop for HTTP/1.1 and HTTP/2, plain or over TLS.
//!
//! Before this: `door.rs` (who may come in). After this: `h1.rs`, or hyper for HTTP/2 while `pulse.rs` watches the client;
//! then the node's [`Handler`].

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io::{self, Write as _},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response, header, request::Parts};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol as Transport, SockRef, Socket, Type};
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
    cork::{Cork, Keeps},
    door::{Door, Full},
    drain::Drain,
    exchanges::{Arrivals, Exchanges},
    h1::{self, End, LAST_REQUEST},
    pace::Eviction,
    pieces::Pieces,
    pulse::{Heard, Pulse},
    resumed::Resumed,
    sheets::Plain,
};

type Answer = Response<Body>;

/// Pause after the system refused to accept (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections the kernel completes ahead of us; a crowd arrives within a moment.
const BACKLOG: i32 = 4096;
/// Bytes of an answer that the kernel copies ahead of what the network takes. The rest stays here, where all viewers share it:
/// two hundred who ask and do not read would be half a gigabyte of copies, and all others would wait while they are made.
const UNSENT_BYTES: u32 = 256 << 10;
/// What a plain connection that is turned away is told.
const TURNED_AWAY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\
      access-control-allow-origin: *\r\ncache-control: no-store\r\n\r\n";

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

/// How long connections are still taken after draining has begun, while there are others; each gets one answer.
const ACCEPT_ON: Duration = Duration::from_secs(1);

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
            Ok((stream, addr)) => {
                reception.receive(stream, addr);
                // A flood of newcomers is not to keep the processor from other threads: a thread that has work is not
                // interrupted for milliseconds.
                std::thread::yield_now();
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Who balances load may not have noticed yet: as long as answers are under way, one more costs nothing.
    let noticed = tokio::time::Instant::now() + ACCEPT_ON;
    loop {
        let accepted = tokio::select! {
            biased;
            () = reception.drain.drained() => break,
            () = tokio::time::sleep_until(noticed) => break,
            accepted = listener.accept() => accepted,
        };
        if let Ok((stream, addr)) = accepted {
            reception.receive(stream, addr);
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
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        match &self.acceptor {
            None => self.http(stream, addr, false).await,
            // Thousands of plain connections need not have room for a handshake.
            Some(acceptor) => Box::pin(self.secure(acceptor, stream, addr)).await,
        }
    }

    async fn secure(&self, acceptor: &TlsAcceptor, stream: TcpStream, addr: SocketAddr) {
        match timeout(self.door.limits().head_timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.http(Pieces(stream), addr, is_h2).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => {
                self.door.evicted(Eviction::SlowHead);
                tracing::debug!("TLS handshake took too long");
            }
        }
    }

    async fn http<S>(&self, mut stream: S, addr: SocketAddr, is_h2: bool)
    where
        S: AsyncRead + AsyncWrite + Keeps + Plain + Unpin + Send + 'static,
    {
        let limits = self.door.limits();
        let mut begun = Vec::new();
        if !is_h2 {
            let peer = self.peer(addr, Protocol::H1);
            match h1::serve(
                &mut stream,
                peer,
                self,
                (&limits, self.door.turnstile(), self.door.sheets()),
                &self.drain,
            )
            .await
            {
                End::Closed => return,
                End::Evicted(why) => {
                    tracing::debug!(why = why.as_str(), "a connection is ended");
                    return self.door.evicted(why);
                }
                End::H2(read) => begun = read,
            }
        }
        Box::pin(self.h2(Resumed::new(begun, stream), addr, limits)).await;
    }

    async fn h2<S>(&self, stream: S, addr: SocketAddr, limits: Arc<Limits>)
    where
        S: AsyncRead + AsyncWrite + Keeps + Unpin + Send + 'static,
    {
        let pulse = Pulse::new(limits.clone());
        let service = service_fn(|request| self.clone().answer(pulse.clone(), addr, request));
        let mut exchanges = Exchanges::default();
        let (mut cork, stream) = Cork::new(stream);
        let stream = TokioIo::new(Heard::new(stream, pulse.clone()));
        let mut connection = pin!(builder(&limits, &exchanges).serve_connection(stream, service));
        let mut overdue = pin!(pulse.overdue());
        let mut going = pin!(self.go_away(&pulse));
        let mut is_going = false;
        let ended = loop {
            tokio::select! {
                ended = poll_fn(|cx| poll_speak(connection.as_mut(), &mut exchanges, &mut cork, cx)) => break ended,
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
        let asked = pulse.request();
        let answering = self.handle(self.peer(addr, Protocol::H2), Box::new(head));
        let answer = self.door.turnstile().answer(pulse.is_behind(), answering).await;
        Ok(asked.answered(answer))
    }

    fn peer(&self, addr: SocketAddr, protocol: Protocol) -> Peer {
        Peer {
            addr,
            protocol,
            secure: self.acceptor.is_some(),
        }
    }

    /// Resolves when the connection should wind up: a client can be told so between requests (GOAWAY).
    async fn go_away(&self, pulse: &Pulse) {
        self.drain.announced().await;
        if !pulse.has_begun() {
            tokio::time::sleep(LAST_REQUEST).await;
        }
    }
}

/// The node's handler, with what this listener says besides.
impl<H: Handler> Handler for Reception<H> {
    async fn handle(&self, peer: Peer, request: Box<Parts>) -> Answer {
        let mut answer = self.handler.handle(peer, request).await;
        if let Some(alt_svc) = &self.options.alt_svc {
            answer.headers_mut().insert(header::ALT_SVC, alt_svc.clone());
        }
        answer
    }
}

/// Goes on with a connection; what it has to say for now has left when it waits.
fn poll_speak<S: AsyncWrite + Unpin>(
    connection: Pin<&mut impl Future<Output = hyper::Result<()>>>,
    exchanges: &mut Exchanges,
    cork: &mut Cork<S>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    if let Poll::Ready(ended) = exchanges.poll(connection, cx) {
        return Poll::Ready(ended.map_err(io::Error::other));
    }
    match cork.poll_release(cx) {
        Poll::Ready(Err(gone)) => Poll::Ready(Err(gone)),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}

fn builder(limits: &Limits, exchanges: &Exchanges) -> http2::Builder<Arrivals> {
    let mut builder = http2::Builder::new(exchanges.arrivals());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_bytes)
        .keep_alive_interval(Some(limits.ping_timeout))
        .keep_alive_timeout(limits.ping_timeout);
    builder
}
