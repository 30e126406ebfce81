//! HTTP/1.1: slow heads, slow bodies, slow readers, requests in disguise, too many headers.

use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::{LONG, impatient, shed, stage, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_trickles_in_is_not_waited_for() {
    let origin = stage();
    let site = impatient(&origin).await;
    let at = site.edge.http.unwrap();
    let silent = tokio::spawn(async move { told(at, b"").await });
    let mut slow = TcpStream::connect(at).await.unwrap();
    slow.write_all(b"GET /app/show/d/video.m3u8 HTTP/1.1\r\nx: ")
        .await
        .unwrap();
    let began = std::time::Instant::now();
    // A byte now and then does not buy time.
    while slow.write_all(b"x").await.is_ok() {
        assert!(began.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(silent.await.unwrap().as_deref(), Some(""), "nor does silence");
    assert_eq!(shed(&site, "slow_head").await, 2);
    assert_eq!(site.viewer.object("video.m3u8").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_outlives_the_time_of_a_head() {
    let origin = stage();
    let site = impatient(&origin).await;
    let mut stream = TcpStream::connect(site.edge.http.unwrap()).await.unwrap();
    for pause in [0, 800] {
        // Twice the time of a head, half that of idleness.
        tokio::time::sleep(Duration::from_millis(pause)).await;
        stream
            .write_all(b"GET /play/x HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = vec![0; 64 * 1024];
        let n = stream.read(&mut answer).await.unwrap();
        assert!(answer[..n].starts_with(b"HTTP/1.1 200 "));
    }
    let mut rest = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(shed(&site, "idle").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_nobody_asked_for_is_not_waited_for() {
    let origin = stage();
    let site = impatient(&origin).await;
    let head = b"POST /app/show/d/video.m3u8 HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nx";
    let answer = told(site.edge.http.unwrap(), head).await.expect("it closes");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_let_go() {
    let origin = stage();
    let site = impatient(&origin).await;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = TcpSocket::from_std_stream(socket.into());
    let mut stream = socket.connect(site.edge.http.unwrap()).await.unwrap();
    // Far more than the kernel keeps for one connection.
    let request = b"GET /play/assets/hls-1.7.4.min.js HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(&request.repeat(100)).await.unwrap();
    site.until_metric(r#"weir_edge_shed_total{limit="slow_reader"}"#, 1)
        .await;
    site.until_metric("weir_edge_connections", 1).await;
    assert_eq!(site.viewer.object("video.m3u8").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_inside_another_is_never_seen() {
    let origin = stage();
    let site = impatient(&origin).await;
    let at = site.edge.http.unwrap();
    let hidden = "GET /app/show/d/video.m3u8 HTTP/1.1\r\nhost: x\r\n\r\n";
    let length = hidden.len();
    for (name, head, body) in [
        (
            "length and chunks",
            format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
            format!("0\r\n\r\n{hidden}"),
        ),
        (
            "chunks and length",
            "transfer-encoding: chunked\r\ncontent-length: 4\r\n".to_owned(),
            format!("0\r\n\r\n{hidden}"),
        ),
        (
            "two lengths",
            format!("content-length: 0\r\ncontent-length: {length}\r\n"),
            hidden.to_owned(),
        ),
        (
            "a list of lengths",
            format!("content-length: 0, {length}\r\n"),
            hidden.to_owned(),
        ),
        (
            "a signed length",
            format!("content-length: +{length}\r\n"),
            hidden.to_owned(),
        ),
        (
            "an unknown coding",
            "transfer-encoding: xchunked\r\n".to_owned(),
            hidden.to_owned(),
        ),
        (
            "chunked is not last",
            "transfer-encoding: chunked, identity\r\n".to_owned(),
            hidden.to_owned(),
        ),
        (
            "space before the colon",
            "transfer-encoding : chunked\r\n".to_owned(),
            format!("0\r\n\r\n{hidden}"),
        ),
        (
            "a folded line",
            "transfer-encoding:\r\n chunked\r\n".to_owned(),
            format!("0\r\n\r\n{hidden}"),
        ),
        ("a folded first line", " x: y\r\n".to_owned(), hidden.to_owned()),
        (
            "carriage return alone",
            format!("x: y\rcontent-length: {length}\r\n"),
            hidden.to_owned(),
        ),
        (
            "line feed alone before a length",
            format!("x: y\ncontent-length: {length}\r\n"),
            hidden.to_owned(),
        ),
        (
            "line feeds alone at the end of a head",
            "transfer-encoding: chunked\r\nx: y\n\n".to_owned(),
            format!("0\r\n\r\n{hidden}"),
        ),
        ("a null", "x: \0\r\n".to_owned(), hidden.to_owned()),
        (
            "a chunk longer than any",
            "transfer-encoding: chunked\r\n".to_owned(),
            format!("ffffffffffffffffff\r\n{hidden}"),
        ),
        (
            "a body of a GET",
            format!("content-length: {length}\r\n"),
            hidden.to_owned(),
        ),
        (
            "chunks of a GET",
            "transfer-encoding: chunked\r\n".to_owned(),
            format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n{hidden}"),
        ),
    ] {
        for method in ["GET", "POST"] {
            let request = format!("{method} /app/show/d/none.m3u8 HTTP/1.1\r\nhost: x\r\n{head}\r\n{body}");
            let answer = told(at, request.as_bytes()).await.expect(name);
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}, {method}: {answer}");
            assert!(answer.starts_with("HTTP/1.1 4"), "{name}, {method}: {answer}");
        }
    }
    // Nothing is ever upgraded: what follows is HTTP/1.1 as before, and answered as such.
    for upgrade in ["websocket", "h2c"] {
        let request = format!(
            "GET /app/show/d/none.m3u8 HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: {upgrade}\r\n\r\n\
             GET /app/show/d/none.m3u8 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        );
        let answer = told(at, request.as_bytes()).await.expect(upgrade);
        assert!(
            answer.matches("HTTP/1.1 404 ").count() <= 2 && !answer.contains(" 101 "),
            "{answer}"
        );
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
    // HTTP/1.0 has no chunks.
    let old = format!("GET /app/show/d/none.m3u8 HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}");
    let answer = told(at, old.as_bytes()).await.expect("it closes");
    assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer}");
    let seen = site.metric(r#"weir_edge_requests_total{object="playlist",outcome="ok",protocol="h1"}"#);
    assert_eq!(seen.await, 0, "nobody got the playlist");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_without_end_are_refused() {
    let origin = stage();
    let site = impatient(&origin).await;
    let at = site.edge.http.unwrap();
    let many = "x: y\r\n".repeat(1000);
    let long = format!("x: {}\r\n", "y".repeat(1 << 20));
    for (name, bomb) in [("many", many), ("long", long)] {
        let request = format!("GET /app/show/d/video.m3u8 HTTP/1.1\r\nhost: x\r\n{bomb}\r\n");
        let answer = told(at, request.as_bytes()).await.expect(name);
        // An answer may be lost to the close: the rest of the bomb is in the pipe.
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
            "{name}: {answer}"
        );
    }
    let path = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(1 << 17));
    let answer = told(at, path.as_bytes()).await.expect("it closes");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
}
