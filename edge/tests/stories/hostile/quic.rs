//! QUIC and HTTP/3: answers to forged addresses, half-open handshakes, frames without end, streams without end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::crypto::rustls::QuicClientConfig;
use tokio::{net::UdpSocket, task::JoinSet, time::timeout};

use super::{LONG, impatient, stage};
use crate::{h3, site::until, tls};

/// Begins a handshake from a socket of its own whose first datagram alone arrives. Says how long it was, and what comes
/// back within a while.
async fn first_datagram_only(to: SocketAddr, wait: Duration) -> (usize, usize) {
    let relay = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let outside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let crypto = tls::client(None, &["h3"]);
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto).unwrap()));
    let client = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let _connecting = client
        .connect_with(config, relay.local_addr().unwrap(), "localhost")
        .unwrap();
    let mut datagram = [0; 2048];
    let (sent, _) = relay.recv_from(&mut datagram).await.unwrap();
    outside.send_to(&datagram[..sent], to).await.unwrap();
    let mut received = 0;
    let listen = async {
        let mut datagram = [0; 65536];
        loop {
            received += outside.recv_from(&mut datagram).await.unwrap().0;
        }
    };
    let _ = timeout(wait, listen).await;
    (sent, received)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unproven_address_gets_three_times_what_it_sent_at_most() {
    let origin = stage();
    let site = impatient(&origin).await;
    let (sent, received) = first_datagram_only(site.edge.https.unwrap(), Duration::from_secs(2)).await;
    assert!(received > 0 && received <= 3 * sent, "{sent} sent, {received} received");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_never_finishes_its_handshakes_must_prove_its_addresses() {
    let origin = stage();
    let patient = |config: &mut weir_edge::config::Config| config.https = Some(tls::https(None));
    let site = crate::site::Site::configured(origin.addr, patient).await;
    let at = site.edge.https.unwrap();
    let crowd = (0..200).map(|_| first_datagram_only(at, Duration::from_millis(300)));
    let answers = crowd.collect::<JoinSet<_>>().join_all().await;
    // A retry is one small datagram, and keeps nothing here.
    let retried = answers
        .iter()
        .filter(|(_, received)| (1..300).contains(received))
        .count();
    assert!(retried >= 50, "{retried} of 200");
    until("the metric has seen them", async || {
        site.metric("weir_edge_connections").await > 0
    })
    .await;
    assert!(site.metric("weir_edge_connections").await <= 70);
    // Who does answer from where they are gets in.
    let viewer = timeout(LONG, h3::Connection::open(at, "localhost")).await.unwrap();
    assert_eq!(viewer.get("/app/show/d/video.m3u8").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_of_a_gibibyte_is_not_collected() {
    let origin = stage();
    let site = impatient(&origin).await;
    let viewer = h3::Connection::open(site.edge.https.unwrap(), "localhost").await;
    let (mut send, _recv) = viewer.quic.open_bi().await.unwrap();
    // HEADERS, whose length is announced as 2^30 (RFC 9114 section 7.1).
    send.write_all(&[0x01, 0xc0, 0, 0, 0, 0x40, 0, 0, 0]).await.unwrap();
    let mut sent = 0;
    let refused = loop {
        match timeout(LONG, send.write_all(&[b'x'; 4096])).await {
            Ok(Ok(())) => sent += 4096,
            Ok(Err(_)) | Err(_) => break sent,
        }
        assert!(sent < 4 << 20, "the edge still listens");
    };
    assert!(refused <= 1 << 20, "{refused}");
    assert_eq!(site.viewer.object("video.m3u8").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_come_and_go_without_end_end_the_connection() {
    let origin = stage();
    let site = impatient(&origin).await;
    let viewer = h3::Connection::open(site.edge.https.unwrap(), "localhost").await;
    let flood = async {
        loop {
            let Ok(mut stream) = viewer.quic.open_uni().await else {
                return;
            };
            // A stream of a reserved type (RFC 9114 section 6.2.3).
            if stream.write_all(&[0x21]).await.is_err() {
                return;
            }
            let _ = stream.finish();
        }
    };
    timeout(LONG, flood).await.expect("the edge closes");
}
