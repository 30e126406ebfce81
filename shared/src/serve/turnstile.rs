//! Viewers who are being served go first: connections whose last request was refused or taken back, and those that ask for the
//! first time, go through a turnstile, a few at a time, so that a flood of bad requests or of newcomers takes what time is left
//! over and good viewers hardly notice.
//!
//! As many wait as there are requests under way at most, which the door and the limit on streams bound; a turn lasts for one step of
//! an exchange that waits for nothing.
//!
//! Before this: `h1.rs`, `tcp.rs` and `quic.rs`, which know how the last request ended. After this: the node's `Handler`.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    num::NonZero,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use http::{Response, StatusCode};
use tokio::{sync::Semaphore, task::yield_now};

use super::body::Body;

/// Answers to good viewers until other threads have their turn: half a millisecond's work at most.
const ANSWERS_IN_A_ROW: u32 = 8;

/// Shared by the connections of a door; clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Turnstile(Arc<Gate>);

#[derive(Debug)]
struct Gate {
    turns: Semaphore,
    waiting: AtomicUsize,
}

impl Turnstile {
    /// One for each core: a refusal takes no longer than its processor time.
    pub(super) fn new() -> Self {
        Self::of_width(std::thread::available_parallelism().map_or(1, NonZero::get))
    }

    pub(super) fn of_width(width: usize) -> Self {
        Self(Arc::new(Gate {
            turns: Semaphore::new(width),
            waiting: AtomicUsize::new(0),
        }))
    }

    /// Requests that wait for their turn now.
    pub(super) fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Whether whoever gets this answer goes through the turnstile with what comes next.
    pub(super) fn is_for(status: StatusCode) -> bool {
        status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// Works on `exchange` in turn with all others here. Who has to wait for something leaves the turnstile, and whoever is
    /// done lets everything else that is ready go first, threads and tasks.
    pub(super) async fn through<F: Future>(&self, exchange: F) -> F::Output {
        // It is never closed; were it, nobody would have to wait.
        let mut turn = {
            let _waiting = Waiting::begin(&self.0.waiting);
            self.0.turns.acquire().await.ok()
        };
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
            // Other threads first, which may be about to bring what good viewers wait for, then other tasks.
            std::thread::yield_now();
            yield_now().await;
        }
        done
    }

    /// The answer to a connection's request, in turn if it `is_behind`; says so of the next one.
    pub(super) async fn answer(
        &self,
        is_behind: &AtomicBool,
        answering: impl Future<Output = Response<Body>>,
    ) -> Response<Body> {
        let answer = match is_behind.load(Ordering::Relaxed) {
            true => Box::pin(self.through(answering)).await,
            false => {
                let answer = answering.await;
                give_way();
                answer
            }
        };
        is_behind.store(Self::is_for(answer.status()), Ordering::Relaxed);
        answer
    }
}

thread_local! {
    /// Answers on this thread.
    static ANSWERS: Cell<u32> = const { Cell::new(0) };
}

/// Lets other threads have the processor every few answers: the system leaves it to a thread that has work for milliseconds, and the next
/// part of another broadcast may just have come.
fn give_way() {
    let answers = ANSWERS.get().wrapping_add(1);
    ANSWERS.set(answers);
    if answers.is_multiple_of(ANSWERS_IN_A_ROW) {
        std::thread::yield_now();
    }
}

/// Counts one that waits until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
