//! Below the API's calls is HTTP: bytes on a socket that are no request, or hide one in another.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use weir_origin::app::Origin;
use weir_tests::{rest::Rest, site, site::origin_config};

const STREAMS: &str = "/v1/projects/default/streams";
/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a listener says to these bytes: everything until it closes, or falls silent.
async fn say(at: SocketAddr, bytes: &[u8]) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(at).await?;
    // It may close before it has read all of it.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .context("no end")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn statuses(answer: &str) -> Vec<u16> {
    let lines = answer.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 "));
    lines.filter_map(|line| line.get(..3)?.parse().ok()).collect()
}

/// What is no request reaches no call, and what hides in one is not a second one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_reaches_no_call() -> anyhow::Result<()> {
    let origin = Origin::start(origin_config()).await?;
    let rest = Rest {
        addr: origin.api,
        key: origin.first_key.clone().context("a first key")?,
    };
    let key = &rest.key;
    let head = format!("authorization: Bearer {key}\r\ncontent-type: application/json\r\nconnection: close\r\n");
    let hidden = format!("POST {STREAMS} HTTP/1.1\r\nhost: a\r\n{head}content-length: 2\r\n\r\n{{}}");
    let large = "x".repeat(2 << 20);
    let chunks = "10000\r\n".to_owned() + &"x".repeat(0x10000) + "\r\n";
    for (what, request, accepted) in [
        (
            "raw bytes in the path",
            b"GET /v1/\xff\xfe HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
            &[400][..],
        ),
        (
            "a NUL in a header",
            b"GET /v1 HTTP/1.1\r\nhost: a\0b\r\n\r\n".to_vec(),
            &[400],
        ),
        (
            "no HTTP at all",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".repeat(3),
            &[400],
        ),
        (
            "a head that is too large",
            format!("GET {STREAMS} HTTP/1.1\r\nhost: a\r\nif-match: {large}\r\n\r\n").into_bytes(),
            &[431],
        ),
        (
            "more headers than anybody needs",
            format!("GET {STREAMS} HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000)).into_bytes(),
            &[431],
        ),
        (
            "two lengths",
            format!(
                "POST {STREAMS} HTTP/1.1\r\nhost: a\r\n{head}content-length: 2\r\ncontent-length: 90\r\n\r\n{hidden}"
            )
            .into_bytes(),
            &[400],
        ),
        (
            "a length that is none",
            format!("POST {STREAMS} HTTP/1.1\r\nhost: a\r\n{head}content-length: +2\r\n\r\n{{}}").into_bytes(),
            &[400],
        ),
        (
            "a body that would be longer than it may be",
            format!(
                "POST {STREAMS} HTTP/1.1\r\nhost: a\r\n{head}content-length: {}\r\n\r\n",
                large.len()
            )
            .into_bytes(),
            &[413],
        ),
        (
            "one that does not say so",
            format!(
                "POST {STREAMS} HTTP/1.1\r\nhost: a\r\n{head}transfer-encoding: chunked\r\n\r\n{}1\r\nx",
                chunks.repeat(16)
            )
            .into_bytes(),
            &[413],
        ),
        (
            "a chunk that is none",
            format!("POST {STREAMS} HTTP/1.1\r\nhost: a\r\n{head}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}")
                .into_bytes(),
            &[400],
        ),
        (
            "a second request in a length that ends early",
            format!("GET {STREAMS}/none HTTP/1.1\r\nhost: a\r\n{head}content-length: 5\r\n\r\n{hidden}").into_bytes(),
            &[404],
        ),
        (
            "another method in a header",
            format!("GET {STREAMS} HTTP/1.1\r\nhost: a\r\nx-http-method-override: POST\r\n{head}\r\n").into_bytes(),
            &[200],
        ),
        (
            "TRACE",
            format!("TRACE {STREAMS} HTTP/1.1\r\nhost: a\r\n{head}\r\n").into_bytes(),
            &[405],
        ),
    ] {
        let answer = say(origin.api, &request).await?;
        let got = statuses(&answer);
        assert_eq!(
            got,
            accepted,
            "{what}: {}",
            answer.chars().take(300).collect::<String>()
        );
        // TRACE would show the key of whoever was tricked into it.
        assert!(!answer.contains(key.as_str()), "{what}");
    }
    assert_eq!(rest.get(STREAMS).await?.json()["total"], 0, "nothing was made");
    let metrics = site::metric(origin.admin, "weir_origin_api_calls_total", "status=\"5xx\"").await;
    assert_eq!(metrics.unwrap_or(0.0), 0.0);
    origin.shutdown().await;
    Ok(())
}
