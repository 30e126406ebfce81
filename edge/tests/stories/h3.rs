//! HTTP/3 on the port of TLS: the same answers, holds and counts as over the other protocols.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes};
use h3::{
    client::SendRequest,
    error::{Code, StreamError},
};
use http::{HeaderMap, Request, StatusCode};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::task::JoinSet;

use crate::{
    origin::{FakeOrigin, Stage},
    site::Site,
    tls::{self, https},
};

/// A viewer's connection.
pub(crate) struct Connection {
    requests: SendRequest<h3_quinn::OpenStreams, Bytes>,
    pub(crate) quic: quinn::Connection,
    port: u16,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Connection {
    pub(crate) async fn open(to: SocketAddr, name: &str) -> Self {
        let crypto = tls::client(None, &["h3"]);
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto).unwrap()));
        let mut transport = quinn::TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_secs(1)));
        config.transport_config(Arc::new(transport));
        let endpoint = quinn::Endpoint::client((to.ip(), 0).into()).unwrap();
        let quic = endpoint.connect_with(config, to, name).unwrap().await.unwrap();
        let (mut driver, requests) = h3::client::new(h3_quinn::Connection::new(quic.clone())).await.unwrap();
        tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Self {
            requests,
            quic,
            port: to.port(),
        }
    }

    /// Asks; the answer comes when it comes.
    pub(crate) fn get(&self, path: &str) -> impl Future<Output = Result<Answer, StreamError>> + use<> {
        let mut requests = self.requests.clone();
        let uri = format!("https://localhost:{}{path}", self.port);
        async move {
            let mut stream = requests.send_request(Request::get(uri).body(()).unwrap()).await?;
            match stream.finish().await {
                // It has answered already: clients must not discard that (RFC 9114 section 4.1.1).
                Err(StreamError::RemoteTerminate { code, .. }) if code == Code::H3_NO_ERROR => {}
                finished => finished?,
            }
            let head = stream.recv_response().await?;
            let mut body = Vec::new();
            while let Some(mut data) = stream.recv_data().await? {
                body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
            }
            Ok(Answer {
                status: head.status(),
                headers: head.headers().clone(),
                body: body.into(),
            })
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_holds_fit_on_one_http3_connection() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let site = Site::configured(origin.addr, |config| config.https = Some(https(None))).await;
    let at = site.edge.https.unwrap();
    let viewer = Connection::open(at, "localhost").await;
    let playlist = "/app/show/d/video.m3u8";
    assert_eq!(viewer.get(playlist).await.unwrap().status, StatusCode::OK);
    let mut held = JoinSet::new();
    for _ in 0..100 {
        held.spawn(viewer.get(&format!("{playlist}?{}", origin.stage().next())));
    }
    site.until_metric("weir_edge_holding", 100).await;
    let ready = viewer.get("/app/show/d/aa/video/p41.m4s").await.unwrap();
    assert_eq!(ready.status, StatusCode::OK);
    let plain = site.viewer.object("aa/video/p41.m4s").await;
    assert_eq!(ready.body, plain.body, "whatever it comes over");
    assert_eq!(ready.headers.get("etag"), plain.headers.get("etag"));
    let number = origin.publish();
    for answer in held.join_all().await {
        let text = String::from_utf8(answer.unwrap().body.to_vec()).unwrap();
        assert!(text.contains(&format!("aa/video/p{number}.m4s")));
    }
    let seen = r#"weir_edge_requests_total{object="playlist",outcome="ok",protocol="h3"}"#;
    assert_eq!(site.metric(seen).await, 101);
    assert_eq!(origin.asked_twice(), vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_protocols_say_where_http3_is() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let site = Site::configured(origin.addr, |config| config.https = Some(https(None))).await;
    let at = site.edge.https.unwrap();
    let said = tls::get_h1(at, "/app/show/d/video.m3u8").await;
    let port = at.port();
    assert_eq!(said.headers()["alt-svc"], format!("h3=\":{port}\"; ma=86400"));
    let plain = site.viewer.object("video.m3u8").await;
    assert_eq!(plain.header("alt-svc"), "", "not where the connection is not safe");

    let without = |config: &mut weir_edge::config::Config| {
        config.https = Some(weir_edge::config::Https {
            http3: false,
            ..https(None)
        });
    };
    let site = Site::configured(origin.addr, without).await;
    let answer = tls::get_h1(site.edge.https.unwrap(), "/app/show/d/video.m3u8").await;
    assert!(!answer.headers().contains_key("alt-svc"));
}
