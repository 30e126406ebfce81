//! The accept loop for HTTP/1.1 and HTTP/2, plain or over TLS.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Version};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;

use super::{Handler, Peer, Protocol, drain::Drain};

/// What one listener allows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Time for a request's head to arrive, and for a TLS handshake.
    pub head_timeout: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub h2_streams: u32,
    /// Bytes of a request's header list.
    pub header_bytes: u32,
    /// Headers of an HTTP/1.1 request.
    pub h1_headers: usize,
    /// How long an idle HTTP/2 connection may leave a ping unanswered.
    pub ping_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            head_timeout: Duration::from_secs(10),
            h2_streams: 128,
            header_bytes: 16 * 1024,
            h1_headers: 64,
            ping_timeout: Duration::from_secs(20),
        }
    }
}

/// Pause after the system refused to accept (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until draining begins, then waits for the connections to end.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: Limits,
    handler: H,
    drain: Drain,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let limits = Arc::new(limits);
    loop {
        let slot = tokio::select! {
            () = drain.draining() => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let Ok(slot) = slot else { break };
        let accepted = tokio::select! {
            () = drain.draining() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, addr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, handler, drain, limits) = (acceptor.clone(), handler.clone(), drain.clone(), limits.clone());
        let alive = drain.connection();
        tokio::spawn(async move {
            connection(stream, addr, acceptor, &limits, handler, drain).await;
            drop((slot, alive));
        });
    }
    drop(listener);
    drain.drained().await;
}

async fn connection<H: Handler>(
    stream: TcpStream,
    addr: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    limits: &Limits,
    handler: H,
    drain: Drain,
) {
    // A part is many small writes' worth of latency otherwise; refused only on a socket that is gone already.
    let _ = stream.set_nodelay(true);
    match acceptor {
        None => http(stream, addr, false, limits, handler, drain).await,
        Some(acceptor) => match tokio::time::timeout(limits.head_timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => http(stream, addr, true, limits, handler, drain).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        },
    }
}

async fn http<H: Handler, S>(stream: S, addr: SocketAddr, secure: bool, limits: &Limits, handler: H, drain: Drain)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = handler.clone();
        async move {
            let (head, _body) = request.into_parts();
            let protocol = match head.version {
                Version::HTTP_2 => Protocol::H2,
                _ => Protocol::H1,
            };
            let peer = Peer { addr, protocol, secure };
            Ok::<_, Infallible>(handler.handle(peer, head).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_headers(limits.h1_headers)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(limits.header_bytes)
        .keep_alive_interval(Some(limits.ping_timeout))
        .keep_alive_timeout(limits.ping_timeout);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.draining() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
