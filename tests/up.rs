//! `weir up` as its users meet it: one program, no set-up, and what the API says holds at the edge beside it.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use weir_loadtest::synthetic::Synthetic;
use weir_tests::{
    client::{self, Reply},
    site::Broadcast,
};

/// Longer than anything waited for here.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running `weir up`; ended when dropped.
struct Up {
    child: Child,
    ready: Value,
}

impl Drop for Up {
    fn drop(&mut self) {
        // Gone already, or ended now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Up {
    fn start(more: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["up", "--ephemeral", "--json", "--segment-target", "1s"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().context("its output")?;
        BufReader::new(out).read_line(&mut line)?;
        let ready = serde_json::from_str(&line).context("a ready line")?;
        Ok(Self { child, ready })
    }

    fn address(&self, pointer: &str) -> anyhow::Result<SocketAddr> {
        let url = self
            .ready
            .pointer(pointer)
            .and_then(Value::as_str)
            .context("an address")?;
        let (_, rest) = url.split_once("://").context("a scheme")?;
        Ok(rest.split('/').next().unwrap_or_default().parse()?)
    }

    async fn api(&self, method: Method, path: &str, body: Value) -> anyhow::Result<Reply> {
        let at = self.address("/origin/api")?;
        let key = self.ready["firstKey"].as_str().context("a first key")?;
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/projects/default/streams{path}"))
            .header(header::HOST, at.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header(header::CONTENT_TYPE, "application/json");
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        client::exchange(at, request.body(Full::new(Bytes::from(body)))?).await
    }

    async fn watch(&self, key: &str) -> anyhow::Result<Reply> {
        client::get(self.address("/edge/http")?, &format!("/app/{key}/index.m3u8")).await
    }

    /// Asks the edge until it answers like this.
    async fn until_watched(&self, key: &str, status: u16, reason: &str) -> anyhow::Result<()> {
        let looking = async {
            loop {
                let reply = self.watch(key).await?;
                if reply.status == status && reply.text().contains(reason) {
                    return anyhow::Ok(());
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let found = timeout(PATIENCE, looking).await;
        found.with_context(|| format!("{key} was never answered with {status} {reason}"))?
    }
}

#[tokio::test]
async fn the_demo_is_a_stream_of_the_api() -> anyhow::Result<()> {
    let up = Up::start(&["--demo"])?;
    up.until_watched("demo", 200, "#EXTM3U").await?;
    let streams = up.api(Method::GET, "?q=demo&status=LIVE", Value::Null).await?.json();
    assert_eq!(streams["total"], 1, "{streams}");
    let id = streams["items"][0]["id"].as_str().context("an id")?;

    // Beside it, encoders are asked for nothing.
    let rtmp = up.address("/origin/rtmp")?;
    let beside = Broadcast::start(rtmp, "beside", &Synthetic::default()).await?;
    up.until_watched("beside", 200, "#EXTM3U").await?;
    beside.end().await?;

    let disabled = up.api(Method::POST, &format!("/{id}/disable"), Value::Null).await?;
    assert_eq!(disabled.json()["status"], "DISABLED");
    up.until_watched("demo", 403, "stream_disabled").await
}

#[tokio::test]
async fn what_the_api_says_holds_at_the_edge_without_set_up() -> anyhow::Result<()> {
    let up = Up::start(&[])?;
    let new = json!({"streamKey": "show", "backstage": true});
    let made = up.api(Method::POST, "", new).await?.json();
    let id = made["id"].as_str().context("an id")?;
    let token = made["ingest"]["token"].as_str().context("a token")?;
    let rtmp = up.address("/origin/rtmp")?;
    let broadcast = Broadcast::start_in(rtmp, &format!("app?t={token}"), "show", &Synthetic::default()).await?;

    // Pushed, and not shown: from the edge's first answer about the live stream on.
    up.until_watched("show", 403, "stream_backstage").await?;
    up.api(Method::POST, &format!("/{id}/go-live"), Value::Null).await?;
    up.until_watched("show", 200, "#EXTM3U").await?;
    let edge = up.address("/edge/http")?;
    let playlist = || async { client::get(edge, "/app/show/d/video.m3u8").await?.playlist() };
    let first = playlist().await?;

    // Called off: who was watching sees an end, and others what a closed stream shows; called on again at the same address.
    up.api(Method::POST, &format!("/{id}/stop-broadcasting"), Value::Null)
        .await?;
    up.until_watched("show", 403, "stream_backstage").await?;
    assert!(playlist().await?.ended, "who was watching sees the end");
    up.api(Method::POST, &format!("/{id}/start-broadcasting"), Value::Null)
        .await?;
    up.until_watched("show", 200, "#EXTM3U").await?;
    let looking = async {
        loop {
            match playlist().await {
                Ok(second) if !second.ended && second.media_sequence > first.open_sequence() => return,
                _ => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    timeout(PATIENCE, looking)
        .await
        .context("the edge never showed the new playlist")?;

    up.api(Method::POST, &format!("/{id}/disable"), Value::Null).await?;
    up.until_watched("show", 403, "stream_disabled").await?;
    assert!(broadcast.outcome().await.is_err(), "its publisher was cut");

    // Keys that nobody made are let in by this mode, at both ends; there are streams with passwords now, so encoders that
    // have none say so by the application.
    let stranger = Broadcast::start_in(rtmp, "key", "stranger", &Synthetic::default()).await?;
    up.until_watched("stranger", 200, "#EXTM3U").await?;
    stranger.end().await?;
    Ok(())
}
