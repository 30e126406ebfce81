//! Response bodies: bytes that are already in memory, shared between all who get them.

use std::{
    any::Any,
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

pub(super) type Guard = Box<dyn Any + Send + Sync>;

/// A body of known length in one or more pieces.
#[derive(Default)]
pub struct Body {
    first: Option<Bytes>,
    rest: VecDeque<Bytes>,
    /// Dropped when the connection has its last byte no more.
    guards: Vec<Guard>,
}

impl Body {
    pub fn empty() -> Self {
        Self::default()
    }

    pub fn full(bytes: Bytes) -> Self {
        Self {
            first: Some(bytes).filter(|b| !b.is_empty()),
            ..Self::default()
        }
    }

    /// The pieces one after another; no copy.
    pub fn chunks(chunks: Vec<Bytes>) -> Self {
        let mut rest: VecDeque<Bytes> = chunks.into_iter().filter(|b| !b.is_empty()).collect();
        Self {
            first: rest.pop_front(),
            rest,
            guards: Vec::new(),
        }
    }

    /// Keeps `guard` alive until the connection has written the last byte, or dropped it: a permit that leaves with it.
    #[must_use]
    pub fn guarded(mut self, guard: impl Any + Send + Sync) -> Self {
        self.guards.push(Box::new(guard));
        self
    }

    /// Takes the next piece. What guards the body leaves with the last one.
    pub(super) fn next_piece(&mut self) -> Option<Bytes> {
        let next = self.first.take()?;
        self.first = self.rest.pop_front();
        // A connection drops the body when it has taken its last piece, and that piece when it is written.
        if self.first.is_some() || self.guards.is_empty() {
            return Some(next);
        }
        Some(Bytes::from_owner(Guarded {
            bytes: next,
            _guards: std::mem::take(&mut self.guards),
        }))
    }

    /// Takes what guards the body, to be dropped when its last byte is written: the pieces are as they were given then.
    pub(super) fn take_guards(&mut self) -> Vec<Guard> {
        std::mem::take(&mut self.guards)
    }

    /// Bytes still to come.
    pub fn len(&self) -> u64 {
        let rest: u64 = self.rest.iter().map(|b| b.len() as u64).sum();
        rest + self.first.as_ref().map_or(0, |b| b.len() as u64)
    }

    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(chunks: Vec<Bytes>) -> Self {
        Self::chunks(chunks)
    }
}

/// The last piece, and what leaves with it.
struct Guarded {
    bytes: Bytes,
    _guards: Vec<Guard>,
}

impl AsRef<[u8]> for Guarded {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body({} bytes)", self.len())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next_piece().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_guard_leaves_with_the_last_byte() {
        let watched = std::sync::Arc::new(());
        let mut body = Body::chunks(vec!["ab".into(), "cd".into()]).guarded(watched.clone());
        let held = || std::sync::Arc::strong_count(&watched) > 1;
        let first = body.frame().await.unwrap().unwrap();
        drop(first);
        assert!(held());
        let last = body.frame().await.unwrap().unwrap().into_data().unwrap();
        drop(body);
        assert!(held(), "the connection has not written it yet");
        assert_eq!(last, "cd");
        drop(last);
        assert!(!held());
        drop(Body::empty().guarded(watched.clone()));
        assert!(!held());
    }

    #[tokio::test]
    async fn pieces_come_in_order_and_their_sum_is_known() {
        let body = Body::chunks(vec!["ab".into(), Bytes::new(), "cde".into()]);
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(5));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abcde");
        assert!(http_body::Body::is_end_stream(&Body::full(Bytes::new())));
    }
}
