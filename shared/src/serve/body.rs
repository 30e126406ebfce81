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

/// A body of known length in one or more pieces.
#[derive(Default)]
pub struct Body {
    first: Option<Bytes>,
    rest: VecDeque<Bytes>,
    /// Dropped with the body, when its last byte has been handed to the connection.
    guard: Option<Box<dyn Any + Send + Sync>>,
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
            guard: None,
        }
    }

    /// Keeps `guard` alive as long as the body: a permit that leaves with the last byte.
    #[must_use]
    pub fn guarded(mut self, guard: impl Any + Send + Sync) -> Self {
        self.guard = Some(Box::new(guard));
        self
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

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body({} bytes)", self.len())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.first.take();
        self.first = self.rest.pop_front();
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
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
    async fn pieces_come_in_order_and_their_sum_is_known() {
        let body = Body::chunks(vec!["ab".into(), Bytes::new(), "cde".into()]);
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(5));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abcde");
        assert!(http_body::Body::is_end_stream(&Body::full(Bytes::new())));
    }
}
