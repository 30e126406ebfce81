//! What one HTTP/2 connection writes at a time leaves together.
//!
//! HTTP/2 cuts an answer into frames of 16 KiB and flushes each of them; a system call for each frame costs more than all
//! the rest of the frame. Under TLS the frames wait, encrypted already, until the connection has nothing more to say for now.
//! What waits is bounded by rustls' own limit (64 KiB): what is beyond it is written through.
//!
//! Before this: `tcp.rs`, which lets go what waits. After this: hyper, through `pulse.rs`.

use std::{
    io::{self, IoSlice, Write as _},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::resumed::Resumed;

/// A stream that can keep what is written to it for a moment.
pub(super) trait Keeps {
    /// Takes bytes and does not send them yet; 0: it has no room. `None`: it never keeps anything.
    fn keep(&mut self, slices: &[IoSlice<'_>]) -> Option<io::Result<usize>>;
}

impl Keeps for TcpStream {
    fn keep(&mut self, _: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        None
    }
}

impl<S> Keeps for TlsStream<S> {
    fn keep(&mut self, slices: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        Some(self.get_mut().1.writer().write_vectored(slices))
    }
}

impl<S: Keeps> Keeps for Resumed<S> {
    fn keep(&mut self, slices: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        self.stream_mut().keep(slices)
    }
}

/// Lets go what a [`Corked`] stream keeps.
pub(super) struct Cork<S>(Arc<Mutex<S>>);

impl<S: AsyncWrite + Unpin> Cork<S> {
    pub(super) fn new(stream: S) -> (Self, Corked<S>) {
        let stream = Arc::new(Mutex::new(stream));
        (Self(stream.clone()), Corked(stream))
    }

    /// Sends what waits. Pending: the task is woken when there is room for more of it.
    pub(super) fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_flush(cx)
    }
}

/// A stream that sends nothing of its own accord, except what it can't keep. Both halves are used by one task.
pub(super) struct Corked<S>(Arc<Mutex<S>>);

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Keeps + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = &mut *self.0.lock();
        match stream.keep(slices) {
            None => Pin::new(stream).poll_write_vectored(cx, slices),
            Some(Ok(0)) => {
                ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                Pin::new(stream).poll_write_vectored(cx, slices)
            }
            Some(kept) => Poll::Ready(kept),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What is kept counts as sent: [`Cork::poll_release`] follows.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_shutdown(cx)
    }
}
