//! What the API says of a stream while an encoder pushes it: the media side and the control plane in one origin.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use http::Method;
use serde_json::{Value, json};
use weir_loadtest::synthetic::Synthetic;
use weir_origin::config::Stream;
use weir_shared::config::HumanDuration;
use weir_tests::{
    client,
    rest::Rest,
    site::{Broadcast, Site, origin_config},
};

/// The plan's.
const GRACE: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(4);

/// An origin with its API, an edge, and a caller that may do everything.
async fn site() -> anyhow::Result<(Site, Rest)> {
    let site = Site::start_with(origin_config()).await?;
    let key = site
        .origin
        .first_key
        .clone()
        .context("a fresh database has a first key")?;
    let addr = site.origin.api;
    let rest = Rest { addr, key };
    let limits = json!({"graceSeconds": GRACE.as_secs(), "idleTimeoutSeconds": IDLE.as_secs()});
    let planned = rest.call(Method::PUT, "/v1/plans/default", Some(limits)).await?;
    anyhow::ensure!(planned.status.is_success(), "{}", planned.text());
    Ok((site, rest))
}

fn body(text: &str) -> anyhow::Result<Value> {
    serde_json::from_str(text).with_context(|| text.to_owned())
}

/// Reads the stream until `holds`; says how long that took.
async fn until(rest: &Rest, id: &str, holds: impl Fn(&Value) -> bool) -> anyhow::Result<Duration> {
    let since = Instant::now();
    loop {
        let reply = rest.get(&format!("/v1/projects/default/streams/{id}")).await?;
        let stream = body(reply.text())?;
        if holds(&stream) {
            return Ok(since.elapsed());
        }
        anyhow::ensure!(since.elapsed() < Duration::from_secs(10), "never: {stream}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Pushes with what the API said an encoder has to enter.
async fn push(site: &Site, stream: &Value) -> anyhow::Result<Broadcast> {
    let text = |key: &str| stream["ingest"][key].as_str().unwrap_or_default().to_owned();
    let app = format!("app?user={}&pass={}", text("username"), text("password"));
    let key = stream["streamKey"].as_str().unwrap_or_default();
    Broadcast::start_in(site.origin.rtmp, &app, key, &Synthetic::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_shows_in_the_api_and_its_end_too() -> anyhow::Result<()> {
    let (site, rest) = site().await?;
    let made = rest
        .post(
            "/v1/projects/default/streams",
            json!({"name": "Show", "streamKey": "show"}),
        )
        .await?;
    let stream = body(made.text())?;
    let id = stream["id"].as_str().context("id")?.to_owned();
    assert_eq!(stream["status"], "IDLE");

    let broadcast = push(&site, &stream).await?;
    until(&rest, &id, |s| s["status"] == "LIVE" && s["live"] == true).await?;
    site.get("/app/show/index.m3u8").await?;
    let playlist = site.playlist("show", "video").await?;
    assert!(!playlist.ended);

    broadcast.end().await?;
    until(&rest, &id, |s| s["live"] == false).await?;
    until(&rest, &id, |s| s["status"] == "DISABLED").await?;
    assert!(
        push(&site, &stream).await.is_err(),
        "a stream that is over is pushed once it is activated"
    );
    rest.post(&format!("/v1/projects/default/streams/{id}/activate"), json!({}))
        .await?;
    let again = push(&site, &stream).await?;
    until(&rest, &id, |s| s["status"] == "LIVE").await?;
    again.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn disabling_a_live_stream_sends_its_publisher_away_and_ends_the_playlist() -> anyhow::Result<()> {
    let (site, rest) = site().await?;
    let made = rest
        .post(
            "/v1/projects/default/streams",
            json!({"name": "Show", "streamKey": "show"}),
        )
        .await?;
    let stream = body(made.text())?;
    let id = stream["id"].as_str().context("id")?.to_owned();
    let broadcast = push(&site, &stream).await?;
    until(&rest, &id, |s| s["status"] == "LIVE").await?;
    site.get("/app/show/index.m3u8").await?;

    let reply = rest
        .post(&format!("/v1/projects/default/streams/{id}/disable"), json!({}))
        .await?;
    assert!(reply.status.is_success(), "{}", reply.text());
    assert!(broadcast.outcome().await.is_err(), "the publisher is told to go");
    let since = Instant::now();
    while !site.playlist("show", "video").await?.ended {
        assert!(
            since.elapsed() < Duration::from_secs(4),
            "no end within a target duration"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until(&rest, &id, |s| s["status"] == "DISABLED").await?;
    site.shutdown().await;
    Ok(())
}

/// Row A7: calling it off is not the encoder's end.
#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_stops_and_starts_while_its_publisher_goes_on() -> anyhow::Result<()> {
    let (site, rest) = site().await?;
    let made = rest
        .post("/v1/projects/default/streams", json!({"streamKey": "show"}))
        .await?;
    let stream = body(made.text())?;
    let path = format!("/v1/projects/default/streams/{}", stream["id"].as_str().context("id")?);
    let id = stream["id"].as_str().context("id")?.to_owned();
    let broadcast = push(&site, &stream).await?;
    until(&rest, &id, |s| s["status"] == "LIVE").await?;
    // Straight from the origin: what an edge shows of it is another story.
    let direct = || async {
        client::get(site.origin.http, "/app/show/d/video.m3u8")
            .await?
            .playlist()
    };
    let first = direct().await?;

    for _ in 0..2 {
        let stopped = body(rest.post(&format!("{path}/stop-broadcasting"), json!({})).await?.text())?;
        assert_eq!(stopped["egress"]["broadcasting"], false);
        assert_eq!(stopped["status"], "LIVE", "the push goes on");
    }
    let since = Instant::now();
    while !direct().await?.ended {
        anyhow::ensure!(
            since.elapsed() < Duration::from_secs(2),
            "no end within a target duration"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    for _ in 0..2 {
        let started = body(
            rest.post(&format!("{path}/start-broadcasting"), json!({}))
                .await?
                .text(),
        )?;
        assert_eq!(started["egress"]["broadcasting"], true);
    }
    let since = Instant::now();
    let second = loop {
        match direct().await {
            Ok(playlist) if !playlist.ended => break playlist,
            _ => anyhow::ensure!(since.elapsed() < Duration::from_secs(5), "no new playlist"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(second.media_sequence > first.open_sequence(), "numbers never go back");
    assert_eq!(body(rest.get(&path).await?.text())?["live"], true);
    broadcast.end().await?;
    until(&rest, &id, |s| s["status"] == "DISABLED").await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_could_be_better_is_told() -> anyhow::Result<()> {
    let (site, rest) = site().await?;
    let made = rest
        .post("/v1/projects/default/streams", json!({"streamKey": "show"}))
        .await?;
    let stream = body(made.text())?;
    let mut feed = rest.follow("default", None).await?;
    // One key frame in eight seconds: OBS's default.
    let mut rare = Synthetic::default();
    if let Some(video) = &mut rare.video {
        video.gop_seconds = 8.0;
    }
    let token = stream["ingest"]["token"].as_str().context("a token")?;
    let broadcast = Broadcast::start_in(site.origin.rtmp, &format!("app?t={token}"), "show", &rare).await?;
    // A busy machine may add that the push is unsteady.
    let warned = loop {
        let message = feed.next().await?.context("the feed has ended")?;
        if message.data["data"]["code"] == "key_frames_too_rare" {
            break message;
        }
    };
    assert_eq!(warned.event, "stream.health_warning");
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

/// Row A3: N is the plan's.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_sends_nothing_is_cut_when_the_plan_says_so() -> anyhow::Result<()> {
    let (site, rest) = site().await?;
    let made = rest
        .post("/v1/projects/default/streams", json!({"streamKey": "show"}))
        .await?;
    let stream = body(made.text())?;
    let id = stream["id"].as_str().context("id")?.to_owned();
    let broadcast = push(&site, &stream).await?;
    until(&rest, &id, |s| s["status"] == "LIVE").await?;
    let _connected = broadcast.fall_silent();
    let silent = Instant::now();
    until(&rest, &id, |s| s["status"] == "DISABLED").await?;
    let took = silent.elapsed();
    let tolerated = IDLE - Duration::from_millis(50)..IDLE + Duration::from_millis(500);
    assert!(tolerated.contains(&took), "{took:?}");
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_the_past_shortens_the_playlist_and_the_broadcast_goes_on() -> anyhow::Result<()> {
    let (site, rest) = site().await?;
    let made = rest
        .post(
            "/v1/projects/default/streams",
            json!({"name": "Show", "streamKey": "show", "dvrEnabled": true}),
        )
        .await?;
    let stream = body(made.text())?;
    let id = stream["id"].as_str().context("id")?.to_owned();
    let broadcast = push(&site, &stream).await?;
    until(&rest, &id, |s| s["status"] == "LIVE").await?;
    site.get("/app/show/index.m3u8").await?;
    // Nine seconds of one-second segments; a playlist must keep three target durations, six seconds.
    let first = site.playlist("show", "video").await?.media_sequence.0;
    let open = first + 9;
    let reply = site.get(&format!("/app/show/d/video.m3u8?_HLS_msn={first}")).await?;
    assert!(reply.status.is_success());
    while site.playlist("show", "video").await?.open_sequence().0 < open {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(site.playlist("show", "video").await?.media_sequence.0, first);

    let reply = rest
        .post(&format!("/v1/projects/default/streams/{id}/clear-dvr"), json!({}))
        .await?;
    assert!(reply.status.is_success(), "{}", reply.text());
    let since = Instant::now();
    while site.playlist("show", "video").await?.media_sequence.0 == first {
        assert!(since.elapsed() < Duration::from_secs(2), "the past is still listed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!site.playlist("show", "video").await?.ended);
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

/// Nobody calls the API for a stream that stands in the configuration file.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_the_file_is_pushed_again_and_again() -> anyhow::Result<()> {
    let mut config = origin_config();
    config.any_key = false;
    config.ingest.grace = HumanDuration(Duration::ZERO);
    config.streams = vec![Stream::open("show".parse()?)];
    let site = Site::start_with(config).await?;
    let key = site
        .origin
        .first_key
        .clone()
        .context("a fresh database has a first key")?;
    let addr = site.origin.api;
    let rest = Rest { addr, key };
    let listed = body(rest.get("/v1/projects/default/streams").await?.text())?;
    let id = listed["items"][0]["id"].as_str().context("id")?.to_owned();
    for _ in 0..3 {
        let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
        until(&rest, &id, |s| s["status"] == "LIVE").await?;
        site.get("/app/show/index.m3u8").await?;
        broadcast.end().await?;
        until(&rest, &id, |s| s["status"] == "DISABLED").await?;
    }
    site.shutdown().await;
    Ok(())
}
