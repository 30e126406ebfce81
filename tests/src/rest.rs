//! Calls of the REST API as a program makes them, and its event feed as a program reads it.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::client::Reply;

/// Longer than any call that a test makes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A caller with an API key.
#[derive(Debug, Clone)]
pub struct Rest {
    pub addr: SocketAddr,
    pub key: String,
}

impl Rest {
    pub async fn get(&self, path: &str) -> anyhow::Result<Reply> {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Reply> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Reply> {
        let exchange = async {
            let (response, _driver) = self.send(method, path, body, &[]).await?;
            let (head, body) = response.into_parts();
            anyhow::Ok(Reply {
                status: head.status,
                headers: head.headers,
                body: body.collect().await?.to_bytes(),
            })
        };
        timeout(PATIENCE, exchange)
            .await
            .with_context(|| format!("{path}: no answer"))?
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<(http::Response<Incoming>, AbortOnDropHandle<()>)> {
        let stream = TcpStream::connect(self.addr).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            // The other side may end it, the test sees that in the body.
            let _ = connection.await;
        }));
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.addr.to_string())
            .header("authorization", format!("Bearer {}", self.key));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bytes = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        Ok((sender.send_request(request.body(Full::new(bytes))?).await?, driver))
    }

    /// Opens the event feed of a project.
    pub async fn follow(&self, project: &str, last_event_id: Option<&str>) -> anyhow::Result<Feed> {
        let headers: Vec<_> = last_event_id.map(|id| ("last-event-id", id)).into_iter().collect();
        let path = format!("/v1/projects/{project}/events");
        let (response, driver) = self.send(Method::GET, &path, None, &headers).await?;
        anyhow::ensure!(response.status() == StatusCode::OK, "{}", response.status());
        Ok(Feed {
            body: response.into_body(),
            text: String::new(),
            _driver: driver,
        })
    }
}

/// An open event feed.
pub struct Feed {
    body: Incoming,
    text: String,
    _driver: AbortOnDropHandle<()>,
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub id: String,
    pub event: String,
    pub data: Value,
}

impl Feed {
    /// The next event; comments and retry times are passed over. `None`: the feed has ended.
    pub async fn next(&mut self) -> anyhow::Result<Option<Message>> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let message = match (field("id:"), field("event:"), field("data:")) {
                    (Some(id), Some(event), Some(data)) => Some(Message {
                        id: id.to_owned(),
                        event: event.to_owned(),
                        data: serde_json::from_str(data)?,
                    }),
                    _ => None,
                };
                self.text = rest.to_owned();
                if message.is_some() {
                    return Ok(message);
                }
            }
            let frame = timeout(PATIENCE, self.body.frame())
                .await
                .context("the feed is silent")?;
            let Some(frame) = frame else { return Ok(None) };
            if let Ok(data) = frame?.into_data() {
                self.text.push_str(std::str::from_utf8(&data)?);
            }
        }
    }
}
