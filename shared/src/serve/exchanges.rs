//! The requests of one HTTP/2 connection, worked on by the connection's own task.
//!
//! hyper would give each request a task of its own, which answers and then wakes the connection, which writes. When thousands of viewers get
//! the same part and then the playlist that names it, that is three tasks each to wake, and two writes. Here whatever wakes one
//! request wakes the connection: it hears of everything that has happened meanwhile, and says all of it at once.
//!
//! Before this: `tcp.rs`. After this: hyper, which leaves its futures here, and `cork.rs`, which keeps what they write.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;

type Exchange = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Times a connection that was woken looks for new requests before others have their turn.
const ROUNDS: usize = 4;

/// Where hyper leaves a new request; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Arrivals(Arc<Mutex<Vec<Exchange>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Arrivals {
    fn execute(&self, exchange: F) {
        self.0.lock().push(Box::pin(exchange));
    }
}

/// The requests under way: as many as the limit on streams allows, and what a client that takes its requests back at once gets through before
/// `pulse.rs` ends it (`chatter_bytes`, `resets`).
#[derive(Default)]
pub(super) struct Exchanges {
    arrivals: Arrivals,
    under_way: FuturesUnordered<Exchange>,
}

impl Exchanges {
    pub(super) fn arrivals(&self) -> Arrivals {
        self.arrivals.clone()
    }

    /// Goes on with the connection and its requests, until both wait.
    pub(super) fn poll<T>(
        &mut self,
        mut connection: Pin<&mut impl Future<Output = T>>,
        cx: &mut Context<'_>,
    ) -> Poll<T> {
        for _ in 0..ROUNDS {
            while self.under_way.poll_next_unpin(cx) == Poll::Ready(Some(())) {}
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            let mut arrivals = self.arrivals.0.lock();
            if arrivals.is_empty() {
                return Poll::Pending;
            }
            self.under_way.extend(arrivals.drain(..));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use hyper::rt::Executor as _;
    use tokio::sync::oneshot;

    use super::*;

    /// A connection, its requests, and what they answered by the time it was last polled.
    #[derive(Default)]
    struct Line {
        exchanges: Exchanges,
        answers: Arc<AtomicUsize>,
        /// What the connection saw each time it was polled.
        seen: Vec<usize>,
    }

    impl Line {
        /// A request that is answered when it is told to.
        fn request(&self) -> oneshot::Sender<()> {
            let (release, held) = oneshot::channel();
            let answers = self.answers.clone();
            self.exchanges.arrivals().execute(async move {
                let _ = held.await;
                answers.fetch_add(1, Ordering::Relaxed);
            });
            release
        }

        fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            let (seen, answers) = (&mut self.seen, &self.answers);
            let mut connection = std::pin::pin!(poll_fn(|_| {
                seen.push(answers.load(Ordering::Relaxed));
                Poll::<()>::Pending
            }));
            self.exchanges.poll(connection.as_mut(), cx)
        }
    }

    #[tokio::test]
    async fn what_has_happened_to_several_requests_is_said_at_once() {
        let mut line = Line::default();
        let (part, playlist) = (line.request(), line.request());
        let mut turns = 0;
        let mut released = Some((part, playlist));
        poll_fn(|cx| {
            turns += 1;
            assert!(line.poll(cx).is_pending());
            if let Some((part, playlist)) = released.take() {
                part.send(()).unwrap();
                playlist.send(()).unwrap();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(turns, 2, "one of the two wakes the connection, and that is enough");
        assert_eq!(line.seen.last(), Some(&2));
        assert!(!line.seen.contains(&1));
    }

    #[tokio::test]
    async fn what_can_be_answered_at_once_is_answered_before_the_connection_waits() {
        let mut line = Line::default();
        line.request().send(()).unwrap();
        let waited = poll_fn(|cx| Poll::Ready(line.poll(cx))).await;
        assert!(waited.is_pending());
        assert_eq!(line.seen, [0, 1]);
    }

    #[tokio::test]
    async fn a_connection_with_ever_new_requests_lets_others_go_first() {
        let mut exchanges = Exchanges::default();
        let arrivals = exchanges.arrivals();
        let mut polls = 0;
        let mut turns = 0;
        poll_fn(|cx| {
            turns += 1;
            let mut connection = std::pin::pin!(poll_fn(|_| {
                polls += 1;
                arrivals.execute(std::future::ready(()));
                Poll::<()>::Pending
            }));
            assert!(exchanges.poll(connection.as_mut(), cx).is_pending());
            match turns {
                3 => Poll::Ready(()),
                // It is woken again by itself.
                _ => Poll::Pending,
            }
        })
        .await;
        assert_eq!(polls, 3 * ROUNDS);
    }

    #[tokio::test]
    async fn requests_end_with_their_connection() {
        let mut line = Line::default();
        let release = line.request();
        let _ = poll_fn(|cx| Poll::Ready(line.poll(cx))).await;
        assert!(!release.is_closed());
        drop(line);
        assert!(release.is_closed());
    }
}
