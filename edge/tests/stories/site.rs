//! An edge on free ports in front of a fake origin, and viewers who ask it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use weir_edge::{
    Edge,
    config::{Config, Http, Listen, Tickets},
};
use weir_shared::config::HumanDuration;

pub(crate) struct Site {
    pub(crate) edge: Edge,
    pub(crate) viewer: Viewer,
    pub(crate) admin: Viewer,
    pub(crate) config: Config,
}

impl Site {
    pub(crate) async fn new(origin: SocketAddr) -> Self {
        Self::configured(origin, |_| ()).await
    }

    /// `idle`: how long a rendition is followed after the last request for it.
    pub(crate) async fn with_idle(origin: SocketAddr, idle: Duration) -> Self {
        Self::configured(origin, |config| config.follow.idle = HumanDuration(idle)).await
    }

    pub(crate) async fn configured(origin: SocketAddr, change: impl FnOnce(&mut Config)) -> Self {
        let listen: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let mut config = Config {
            http: Some(Http {
                listen,
                tickets: Tickets::On,
            }),
            https: None,
            admin: Listen { listen },
            origins: vec![format!("http://{origin}")],
            ..Config::default()
        };
        change(&mut config);
        let edge = Edge::start(config.clone()).await.unwrap();
        Self {
            viewer: Viewer::new(edge.http.unwrap()),
            admin: Viewer::new(edge.admin),
            edge,
            config,
        }
    }

    /// The value of a metric, named with its labels; one that has not counted yet is 0.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = self.admin.get("/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until a metric has a value.
    pub(crate) async fn until_metric(&self, name: &str, value: u64) {
        until(name, async || self.metric(name).await == value).await;
    }
}

/// Looks again and again, for ten seconds at most, until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still not so after 10 s: {what}");
}

#[derive(Clone)]
pub(crate) struct Viewer {
    base: String,
    client: Client<HttpConnector, Empty<Bytes>>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

impl Viewer {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self {
            base: format!("http://{addr}"),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// Somebody at another address of this machine.
    pub(crate) fn from(here: IpAddr, addr: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_local_address(Some(here));
        Self {
            base: format!("http://{addr}"),
            client: Client::builder(TokioExecutor::new()).build(connector),
        }
    }

    /// With a connection of their own.
    pub(crate) fn another(&self) -> Self {
        Self {
            base: self.base.clone(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[]).await
    }

    /// Below the stream's directory.
    pub(crate) async fn object(&self, name: &str) -> Answer {
        self.get(&format!("/app/show/d/{name}")).await
    }

    /// Below the stream's directory; `None`: no answer came.
    pub(crate) async fn try_object(&self, name: &str) -> Option<StatusCode> {
        let request = Request::get(format!("{}/app/show/d/{name}", self.base));
        let response = self.client.request(request.body(Empty::new()).unwrap()).await;
        Some(response.ok()?.status())
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.request(request.body(Empty::new()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }
}
