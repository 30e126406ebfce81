//! One HTTP/1.1 connection of a viewer, made for holding: while nothing moves, it keeps nothing but its request.
//!
//! A crowd of viewers is thousands of connections that wait most of the time and are then all answered at once with the
//! same bytes. So there is no read buffer while a connection waits, no timer is touched per request, and a head and its
//! body leave in one system call.
//!
//! Before this: `tcp.rs`, with an accepted connection. After this: the node's [`Handler`]. Reading and writing heads is
//! pure: [`head`], [`answer`], [`outgoing`].

use std::{
    future::{Future as _, poll_fn},
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::{
    Handler, Peer,
    body::Body,
    drain::Drain,
    limits::Limits,
    pace::Eviction,
    sheets::{Plain, Sheets, poll_send_ahead},
    turnstile::Turnstile,
};
use head::{Head, HeadLimits, MOST_HEADERS, Malformed};
use outgoing::{Next, Outgoing, SLICES};

mod answer;
mod date;
mod head;
mod outgoing;
#[cfg(test)]
mod tests;

/// What is read at once, in bytes: a request's head is smaller.
const READ_BYTES: usize = 4096;
/// After the last answer, what the client still sends is taken for so long and so much: a reset would take the answer
/// away from it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;
/// How long a connection that came in just before the drain has for its request.
pub(super) const LAST_REQUEST: Duration = Duration::from_millis(500);

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// By agreement, or because the client went.
    Closed,
    Evicted(Eviction),
    /// The client speaks HTTP/2; this much of it has been read.
    H2(Vec<u8>),
}

/// Serves until either side has enough.
pub(super) async fn serve<S, H>(
    stream: &mut S,
    peer: Peer,
    handler: &H,
    (limits, turnstile, sheets): (&Limits, &Turnstile, &Sheets),
    drain: &Drain,
) -> End
where
    S: AsyncRead + AsyncWrite + Plain + Unpin,
    H: Handler,
{
    let heads = HeadLimits {
        bytes: limits.header_bytes as usize,
        headers: limits.h1_headers.min(MOST_HEADERS),
    };
    let mut wire = Wire {
        stream,
        input: Vec::new(),
        most: heads.bytes,
        sheets,
    };
    let mut alarm = Alarm::new(limits.head_timeout);
    let mut draining = pin!(drain.draining());
    let (mut first, mut is_draining) = (true, false);
    // Who comes new waits behind those already here, and so does who was refused.
    let mut is_behind = true;
    loop {
        let (request, last) = match head::read(&wire.input, first, heads) {
            Ok(Head::Whole { request, used, last }) => {
                wire.consume(used);
                (request, last)
            }
            Ok(Head::H2) => return End::H2(wire.input),
            Err(Malformed(status)) => {
                wire.refuse(status).await;
                return End::Closed;
            }
            Ok(Head::More) => {
                let between = wire.input.is_empty();
                let heard = poll_fn(|cx| {
                    if let Poll::Ready(heard) = wire.poll_fill(cx) {
                        return Poll::Ready(Heard::Bytes(heard.unwrap_or(0)));
                    }
                    if between && !is_draining && draining.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Heard::Draining);
                    }
                    alarm.poll(cx).map(|()| Heard::Alarm)
                })
                .await;
                match heard {
                    Heard::Bytes(0) => return End::Closed,
                    Heard::Bytes(_) if between && !first => alarm.set(limits.head_timeout),
                    Heard::Bytes(_) => {}
                    // Who came in just before has its request on its way.
                    Heard::Draining if first => {
                        is_draining = true;
                        alarm.set(LAST_REQUEST);
                    }
                    Heard::Draining => return End::Closed,
                    Heard::Alarm if is_draining => return End::Closed,
                    Heard::Alarm if between && !first => return End::Evicted(Eviction::Idle),
                    Heard::Alarm => return End::Evicted(Eviction::SlowHead),
                }
                continue;
            }
        };
        first = false;
        let exchange = async {
            let response = wire.handled(handler, peer, request).await?;
            let refused = Turnstile::is_for(response.status());
            let last = last || drain.is_draining();
            Some((refused, last, wire.send(response, last, limits, &mut alarm).await))
        };
        let done = match is_behind {
            true => Box::pin(turnstile.through(exchange)).await,
            false => exchange.await,
        };
        match done {
            Some((refused, false, Ok(true))) => {
                alarm.set(limits.idle_timeout);
                // Who sends many requests at once takes turns with everybody else, between one and the next.
                if !is_behind && !wire.input.is_empty() {
                    tokio::task::yield_now().await;
                }
                is_behind = refused;
            }
            Some((_, true, Ok(true))) => {
                wire.linger().await;
                return End::Closed;
            }
            Some((.., Ok(false))) => return End::Evicted(Eviction::SlowReader),
            // The client went away.
            None | Some((.., Err(_))) => return End::Closed,
        }
    }
}

/// What ends a wait for a head.
enum Heard {
    /// 0: the client sends no more.
    Bytes(usize),
    Draining,
    Alarm,
}

/// The client's side of a connection.
struct Wire<'a, S> {
    stream: &'a mut S,
    /// Read and not yet answered; holds no memory while it is empty.
    input: Vec<u8>,
    /// Longest input.
    most: usize,
    sheets: &'a Sheets,
}

impl<S: AsyncRead + AsyncWrite + Plain + Unpin> Wire<'_, S> {
    /// Reads what there is; 0: the client sends no more.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *self.stream).poll_read(cx, &mut read))?;
        self.input.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    fn consume(&mut self, bytes: usize) {
        if bytes >= self.input.len() {
            self.input = Vec::new();
        } else {
            self.input.drain(..bytes);
        }
    }

    /// The node's answer; `None`: the client went away meanwhile, and nobody works for it any more.
    async fn handled<H: Handler>(
        &mut self,
        handler: &H,
        peer: Peer,
        request: Box<http::request::Parts>,
    ) -> Option<Response<Body>> {
        let mut handling = pin!(handler.handle(peer, request));
        poll_fn(|cx| {
            if let Poll::Ready(response) = handling.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            // What it asks for next waits here, within bounds.
            while self.input.len() < self.most {
                match ready!(self.poll_fill(cx)) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Poll::Ready(None),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Writes an answer. False: the client did not take it in time.
    async fn send(
        &mut self,
        response: Response<Body>,
        last: bool,
        limits: &Limits,
        alarm: &mut Alarm,
    ) -> io::Result<bool> {
        let head = date::now(|date| answer::head(&response, date, last));
        let mut body = response.into_body();
        let is_plain = self.stream.socket().is_some();
        let sheet = |piece: &Bytes, head: Option<&[u8]>| match is_plain {
            true => self.sheets.of(piece, head),
            false => None,
        };
        let mut out = Outgoing::new(head, &mut body, sheet);
        let mut stuck = false;
        poll_fn(|cx| {
            match self.poll_write(&mut out, cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(true)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if !stuck => {
                    stuck = true;
                    let seconds = out.bytes() / limits.answer_bytes_per_second.max(1);
                    alarm.set(limits.answer_grace + Duration::from_secs(seconds));
                }
                Poll::Pending => {}
            }
            alarm.poll(cx).map(|()| Ok(false))
        })
        .await
    }

    fn poll_write(&mut self, out: &mut Outgoing, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !out.is_written() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let next = out.next(&mut slices);
            let written = match (next, self.stream.socket()) {
                (Next::Ahead(used), Some(socket)) => poll_send_ahead(socket, slices.get(..used).unwrap_or(&[]), cx),
                (Next::Ahead(used) | Next::Slices(used), _) => {
                    let slices = slices.get(..used).unwrap_or(&[]);
                    Pin::new(&mut *self.stream).poll_write_vectored(cx, slices)
                }
                (Next::Sheet(sheet, from), socket) => {
                    match socket.map(|socket| sheet.poll_send(socket, from, cx)) {
                        Some(sent @ (Poll::Pending | Poll::Ready(Ok(1..)))) => sent,
                        // Whatever is wrong with it, the bytes themselves are here.
                        _ => {
                            out.forget_sheets();
                            continue;
                        }
                    }
                }
            };
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => out.advance(written),
            }
        }
        // Under TLS the last record may still be here.
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    async fn refuse(&mut self, status: StatusCode) {
        let refusal = date::now(|date| answer::malformed(status, date));
        if let Ok(Ok(())) = timeout(LINGER, self.stream.write_all(&refusal)).await {
            self.linger().await;
        }
    }

    /// Says goodbye, then takes a little of what is still on its way.
    async fn linger(&mut self) {
        let farewell = async {
            self.stream.shutdown().await?;
            let mut taken = 0;
            while taken < LINGER_BYTES {
                self.input.clear();
                match poll_fn(|cx| self.poll_fill(cx)).await? {
                    0 => break,
                    more => taken += more,
                }
            }
            io::Result::Ok(())
        };
        // However it ends, the connection is over.
        let _ = timeout(LINGER, farewell).await;
    }
}

/// A deadline that moves often and rings seldom: the timer is touched only when it rings or is too late.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    deadline: Instant,
}

impl Alarm {
    fn new(time: Duration) -> Self {
        let deadline = Instant::now() + time;
        Self {
            sleep: Box::pin(sleep_until(deadline)),
            deadline,
        }
    }

    fn set(&mut self, time: Duration) {
        self.deadline = Instant::now() + time;
        if self.deadline < self.sleep.deadline() {
            self.sleep.as_mut().reset(self.deadline);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if Instant::now() >= self.deadline {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(self.deadline);
        }
    }
}
