//! A webhook receiver on a free port: keeps what it is sent, answers as it is told.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;

/// Longer than any delivery that a test waits for.
const PATIENCE: Duration = Duration::from_secs(45);

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The id of the stream that the event is about.
    pub fn stream(&self) -> Option<String> {
        let event: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        Some(event["stream"]["id"].as_str()?.to_owned())
    }

    /// The event's field of this name, as text.
    pub fn event(&self, field: &str) -> String {
        let event: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        event[field].as_str().unwrap_or_default().to_owned()
    }
}

/// What the receiver answers from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Status(u16),
    /// 302 to this address.
    Redirect(SocketAddr),
    /// Takes the request and never answers.
    Silent,
}

/// Ends with its last clone.
#[derive(Clone)]
pub struct Receiver {
    pub addr: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    received: watch::Receiver<Vec<Received>>,
    _server: Arc<AbortOnDropHandle<()>>,
}

impl Receiver {
    pub async fn start(manner: Manner) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let manner = Arc::new(Mutex::new(manner));
        let (sender, received) = watch::channel(Vec::new());
        let (sender, told) = (Arc::new(sender), manner.clone());
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sender, told) = (sender.clone(), told.clone());
                let service = service_fn(move |request| answer(request, sender.clone(), told.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self {
            addr,
            manner,
            received,
            _server: Arc::new(AbortOnDropHandle::new(server)),
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.addr)
    }

    pub fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }

    /// What came so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.borrow().clone()
    }

    /// Waits until this many requests have come, and gives them all.
    pub async fn wait_for(&self, count: usize) -> anyhow::Result<Vec<Received>> {
        let mut received = self.received.clone();
        let all = timeout(PATIENCE, received.wait_for(|all| all.len() >= count)).await;
        let all = all.with_context(|| format!("{} of {count} deliveries came", self.received.borrow().len()))??;
        Ok(all.clone())
    }
}

async fn answer(
    request: Request<Incoming>,
    received: Arc<watch::Sender<Vec<Received>>>,
    manner: Arc<Mutex<Manner>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    // How it behaves is decided before anybody can see the request and change it.
    let manner = *manner.lock().unwrap_or_else(PoisonError::into_inner);
    received.send_modify(|all| {
        all.push(Received {
            path: head.uri.to_string(),
            headers: head.headers,
            body,
        });
    });
    let mut response = Response::new(Empty::new());
    match manner {
        Manner::Status(status) => {
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        }
        Manner::Redirect(to) => {
            *response.status_mut() = StatusCode::FOUND;
            if let Ok(location) = format!("http://{to}/elsewhere").parse() {
                response.headers_mut().insert("location", location);
            }
        }
        Manner::Silent => std::future::pending().await,
    }
    Ok(response)
}
