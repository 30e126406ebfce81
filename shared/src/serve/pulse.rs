//! A connection's pulse: what its client sends, asks and takes is told to `pace.rs`, whose verdict ends the connection.
//!
//! Before this: `tcp.rs` and `quic.rs`. After this: `pace.rs` (the rules).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Response;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    body::Body,
    limits::Limits,
    pace::{AnswerId, Eviction, Pace},
};

/// How often a connection is looked at, at most.
const LONGEST_TICK: Duration = Duration::from_secs(5);
const SHORTEST_TICK: Duration = Duration::from_millis(20);

/// One per connection; clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Pulse(Arc<Beat>);

#[derive(Debug)]
struct Beat {
    pace: Mutex<Pace>,
    limits: Arc<Limits>,
    begun: Instant,
    is_behind: AtomicBool,
}

impl Pulse {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        Self(Arc::new(Beat {
            pace: Mutex::default(),
            limits,
            begun: Instant::now(),
            is_behind: AtomicBool::new(true),
        }))
    }

    /// Resolves when the client has been waited for long enough.
    pub(super) async fn overdue(&self) -> Eviction {
        let limits = &self.0.limits;
        let shortest = limits.head_timeout.min(limits.idle_timeout).min(limits.answer_grace);
        let mut tick = tokio::time::interval((shortest / 4).clamp(SHORTEST_TICK, LONGEST_TICK));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Some(why) = self.verdict() {
                return why;
            }
        }
    }

    pub(super) fn verdict(&self) -> Option<Eviction> {
        self.0.pace.lock().verdict(&self.0.limits, self.now())
    }

    /// The client sent this many bytes. Says whether they are still welcome: floods are ended at once, not at the next tick.
    pub(super) fn heard(&self, bytes: usize) -> Result<(), Eviction> {
        let mut pace = self.0.pace.lock();
        pace.heard(bytes);
        match pace.is_flooded(&self.0.limits) {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }

    /// A request has arrived. Dropped before it was [answered](Asked::answered), it counts as taken back.
    pub(super) fn request(&self) -> Asked {
        self.0.pace.lock().request();
        Asked {
            pulse: self.clone(),
            answered: false,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.0.pace.lock().is_idle()
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.pace.lock().has_begun()
    }

    /// Whether the next request waits behind those of all others: the first does, and what follows a refusal or a request that
    /// was taken back.
    pub(super) fn is_behind(&self) -> &AtomicBool {
        &self.0.is_behind
    }

    fn now(&self) -> Duration {
        self.0.begun.elapsed()
    }
}

/// A request whose answer is being made.
pub(super) struct Asked {
    pulse: Pulse,
    answered: bool,
}

impl Asked {
    /// The answer, watched until its last byte has left us.
    pub(super) fn answered(mut self, answer: Response<Body>) -> Response<Body> {
        self.answered = true;
        let beat = &self.pulse.0;
        let id = beat
            .pace
            .lock()
            .answer(answer.body().len(), &beat.limits, self.pulse.now());
        let taken = Taken {
            pulse: self.pulse.clone(),
            id,
        };
        answer.map(|body| body.guarded(taken))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.answered {
            self.pulse.0.is_behind.store(true, Ordering::Relaxed);
            self.pulse.0.pace.lock().reset(self.pulse.now());
        }
    }
}

/// Lives as long as an answer's last byte.
struct Taken {
    pulse: Pulse,
    id: AnswerId,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.pulse.0.pace.lock().taken(self.id, self.pulse.now());
    }
}

/// A stream whose reads are heard by the pulse.
pub(super) struct Heard<S> {
    stream: S,
    pulse: Pulse,
}

impl<S> Heard<S> {
    pub(super) fn new(stream: S, pulse: Pulse) -> Self {
        Self { stream, pulse }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            let bytes = buf.filled().len() - before;
            if bytes > 0 && self.pulse.heard(bytes).is_err() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
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
