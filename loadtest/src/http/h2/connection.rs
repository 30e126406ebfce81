//! One connection of a viewer: a socket, what is read from it, and what HTTP/2 makes of that.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::net::TcpStream;

use super::{
    NO_HTTP_2, Request,
    frame::Reader,
    session::Session,
    transport::{Received, Transport},
};
use crate::{
    clock,
    http::{Done, IDLE_RACE, Manners, Target},
    viewer::{Failure, RequestId},
};

/// One connection.
pub(super) struct Connection {
    socket: Socket,
    frames: Reader,
    pub(super) session: Session,
}

enum Socket {
    Connecting(Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>),
    Connected(Transport),
}

impl Connection {
    pub(super) fn new(target: &Target, manners: Manners) -> Self {
        Self {
            socket: Socket::Connecting(Box::pin(TcpStream::connect(target.address))),
            frames: Reader::default(),
            session: Session::new(manners),
        }
    }

    /// Reads what has come, sends what is waiting in `queue`. An error: the connection has ended, and why.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        target: &Target,
        queue: &mut VecDeque<Request>,
        done: &mut VecDeque<Done>,
    ) -> Result<(), Failure> {
        let transport = match &mut self.socket {
            Socket::Connected(transport) => transport,
            Socket::Connecting(connecting) => {
                let Poll::Ready(connected) = connecting.as_mut().poll(cx) else {
                    return Ok(());
                };
                let connected = connected.and_then(|stream| Transport::new(stream, target));
                self.socket = Socket::Connected(connected.map_err(|error| Failure::Connect(error.to_string().into()))?);
                match &mut self.socket {
                    Socket::Connected(transport) => transport,
                    Socket::Connecting(_) => return Ok(()),
                }
            }
        };
        // Reading comes first: it tells of a connection that was closed while idle before requests are lost on it.
        let (frames, session) = (&mut self.frames, &mut self.session);
        loop {
            let mut take = |mut piece: &[u8]| {
                let now = clock::now();
                while let Some(event) = frames.next(&mut piece)? {
                    session.take(event, now, done)?;
                }
                Ok(())
            };
            match transport.receive(cx, buffer, &mut take) {
                Poll::Pending => break,
                // The rest waits until this has been dealt with: the caller asks again.
                Poll::Ready(Ok(Received::Some)) if !done.is_empty() => break,
                Poll::Ready(Ok(Received::Some)) => {}
                Poll::Ready(Ok(Received::End)) if transport.is_ready() => return Err(Failure::Reset),
                Poll::Ready(Ok(Received::End)) => return Err(Failure::Connect(HUNG_UP.into())),
                Poll::Ready(Err(Failure::Garbage(_))) if !session.has_settings() => {
                    return Err(Failure::Connect(NO_HTTP_2.into()));
                }
                Poll::Ready(Err(failure)) => return Err(failure),
            }
        }
        while transport.is_ready()
            && session.has_room()
            && let Some(request) = queue.pop_front()
        {
            session.open(request, target, clock::now());
        }
        transport.send(cx, &mut session.out, buffer).map_err(|_| Failure::Reset)
    }

    /// Whether nothing more is to be done here.
    pub(super) fn is_over(&self) -> bool {
        self.session.is_going_away() && self.session.is_idle()
    }

    /// Deals with what was under way when the connection ended.
    pub(super) fn close(&mut self, why: &Failure, queue: &mut VecDeque<Request>, done: &mut VecDeque<Done>) {
        let now = clock::now();
        for stream in self.session.take_streams() {
            let result = match why {
                Failure::Reset => {
                    let raced = self.session.is_unheard(&stream) && now.since(stream.opened) < IDLE_RACE;
                    if raced && self.session.has_answered() && !stream.request.is_again {
                        // Closed while idle, which is nobody's fault.
                        queue.push_back(stream.request.again());
                        continue;
                    }
                    stream.broken()
                }
                other => other.clone(),
            };
            let id: RequestId = stream.request.id;
            done.push_back(Done {
                id,
                result: Err(result),
            });
        }
    }
}

const HUNG_UP: &str = "the server hung up during the TLS handshake";
