//! One viewer's connection over HTTP/3, shared by its requests, each a small local task.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use h3::error::{Code, StreamError};
use http::Request;
use socket2::{Domain, Protocol as Transport, Socket, Type};
use tokio::{
    sync::OnceCell,
    task::{AbortHandle, JoinSet},
};

use super::{Done, Manners, Response, Sink, Target};
use crate::{
    clock,
    headers::Headers,
    viewer::{Failure, Purpose, RequestId},
};

/// A connection without a sign of life for this long is gone.
const IDLE_LIMIT: Duration = Duration::from_secs(20);

type Sender = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;

/// One viewer's connection and the requests on it.
pub struct Wire {
    target: Arc<Target>,
    manners: Manners,
    connection: Rc<RefCell<Rc<OnceCell<Sender>>>>,
    requests: JoinSet<Done>,
    aborts: HashMap<RequestId, AbortHandle>,
}

impl Wire {
    pub(super) fn new(target: Arc<Target>, manners: Manners) -> Self {
        Self {
            target,
            manners,
            connection: Rc::default(),
            requests: JoinSet::new(),
            aborts: HashMap::new(),
        }
    }

    pub(super) fn send(&mut self, id: RequestId, path: &str, purpose: Purpose) {
        let (target, connection) = (self.target.clone(), self.connection.clone());
        let gzip = self.manners.takes_gzip(purpose);
        let into = Landing {
            sink: Sink::new(purpose.is_text(), self.manners.judged),
            headers: self.manners.headers(gzip),
        };
        let path = path.to_owned();
        let abort = self.requests.spawn_local(async move {
            let cell = connection.borrow().clone();
            let result = exchange(&target, &cell, &path, gzip, into).await;
            if matches!(result, Err(Failure::Reset | Failure::Connect(_))) {
                // The next request finds a fresh connection, unless another made one already.
                let mut current = connection.borrow_mut();
                if Rc::ptr_eq(&current, &cell) {
                    *current = Rc::default();
                }
            }
            Done {
                id,
                result: result.map(Box::new),
            }
        });
        self.aborts.insert(id, abort);
    }

    pub(super) fn cancel(&mut self, id: RequestId) {
        if let Some(abort) = self.aborts.remove(&id) {
            abort.abort();
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        loop {
            match self.requests.poll_join_next(cx) {
                Poll::Ready(Some(Ok(done))) => {
                    if self.aborts.remove(&done.id).is_some() {
                        return Poll::Ready(done);
                    }
                }
                // Cancelled.
                Poll::Ready(Some(Err(_))) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Where an answer goes.
struct Landing {
    sink: Sink,
    /// Noted where they are judged.
    headers: Option<Headers>,
}

async fn exchange(
    target: &Arc<Target>,
    cell: &OnceCell<Sender>,
    path: &str,
    gzip: bool,
    into: Landing,
) -> Result<Response, Failure> {
    let sender = cell
        .get_or_try_init(|| connect(target))
        .await
        .map_err(|error| Failure::Connect(error.into()))?;
    let mut request = Request::builder().uri(format!("https://{}{path}", target.authority));
    if gzip {
        request = request.header("accept-encoding", "gzip");
    }
    let request = request
        .body(())
        .map_err(|_| Failure::Garbage("a path that is no URI"))?;
    ask(sender.clone(), request, into).await
}

async fn ask(mut sender: Sender, request: Request<()>, mut into: Landing) -> Result<Response, Failure> {
    let mut stream = sender.send_request(request).await.map_err(|_| Failure::Reset)?;
    match stream.finish().await {
        // It has answered already: clients must not discard that (RFC 9114 section 4.1.1).
        Err(StreamError::RemoteTerminate { code, .. }) if code == Code::H3_NO_ERROR => {}
        finished => finished.map_err(|_| Failure::Reset)?,
    }
    let head = stream.recv_response().await.map_err(|_| Failure::Reset)?;
    let first_byte = clock::now();
    let announced = announced(head.headers());
    let mut got = 0;
    loop {
        match stream.recv_data().await {
            Ok(Some(mut data)) => {
                while data.has_remaining() {
                    let piece = data.chunk();
                    let length = piece.len();
                    got += length as u64;
                    into.sink.take(piece, announced == Some(got))?;
                    data.advance(length);
                }
            }
            Ok(None) => break,
            Err(_) => return Err(truncated(got, announced)),
        }
    }
    if announced.is_some_and(|announced| announced != got) {
        return Err(truncated(got, announced));
    }
    Ok(whole(head.status(), head.headers(), into, first_byte))
}

fn announced(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn truncated(got: u64, announced: Option<u64>) -> Failure {
    Failure::Truncated {
        got,
        announced: announced.unwrap_or(got + 1),
    }
}

fn whole(
    status: http::StatusCode,
    headers: &http::HeaderMap,
    into: Landing,
    first_byte: crate::moment::Moment,
) -> Response {
    let header = |name| {
        headers
            .get(name)
            .and_then(|value: &http::HeaderValue| value.to_str().ok())
    };
    let (text, media) = into.sink.finish();
    let noted = into.headers.map(|mut noted| {
        for (name, value) in headers {
            noted.take(name.as_str(), value.to_str().unwrap_or(""));
        }
        noted
    });
    Response {
        status: status.as_u16(),
        location: header(http::header::LOCATION).map(str::to_owned),
        gzip: header(http::header::CONTENT_ENCODING) == Some("gzip"),
        headers: noted,
        text,
        media,
        first_byte,
        at: clock::now(),
    }
}

/// UDP sockets of each thread. A viewer of flesh and blood has one to himself; with one for all, a part that goes to everybody at
/// once does not fit into the kernel's buffer, and what is lost there looks like the network's fault.
const SOCKETS: usize = 32;
/// Kernel buffer of each, in bytes: it gives as much as it is allowed to (`net.core.rmem_max`).
const SOCKET_BUFFER: usize = 4 << 20;

thread_local! {
    /// Those of this thread, and how many viewers were given one.
    static ENDPOINTS: RefCell<(Vec<quinn::Endpoint>, usize)> = const { RefCell::new((Vec::new(), 0)) };
}

/// The sockets take turns.
fn endpoint(to: SocketAddr) -> io::Result<quinn::Endpoint> {
    ENDPOINTS.with_borrow_mut(|(endpoints, given)| {
        let turn = *given % SOCKETS;
        *given += 1;
        if let Some(endpoint) = endpoints.get(turn) {
            return Ok(endpoint.clone());
        }
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = Socket::new(Domain::for_address(any), Type::DGRAM, Some(Transport::UDP))?;
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        socket.bind(&any.into())?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket.into(), runtime)?;
        endpoints.push(endpoint.clone());
        Ok(endpoint)
    })
}

async fn connect(target: &Target) -> Result<Sender, String> {
    let tls = target.tls.as_ref().ok_or("h3 needs https://")?;
    let endpoint = endpoint(target.address).map_err(|e| e.to_string())?;
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls.clone()).map_err(|e| e.to_string())?;
    let mut transport = quinn::TransportConfig::default();
    let idle = quinn::IdleTimeout::try_from(IDLE_LIMIT).map_err(|e| e.to_string())?;
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(IDLE_LIMIT / 4));
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    let name = target.url.host_str().unwrap_or("localhost");
    let connecting = endpoint
        .connect_with(config, target.address, name)
        .map_err(|e| e.to_string())?;
    let connection = connecting.await.map_err(|e| e.to_string())?;
    let (mut driver, sender) = h3::client::new(h3_quinn::Connection::new(connection))
        .await
        .map_err(|e| e.to_string())?;
    tokio::task::spawn_local(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
    Ok(sender)
}
