//! The accept loop for HTTP/3 (RFC 9114) over QUIC.
//!
//! A client must show that it receives at its address before it is given state, as soon as many are shaking hands; answers
//! to unproven addresses stay below three times what came from there in any case (RFC 9000 section 8).
//!
//! Before this: `door.rs` (who may come in). After this: `quic/turns.rs` (a connection and its requests in one task), `quic/bounded.rs`
//! (h3 within bounds) and `quic/request.rs` (a request's stream), then the node's [`Handler`]; `pulse.rs` watches the client meanwhile.

mod bounded;
mod outbox;
mod request;
mod turns;

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use h3::{
    error::{Code, StreamError},
    server::{RequestResolver, RequestStream},
};
use http::Response;
use http_body_util::BodyExt as _;
use quinn::{Connecting, Endpoint, Incoming, VarInt, crypto::rustls::QuicServerConfig};
use socket2::{Domain, Protocol as Transport, Socket, Type};
use tokio::time::timeout;

use self::{
    bounded::{Bounded, BoundedBidi},
    request::Shared,
};
use super::{
    Handler, Peer, Protocol,
    body::Body,
    door::{Door, Visit},
    drain::Drain,
    limits::Limits,
    pace::Eviction,
    pulse::Pulse,
};

type Resolver = RequestResolver<Bounded, Shared>;
type Stream = RequestStream<BoundedBidi, Shared>;

/// Handshakes at once from which on every further client must prove its address first (one more round trip).
const HANDSHAKES_BEFORE_RETRY: usize = 64;
/// Connections that wait to be looked at, and what they may send meanwhile.
const MAX_INCOMING: usize = 1024;
const INCOMING_BYTES: u64 = 8 * 1024;
const INCOMING_BYTES_TOTAL: u64 = 4 << 20;
/// Control, two for QPACK, and one that means nothing.
const UNI_STREAMS: u32 = 4;
/// What a client may send ahead on one stream, and on a connection: requests have no bodies worth reading, and what is full of
/// holes takes some two hundred bytes of memory for each that came (1.6 MiB a connection).
const STREAM_RECEIVE_WINDOW: u32 = 16 * 1024;
const RECEIVE_WINDOW: u32 = 16 * 1024;
/// Bytes on their way to one connection until they are acknowledged, shared with all others who get them: 40 Mbit/s at 100 ms.
const SEND_WINDOW: u64 = 512 * 1024;
/// Handshake bytes out of order.
const CRYPTO_BUFFER: usize = 16 * 1024;
/// Packets a client may take before it acknowledges them, where it can be told (draft-ietf-quic-ack-frequency): less than the
/// first congestion window, so that it grows as fast. Acknowledging every second one is a quarter of an edge's work.
const PACKETS_PER_ACK: u32 = 7;
/// Kernel buffers of the one socket all viewers share.
const SOCKET_BUFFER: usize = 4 << 20;
/// Frame headers and what a client sends besides its head on a request stream.
const REQUEST_OVERHEAD: usize = 4 * 1024;
/// Requests that may be on their way when we say that we go away.
const LAST_REQUESTS: usize = 64;
/// How long the client has, after the last answer, to acknowledge it.
const LINGER: Duration = Duration::from_millis(500);

/// Why HTTP/3 can't be offered.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    #[error("the UDP port can't be used: {0}")]
    Socket(#[from] io::Error),
    #[error("QUIC can't be set up with this TLS configuration: {0}")]
    Tls(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// Binds the UDP socket and sets up the endpoint.
pub fn listen(at: SocketAddr, tls: Arc<rustls::ServerConfig>, limits: &Limits) -> Result<Endpoint, QuicError> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Transport::UDP))?;
    // The kernel gives what it is allowed to.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    let granted = socket.recv_buffer_size()?;
    if granted < SOCKET_BUFFER {
        tracing::info!(
            granted,
            wanted = SOCKET_BUFFER,
            "the UDP socket has little room: where thousands watch over HTTP/3, raise net.core.rmem_max and wmem_max"
        );
    }
    socket.bind(&at.into())?;
    let socket: UdpSocket = socket.into();
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config
        .transport_config(Arc::new(transport(limits)))
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
    let runtime = Arc::new(turns::Runtime);
    Ok(Endpoint::new(
        quinn::EndpointConfig::default(),
        Some(config),
        socket,
        runtime,
    )?)
}

fn transport(limits: &Limits) -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    // Longer ones than QUIC can express never end by themselves; the pulse ends them.
    let idle = limits.idle_timeout.try_into().ok();
    let mut acks = quinn::AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(PACKETS_PER_ACK - 1));
    transport
        .max_idle_timeout(idle)
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.streams))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .crypto_buffer_size(CRYPTO_BUFFER)
        .ack_frequency_config(Some(acks))
        .datagram_receive_buffer_size(None);
    transport
}

/// Accepts until draining begins, then waits for the connections to end.
pub async fn serve<H: Handler>(door: Door, endpoint: Endpoint, handler: H, drain: Drain) {
    let reception = Reception {
        door,
        handler,
        drain,
        handshakes: Arc::default(),
    };
    loop {
        let incoming = tokio::select! {
            () = reception.drain.draining() => break,
            incoming = endpoint.accept() => incoming,
        };
        match incoming {
            Some(incoming) => reception.receive(incoming),
            None => break,
        }
    }
    // Connections run on, further ones are refused.
    endpoint.set_server_config(None);
    reception.drain.drained().await;
    endpoint.wait_idle().await;
}

/// What every connection of a listener needs.
#[derive(Clone)]
struct Reception<H> {
    door: Door,
    handler: H,
    drain: Drain,
    handshakes: Arc<AtomicUsize>,
}

impl<H: Handler> Reception<H> {
    fn receive(&self, incoming: Incoming) {
        let is_crowded = self.handshakes.load(Ordering::Relaxed) >= HANDSHAKES_BEFORE_RETRY;
        if is_crowded && !incoming.remote_address_validated() {
            // Once it comes back with our token, its address is proven.
            if let Err(error) = incoming.retry() {
                tracing::debug!(%error, "a client could not be asked to prove its address");
            }
            return;
        }
        let addr = incoming.remote_address();
        match self.door.enter(addr.ip()) {
            Ok(visit) => {
                let (reception, alive) = (self.clone(), self.drain.connection());
                let handshake = Handshake::begin(&self.handshakes);
                tokio::spawn(async move {
                    match turns::accept(incoming) {
                        Ok((connecting, driver)) => {
                            let connection = reception.connection(connecting, addr, handshake, visit);
                            driver.along(connection).await;
                        }
                        Err(error) => tracing::debug!(%error, "QUIC handshake failed"),
                    }
                    drop(alive);
                });
            }
            Err(_) => incoming.refuse(),
        }
    }

    async fn connection(&self, connecting: Connecting, addr: SocketAddr, handshake: Handshake, _visit: Visit) {
        let limits = self.door.limits();
        let shaken = timeout(limits.head_timeout, connecting).await;
        drop(handshake);
        match shaken {
            Ok(Ok(connection)) => self.http(connection, addr, limits).await,
            Ok(Err(error)) => tracing::debug!(%error, "QUIC handshake failed"),
            Err(_) => {
                self.door.evicted(Eviction::SlowHead);
                tracing::debug!("QUIC handshake took too long");
            }
        }
    }

    async fn http(&self, quic: quinn::Connection, addr: SocketAddr, limits: Arc<Limits>) {
        let pulse = Pulse::new(limits.clone());
        let bounded = Bounded::new(
            quic.clone(),
            pulse.clone(),
            limits.header_bytes as usize + REQUEST_OVERHEAD,
        );
        let mut connection: h3::server::Connection<Bounded, Shared> = match h3::server::builder()
            .max_field_section_size(limits.header_bytes.into())
            .send_grease(false)
            .build(bounded)
            .await
        {
            Ok(connection) => connection,
            Err(error) => return tracing::debug!(%error, "HTTP/3 could not begin"),
        };
        // Worked on by this task, for the reason `exchanges.rs` gives, and ended with it, whatever they wait for.
        let mut requests = FuturesUnordered::new();
        let (mut overdue, mut wound_up) = (pin!(pulse.overdue()), pin!(self.wound_up(&pulse)));
        let mut announced = pin!(self.drain.announced());
        let mut is_going = false;
        loop {
            tokio::select! {
                // What has been answered is sent before anything new is looked at.
                biased;
                Some(()) = requests.next() => if is_going {
                    // It has its time to arrive, too.
                    wound_up.set(self.wound_up(&pulse));
                },
                accepted = connection.accept() => match accepted {
                    Ok(Some(resolver)) => {
                        let (handler, door) = (self.handler.clone(), self.door.clone());
                        requests.push(exchange((handler, door), addr, pulse.clone(), resolver, limits.head_timeout));
                    }
                    // The client has said goodbye, and has all its answers.
                    Ok(None) => {
                        let _ = timeout(LINGER, quic.closed()).await;
                        return;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a connection ended early");
                        if let Some(why) = pulse.verdict() {
                            self.door.evicted(why);
                        }
                        return;
                    }
                },
                why = overdue.as_mut() => {
                    tracing::debug!(why = why.as_str(), "a connection is ended");
                    self.door.evicted(why);
                    return close(&quic, Code::H3_EXCESSIVE_LOAD);
                }
                () = announced.as_mut(), if !is_going => {
                    is_going = true;
                    if connection.shutdown(LAST_REQUESTS).await.is_err() {
                        return;
                    }
                }
                () = wound_up.as_mut() => return close(&quic, Code::H3_NO_ERROR),
            }
        }
    }

    /// Resolves when draining has begun and the last answer has had its time to arrive.
    async fn wound_up(&self, pulse: &Pulse) {
        self.drain.draining().await;
        loop {
            let was_idle = pulse.is_idle();
            tokio::time::sleep(LINGER).await;
            if was_idle && pulse.is_idle() {
                return;
            }
        }
    }
}

fn close(connection: &quinn::Connection, why: Code) {
    // Codes are small numbers; one that were not would be told as "no code".
    connection.close(VarInt::from_u64(why.value()).unwrap_or_default(), b"");
}

/// One request and its answer. What is wrong with the stream or the connection ends it quietly: the client is gone.
async fn exchange<H: Handler>(
    (handler, door): (H, Door),
    addr: SocketAddr,
    pulse: Pulse,
    resolver: Resolver,
    head_timeout: Duration,
) {
    let (request, stream) = match timeout(head_timeout, resolver.resolve_request()).await {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) => return tracing::debug!(%error, "a request could not be read"),
        Err(_) => return tracing::debug!("a request's head took too long"),
    };
    let asked = pulse.request();
    let peer = Peer {
        addr,
        protocol: Protocol::H3,
        secure: true,
    };
    let (head, ()) = request.into_parts();
    let answering = handler.handle(peer, Box::new(head));
    let answer = door.turnstile().answer(pulse.is_behind(), answering).await;
    if let Err(error) = send(asked.answered(answer), stream).await {
        tracing::debug!(%error, "an answer was not taken");
    }
}

async fn send(answer: Response<Body>, mut stream: Stream) -> Result<(), StreamError> {
    let (head, mut body) = answer.into_parts();
    stream.send_response(Response::from_parts(head, ())).await?;
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            stream.send_data(data.into()).await?;
        }
    }
    stream.finish().await?;
    // Whatever else the client may want to send on this stream is not wanted (RFC 9114 section 4.1).
    stream.stop_sending(Code::H3_NO_ERROR);
    Ok(())
}

/// Counts a handshake as under way until dropped.
struct Handshake(Arc<AtomicUsize>);

impl Handshake {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
