//! Who was refused waits behind everybody else: connections whose last request was refused go through a turnstile, a few at
//! a time, so that a flood of bad requests takes what time is left over and good viewers hardly notice.
//!
//! As many wait as there are requests under way at most, which the door and the limit on streams bound; a turn lasts for one step of
//! an exchange that waits for nothing.
//!
//! Before this: `h1.rs`, `tcp.rs` and `quic.rs`, which know how the last request ended. After this: the node's `Handler`.

use std::{
    future::{Future, poll_fn},
    num::NonZero,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{Response, StatusCode};
use tokio::{sync::Semaphore, task::yield_now};

use super::body::Body;

/// Shared by the connections of a door; clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Turnstile(Arc<Semaphore>);

impl Turnstile {
    /// One for each core: a refusal takes no longer than its processor time.
    pub(super) fn new() -> Self {
        Self::of_width(std::thread::available_parallelism().map_or(1, NonZero::get))
    }

    pub(super) fn of_width(width: usize) -> Self {
        Self(Arc::new(Semaphore::new(width)))
    }

    /// Whether whoever gets this answer goes through the turnstile with what comes next.
    pub(super) fn is_for(status: StatusCode) -> bool {
        status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// Works on `exchange` in turn with all others here. Who has to wait for something leaves the turnstile, and whoever is
    /// done lets everything else that is ready go first.
    pub(super) async fn through<F: Future>(&self, exchange: F) -> F::Output {
        // It is never closed; were it, nobody would have to wait.
        let mut turn = self.0.acquire().await.ok();
        let mut exchange = pin!(exchange);
        let done = poll_fn(|cx| {
            let polled = exchange.as_mut().poll(cx);
            if polled.is_pending() {
                turn = None;
            }
            polled
        })
        .await;
        if turn.is_some() {
            yield_now().await;
        }
        done
    }

    /// The answer to a connection's request, in turn if the one before it `was_refused`; says so of this one.
    pub(super) async fn answer(
        &self,
        was_refused: &AtomicBool,
        answering: impl Future<Output = Response<Body>>,
    ) -> Response<Body> {
        let answer = match was_refused.load(Ordering::Relaxed) {
            true => Box::pin(self.through(answering)).await,
            false => answering.await,
        };
        was_refused.store(Self::is_for(answer.status()), Ordering::Relaxed);
        answer
    }
}
