//! Viewers who go further back than memory reaches: the cold tier, seen through an edge.

use std::{collections::HashSet, fs, path::Path, time::Duration};

use anyhow::Context as _;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use weir_loadtest::synthetic::Synthetic;
use weir_origin::config::{Config, Stream};
use weir_shared::{config::HumanDuration, hls::playlist::MediaPlaylist};
use weir_tests::{
    client,
    folder::Folder,
    site::{Broadcast, Site, metric, origin_config},
};

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(30);
/// As little as two-second target durations admit.
const HOT: Duration = Duration::from_secs(12);
const NODE: &str = "origin-1";
/// Of the direct playlists, and of the resilient ones.
const RENDITIONS: [&str; 4] = ["video", "audio", "r-video", "r-audio"];

fn config(folder: &Folder) -> anyhow::Result<Config> {
    let mut config = origin_config();
    config.any_key = false;
    let mut show = Stream::open("show".parse()?);
    show.dvr = Some(HumanDuration(Duration::from_secs(3600)));
    config.streams = vec![show];
    config.dvr.store = folder.join("cold").display().to_string();
    config.dvr.hot = HumanDuration(HOT);
    config.control.node = Some(NODE.to_owned());
    config.packaging.linger = HumanDuration(Duration::ZERO);
    Ok(config)
}

async fn counted(site: &Site, name: &str, labels: &str) -> anyhow::Result<f64> {
    metric(site.origin.admin, &format!("weir_origin_dvr_{name}"), labels).await
}

/// Asks until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await? {
        anyhow::ensure!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Files of the cold tier.
fn stored(at: &Path) -> usize {
    let Ok(found) = fs::read_dir(at) else { return 0 };
    found
        .flatten()
        .map(|entry| {
            if entry.path().is_dir() {
                stored(&entry.path())
            } else {
                1
            }
        })
        .sum()
}

fn read_all(at: &Path, into: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_all(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "m4s") {
            into.extend(fs::read(path));
        }
    }
}

/// A broadcast that has begun.
async fn broadcast(site: &Site) -> anyhow::Result<Broadcast> {
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    site.get("/app/show/index.m3u8").await?;
    Ok(broadcast)
}

fn first_segment(playlist: &MediaPlaylist) -> anyhow::Result<String> {
    let first = playlist.segments.first().and_then(|segment| segment.uri.clone());
    Ok(format!("/app/show/d/{}", first.context("a complete segment")?))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_far_back_gets_the_same_bytes_and_the_store_is_asked_once() -> anyhow::Result<()> {
    let folder = Folder::new("dvr")?;
    // What an earlier life was killed over.
    let cold = folder.join("cold");
    let left = cold.join(NODE).join("5/0");
    fs::create_dir_all(&left)?;
    fs::write(left.join("1.m4s"), "old")?;
    let site = Site::start_with(config(&folder)?).await?;
    until("leftovers are removed", async || Ok(stored(&cold) == 0)).await?;

    let broadcast = broadcast(&site).await?;
    until("a segment is complete", async || {
        Ok(first_segment(&site.playlist("show", "video").await?).is_ok())
    })
    .await?;
    let first = first_segment(&site.playlist("show", "video").await?)?;
    // From the origin itself: the edge has not seen it.
    let while_hot = client::get(site.origin.http, &first).await?;
    assert_eq!(while_hot.status, StatusCode::OK);
    until("segments of all renditions are cold", async || {
        Ok(counted(&site, "cold_writes_total", "ok").await? >= 8.0)
    })
    .await?;
    assert_eq!(counted(&site, "cold_reads_total", "").await?, 0.0);
    // One more segment is published: the first one has left memory by now.
    sleep(Duration::from_secs(2)).await;

    let mut viewers = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (edge, path) = (site.viewers(), first.clone());
        viewers.spawn(async move { client::get(edge, &path).await });
    }
    for reply in viewers.join_all().await {
        let reply = reply?;
        assert_eq!(reply.status, StatusCode::OK);
        assert!(reply.body == while_hot.body, "not the same bytes");
    }
    assert_eq!(counted(&site, "cold_reads_total", "ok").await?, 1.0);

    // A part of it, under the name that it has always had.
    let ranged = client::ask(site.origin.http, Method::GET, &first, &[("range", "bytes=10-19")]).await?;
    assert_eq!(ranged.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(ranged.body, while_hot.body.slice(10..20));
    assert_eq!(ranged.header("etag"), while_hot.header("etag"));

    // Everything that any playlist lists can be had, and all lists begin where the broadcast began.
    for rendition in RENDITIONS {
        let playlist = site.playlist("show", rendition).await?;
        assert!(playlist.segments.len() > 13, "{rendition}: {}", playlist.segments.len());
        assert!(playlist.playlist_type.is_some(), "{rendition} has all there was");
        for segment in playlist.segments.iter().filter_map(|segment| segment.uri.as_deref()) {
            let reply = site.get(&format!("/app/show/d/{segment}")).await?;
            assert_eq!(reply.status, StatusCode::OK, "{segment}");
            assert!(!reply.body.is_empty());
        }
    }
    // Stored once, though both flavours list them.
    let mut objects = Vec::new();
    read_all(&cold, &mut objects);
    let distinct: HashSet<&Vec<u8>> = objects.iter().collect();
    assert!(objects.len() >= 8 && distinct.len() == objects.len());

    broadcast.end().await?;
    until("nothing is left of it", async || {
        Ok(stored(&cold) == 0 && counted(&site, "cold_bytes", "").await? == 0.0)
    })
    .await?;
    assert_eq!(counted(&site, "memory_bytes", "").await?, 0.0);
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_the_past_clears_the_cold_tier_too() -> anyhow::Result<()> {
    let folder = Folder::new("dvr-clear")?;
    let cold = folder.join("cold");
    let site = Site::start_with(config(&folder)?).await?;
    let broadcast = broadcast(&site).await?;
    until("segments are cold", async || Ok(stored(&cold) >= 4)).await?;
    let before = site.playlist("show", "video").await?;

    let rest = weir_tests::rest::Rest {
        addr: site.origin.api,
        key: site
            .origin
            .first_key
            .clone()
            .context("a fresh database has a first key")?,
    };
    let streams: Value = serde_json::from_str(rest.get("/v1/projects/default/streams").await?.text())?;
    let id = streams["items"][0]["id"].as_str().context("id")?;
    let path = format!("/v1/projects/default/streams/{id}/clear-dvr");
    assert!(rest.post(&path, Value::Null).await?.status.is_success());
    until("both tiers are empty", async || {
        Ok(stored(&cold) == 0 && counted(&site, "cold_bytes", "").await? == 0.0)
    })
    .await?;
    let after = site.playlist("show", "video").await?;
    assert!(after.media_sequence.0 > before.media_sequence.0 && !after.ended);
    assert_eq!(after.playlist_type, None, "what was removed is not all there was");
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_store_is_told_of_and_live_goes_on() -> anyhow::Result<()> {
    let folder = Folder::new("dvr-dead")?;
    let (cold, away) = (folder.join("cold"), folder.join("away"));
    let site = Site::start_with(config(&folder)?).await?;
    let broadcast = broadcast(&site).await?;
    until("segments are cold", async || Ok(stored(&cold) >= 8)).await?;
    sleep(Duration::from_secs(1)).await;
    let playlist = site.playlist("show", "video").await?;
    let first = first_segment(&playlist)?;

    // The disk is gone: where its folder was is something that can't be written to.
    fs::rename(&cold, &away)?;
    fs::write(&cold, "")?;
    let reply = site.get(&first).await?;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.text());
    assert!(counted(&site, "cold_reads_total", "failed").await? >= 1.0);

    // Live goes on at its pace meanwhile: one blocking request after the other, none of which waits long.
    let mut at = site.playlist("show", "video").await?;
    let deadline = Instant::now() + PATIENCE;
    let told = loop {
        let (msn, part) = (at.open_sequence(), at.open_parts().len());
        let asked = Instant::now();
        let path = format!("/app/show/d/video.m3u8?_HLS_msn={msn}&_HLS_part={part}");
        at = site.get(&path).await?.playlist()?;
        assert!(
            asked.elapsed() < Duration::from_millis(1500),
            "live stalls: {:?}",
            asked.elapsed()
        );
        let streams = client::get(site.origin.admin, "/streams").await?;
        let streams: Value = serde_json::from_str(streams.text())?;
        let warnings = streams["streams"][0]["warnings"].to_string();
        if warnings.contains("dvr.store") {
            break warnings;
        }
        anyhow::ensure!(Instant::now() < deadline, "nobody is told: {warnings}");
    };
    assert!(told.contains("make room"), "{told}");
    assert!(counted(&site, "degraded", "").await? >= 1.0);
    assert_eq!(
        at.media_sequence, playlist.media_sequence,
        "it may come back: nothing was cut yet"
    );

    // The disk is back.
    fs::remove_file(&cold)?;
    fs::rename(&away, &cold)?;
    let written = counted(&site, "cold_writes_total", "ok").await?;
    until("segments are moved again", async || {
        Ok(counted(&site, "cold_writes_total", "ok").await? > written)
    })
    .await?;
    assert_eq!(site.get(&first).await?.status, StatusCode::OK);
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}
