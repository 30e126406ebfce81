//! One viewer's connection over HTTP/2, shared by its requests.
//!
//! Before this: [`super::Wire`]. After this: the server under test. Written for thousands of viewers on one core: no tasks,
//! no buffers of a connection's own but for what was cut, and bodies are hashed and counted where they were decrypted.
//! A piece of input passes [`transport`], [`frame`], [`session`] and [`stream`] in this order, all within one poll.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use super::{Done, Manners, Target};
use crate::viewer::{Failure, Purpose, RequestId};

mod connection;
mod frame;
mod hpack;
mod session;
mod stream;
mod transport;

use connection::Connection;

const NO_HTTP_2: &str = "the server does not speak HTTP/2: use --protocol h1";
/// Longest path asked for, in bytes: with it a request fits into one frame.
const MAX_PATH_BYTES: usize = 8 * 1024;

/// One viewer's connection and the requests on it.
pub struct Wire {
    target: Arc<Target>,
    manners: Manners,
    current: Option<Box<Connection>>,
    /// Those that take no new requests, until they have answered the old ones.
    leaving: Vec<Connection>,
    /// Requests that wait for a connection, or for room on it.
    queue: VecDeque<Request>,
    done: VecDeque<Done>,
}

/// What is asked for.
struct Request {
    id: RequestId,
    path: Box<str>,
    is_text: bool,
    gzip: bool,
    /// A connection was lost on it before, through nobody's fault: not another time.
    is_again: bool,
}

impl Request {
    fn again(self) -> Self {
        Self { is_again: true, ..self }
    }
}

impl Wire {
    pub(super) fn new(target: Arc<Target>, manners: Manners) -> Self {
        Self {
            target,
            manners,
            current: None,
            leaving: Vec::new(),
            queue: VecDeque::new(),
            done: VecDeque::new(),
        }
    }

    pub(super) fn send(&mut self, id: RequestId, path: &str, purpose: Purpose) {
        let is_path =
            path.starts_with('/') && path.len() <= MAX_PATH_BYTES && path.bytes().all(|b| b.is_ascii_graphic());
        if !is_path {
            let result = Err(Failure::Garbage("a path that is no URI"));
            return self.done.push_back(Done { id, result });
        }
        self.queue.push_back(Request {
            id,
            path: path.into(),
            is_text: purpose.is_text(),
            gzip: self.manners.takes_gzip(purpose),
            is_again: false,
        });
    }

    pub(super) fn cancel(&mut self, id: RequestId) {
        self.queue.retain(|request| request.id != id);
        self.done.retain(|done| done.id != id);
        for connection in self.current.as_deref_mut().into_iter().chain(&mut self.leaving) {
            connection.session.cancel(id);
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Done> {
        if self.done.is_empty() {
            self.poll_leaving(cx, buffer);
            while !self.poll_current(cx, buffer) {}
        }
        self.done.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_leaving(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) {
        let (target, queue, done) = (&self.target, &mut self.queue, &mut self.done);
        self.leaving.retain_mut(|connection| {
            let polled = connection.poll(cx, buffer, target, queue, done);
            // A server says twice that it leaves: at last, how far it got.
            queue.extend(connection.session.refused.drain(..));
            if let Err(why) = &polled {
                connection.close(why, queue, done);
            }
            polled.is_ok() && !connection.is_over()
        });
    }

    /// Gets on with the connection that takes requests; `false`: there is another one to be polled instead.
    fn poll_current(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> bool {
        let (queue, done) = (&mut self.queue, &mut self.done);
        let Some(mut connection) = self.current.take() else {
            if !queue.is_empty() {
                self.current = Some(Box::new(Connection::new(&self.target, self.manners)));
            }
            return queue.is_empty();
        };
        let polled = connection.poll(cx, buffer, &self.target, queue, done);
        if polled.is_ok() && !connection.session.is_going_away() {
            self.current = Some(connection);
            return true;
        }
        if !connection.session.has_answered() {
            // A server that never answers is not asked for ever.
            let failure = polled.as_ref().err().unwrap_or(&Failure::Reset);
            give_up(failure, queue, done);
        }
        queue.extend(connection.session.refused.drain(..));
        match polled {
            Err(why) => connection.close(&why, queue, done),
            Ok(()) if connection.is_over() => {}
            Ok(()) => self.leaving.push(*connection),
        }
        !done.is_empty()
    }
}

/// Fails the requests that have waited for another connection before; all of them, if there is none to be had.
fn give_up(failure: &Failure, queue: &mut VecDeque<Request>, done: &mut VecDeque<Done>) {
    for request in std::mem::take(queue) {
        if request.is_again || matches!(failure, Failure::Connect(_)) {
            let (id, result) = (request.id, Err(failure.clone()));
            done.push_back(Done { id, result });
        } else {
            queue.push_back(request.again());
        }
    }
}
