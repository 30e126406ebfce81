//! A viewer's connection in any protocol.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use h3::error::{Code, StreamError};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::{
    h3::Connection,
    site::{Site, Viewer},
    tls,
};

/// How a viewer asks.
pub(crate) enum Line {
    Plain(Box<Viewer>),
    H2(http2::SendRequest<Empty<Bytes>>),
    H3(Arc<Connection>),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    H1,
    H2,
    H3,
}

impl Protocol {
    pub(crate) const ALL: [Self; 3] = [Self::H1, Self::H2, Self::H3];
}

/// Where an edge listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doors {
    http: SocketAddr,
    https: SocketAddr,
}

impl Doors {
    pub(crate) fn of(site: &Site) -> Self {
        Self {
            http: site.edge.http.unwrap(),
            https: site.edge.https.unwrap(),
        }
    }
}

/// The server has let the client know that it will not answer this request: every client asks again elsewhere.
#[derive(Debug)]
pub(crate) struct NotTaken;

impl Line {
    pub(crate) async fn open(protocol: Protocol, to: Doors) -> Self {
        match protocol {
            Protocol::H1 => Self::Plain(Box::new(Viewer::new(to.http))),
            Protocol::H2 => {
                let stream = tls::connect(to.https, tls::client(None, &["h2"])).await.unwrap();
                let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .unwrap();
                tokio::spawn(connection);
                Self::H2(sender)
            }
            Protocol::H3 => Self::H3(Arc::new(Connection::open(to.https, "localhost").await)),
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<(StatusCode, Bytes), NotTaken> {
        match self {
            Self::Plain(viewer) => {
                let answer = viewer.get(path).await;
                Ok((answer.status, answer.body))
            }
            Self::H2(sender) => {
                let request = Request::get(format!("https://localhost{path}")).body(Empty::new());
                if sender.ready().await.is_err() {
                    return Err(NotTaken);
                }
                let answer = match sender.send_request(request.unwrap()).await {
                    Err(error) if error.is_canceled() => return Err(NotTaken),
                    answer => answer.unwrap(),
                };
                let status = answer.status();
                Ok((status, answer.into_body().collect().await.unwrap().to_bytes()))
            }
            Self::H3(connection) => match connection.get(path).await {
                // `h3` keeps the variant of a GOAWAY to itself.
                Err(error) if format!("{error:?}") == "RemoteClosing" => Err(NotTaken),
                Err(StreamError::RemoteTerminate { code, .. }) if code == Code::H3_REQUEST_REJECTED => Err(NotTaken),
                answer => answer.map(|answer| (answer.status, answer.body)).map_err(|error| {
                    panic!("{error:?}");
                }),
            },
        }
    }
}
