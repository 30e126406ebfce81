//! Signed playback from the call of the API to the picture: what is minted works the first time it is used, at every address
//! that the API names.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use weir_origin::app::Origin;
use weir_shared::config::{HumanDuration, Secret};
use weir_tests::{
    client,
    rest::Rest,
    site::{self, Broadcast, metric},
};

const CREDENTIAL: &str = "known to the fleet alone";
const STREAMS: &str = "/v1/projects/default/streams";

struct Site {
    origin: Origin,
    edge: weir_edge::Edge,
    api: Rest,
}

impl Site {
    async fn start() -> anyhow::Result<Self> {
        let mut config = site::origin_config();
        config.any_key = false;
        config.record.thumbnails.enabled = true;
        config.record.thumbnails.every = HumanDuration(Duration::from_secs(1));
        config.directory = Some(weir_origin::config::Directory {
            credential: Secret::new(CREDENTIAL),
            url: None,
        });
        let origin = Origin::start(config).await?;
        let directory =
            weir_edge::config::Directory::new(vec![format!("http://{}", origin.api)], Secret::new(CREDENTIAL));
        let mut config = weir_edge::config::Config {
            origins: vec![format!("http://{}", origin.http)],
            directory: Some(directory),
            ..Default::default()
        };
        config.place(|listen| *listen = SocketAddr::from(([127, 0, 0, 1], 0)));
        let edge = weir_edge::Edge::start(config).await?;
        origin.set_playback_base(&format!("http://{}", edge.http.context("a listener")?));
        let api = Rest {
            addr: origin.api,
            key: origin.first_key.clone().context("the database is fresh")?,
        };
        Ok(Self { origin, edge, api })
    }

    /// Status and text of what an address of the API's gives, redirects followed.
    async fn open(&self, url: &str) -> anyhow::Result<(StatusCode, String)> {
        let mut url = url::Url::parse(url)?;
        for _ in 0..3 {
            let path = url
                .query()
                .map_or_else(|| url.path().to_owned(), |q| format!("{}?{q}", url.path()));
            let reply = client::get(self.edge.http.context("a listener")?, &path).await?;
            if reply.status != StatusCode::FOUND {
                return Ok((reply.status, reply.text().to_owned()));
            }
            url = url.join(reply.header("location"))?;
        }
        anyhow::bail!("redirected again and again")
    }

    /// Waits until an address gives this status.
    async fn until(&self, url: &str, status: u16) -> anyhow::Result<()> {
        let wait = async {
            while self.open(url).await?.0 != status {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .with_context(|| format!("never {status}"))?
    }

    async fn create(&self, settings: Value) -> anyhow::Result<(String, Broadcast)> {
        let made = self.api.post(STREAMS, settings).await?.json();
        let path = format!("{STREAMS}/{}", made["id"].as_str().context("an id")?);
        let name = format!(
            "{}?t={}",
            made["streamKey"].as_str().context("a key")?,
            made["ingest"]["token"].as_str().context("a token")?
        );
        let broadcast = Broadcast::start_demo(self.origin.rtmp, "key", &name).await?;
        Ok((path, broadcast))
    }

    async fn ticket(&self, path: &str, order: Value) -> anyhow::Result<Value> {
        Ok(self.api.post(&format!("{path}/playback-ticket"), order).await?.json())
    }
}

fn url<'a>(ticket: &'a Value, name: &str) -> &'a str {
    ticket["playbackUrls"][name].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_of_the_api_works_at_its_first_use() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let (path, broadcast) = site
        .create(json!({"streamKey": "show", "signedPlayback": true}))
        .await?;
    let ticket = site
        .ticket(&path, json!({"expiresInSec": 60, "allowIp": "127.0.0.1"}))
        .await?;
    site.until(url(&ticket, "llhls"), 200).await?;
    for entrance in ["llhls", "llhlsDirect"] {
        let (status, text) = site.open(url(&ticket, entrance)).await?;
        assert_eq!(status, 200);
        let child = text
            .lines()
            .find(|line| line.ends_with("video.m3u8"))
            .context("a child")?;
        let child = url::Url::parse(url(&ticket, entrance))?.join(child)?;
        let (status, playlist) = site.open(child.as_str()).await?;
        assert_eq!(status, 200, "{entrance}");
        let part = playlist
            .lines()
            .find_map(|line| line.strip_prefix("#EXT-X-MAP:URI=\""))
            .context("a map")?;
        let part = child.join(part.trim_end_matches('"'))?;
        assert_eq!(site.open(part.as_str()).await?.0, 200);
        let bare = url(&ticket, entrance).split('?').next().unwrap_or_default();
        assert_eq!(site.open(bare).await?.0, 401);
    }
    assert_eq!(site.open(url(&ticket, "player")).await?.0, 200);
    let elsewhere = site.ticket(&path, json!({"allowIp": "203.0.113.0/24"})).await?;
    assert_eq!(site.open(url(&elsewhere, "llhls")).await?.0, 401);

    // One rotation is survived, the next one not.
    let secrets = format!("{path}/signed-playback");
    let rotate = || {
        site.api.call(
            Method::PUT,
            &secrets,
            Some(json!({"enabled": true, "rotateSecret": true})),
        )
    };
    let first = rotate().await?.json();
    let newer = site.ticket(&path, json!({})).await?;
    site.until(url(&newer, "llhls"), 200).await?;
    assert_eq!(site.open(url(&ticket, "llhls")).await?.0, 200);
    let second = rotate().await?.json();
    assert_eq!(second["previousSecret"], first["secret"]);
    site.until(url(&ticket, "llhls"), 401).await?;
    assert_eq!(site.open(url(&newer, "llhls")).await?.0, 200);

    let open = json!({"enabled": false, "revokePrevious": true});
    let open = site.api.call(Method::PUT, &secrets, Some(open)).await?.json();
    assert_eq!(open["previousSecret"], Value::Null);
    let bare = url(&ticket, "llhls").split('?').next().unwrap_or_default();
    site.until(bare, 200).await?;
    broadcast.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_ticket_of_the_api_opens_the_stage_door() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let (path, broadcast) = site.create(json!({"streamKey": "show", "backstage": true})).await?;
    let preview = site.ticket(&path, json!({"preview": true})).await?;
    let ordinary = site.ticket(&path, json!({})).await?;
    site.until(url(&ordinary, "llhls"), 403).await?;
    site.until(url(&preview, "llhls"), 200).await?;
    let bare = url(&preview, "llhls").split('?').next().unwrap_or_default();
    let (status, why) = site.open(bare).await?;
    assert_eq!(status, 403);
    assert!(why.contains("stream_backstage"), "{why}");
    site.api.post(&format!("{path}/go-live"), json!({})).await?;
    site.until(bare, 200).await?;
    broadcast.end().await?;
    Ok(())
}

/// The newest recording of a stream, once it is like that.
async fn recording(site: &Site, path: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let found = async {
        loop {
            let list = site.api.get(&format!("{path}/recordings")).await?.json();
            if wanted(&list["items"][0]) {
                return anyhow::Ok(list["items"][0].clone());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), found)
        .await
        .context("no such recording")?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_recording_is_played_with_a_ticket_and_refused_without() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let settings = json!({"streamKey": "show", "signedPlayback": true, "vodEnabled": true});
    let (path, broadcast) = site.create(settings).await?;
    let ticket = site.ticket(&path, json!({"expiresInSec": 60})).await?;
    recording(&site, &path, |r| r["duration"].as_f64() > Some(3.0)).await?;
    broadcast.end().await?;
    let done = recording(&site, &path, |r| r["state"] == "completed").await?;
    let name = done["recording"].as_str().context("a name")?;

    // The address that was shared while it was live plays the recording.
    let entrance = url(&ticket, "llhls");
    let since = tokio::time::Instant::now();
    let index = loop {
        let (status, index) = site.open(entrance).await?;
        if status == StatusCode::OK && index.contains(name) {
            break index;
        }
        anyhow::ensure!(since.elapsed() < Duration::from_secs(20), "{status}: {index}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let line = |text: &str, end: &str| {
        let found = text.lines().find(|line| line.ends_with(end)).map(str::to_owned);
        found.with_context(|| format!("nothing ends in {end}: {text}"))
    };
    let video = url::Url::parse(entrance)?.join(&line(&index, "/video.m3u8")?)?;
    assert!(video.path().contains("/~"), "the ticket stands in the address: {video}");
    let (status, playlist) = site.open(video.as_str()).await?;
    assert_eq!(status, 200);
    assert!(playlist.ends_with("#EXT-X-ENDLIST\n"), "{playlist}");
    let map = playlist.lines().find_map(|line| line.strip_prefix("#EXT-X-MAP:URI=\""));
    let init = video.join(map.context("a map")?.trim_end_matches('"'))?;
    let segment = video.join(&line(&playlist, ".m4s")?)?;
    let mut played = vec![video.clone(), init, segment, video.join("video-iframes.m3u8")?];
    // Thumbnails need ffmpeg, and may come a little later.
    let track = video.join("thumbnails.vtt")?;
    if std::process::Command::new("ffmpeg").arg("-version").output().is_ok() {
        site.until(track.as_str(), 200).await?;
        let (_, text) = site.open(track.as_str()).await?;
        played.push(track.join(&line(&text, ".jpg")?)?);
        played.push(track);
    }
    for address in &played {
        assert_eq!(site.open(address.as_str()).await?.0, 200, "{address}");
    }

    // Without the ticket, or with one that is none, each of them is refused, by this edge alone.
    let (_, rest) = video.path().split_once("/~").context("a ticket")?;
    let (session, _) = rest.split_once('/').context("a ticket")?;
    let forged: String = session.chars().rev().collect();
    let upstream = async || metric(site.edge.admin, "weir_edge_upstream_requests_total", "").await;
    let before = upstream().await?;
    let mut objects = vec!["index.m3u8".to_owned()];
    for address in &played {
        let below = address.path().split_once(&format!("{session}/vod/{name}/"));
        objects.push(below.context("below the recording")?.1.to_owned());
    }
    for object in &objects {
        for path in [
            format!("/vod/show/{name}/{object}"),
            format!("/app/show/vod/{name}/{object}"),
            format!("/vod/show/~{forged}/{name}/{object}"),
        ] {
            assert_eq!(site.open(video.join(&path)?.as_str()).await?.0, 401, "{path}");
        }
    }
    assert_eq!(upstream().await?, before);
    // The recording's own address takes the same ticket.
    for object in &objects {
        let own = video.join(&format!("/vod/show/~{session}/{name}/{object}"))?;
        assert_eq!(site.open(own.as_str()).await?.0, 200, "{own}");
    }
    Ok(())
}
