//! A connection whose beginning was read already. After this: hyper, for HTTP/2.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Gives what was read before it reads on.
pub(super) struct Resumed<S> {
    begun: Vec<u8>,
    given: usize,
    stream: S,
}

impl<S> Resumed<S> {
    pub(super) fn new(begun: Vec<u8>, stream: S) -> Self {
        Self {
            begun,
            given: 0,
            stream,
        }
    }

    pub(super) fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Resumed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = self.begun.get(self.given..).unwrap_or(&[]);
        if left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let piece = left.get(..buf.remaining()).unwrap_or(left);
        buf.put_slice(piece);
        self.given += piece.len();
        if self.given >= self.begun.len() {
            self.begun = Vec::new();
            self.given = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Resumed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn what_was_read_comes_first_and_nothing_twice() {
        let mut resumed = Resumed::new(b"begun, ".to_vec(), &b"and went on"[..]);
        let mut text = String::new();
        let mut small = [0; 3];
        for _ in 0..2 {
            resumed.read_exact(&mut small).await.unwrap();
            text.push_str(std::str::from_utf8(&small).unwrap());
        }
        resumed.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "begun, and went on");
    }
}
