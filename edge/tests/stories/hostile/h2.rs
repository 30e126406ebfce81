//! HTTP/2 with frames written by hand (RFC 9113 section 4): floods that cost the sender little.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{LONG, flood, impatient, shed, stage};
use crate::site::Site;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// All an attacker may get rid of before it is ended. A browser sends less in an hour.
const ENOUGH: usize = 8 << 20;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A request's fields (RFC 7541): method and scheme from the static table, path and authority spelt out.
pub(crate) fn fields(method_index: u8, path: &str) -> Vec<u8> {
    let mut fields = vec![0x80 | method_index, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    fields.extend(path.as_bytes());
    fields.extend([0x01, 1, b'x']);
    fields
}

pub(crate) const GET: u8 = 2;
const POST: u8 = 3;

async fn open(site: &Site) -> TcpStream {
    let mut stream = TcpStream::connect(site.edge.http.unwrap()).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// The edge closes.
async fn closes(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    timeout(LONG, stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_taken_back_at_once_end_the_connection() {
    let origin = stage();
    let site = impatient(&origin).await;
    let mut stream = open(&site).await;
    let path = format!("/app/show/d/video.m3u8?{}", origin.stage().next());
    let mut sent = 0;
    let mut is_open = true;
    for n in 0..20_000u32 {
        let id = 2 * n + 1;
        let mut pair = frame(HEADERS, END_STREAM | END_HEADERS, id, &fields(GET, &path));
        pair.extend(frame(RST_STREAM, 0, id, &8u32.to_be_bytes()));
        if stream.write_all(&pair).await.is_err() {
            is_open = false;
            break;
        }
        sent += 1;
    }
    assert!(!is_open || closes(&mut stream).await, "after {sent} requests");
    site.until_metric("weir_edge_holding", 0).await;
    assert_eq!(site.viewer.object("video.m3u8").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_requests_taken_back_again_and_again_end_the_connection() {
    let origin = stage();
    let site = impatient(&origin).await;
    let mut stream = open(&site).await;
    let path = format!("/app/show/d/video.m3u8?{}", origin.stage().next());
    // Slowly enough for each to reach the edge's hold: what HTTP/2's own counters do not see.
    for n in 0..1000u32 {
        let id = 2 * n + 1;
        let get = frame(HEADERS, END_STREAM | END_HEADERS, id, &fields(GET, &path));
        let back = frame(RST_STREAM, 0, id, &8u32.to_be_bytes());
        let sent = stream.write_all(&get).await.is_ok() && {
            tokio::time::sleep(Duration::from_millis(2)).await;
            stream.write_all(&back).await.is_ok()
        };
        if !sent {
            break;
        }
    }
    assert!(closes(&mut stream).await);
    assert_eq!(shed(&site, "resets").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_goes_on_for_ever_ends_the_connection() {
    let origin = stage();
    let site = impatient(&origin).await;
    let mut stream = open(&site).await;
    stream
        .write_all(&frame(HEADERS, END_STREAM, 1, &fields(GET, "/")))
        .await
        .unwrap();
    // A field of 100 bytes, not indexed.
    let mut field = vec![0x00, 1, b'y', 100];
    field.extend([b'z'; 100]);
    let more = frame(CONTINUATION, 0, 1, &field.repeat(10));
    let sent = flood(&mut stream, &more, ENOUGH).await;
    assert!(sent.is_some(), "the edge still listens");
    assert_eq!(site.viewer.object("video.m3u8").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_say_nothing_end_the_connection() {
    let origin = stage();
    for (name, opening, piece) in [
        (
            "empty data",
            frame(HEADERS, END_HEADERS, 1, &fields(POST, "/app/show/d/video.m3u8")),
            frame(DATA, 0, 1, &[]),
        ),
        ("settings", Vec::new(), frame(SETTINGS, 0, 0, &[])),
        ("pings", Vec::new(), frame(PING, 0, 0, &[7; 8])),
        ("frames of no known kind", Vec::new(), frame(0x77, 0, 0, &[0; 64])),
    ] {
        let site = impatient(&origin).await;
        let mut stream = open(&site).await;
        stream.write_all(&opening).await.unwrap();
        let sent = flood(&mut stream, &piece, ENOUGH).await;
        assert!(sent.is_some(), "{name}: the edge still listens");
        assert_eq!(site.viewer.object("video.m3u8").await.status, 200, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_a_window_is_not_kept_for_ever() {
    let origin = stage();
    let site = impatient(&origin).await;
    let mut stream = TcpStream::connect(site.edge.http.unwrap()).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE 0: nothing may be sent until we say so, and we never do.
    stream
        .write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]))
        .await
        .unwrap();
    let get = frame(
        HEADERS,
        END_STREAM | END_HEADERS,
        1,
        &fields(GET, "/play/assets/hls-1.7.4.min.js"),
    );
    stream.write_all(&get).await.unwrap();
    assert!(closes(&mut stream).await);
    assert_eq!(shed(&site, "slow_reader").await, 1);
}
