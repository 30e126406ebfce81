//! The stream of one request over QUIC. What is answered is not copied: the connection shares the bytes with everybody else who gets
//! them until the client has acknowledged them.
//!
//! h3-quinn's own stream copies what it sends: for a thousand viewers of one part, a thousand times the part.
//!
//! Before this: `bounded.rs`. After this: quinn.

use std::{
    cell::Cell,
    future::Future as _,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::quic::{ConnectionErrorIncoming, RecvStream, SendStream, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

thread_local! {
    /// What [`Shared::chunk`] has shown last.
    static SHOWN: Cell<Option<Bytes>> = const { Cell::new(None) };
}

/// A body's bytes on their way through h3, which shows a transport slices only: whoever is shown one can have the bytes themselves.
pub(super) struct Shared(Bytes);

impl From<Bytes> for Shared {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Buf for Shared {
    fn remaining(&self) -> usize {
        self.0.len()
    }

    fn chunk(&self) -> &[u8] {
        SHOWN.set(Some(self.0.clone()));
        &self.0
    }

    fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }
}

/// The next bytes of a frame: its payload as it is, a copy of anything else. Empty at the end.
fn next(frame: &mut impl Buf) -> Bytes {
    SHOWN.take();
    let chunk = frame.chunk();
    let length = chunk.len();
    let bytes = SHOWN.take().unwrap_or_else(|| Bytes::copy_from_slice(chunk));
    frame.advance(length);
    bytes
}

/// Both directions of a request.
pub(super) struct RequestStream {
    id: StreamId,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    /// Head and payload of the frame that is being written.
    unsent: Vec<Bytes>,
}

impl RequestStream {
    pub(super) fn new((send, recv): (quinn::SendStream, quinn::RecvStream)) -> Result<Self, ConnectionErrorIncoming> {
        // QUIC's numbers have 62 bits, and so have h3's.
        let id = StreamId::try_from(u64::from(VarInt::from(send.id())))
            .map_err(|error| ConnectionErrorIncoming::InternalError(error.to_string()))?;
        Ok(Self {
            id,
            send,
            recv,
            unsent: Vec::new(),
        })
    }
}

impl SendStream<Shared> for RequestStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while self.unsent.iter().any(Bytes::has_remaining) {
            // Takes what the window has room for off `unsent`, and waits only if that is nothing.
            ready!(pin!(self.send.write_chunks(&mut self.unsent)).poll(cx)).map_err(unwritten)?;
        }
        self.unsent.clear();
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Shared>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if !self.unsent.is_empty() {
            return Err(StreamErrorIncoming::Unknown(
                "a frame before the last one was written".into(),
            ));
        }
        let mut frame = data.into();
        while frame.has_remaining() {
            self.unsent.push(next(&mut frame));
        }
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let finished = self.send.finish();
        Poll::Ready(finished.map_err(|error| StreamErrorIncoming::Unknown(error.into())))
    }

    fn reset(&mut self, reset_code: u64) {
        // It may have ended already.
        let _ = self.send.reset(code(reset_code));
    }

    fn send_id(&self) -> StreamId {
        self.id
    }
}

impl RecvStream for RequestStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        // The stream's window bounds how much that is.
        let read = ready!(pin!(self.recv.read_chunk(usize::MAX, true)).poll(cx));
        Poll::Ready(read.map(|chunk| chunk.map(|chunk| chunk.bytes)).map_err(unread))
    }

    fn stop_sending(&mut self, error_code: u64) {
        let _ = self.recv.stop(code(error_code));
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}

fn code(of: u64) -> VarInt {
    VarInt::from_u64(of).unwrap_or(VarInt::MAX)
}

fn unwritten(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into_inner(),
        },
        WriteError::ConnectionLost(error) => StreamErrorIncoming::ConnectionErrorIncoming {
            connection_error: lost(error),
        },
        other => StreamErrorIncoming::Unknown(other.into()),
    }
}

fn unread(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into_inner(),
        },
        ReadError::ConnectionLost(error) => StreamErrorIncoming::ConnectionErrorIncoming {
            connection_error: lost(error),
        },
        other => StreamErrorIncoming::Unknown(other.into()),
    }
}

/// Why there is no connection any more, as h3 says it.
pub(super) fn lost(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => ConnectionErrorIncoming::ApplicationClose {
            error_code: close.error_code.into_inner(),
        },
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_shared_and_a_head_is_copied() {
        let part = Bytes::from(vec![7; 62_500]);
        let mut frame = Buf::chain(&b"head"[..], Shared::from(part.clone()));
        assert_eq!(next(&mut frame), "head");
        let payload = next(&mut frame);
        assert_eq!((payload.as_ptr(), payload.len()), (part.as_ptr(), part.len()));
        assert!(!frame.has_remaining() && next(&mut frame).is_empty());
    }

    #[test]
    fn what_was_shown_before_is_not_taken_for_what_comes() {
        let stale = Shared::from(Bytes::from_static(b"stale"));
        assert_eq!(stale.chunk(), b"stale");
        assert_eq!(next(&mut &b"new"[..]), "new");
    }
}
