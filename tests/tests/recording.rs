//! What is recorded of a broadcast, and how viewers get from the live stream to its recording.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use http::{Method, StatusCode};
use tokio::time::{Instant, sleep};
use weir_loadtest::synthetic::Synthetic;
use weir_origin::config::Config;
use weir_shared::hls::playlist::{MediaPlaylist, PlaylistType};
use weir_tests::{
    client::{Reply, ask},
    folder::Folder,
    site::{Broadcast, Site, metric, origin_config},
};

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(20);

fn recorded_in(folder: &Folder) -> Config {
    let mut config = origin_config();
    config.record.store = folder.join("store").display().to_string();
    config.record.journal = folder.join("journal");
    config.record.every_broadcast = true;
    config.record.wait = weir_shared::config::HumanDuration(Duration::from_secs(2));
    config
}

/// Asks until the answer is one that is wanted.
async fn until(site: &Site, path: &str, wanted: impl Fn(&Reply) -> bool) -> anyhow::Result<Reply> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = site.get(path).await?;
        if wanted(&reply) {
            return Ok(reply);
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "{path}: still {} {}",
            reply.status,
            reply.text()
        );
        // The edge keeps a multivariant playlist for half a second.
        sleep(Duration::from_millis(50)).await;
    }
}

/// The recording that the live address serves, once it does.
async fn recording_of(site: &Site, key: &str) -> anyhow::Result<String> {
    let index = until(site, &format!("/app/{key}/index.m3u8"), |reply| {
        reply.status == StatusCode::OK && reply.text().contains("vod/")
    })
    .await?;
    let line = index.text().lines().find(|line| line.starts_with("vod/"));
    let name = line.and_then(|line| line.split('/').nth(1));
    Ok(name
        .expect("the index names a media playlist below vod/<recording>/")
        .to_owned())
}

async fn finished_playlist(site: &Site, base: &str, rendition: &str) -> anyhow::Result<MediaPlaylist> {
    let path = format!("{base}/{rendition}.m3u8");
    until(site, &path, |reply| reply.text().ends_with("#EXT-X-ENDLIST\n"))
        .await?
        .playlist()
}

/// Pushes until at least this many segments are complete.
async fn segments(site: &Site, key: &str, count: usize) -> anyhow::Result<MediaPlaylist> {
    let deadline = Instant::now() + PATIENCE;
    site.get(&format!("/app/{key}/index.m3u8")).await?;
    loop {
        let playlist = site.playlist(key, "video").await?;
        if playlist.segments.iter().filter(|s| s.uri.is_some()).count() >= count {
            return Ok(playlist);
        }
        anyhow::ensure!(Instant::now() < deadline, "no {count} segments came");
        let (msn, part) = (playlist.open_sequence(), playlist.open_parts().len());
        site.get(&format!("/app/{key}/d/video.m3u8?_HLS_msn={msn}&_HLS_part={part}"))
            .await?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_address_serves_the_recording_once_the_broadcast_is_over() -> anyhow::Result<()> {
    let folder = Folder::new("handover")?;
    let site = Site::start_with(recorded_in(&folder)).await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    let live = segments(&site, "show", 3).await?;
    let live_segment = live.segments.iter().find_map(|s| s.uri.clone()).expect("complete");
    let live_bytes = site.get(&format!("/app/show/d/{live_segment}")).await?.body;
    broadcast.end().await?;

    let recording = recording_of(&site, "show").await?;
    let base = format!("/vod/show/{recording}");
    let index = until(&site, &format!("{base}/index.m3u8"), |r| r.status == StatusCode::OK).await?;
    assert!(
        index.text().contains("CODECS=\"avc1.64001f,mp4a.40.2\""),
        "{}",
        index.text()
    );
    assert_eq!(index.header("cache-control"), "public, max-age=1");

    let video = finished_playlist(&site, &base, "video").await?;
    let audio = finished_playlist(&site, &base, "audio").await?;
    assert_eq!(video.playlist_type, Some(PlaylistType::Vod));
    assert!(video.segments.len() >= 3 && audio.segments.len() == video.segments.len());
    assert!(
        video
            .segments
            .iter()
            .chain(&audio.segments)
            .all(|s| !s.gap && s.parts.is_empty())
    );
    // From the first frame on: the first that was ever listed is the first that is recorded.
    assert_eq!(video.segments[0].uri, live.segments[0].uri);

    // Byte for byte what was live, under both addresses and under the old one.
    for path in [
        format!("{base}/{live_segment}"),
        format!("/app/show/vod/{recording}/{live_segment}"),
        format!("/app/show/d/{live_segment}"),
    ] {
        let reply = site.get(&path).await?;
        assert_eq!(reply.status, StatusCode::OK, "{path}");
        assert_eq!(reply.body, live_bytes, "{path}");
        assert_eq!(reply.header("cache-control"), "public, max-age=31536000, immutable");
    }
    let path = format!("{base}/{live_segment}");
    let range = ask(site.viewers(), Method::GET, &path, &[("range", "bytes=8-15")]).await?;
    assert_eq!(range.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(range.body, live_bytes.slice(8..16));
    let head = ask(site.viewers(), Method::HEAD, &path, &[]).await?;
    assert_eq!(head.header("content-length"), live_bytes.len().to_string());
    assert!(head.body.is_empty());

    // A new broadcast takes the address back.
    let again = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    until(&site, "/app/show/index.m3u8", |r| r.text().contains("\nd/r-video.m3u8")).await?;
    assert_eq!(site.get(&format!("{base}/video.m3u8")).await?.status, StatusCode::OK);
    segments(&site, "show", 1).await?;
    again.end().await?;
    // And then the newest recording is there.
    let deadline = Instant::now() + PATIENCE;
    while recording_of(&site, "show").await? == recording {
        anyhow::ensure!(Instant::now() < deadline, "the older recording is still served");
        sleep(Duration::from_millis(100)).await;
    }
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_plays_from_its_first_stored_segment_on() -> anyhow::Result<()> {
    let folder = Folder::new("growing")?;
    let site = Site::start_with(recorded_in(&folder)).await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    segments(&site, "show", 2).await?;
    let store = folder.join("store/vod/show");
    let name = std::fs::read_dir(&store)?.next().expect("one recording")?.file_name();
    let base = format!("/vod/show/{}", name.to_string_lossy());
    let first = until(&site, &format!("{base}/video.m3u8"), |r| r.status == StatusCode::OK).await?;
    let first = first.playlist()?;
    assert_eq!((first.playlist_type, first.ended), (Some(PlaylistType::Event), false));
    for segment in &first.segments {
        let uri = segment.uri.as_deref().expect("complete");
        assert_eq!(site.get(&format!("{base}/{uri}")).await?.status, StatusCode::OK);
    }
    // It only ever grows at its end.
    segments(&site, "show", 4).await?;
    let longer = until(&site, &format!("{base}/video.m3u8"), |r| {
        r.playlist().is_ok_and(|p| p.segments.len() > first.segments.len())
    })
    .await?
    .playlist()?;
    assert_eq!(longer.segments[..first.segments.len()], first.segments);
    broadcast.end().await?;
    let whole = finished_playlist(&site, &base, "video").await?;
    assert_eq!(whole.segments[..longer.segments.len()], longer.segments);
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_viewers_cost_the_store_one_read_per_object() -> anyhow::Result<()> {
    let folder = Folder::new("reads")?;
    let site = Site::start_with(recorded_in(&folder)).await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    segments(&site, "show", 3).await?;
    broadcast.end().await?;
    let base = format!("/vod/show/{}", recording_of(&site, "show").await?);
    let video = finished_playlist(&site, &base, "video").await?;
    let reads = async || metric(site.origin.admin, "weir_origin_vod_reads_total", "from=\"store\"").await;
    // The index of a recording that has just been finished may be read once more.
    sleep(Duration::from_millis(1100)).await;
    site.get(&format!("{base}/index.m3u8")).await?;
    let before = reads().await?;
    for segment in &video.segments {
        let path = format!("{base}/{}", segment.uri.as_deref().expect("complete"));
        let viewers = (0..25).map(|_| site.get(&path));
        let mut tasks = Vec::new();
        for viewer in viewers {
            tasks.push(viewer);
        }
        for reply in futures(tasks).await {
            assert_eq!(reply?.status, StatusCode::OK);
        }
    }
    assert_eq!(reads().await? - before, video.segments.len() as f64);
    site.shutdown().await;
    Ok(())
}

/// All at once.
async fn futures<T>(all: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| match one.as_mut().poll(context) {
            std::task::Poll::Ready(value) => {
                done.push(value);
                false
            }
            std::task::Poll::Pending => true,
        });
        match all.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done
}

/// The files below a folder that end in this, with their moments of change.
fn files(folder: &Path, end: &str) -> Vec<(PathBuf, SystemTime)> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(is) if is.is_dir() => found.extend(files(&path, end)),
            Ok(is) if path.to_string_lossy().ends_with(end) => {
                found.extend(is.modified().ok().map(|at| (path, at)));
            }
            _ => {}
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_playable_a_moment_after_its_first_segment_is_stored() -> anyhow::Result<()> {
    const SEGMENT: Duration = Duration::from_secs(2);
    let folder = Folder::new("first")?;
    let mut config = recorded_in(&folder);
    config.packaging.segment_target = weir_shared::config::HumanDuration(SEGMENT);
    let site = Site::start_with(config).await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    let store = folder.join("store/vod/show");
    let deadline = Instant::now() + PATIENCE;
    while files(&store, ".m4s").is_empty() {
        anyhow::ensure!(Instant::now() < deadline, "nothing is stored");
        sleep(Duration::from_millis(2)).await;
    }
    let name = std::fs::read_dir(&store)?.next().expect("one recording")?.file_name();
    let base = format!("/vod/show/{}", name.to_string_lossy());
    // A viewer who asks again and again, through the edge.
    let index = until(&site, &format!("{base}/index.m3u8"), |r| r.status == StatusCode::OK).await?;
    let child = index.text().lines().find(|line| line.ends_with("video.m3u8"));
    let child = format!("{base}/{}", child.expect("a rendition with pictures"));
    let playlist = until(&site, &child, |r| r.status == StatusCode::OK).await?.playlist()?;
    let segment = format!("{base}/{}", playlist.segments[0].uri.as_deref().expect("complete"));
    assert_eq!(site.get(&segment).await?.status, StatusCode::OK);
    let playable = SystemTime::now();
    let stored = files(&store, ".m4s").into_iter().map(|(_, at)| at).min();
    let after = playable.duration_since(stored.expect("at least one"))?;
    println!("playable {} ms after the first segment was stored", after.as_millis());
    assert!(
        after <= Duration::from_millis(1200),
        "a segment and 200 ms, not {after:?}"
    );
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_broadcast_goes_on_in_another_recording_with_the_very_next_segment() -> anyhow::Result<()> {
    let folder = Folder::new("split")?;
    let mut config = recorded_in(&folder);
    config.record.split_after = weir_shared::config::HumanDuration(Duration::from_secs(3));
    let site = Site::start_with(config).await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    let store = folder.join("store/vod/show");
    let finished = || files(&store, "recording.json").len();
    let deadline = Instant::now() + PATIENCE;
    while finished() < 2 {
        anyhow::ensure!(Instant::now() < deadline, "{} recordings are finished", finished());
        sleep(Duration::from_millis(20)).await;
    }
    broadcast.end().await?;
    let journal = folder.join("journal/show");
    while journal.exists() {
        anyhow::ensure!(Instant::now() < deadline + PATIENCE, "the last one is not finished");
        sleep(Duration::from_millis(20)).await;
    }
    let mut names: Vec<_> = std::fs::read_dir(&store)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()?;
    names.sort();
    assert!(names.len() >= 3, "{names:?}");
    for rendition in ["video", "audio"] {
        let mut numbers = Vec::new();
        for name in &names {
            let playlist = finished_playlist(&site, &format!("/vod/show/{name}"), rendition).await?;
            assert!(playlist.segments.iter().all(|s| !s.gap && !s.discontinuity), "{name}");
            for segment in &playlist.segments {
                let number = segment
                    .uri
                    .as_deref()
                    .and_then(|uri| uri.rsplit('/').next()?.strip_suffix(".m4s"));
                numbers.push(number.expect("a segment's name").parse::<u64>()?);
            }
        }
        assert!(
            numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
            "{rendition}: none is missing and none is there twice: {numbers:?}"
        );
    }
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_publisher_of_a_recording_begins_with_a_discontinuity() -> anyhow::Result<()> {
    let folder = Folder::new("publishers")?;
    let mut config = recorded_in(&folder);
    config.ingest.grace = weir_shared::config::HumanDuration(Duration::from_secs(10));
    let site = Site::start_with(config).await?;
    for publisher in 0..3 {
        let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
        segments(&site, "show", 2 + 2 * publisher).await?;
        broadcast.cut();
    }
    let base = format!("/vod/show/{}", recording_of(&site, "show").await?);
    let video = finished_playlist(&site, &base, "video").await?;
    let marks = video.segments.iter().filter(|s| s.discontinuity).count();
    assert_eq!(marks, 2, "three publishers: {:?}", video.segments);
    site.shutdown().await;
    Ok(())
}
