//! One viewer's HTTP/1.1 connections: as many as it has requests open, kept for the next ones.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Done, IDLE_RACE, Manners, Target,
    response::{Progress, Reader, Sink},
};
use crate::{
    clock,
    moment::Moment,
    viewer::{Failure, Purpose, RequestId},
};

/// Connections of one viewer; browsers allow six per host.
const MAX_CONNECTIONS: usize = 6;

/// One viewer's connections.
pub struct Wire {
    target: Arc<Target>,
    manners: Manners,
    connections: Vec<Connection>,
    /// Requests that wait for a connection.
    waiting: Vec<Request>,
}

struct Request {
    id: RequestId,
    head: Vec<u8>,
    is_text: bool,
    gzip: bool,
}

struct Connection {
    io: Io,
    active: Option<Active>,
    /// Has answered before: it may have been closed while idle, which is nobody's fault.
    reused: bool,
    broken: bool,
}

struct Active {
    request: Request,
    begun: Moment,
    written: usize,
    reader: Reader,
}

enum Io {
    Connecting(Pin<Box<dyn Future<Output = io::Result<Self>>>>),
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    pub(super) fn new(target: Arc<Target>, manners: Manners) -> Self {
        Self {
            target,
            manners,
            connections: Vec::with_capacity(2),
            waiting: vec![],
        }
    }

    pub(super) fn send(&mut self, id: RequestId, path: &str, purpose: Purpose) {
        let (is_text, gzip) = (purpose.is_text(), self.manners.takes_gzip(purpose));
        let accept = if gzip { "Accept-Encoding: gzip\r\n" } else { "" };
        let authority = &self.target.authority;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n{accept}\r\n").into_bytes();
        self.start(Request {
            id,
            head,
            is_text,
            gzip,
        });
    }

    fn start(&mut self, request: Request) {
        let idle = self.connections.iter().position(|c| c.active.is_none() && !c.broken);
        let sink = Sink::new(request.is_text, self.manners.judged);
        let headers = self.manners.headers(request.gzip);
        let active = Some(Active {
            request,
            begun: clock::now(),
            written: 0,
            reader: Reader::new(sink, headers),
        });
        let full = self.connections.len() >= MAX_CONNECTIONS;
        match idle.and_then(|index| self.connections.get_mut(index)) {
            Some(connection) => connection.active = active,
            None if full => self.waiting.extend(active.map(|active| active.request)),
            None => {
                let io = Io::Connecting(Box::pin(connect(self.target.clone())));
                self.connections.push(Connection {
                    io,
                    active,
                    reused: false,
                    broken: false,
                });
            }
        }
    }

    pub(super) fn cancel(&mut self, id: RequestId) {
        self.waiting.retain(|request| request.id != id);
        self.connections
            .retain(|c| c.active.as_ref().is_none_or(|active| active.request.id != id));
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Done> {
        let mut index = 0;
        while let Some(connection) = self.connections.get_mut(index) {
            if connection.active.is_none() {
                index += 1;
                continue;
            }
            let Poll::Ready(outcome) = connection.poll(cx, buffer) else {
                index += 1;
                continue;
            };
            let active = connection.active.take();
            let (reused, broken) = (connection.reused, connection.broken);
            connection.reused = true;
            if broken {
                self.connections.swap_remove(index);
            }
            let Some(active) = active else { continue };
            let raced = clock::now().since(active.begun) < IDLE_RACE;
            if matches!(outcome, Err(Failure::Reset)) && reused && raced && active.reader.is_untouched() {
                // Closed while idle: once more, on a fresh connection.
                self.start(active.request);
                continue;
            }
            if let Some(next) = self.waiting.pop() {
                self.start(next);
            }
            return Poll::Ready(Done {
                id: active.request.id,
                result: outcome,
            });
        }
        Poll::Pending
    }
}

impl Connection {
    /// Drives the active request to its end; on any failure the connection is broken.
    fn poll(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<Box<super::Response>, Failure>> {
        let outcome = ready!(self.drive(cx, buffer));
        match outcome {
            Ok((response, reusable)) => {
                self.broken = !reusable;
                Poll::Ready(Ok(response))
            }
            Err(failure) => {
                self.broken = true;
                Poll::Ready(Err(failure))
            }
        }
    }

    fn drive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<(Box<super::Response>, bool), Failure>> {
        if let Io::Connecting(connecting) = &mut self.io {
            match ready!(connecting.as_mut().poll(cx)) {
                Ok(io) => self.io = io,
                Err(error) => return Poll::Ready(Err(Failure::Connect(error.to_string().into()))),
            }
        }
        let Some(active) = &mut self.active else {
            return Poll::Pending;
        };
        while let Some(rest) = active
            .request
            .head
            .get(active.written..)
            .filter(|rest| !rest.is_empty())
        {
            match ready!(self.io.poll_write(cx, rest)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(Failure::Reset)),
                Ok(n) => active.written += n,
            }
        }
        loop {
            let got = match ready!(self.io.poll_read(cx, buffer)) {
                Ok(got) => got,
                Err(_) if active.reader.is_untouched() => return Poll::Ready(Err(Failure::Reset)),
                Err(_) => 0,
            };
            let now = clock::now();
            let fed = match buffer.get(..got) {
                Some(piece) if got > 0 => active.reader.feed(piece, now),
                _ => active.reader.close(now),
            };
            match fed {
                Ok(Progress::More) => {}
                Ok(Progress::Whole { response, reusable }) => return Poll::Ready(Ok((response, reusable))),
                Err(failure) => return Poll::Ready(Err(failure)),
            }
        }
    }
}

impl Io {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(buffer);
        match self {
            Self::Connecting(_) => return Poll::Pending,
            Self::Plain(stream) => ready!(Pin::new(stream).poll_read(cx, &mut into))?,
            Self::Tls(stream) => ready!(Pin::new(stream).poll_read(cx, &mut into))?,
        }
        Poll::Ready(Ok(into.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Connecting(_) => Poll::Pending,
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => {
                let written = ready!(Pin::new(stream.as_mut()).poll_write(cx, bytes));
                // What is left in the TLS session goes out with the next flush.
                let _ = Pin::new(stream).poll_flush(cx)?;
                Poll::Ready(written)
            }
        }
    }
}

async fn connect(target: Arc<Target>) -> io::Result<Io> {
    let stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    match &target.tls {
        None => Ok(Io::Plain(stream)),
        Some(config) => {
            let connector = TlsConnector::from(config.clone());
            let stream = connector.connect(target.server_name.clone(), stream).await?;
            Ok(Io::Tls(Box::new(stream)))
        }
    }
}
