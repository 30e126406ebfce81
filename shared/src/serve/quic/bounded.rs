//! h3's view of a QUIC connection, with the bounds that h3 itself does not set: it collects a whole frame before it looks
//! at it, and remembers every unidirectional stream there ever was.
//!
//! Before this: `quic.rs`. After this: `request.rs`, and `h3_quinn` for all that is no request; `pulse.rs` hears what the
//! client sends.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h3::{
    error::Code,
    quic::{
        Connection, ConnectionErrorIncoming, OpenStreams, RecvStream, SendStream, StreamErrorIncoming, StreamId,
        WriteBuf,
    },
};
use quinn::ConnectionError;
use tokio_util::sync::ReusableBoxFuture;

use super::{
    super::pulse::Pulse,
    request::{self, RequestStream, Shared},
};

/// Unidirectional streams a client opens in a connection's life: control, two for QPACK, and some that mean nothing
/// (RFC 9114 section 6.2.3).
const MAX_UNI_STREAMS: usize = 16;

pub(super) type BoundedBidi = BoundedStream<RequestStream>;

type Bidi = (quinn::SendStream, quinn::RecvStream);

/// A connection of which each request stream carries `request_bytes` from the client at most.
pub(super) struct Bounded {
    inner: h3_quinn::Connection,
    quic: quinn::Connection,
    accepting: ReusableBoxFuture<'static, Result<Bidi, ConnectionError>>,
    pulse: Pulse,
    request_bytes: usize,
    uni_streams: usize,
}

impl Bounded {
    pub(super) fn new(connection: quinn::Connection, pulse: Pulse, request_bytes: usize) -> Self {
        Self {
            inner: h3_quinn::Connection::new(connection.clone()),
            accepting: ReusableBoxFuture::new(accept(connection.clone())),
            quic: connection,
            pulse,
            request_bytes,
            uni_streams: 0,
        }
    }
}

async fn accept(connection: quinn::Connection) -> Result<Bidi, ConnectionError> {
    connection.accept_bi().await
}

impl Connection<Shared> for Bounded {
    type RecvStream = BoundedStream<h3_quinn::RecvStream>;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::RecvStream, ConnectionErrorIncoming>> {
        let stream = ready!(Connection::<Shared>::poll_accept_recv(&mut self.inner, cx))?;
        self.uni_streams += 1;
        if self.uni_streams > MAX_UNI_STREAMS {
            return Poll::Ready(Err(too_much("too many unidirectional streams")));
        }
        Poll::Ready(Ok(BoundedStream {
            inner: stream,
            pulse: self.pulse.clone(),
            left: None,
        }))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::BidiStream, ConnectionErrorIncoming>> {
        let accepted = ready!(self.accepting.poll(cx));
        self.accepting.set(accept(self.quic.clone()));
        Poll::Ready(Ok(BoundedStream {
            inner: RequestStream::new(accepted.map_err(request::lost)?)?,
            pulse: self.pulse.clone(),
            left: Some(self.request_bytes),
        }))
    }

    fn opener(&self) -> Opener {
        Opener
    }
}

/// A server opens unidirectional streams only: its control stream and QPACK.
impl OpenStreams<Shared> for Bounded {
    type BidiStream = BoundedBidi;
    type SendStream = h3_quinn::SendStream<Shared>;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
        Poll::Ready(Err(not_ours()))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        OpenStreams::<Shared>::poll_open_send(&mut self.inner, cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        OpenStreams::<Shared>::close(&mut self.inner, code, reason);
    }
}

/// What h3 would open streams with besides its connection; a server has no use for it.
pub(super) struct Opener;

impl OpenStreams<Shared> for Opener {
    type BidiStream = BoundedBidi;
    type SendStream = h3_quinn::SendStream<Shared>;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
        Poll::Ready(Err(not_ours()))
    }

    fn poll_open_send(&mut self, _: &mut Context<'_>) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        Poll::Ready(Err(not_ours()))
    }

    fn close(&mut self, _: Code, _: &[u8]) {}
}

fn not_ours() -> StreamErrorIncoming {
    StreamErrorIncoming::Unknown("a server opens no requests".into())
}

fn too_much(what: &str) -> ConnectionErrorIncoming {
    ConnectionErrorIncoming::InternalError(what.to_owned())
}

/// A stream that is read up to a point.
pub(super) struct BoundedStream<S> {
    inner: S,
    pulse: Pulse,
    /// Bytes a request may still have; `None`: only the pulse counts.
    left: Option<usize>,
}

impl<S: RecvStream<Buf = Bytes>> RecvStream for BoundedStream<S> {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let data = ready!(self.inner.poll_data(cx))?;
        let length = data.as_ref().map_or(0, Bytes::len);
        if self.pulse.heard(length).is_err() {
            let connection_error = too_much("too many bytes that are no request");
            return Poll::Ready(Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error }));
        }
        if let Some(left) = &mut self.left {
            let Some(rest) = left.checked_sub(length) else {
                let error_code = Code::H3_EXCESSIVE_LOAD.value();
                return Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code }));
            };
            *left = rest;
        }
        Poll::Ready(Ok(data))
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.inner.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.inner.recv_id()
    }
}

impl<S: SendStream<Shared>> SendStream<Shared> for BoundedStream<S> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.inner.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Shared>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.inner.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.inner.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.inner.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.inner.send_id()
    }
}
