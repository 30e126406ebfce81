//! Thumbnails of recordings: made by ffmpeg where there is one, and missed by nobody where there is none or a bad one.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use weir_origin::config::Config;
use weir_shared::config::HumanDuration;
use weir_tests::{
    client,
    folder::Folder,
    rest::Rest,
    site::{Broadcast, Site, metric, origin_config},
};

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// An origin, its edge, and a stream whose broadcasts are recorded.
struct Show {
    site: Site,
    rest: Rest,
    stream: Value,
    path: String,
}

fn config(folder: &Folder) -> Config {
    let mut config = origin_config();
    config.record.store = folder.join("store").display().to_string();
    config.record.journal = folder.join("journal");
    config.record.thumbnails.enabled = true;
    config.record.thumbnails.every = HumanDuration(Duration::from_secs(2));
    config.record.thumbnails.timeout = HumanDuration(Duration::from_secs(60));
    config
}

/// A program that answers like ffmpeg when asked for its version, and otherwise does `what`.
fn pretender(folder: &Folder, what: &str) -> anyhow::Result<PathBuf> {
    let program = folder.join("ffmpeg");
    let text = format!("#!/bin/sh\nif [ \"$1\" = -version ]; then echo ffmpeg version 0; exit; fi\n{what}\n");
    std::fs::write(&program, text)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

impl Show {
    async fn open(config: Config) -> anyhow::Result<Self> {
        let site = Site::start_with(config).await?;
        let key = site.origin.first_key.clone().context("a fresh database")?;
        let rest = Rest {
            addr: site.origin.api,
            key,
        };
        let streams = "/v1/projects/default/streams";
        let stream = rest.post(streams, json!({"vodEnabled": true})).await?.json();
        let path = format!("{streams}/{}", stream["id"].as_str().context("an id")?);
        Ok(Self {
            site,
            rest,
            stream,
            path,
        })
    }

    fn text(&self, pointer: &str) -> &str {
        self.stream.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    async fn push(&self) -> anyhow::Result<Broadcast> {
        let (user, pass) = (self.text("/ingest/username"), self.text("/ingest/password"));
        let app = format!("app?user={user}&pass={pass}");
        Broadcast::start_demo(self.site.origin.rtmp, &app, self.text("/streamKey")).await
    }

    /// Waits until the API says this of the newest recording.
    async fn until(&self, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let since = Instant::now();
        loop {
            let list = self.rest.get(&format!("{}/recordings", self.path)).await?.json();
            let newest = &list["items"][0];
            if wanted(newest) {
                return Ok(newest.clone());
            }
            anyhow::ensure!(since.elapsed() < PATIENCE, "still {newest}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `/vod/<key>/<recording>`
    fn base(&self, recording: &Value) -> String {
        let name = recording["recording"].as_str().unwrap_or_default();
        format!("/vod/{}/{name}", self.text("/streamKey"))
    }

    async fn outcomes(&self, outcome: &str) -> anyhow::Result<f64> {
        let label = format!("outcome=\"{outcome}\"");
        metric(self.site.origin.admin, "weir_origin_thumbnails_total", &label).await
    }

    /// Waits until this many thumbnails came out like that.
    async fn until_outcomes(&self, outcome: &str, count: f64) -> anyhow::Result<()> {
        let since = Instant::now();
        while self.outcomes(outcome).await? < count {
            anyhow::ensure!(since.elapsed() < PATIENCE, "no {count} thumbnails were {outcome}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The recording is complete and plays, and has no thumbnails.
    async fn plays_without_thumbnails(&self) -> anyhow::Result<()> {
        let done = self.until(|r| r["state"] == "completed").await?;
        assert_eq!(done["thumbnailsUrl"], Value::Null);
        let base = self.base(&done);
        let playlist = self.site.get(&format!("{base}/video.m3u8")).await?.playlist()?;
        assert!(playlist.ended && playlist.segments.iter().all(|s| !s.gap));
        let first = playlist.segments[0].uri.as_deref().context("an address")?;
        assert_eq!(self.site.get(&format!("{base}/{first}")).await?.status, StatusCode::OK);
        let track = self.site.get(&format!("{base}/thumbnails.vtt")).await?;
        assert_eq!(track.status, StatusCode::NOT_FOUND);
        Ok(())
    }
}

/// Start and end of a cue in seconds, and its picture.
fn cues(track: &str) -> Vec<(f64, f64, String)> {
    let seconds = |stamp: &str| {
        let parts = stamp.split(':').map(|part| part.parse().unwrap_or(f64::NAN));
        parts.fold(0.0, |sum, part| sum * 60.0 + part)
    };
    let lines: Vec<&str> = track.lines().collect();
    let cue = |pair: &[&str]| {
        let (from, to) = pair[0].split_once(" --> ")?;
        Some((seconds(from), seconds(to), pair[1].to_owned()))
    };
    lines.windows(2).filter_map(cue).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_has_thumbnails_while_it_grows_and_when_it_is_finished() -> anyhow::Result<()> {
    if Command::new("ffmpeg").arg("-version").output().is_err() {
        eprintln!("SKIPPED: there is no ffmpeg");
        return Ok(());
    }
    let folder = Folder::new("thumbnails")?;
    let show = Show::open(config(&folder)).await?;
    let broadcast = show.push().await?;
    let growing = show.until(|r| r["thumbnailsUrl"].is_string()).await?;
    assert_eq!(growing["state"], "recording");
    let base = show.base(&growing);
    let path = format!("{base}/thumbnails.vtt");
    let url = growing["thumbnailsUrl"].as_str().context("an address")?;
    assert!(url.ends_with(&path), "{url}");
    let early = show.site.get(&path).await?;
    assert_eq!(
        (
            early.status,
            early.header("content-type"),
            early.header("cache-control")
        ),
        (StatusCode::OK, "text/vtt; charset=utf-8", "public, max-age=1")
    );
    show.until(|r| r["duration"].as_f64() > Some(7.0)).await?;
    broadcast.end().await?;
    let done = show.until(|r| r["state"] == "completed").await?;

    let since = Instant::now();
    let track = loop {
        let track = show.site.get(&path).await?;
        if track.text().ends_with("NOTE finished\n") {
            break track;
        }
        anyhow::ensure!(since.elapsed() < PATIENCE, "never finished: {}", track.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(track.header("cache-control"), "public, max-age=60");
    assert!(
        track.text().starts_with("WEBVTT\n\n00:00:00.000 --> "),
        "{}",
        track.text()
    );
    let cues = cues(track.text());
    assert!(cues.len() >= 3, "{}", track.text());
    assert!(
        cues.windows(2).all(|pair| pair[0].1 == pair[1].0),
        "without a gap: {}",
        track.text()
    );
    let (seconds, end) = (done["duration"].as_f64().context("seconds")?, cues[cues.len() - 1].1);
    assert!(
        (end - seconds).abs() < 0.1,
        "{seconds} s recorded, pictures up to {end} s"
    );

    let mut pictures = Vec::new();
    for (_, _, name) in &cues {
        let picture = show.site.get(&format!("{base}/{name}")).await?;
        assert_eq!(
            (
                picture.status,
                picture.header("content-type"),
                picture.header("cache-control")
            ),
            (StatusCode::OK, "image/jpeg", "public, max-age=31536000, immutable")
        );
        assert!(picture.body.starts_with(b"\xff\xd8") && picture.body.ends_with(b"\xff\xd9"));
        assert_eq!(frame_size(&picture.body), Some((240, 134)), "{name}");
        pictures.push(picture.body);
    }
    let distinct: std::collections::BTreeSet<_> = pictures.iter().collect();
    assert_eq!(distinct.len(), pictures.len(), "the clock in the picture goes on");
    let picture = format!("{base}/{}", cues[0].2);
    let range = client::ask(show.site.viewers(), Method::GET, &picture, &[("range", "bytes=0-1")]).await?;
    assert_eq!(
        (range.status, &range.body[..]),
        (StatusCode::PARTIAL_CONTENT, &b"\xff\xd8"[..])
    );

    // They go with their recording.
    let name = done["recording"].as_str().context("a name")?;
    let one = format!("{}/recordings/{name}", show.path);
    let deleted = show.rest.call(Method::DELETE, &one, None).await?;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    for gone in [&path, &picture] {
        let since = Instant::now();
        while show.site.get(gone).await?.status != StatusCode::NOT_FOUND {
            anyhow::ensure!(since.elapsed() < PATIENCE, "{gone} is still served");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    show.site.shutdown().await;
    Ok(())
}

/// Width and height by the frame header of a baseline JPEG (ITU T.81 section B.2.2).
fn frame_size(jpeg: &[u8]) -> Option<(u16, u16)> {
    let at = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0])?;
    let number = |at: usize| Some(u16::from_be_bytes([*jpeg.get(at)?, *jpeg.get(at + 1)?]));
    Some((number(at + 7)?, number(at + 5)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_ffmpeg_holds_nothing_up() -> anyhow::Result<()> {
    let folder = Folder::new("thumbnails-hang")?;
    let mut config = config(&folder);
    config.record.thumbnails.ffmpeg = pretender(&folder, "exec sleep 600")?.display().to_string();
    // It is over, completed and playable while the first picture is still waited for.
    config.record.thumbnails.timeout = HumanDuration(Duration::from_secs(600));
    let show = Show::open(config).await?;
    let broadcast = show.push().await?;
    show.until(|r| r["duration"].as_f64() > Some(3.0)).await?;
    broadcast.end().await?;
    show.plays_without_thumbnails().await?;
    assert_eq!(show.outcomes("too_slow").await?, 0.0);
    // Nor does the end of the node wait for it: the next one goes on with what is left.
    let journal = folder.join("journal").join(show.text("/streamKey"));
    show.site.shutdown().await;
    assert!(journal.exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_ffmpeg_is_ended() -> anyhow::Result<()> {
    let folder = Folder::new("thumbnails-slow")?;
    let mut config = config(&folder);
    let pid = folder.join("pid");
    let sleeps = format!("echo $$ >> {}\nexec sleep 600", pid.display());
    config.record.thumbnails.ffmpeg = pretender(&folder, &sleeps)?.display().to_string();
    config.record.thumbnails.timeout = HumanDuration(Duration::from_millis(300));
    let show = Show::open(config).await?;
    let broadcast = show.push().await?;
    show.until_outcomes("too_slow", 1.0).await?;
    let first = std::fs::read_to_string(&pid).unwrap_or_default();
    if let Some(first) = first.lines().next() {
        let process = PathBuf::from(format!("/proc/{first}"));
        let since = Instant::now();
        while process.exists() {
            anyhow::ensure!(since.elapsed() < PATIENCE, "process {first} goes on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    broadcast.end().await?;
    show.plays_without_thumbnails().await?;
    show.site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashing_ffmpeg_is_given_up() -> anyhow::Result<()> {
    for (name, what) in [
        ("dies", "kill -9 $$"),
        ("babbles", "echo no picture"),
        ("floods", "exec yes"),
    ] {
        let folder = Folder::new(&format!("thumbnails-{name}"))?;
        let mut config = config(&folder);
        config.record.thumbnails.ffmpeg = pretender(&folder, what)?.display().to_string();
        config.record.thumbnails.every = HumanDuration(Duration::from_secs(1));
        let show = Show::open(config).await?;
        let broadcast = show.push().await?;
        show.until_outcomes("refused", 3.0).await?;
        show.until(|r| r["duration"].as_f64() > Some(6.0)).await?;
        broadcast.end().await?;
        show.plays_without_thumbnails().await?;
        assert_eq!(
            show.outcomes("refused").await?,
            3.0,
            "{name}: three in a row are enough"
        );
        let journal = folder.join("journal").join(show.text("/streamKey"));
        let since = Instant::now();
        while journal.exists() {
            anyhow::ensure!(since.elapsed() < PATIENCE, "{name}: the journal stays");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        show.site.shutdown().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ffmpeg_a_recording_has_no_thumbnails() -> anyhow::Result<()> {
    let folder = Folder::new("thumbnails-none")?;
    let mut config = config(&folder);
    config.record.thumbnails.ffmpeg = folder.join("nothing").display().to_string();
    let show = Show::open(config).await?;
    let broadcast = show.push().await?;
    show.until(|r| r["duration"].as_f64() > Some(3.0)).await?;
    broadcast.end().await?;
    show.plays_without_thumbnails().await?;
    show.site.shutdown().await;
    Ok(())
}
