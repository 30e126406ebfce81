//! The made-up origin's accept loop: like `weir_shared::serve::tcp`, but able to break off a body in the middle.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use weir_shared::serve::{Handler, Peer, Protocol, body::Body};

/// In a response's extensions: send this much of the body and break off.
#[derive(Clone)]
pub(super) struct CutShort(pub Bytes);

/// An honest body, or one that ends before its time.
enum Sent {
    Whole(Body),
    /// What is still sent, and whether the connection had a turn to write it.
    Cut {
        piece: Option<Bytes>,
        written: bool,
    },
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => {
                let frame = Pin::new(body).poll_frame(cx);
                frame.map(|frame| frame.map(|frame| frame.map_err(|never: Infallible| match never {})))
            }
            Self::Cut { piece, written } => {
                if let Some(piece) = piece.take() {
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                if !std::mem::replace(written, true) {
                    // Head and piece leave only when the body has nothing more to give at once.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(io::Error::other("broken off on purpose"))))
            }
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Cut { .. } => hyper::body::SizeHint::default(),
        }
    }
}

/// Serves until `stop`; connections end with it.
pub(super) async fn serve<H: Handler>(listener: TcpListener, handler: H, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, addr)) => {
                let running = stop.clone();
                let connection = connection(stream, addr, handler.clone());
                tokio::spawn(async move { running.run_until_cancelled(connection).await });
            }
            // Out of files: those who are connected go first.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

async fn connection<H: Handler>(stream: TcpStream, addr: SocketAddr, handler: H) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = handler.clone();
        async move {
            let peer = Peer {
                addr,
                protocol: Protocol::H1,
                secure: false,
            };
            let (head, _) = request.into_parts();
            let (mut head, body) = handler.handle(peer, Box::new(head)).await.into_parts();
            let sent = match head.extensions.remove::<CutShort>() {
                Some(CutShort(piece)) => Sent::Cut {
                    piece: Some(piece),
                    written: false,
                },
                None => Sent::Whole(body),
            };
            Ok::<_, Infallible>(Response::from_parts(head, sent))
        }
    });
    let served = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}
