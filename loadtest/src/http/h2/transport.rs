//! The bytes below one HTTP/2 connection: TCP, with TLS or without.
//!
//! Before this: the server. After this: [`super::frame`]. What comes is received into the thread's buffer, which stays in
//! the processor's cache from viewer to viewer, and is decrypted where it lies; a connection keeps no more than the
//! beginning of a TLS record that was cut.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{
    client::{ClientConnectionData, UnbufferedClientConnection},
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError},
};
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::TcpStream,
};

use super::NO_HTTP_2;
use crate::{http::Target, viewer::Failure};

/// Most that is kept of what can't be decrypted yet: a TLS record, or a handshake message over several.
const MAX_REST_BYTES: usize = 72 * 1024;
/// From here on nothing more is encrypted until the server has read.
const MAX_UNSENT_BYTES: usize = 64 * 1024;
/// Most that waits for a server that does not read: two of those, and the TLS session's own answers (key updates).
const MAX_BACKLOG_BYTES: usize = 256 * 1024;

/// A connected socket.
pub(super) struct Transport {
    stream: TcpStream,
    tls: Option<Box<Tls>>,
    /// What the socket did not take yet.
    unsent: Vec<u8>,
}

/// What [`Transport::receive`] came to.
pub(super) enum Received {
    /// Something; there may be more.
    Some,
    /// Nothing will come any more.
    End,
}

impl Transport {
    pub(super) fn new(stream: TcpStream, target: &Target) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let tls = match &target.tls {
            None => None,
            Some(config) => {
                let name = target.server_name.clone();
                let session = UnbufferedClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
                let mut tls = Tls {
                    session,
                    rest: Vec::new(),
                    handshake: Vec::new(),
                    is_ready: false,
                };
                // Its first message is ready before anything has come.
                tls.decrypt(&mut [], &mut |_| Ok(())).map_err(io::Error::other)?;
                Some(Box::new(tls))
            }
        };
        Ok(Self {
            stream,
            tls,
            unsent: Vec::new(),
        })
    }

    /// Whether requests may be sent.
    pub(super) fn is_ready(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.is_ready)
    }

    /// Hands what has come to `take`, in pieces.
    pub(super) fn receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        take: &mut impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Poll<Result<Received, Failure>> {
        let kept = self.tls.as_ref().map_or(0, |tls| tls.rest.len());
        let Some(room) = buffer.get_mut(kept..) else {
            return Poll::Ready(Err(ENDLESS));
        };
        let mut room = ReadBuf::new(room);
        let got = match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room)) {
            Ok(()) => room.filled().len(),
            Err(_) => 0,
        };
        let Some(filled) = buffer.get_mut(..kept + got).filter(|_| got > 0) else {
            return Poll::Ready(Ok(Received::End));
        };
        let Some(tls) = &mut self.tls else {
            take(filled)?;
            return Poll::Ready(Ok(Received::Some));
        };
        if kept > 0 {
            // Given back to the allocator while it is hot: the next connection's rest lands in the same place.
            let rest = std::mem::take(&mut tls.rest);
            if let Some(front) = filled.get_mut(..kept) {
                front.copy_from_slice(&rest);
            }
        }
        Poll::Ready(match tls.decrypt(filled, take) {
            Ok(received) => Ok(received),
            Err(Broken::Tls(_)) if tls.is_ready => Err(Failure::Reset),
            Err(Broken::Tls(error)) => Err(Failure::Connect(error.to_string().into())),
            Err(Broken::Taken(failure)) => Err(failure),
        })
    }

    /// Sends `out`, as far as the socket takes it. An error: the connection is gone.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>, buffer: &mut [u8]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            self.unsent.append(&mut tls.handshake);
        }
        if !out.is_empty() && self.unsent.len() < MAX_UNSENT_BYTES && self.is_ready() {
            // Given back as well: what is sent is short, and the next connection writes it to the same place.
            let plain = std::mem::take(out);
            let coded = match &mut self.tls {
                None => &plain,
                Some(tls) => {
                    let written = tls.encrypt(&plain, buffer)?;
                    buffer.get(..written).unwrap_or(&[])
                }
            };
            let sent = if self.unsent.is_empty() {
                write(&mut self.stream, cx, coded)?
            } else {
                0
            };
            self.unsent.extend_from_slice(coded.get(sent..).unwrap_or(&[]));
        }
        if !self.unsent.is_empty() {
            let sent = write(&mut self.stream, cx, &self.unsent)?;
            self.unsent.drain(..sent);
        }
        if self.unsent.len() > MAX_BACKLOG_BYTES {
            return Err(io::Error::other("a server that makes us talk and does not read"));
        }
        Ok(())
    }
}

/// Writes until the socket takes no more, which then wakes the task; how much it took.
fn write(stream: &mut TcpStream, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        match Pin::new(&mut *stream).poll_write(cx, rest) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(written) => sent += written?,
            Poll::Pending => break,
        }
    }
    Ok(sent)
}

/// A TLS session without buffers of its own.
struct Tls {
    session: UnbufferedClientConnection,
    /// What came and can't be decrypted yet.
    rest: Vec<u8>,
    /// Messages of the session's own, to be sent.
    handshake: Vec<u8>,
    /// Requests may be encrypted.
    is_ready: bool,
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Taken(#[from] Failure),
}

const ENDLESS: Failure = Failure::Garbage("a TLS message that has no end");

impl Tls {
    /// Decrypts what lies in `filled`, and keeps what is left over.
    fn decrypt(
        &mut self,
        filled: &mut [u8],
        take: &mut impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<Received, Broken> {
        let (mut left, mut is_ready) = (filled, self.is_ready);
        loop {
            let status = self.session.process_tls_records(left);
            let mut spent = status.discard;
            let mut end = None;
            match status.state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        spent += record.discard;
                        take(record.payload)?;
                    }
                }
                ConnectionState::EncodeTlsData(data) => encode(data, &mut self.handshake)?,
                // It goes out with the next send.
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(_) => {
                    end = Some(Received::Some);
                    is_ready = true;
                }
                ConnectionState::BlockedHandshake => end = Some(Received::Some),
                _ => end = Some(Received::End),
            }
            left = std::mem::take(&mut left).get_mut(spent..).unwrap_or_default();
            if is_ready && !self.is_ready {
                if self.session.alpn_protocol() != Some(b"h2") {
                    return Err(Failure::Connect(NO_HTTP_2.into()).into());
                }
                self.is_ready = true;
            }
            if let Some(end) = end {
                if left.len() > MAX_REST_BYTES {
                    return Err(ENDLESS.into());
                }
                self.rest = left.to_vec();
                return Ok(end);
            }
        }
    }

    /// Encrypts into `buffer`; how much of it was filled.
    fn encrypt(&mut self, plain: &[u8], buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // Nothing comes of what is kept but the state that may write: it was not enough before either.
            let status = self.session.process_tls_records(&mut self.rest);
            let spent = status.discard;
            let written = match status.state.map_err(io::Error::other)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    Some(traffic.encrypt(plain, buffer).map_err(io::Error::other)?)
                }
                ConnectionState::EncodeTlsData(data) => {
                    encode(data, &mut self.handshake).map_err(io::Error::other)?;
                    None
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    None
                }
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            };
            self.rest.drain(..spent.min(self.rest.len()));
            if let Some(written) = written {
                return Ok(written);
            }
        }
    }
}

/// Appends a message of the session's own.
fn encode(mut data: EncodeTlsData<'_, ClientConnectionData>, into: &mut Vec<u8>) -> Result<(), rustls::Error> {
    let before = into.len();
    let length = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => required_size,
        _ => return Ok(()),
    };
    into.resize(before + length, 0);
    match data.encode(into.get_mut(before..).unwrap_or_default()) {
        Ok(_) => Ok(()),
        Err(error) => Err(rustls::Error::General(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::net::TcpListener;

    use super::*;

    /// More than any system keeps for a socket.
    const ENDLESS_BYTES: usize = 64 << 20;

    async fn send(unsent: usize) -> io::Result<()> {
        let deaf = TcpListener::bind("127.0.0.1:0").await?;
        let mut transport = Transport {
            stream: TcpStream::connect(deaf.local_addr()?).await?,
            tls: None,
            unsent: vec![0; unsent],
        };
        poll_fn(|cx| Poll::Ready(transport.send(cx, &mut Vec::new(), &mut []))).await
    }

    #[tokio::test]
    async fn what_waits_for_a_server_that_does_not_read_is_bounded() {
        assert!(send(MAX_UNSENT_BYTES).await.is_ok());
        assert!(send(ENDLESS_BYTES).await.is_err());
    }
}
