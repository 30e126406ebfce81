//! What one HTTP/2 connection writes at a time leaves together.
//!
//! HTTP/2 cuts an answer into frames of 16 KiB and flushes each of them; a system call for each frame costs more than all
//! the rest of the frame. Under TLS the frames wait, encrypted already, until the connection has nothing more to say for now.
//! What waits is bounded by rustls' own limit (64 KiB): what is beyond it is written through.
//!
//! Before this: `tcp.rs`, which lets go what waits. After this: hyper, through `pulse.rs`; below it `pieces.rs`.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::resumed::Resumed;

/// A stream that can keep what is written to it for a moment.
pub(super) trait Keeps {
    /// Takes bytes and does not send them yet; 0: it has no room. `None`: it never keeps anything.
    fn keep(&mut self, slices: &[IoSlice<'_>]) -> Option<io::Result<usize>>;
}

impl Keeps for TcpStream {
    fn keep(&mut self, _: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        None
    }
}

impl<S: Keeps> Keeps for Resumed<S> {
    fn keep(&mut self, slices: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        self.stream_mut().keep(slices)
    }
}

/// Lets go what a [`Corked`] stream keeps.
pub(super) struct Cork<S>(Arc<Mutex<S>>);

impl<S: AsyncWrite + Unpin> Cork<S> {
    pub(super) fn new(stream: S) -> (Self, Corked<S>) {
        let stream = Arc::new(Mutex::new(stream));
        (Self(stream.clone()), Corked(stream))
    }

    /// Sends what waits. Pending: the task is woken when there is room for more of it.
    pub(super) fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_flush(cx)
    }
}

/// A stream that sends nothing of its own accord, except what it can't keep. Both halves are used by one task.
pub(super) struct Corked<S>(Arc<Mutex<S>>);

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Keeps + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = &mut *self.0.lock();
        match stream.keep(slices) {
            None => Pin::new(stream).poll_write_vectored(cx, slices),
            Some(Ok(0)) => {
                ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                Pin::new(stream).poll_write_vectored(cx, slices)
            }
            Some(kept) => Poll::Ready(kept),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What is kept counts as sent: [`Cork::poll_release`] follows.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector, client, server::TlsStream};

    use super::{super::pieces::Pieces, *};

    /// What the wire between them has room for, in bytes.
    const WIRE: usize = 4096;

    async fn pair() -> (Pieces<TlsStream<DuplexStream>>, client::TlsStream<DuplexStream>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (here, there) = duplex(WIRE);
        let (accepted, connected) = tokio::join!(
            TlsAcceptor::from(Arc::new(server)).accept(here),
            TlsConnector::from(Arc::new(client)).connect("localhost".try_into().unwrap(), there)
        );
        (Pieces(accepted.unwrap()), connected.unwrap())
    }

    #[tokio::test]
    async fn frames_wait_until_they_are_let_go() {
        let (server, mut client) = pair().await;
        let (mut cork, mut corked) = Cork::new(server);
        let mut read = [0; 8];
        for frame in [b"one.", b"two."] {
            corked.write_all(frame).await.unwrap();
            corked.flush().await.unwrap();
        }
        tokio::select! {
            biased;
            early = client.read(&mut read) => panic!("{early:?}"),
            () = std::future::ready(()) => {}
        }
        poll_fn(|cx| cork.poll_release(cx)).await.unwrap();
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"one.two.");
    }

    #[tokio::test]
    async fn what_there_is_no_room_for_is_written_through_whole_and_in_order() {
        let (server, mut client) = pair().await;
        let (mut cork, mut corked) = Cork::new(server);
        let sent: Vec<u8> = (0u32..300_000).flat_map(u32::to_be_bytes).collect();
        let wanted = sent.clone();
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.map(|_| got)
        });
        for frame in sent.chunks(16_393) {
            corked.write_all(frame).await.unwrap();
            corked.flush().await.unwrap();
        }
        poll_fn(|cx| cork.poll_release(cx)).await.unwrap();
        corked.shutdown().await.unwrap();
        assert!(reading.await.unwrap().unwrap() == wanted);
    }
}
