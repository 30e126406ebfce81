//! What is written under TLS reaches rustls in pieces of 2 KiB.
//!
//! rustls copies what it encrypts, and glibc copies more than 2112 bytes with `rep movsb` where the processor says that this is
//! fast. AMD's Zen 3 and 4 say so, and copy some 4 GB/s with it unless the destination is aligned, which that of a TLS record never is:
//! it begins with a head of five bytes. That was a seventh of what HTTP/2 cost an edge.
//!
//! Before this: `cork.rs`, `h1.rs`. After this: tokio-rustls.

use std::{
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::{cork::Keeps, sheets::Plain};

/// Bytes that are copied at once: below glibc's threshold, 2112 at the least.
const PIECE: usize = 2048;
/// Pieces that are passed on together: four TLS records, as much as rustls keeps.
const PIECES: usize = 32;

/// A TLS stream that is written in pieces.
pub(super) struct Pieces<S>(pub(super) S);

impl<S> Plain for Pieces<S> {}

impl<S> Keeps for Pieces<TlsStream<S>> {
    fn keep(&mut self, slices: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let pieces = cut(slices, &mut pieces);
        Some(self.0.get_mut().1.writer().write_vectored(pieces))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Pieces<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Pieces<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let pieces = cut(slices, &mut pieces);
        Pin::new(&mut self.0).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// As much of the beginning of `slices` as there is room for.
fn cut<'a, 'b>(slices: &'a [IoSlice<'_>], room: &'b mut [IoSlice<'a>; PIECES]) -> &'b [IoSlice<'a>] {
    let mut count = 0;
    for (piece, to) in slices.iter().flat_map(|slice| slice.chunks(PIECE)).zip(room.iter_mut()) {
        *to = IoSlice::new(piece);
        count += 1;
    }
    room.get(..count).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(slices: &[&[u8]]) -> Vec<usize> {
        let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut room = [IoSlice::new(&[]); PIECES];
        let pieces = cut(&slices, &mut room);
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let got: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        assert!(all.starts_with(&got), "in order, and nothing twice");
        pieces.iter().map(|piece| piece.len()).collect()
    }

    #[test]
    fn what_is_written_is_cut_in_order_and_small_things_stay_whole() {
        let part: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
        assert_eq!(lengths(&[b"head", &part]), [4, PIECE, PIECE, 5000 - 2 * PIECE]);
        assert_eq!(lengths(&[b"", b"tail"]), [4]);
        assert!(lengths(&[]).is_empty());
    }

    #[test]
    fn what_there_is_no_room_for_waits_for_the_next_write() {
        let part = vec![7; PIECES * PIECE + 1];
        assert_eq!(lengths(&[&part]), [PIECE; PIECES]);
    }
}
