//! One HTTP request at a time, on a connection of its own.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use weir_shared::hls::{parse, playlist::MediaPlaylist};

/// Longer than any hold that a test expects.
const PATIENCE: Duration = Duration::from_secs(30);

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or("(not text)")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or(serde_json::Value::Null)
    }

    /// The body as a media playlist.
    pub fn playlist(&self) -> anyhow::Result<MediaPlaylist> {
        anyhow::ensure!(self.status == StatusCode::OK, "{}: {}", self.status, self.text());
        Ok(parse::parse(self.text())?)
    }
}

/// `GET` with no headers but the host.
pub async fn get(at: SocketAddr, path: &str) -> anyhow::Result<Reply> {
    ask(at, Method::GET, path, &[]).await
}

/// Any request.
pub async fn ask(at: SocketAddr, method: Method, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Reply> {
    let exchange = async {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", at.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        driver.abort();
        anyhow::Ok(Reply {
            status: head.status,
            headers: head.headers,
            body,
        })
    };
    timeout(PATIENCE, exchange)
        .await
        .with_context(|| format!("{path}: no answer in {PATIENCE:?}"))?
}

/// A request with a body.
pub async fn exchange(at: SocketAddr, request: Request<Full<Bytes>>) -> anyhow::Result<Reply> {
    let exchange = async {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        driver.abort();
        anyhow::Ok(Reply {
            status: head.status,
            headers: head.headers,
            body,
        })
    };
    timeout(PATIENCE, exchange)
        .await
        .with_context(|| format!("no answer in {PATIENCE:?}"))?
}
