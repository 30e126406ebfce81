//! Recordings over the API: by call, their events, their file, their end; and a store that speaks S3.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use weir_loadtest::synthetic::Synthetic;
use weir_origin::config::Config;
use weir_shared::config::Secret;
use weir_tests::{
    client,
    folder::Folder,
    rest::{Feed, Rest},
    site::{Broadcast, Site, origin_config},
};

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(30);

fn recorded_in(folder: &Folder) -> Config {
    let mut config = origin_config();
    config.record.store = folder.join("store").display().to_string();
    config.record.journal = folder.join("journal");
    config
}

async fn site(config: Config) -> anyhow::Result<(Site, Rest)> {
    let site = Site::start_with(config).await?;
    let key = site
        .origin
        .first_key
        .clone()
        .context("a fresh database has a first key")?;
    let addr = site.origin.api;
    Ok((site, Rest { addr, key }))
}

async fn stream(rest: &Rest, body: Value) -> anyhow::Result<(Value, String)> {
    let made = rest.post("/v1/projects/default/streams", body).await?;
    anyhow::ensure!(made.status == StatusCode::CREATED, "{}", made.text());
    let made = made.json();
    let path = format!("/v1/projects/default/streams/{}", made["id"].as_str().context("an id")?);
    Ok((made, path))
}

async fn push(site: &Site, stream: &Value) -> anyhow::Result<Broadcast> {
    let text = |key: &str| stream["ingest"][key].as_str().unwrap_or_default().to_owned();
    let app = format!("app?user={}&pass={}", text("username"), text("password"));
    let key = stream["streamKey"].as_str().unwrap_or_default();
    Broadcast::start_in(site.origin.rtmp, &app, key, &Synthetic::default()).await
}

/// Asks until the answer is one that is wanted.
async fn until(rest: &Rest, path: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let since = Instant::now();
    loop {
        let reply = rest.get(path).await?;
        let body = reply.json();
        if reply.status == StatusCode::OK && wanted(&body) {
            return Ok(body);
        }
        anyhow::ensure!(since.elapsed() < PATIENCE, "{path}: still {} {body}", reply.status);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn next_event(feed: &mut Feed, kind: &str) -> anyhow::Result<Value> {
    let found = async {
        loop {
            let message = feed.next().await?.context("the feed ended")?;
            if message.event == kind {
                return Ok(message.data);
            }
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .with_context(|| format!("no {kind}"))?
}

/// What ffprobe says of a file. `None`: there is no ffprobe.
fn probe(file: &Path) -> anyhow::Result<Option<Value>> {
    let probed = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-show_streams",
            "-show_format",
            "-count_packets",
            "-of",
            "json",
        ])
        .arg(file)
        .output();
    let Ok(probed) = probed else {
        eprintln!("SKIPPED: there is no ffprobe");
        return Ok(None);
    };
    // Pictures of a made-up broadcast can't be decoded; what is asked of the file is that its boxes are right.
    let complaints = String::from_utf8_lossy(&probed.stderr);
    let of_the_file = complaints.lines().filter(|line| line.contains("mov,mp4"));
    anyhow::ensure!(
        probed.status.success() && of_the_file.count() == 0,
        "ffprobe: {complaints}"
    );
    Ok(Some(serde_json::from_slice(&probed.stdout)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_by_call_from_its_start_to_its_deletion() -> anyhow::Result<()> {
    let folder = Folder::new("by-call")?;
    let (site, rest) = site(recorded_in(&folder)).await?;
    let (made, path) = stream(&rest, json!({})).await?;
    let mut feed = rest.follow("default", None).await?;
    let early = rest
        .call(Method::POST, &format!("{path}/start-recording"), None)
        .await?;
    assert_eq!(early.status, StatusCode::CONFLICT, "{}", early.text());

    let broadcast = push(&site, &made).await?;
    until(&rest, &path, |stream| stream["live"] == true).await?;
    let started = rest
        .call(Method::POST, &format!("{path}/start-recording"), None)
        .await?;
    assert_eq!(started.status, StatusCode::OK, "{}", started.text());
    let name = started.json()["recording"].as_str().context("a name")?.to_owned();
    let again = rest
        .call(Method::POST, &format!("{path}/start-recording"), None)
        .await?;
    assert_eq!(again.json()["recording"], name.as_str(), "it goes on");
    let one = format!("{path}/recordings/{name}");
    until(&rest, &one, |r| {
        r["state"] == "recording" && r["duration"].as_f64() > Some(2.0)
    })
    .await?;
    until(&rest, &path, |s| {
        s["recording"] == true && s["recordingDuration"].as_f64() > Some(0.0)
    })
    .await?;
    for refused in [
        rest.call(Method::DELETE, &one, None).await?,
        rest.get(&format!("{one}/download")).await?,
    ] {
        assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.text());
    }

    let stopped = rest.call(Method::POST, &format!("{path}/stop-recording"), None).await?;
    assert_eq!(
        (stopped.status, &stopped.json()["recording"]),
        (StatusCode::OK, &json!(name))
    );
    let done = until(&rest, &one, |r| r["state"] == "completed").await?;
    let nothing = rest.call(Method::POST, &format!("{path}/stop-recording"), None).await?;
    assert_eq!(nothing.status, StatusCode::NO_CONTENT);
    assert_eq!(
        next_event(&mut feed, "recording.started").await?["data"]["recording"],
        name.as_str()
    );
    let told = next_event(&mut feed, "recording.completed").await?;
    assert_eq!(told["data"]["recording"], name.as_str());
    assert_eq!(told["data"]["bytes"], done["bytes"]);
    assert_eq!(told["data"]["url"], done["url"]);
    assert!(told["data"]["durationMs"].as_u64() > Some(2000), "{told}");
    // The push goes on.
    assert_eq!(rest.get(&path).await?.json()["live"], true);

    // The file: whole, and any part of it.
    let whole = rest.get(&format!("{one}/download")).await?;
    assert_eq!(
        (whole.status, whole.header("content-type")),
        (StatusCode::OK, "video/mp4")
    );
    let file = folder.join("file.mp4");
    std::fs::write(&file, &whole.body)?;
    if let Some(found) = probe(&file)? {
        let kinds: Vec<_> = found["streams"]
            .as_array()
            .context("streams")?
            .iter()
            .map(|s| &s["codec_type"])
            .collect();
        assert_eq!(kinds, ["video", "audio"]);
        let seconds: f64 = found["format"]["duration"].as_str().context("a duration")?.parse()?;
        let recorded = done["duration"].as_f64().context("seconds")?;
        assert!((seconds - recorded).abs() < 0.3, "{seconds} of {recorded}");
        let start: f64 = found["format"]["start_time"].as_str().context("a start")?.parse()?;
        assert!(start.abs() < 0.2, "time begins at zero, not at {start}");
    }
    let length = whole.body.len();
    for (from, to) in [
        (0, 10),
        (700, 90_000),
        (length - 5000, length - 1),
        (length / 2, length / 2),
    ] {
        let range = format!("bytes={from}-{to}");
        let bearer = format!("Bearer {}", rest.key);
        let headers = [("range", range.as_str()), ("authorization", bearer.as_str())];
        let part = client::ask(rest.addr, Method::GET, &format!("{one}/download"), &headers).await?;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "{}", part.text());
        assert_eq!(part.header("content-range"), format!("bytes {from}-{to}/{length}"));
        assert!(part.body == whole.body.slice(from..=to), "bytes {from} to {to}");
    }

    // Deleted: viewers get 404, through the edge and at once, also for what the edge holds.
    let key = made["streamKey"].as_str().context("a key")?;
    let base = format!("/vod/{key}/{name}");
    let playlist = site.get(&format!("{base}/video.m3u8")).await?.playlist()?;
    let segment = format!("{base}/{}", playlist.segments[0].uri.as_deref().context("an address")?);
    let loaded = site.get(&segment).await?;
    assert_eq!(loaded.status, StatusCode::OK);
    let mut slow = SlowViewer::ask(site.viewers(), &segment).await?;
    assert_eq!(
        rest.call(Method::DELETE, &one, None).await?.status,
        StatusCode::NO_CONTENT
    );
    let since = Instant::now();
    while site.get(&segment).await?.status != StatusCode::NOT_FOUND {
        anyhow::ensure!(since.elapsed() < Duration::from_secs(3), "still served");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for path in [format!("{base}/index.m3u8"), format!("{base}/video.m3u8")] {
        assert_eq!(site.get(&path).await?.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(rest.get(&one).await?.status, StatusCode::NOT_FOUND);
    // Who was in the middle of it has it to its end.
    let rest_of_it = slow.read_all().await?;
    assert!(rest_of_it.ends_with(&loaded.body), "{} bytes", rest_of_it.len());
    assert!(
        !folder.join("store").join("vod").join(key).exists(),
        "nothing of it is left"
    );
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_that_was_stopped_is_recorded_from_where_viewers_see_it_again() -> anyhow::Result<()> {
    let folder = Folder::new("recording-again")?;
    let (site, rest) = site(recorded_in(&folder)).await?;
    let (made, path) = stream(&rest, json!({"streamKey": "show"})).await?;
    let broadcast = push(&site, &made).await?;
    until(&rest, &path, |s| s["egress"]["broadcasting"] == true).await?;
    let call = async |call: &str, body: Value| rest.post(&format!("{path}/{call}"), body).await;
    assert_eq!(call("stop-broadcasting", json!({})).await?.status, StatusCode::OK);
    let early = call("start-recording", json!({})).await?;
    assert_eq!(early.status, StatusCode::CONFLICT, "{}", early.text());
    assert!(early.text().contains("go-live first"), "{}", early.text());

    let again = call("go-live", json!({"startRecording": true})).await?;
    assert_eq!(
        (again.status, &again.json()["recording"]),
        (StatusCode::OK, &json!(true))
    );
    let longer = |s: &Value| s["recordingDuration"].as_f64().is_some_and(|seconds| seconds > 1.5);
    let seen = until(&rest, &path, longer).await?;
    assert_eq!(seen["recording"], true);
    let stopped = call("stop-recording", json!({})).await?;
    assert_eq!(
        stopped.status,
        StatusCode::OK,
        "there is one to stop: {}",
        stopped.text()
    );
    let name = stopped.json()["recording"].as_str().context("a name")?.to_owned();
    let completed = until(&rest, &format!("{path}/recordings/{name}"), |r| {
        r["state"] == "completed"
    })
    .await?;
    assert!(
        completed["duration"].as_f64().is_some_and(|seconds| seconds > 1.5),
        "{completed}"
    );
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_outlive_their_stream() -> anyhow::Result<()> {
    let folder = Folder::new("outlive")?;
    let (site, rest) = site(recorded_in(&folder)).await?;
    let (made, path) = stream(&rest, json!({"vodEnabled": true})).await?;
    let mut feed = rest.follow("default", None).await?;
    let broadcast = push(&site, &made).await?;
    let started = next_event(&mut feed, "recording.started").await?;
    let name = started["data"]["recording"].as_str().context("a name")?;
    let one = format!("{path}/recordings/{name}");
    until(&rest, &one, |r| r["duration"].as_f64() > Some(2.0)).await?;
    broadcast.end().await?;
    until(&rest, &one, |r| r["state"] == "completed").await?;
    let vod = format!(
        "/vod/{}/{name}/index.m3u8",
        made["streamKey"].as_str().context("a key")?
    );
    for purge in ["", "?purge=true"] {
        let deleted = rest.call(Method::DELETE, &format!("{path}{purge}"), None).await?;
        assert!(deleted.status.is_success(), "{}", deleted.text());
        assert_eq!(site.get(&vod).await?.status, StatusCode::OK, "after DELETE {purge}");
        let list = rest.get(&format!("{path}/recordings")).await?.json();
        assert_eq!(
            (&list["total"], &list["items"][0]["recording"]),
            (&json!(1), &json!(name))
        );
    }
    assert_eq!(rest.get(&path).await?.status, StatusCode::NOT_FOUND);
    site.shutdown().await;
    Ok(())
}

/// Who has begun to load something, and takes their time.
struct SlowViewer(TcpStream, Vec<u8>);

impl SlowViewer {
    async fn ask(at: SocketAddr, path: &str) -> anyhow::Result<Self> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        // So that most of it is still to be sent.
        socket.set_recv_buffer_size(4096)?;
        let mut stream = socket.connect(at).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut first = vec![0; 1024];
        stream.read_exact(&mut first).await?;
        anyhow::ensure!(first.starts_with(b"HTTP/1.1 200"), "it is not given");
        Ok(Self(stream, first))
    }

    async fn read_all(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut all = std::mem::take(&mut self.1);
        tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut all)).await??;
        Ok(all)
    }
}

/// Something that speaks HTTP where a store should be, and refuses everything.
async fn stubborn_store(answer: &'static str) -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let at = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // The request may be anything, and need not have come whole.
                let mut request = vec![0; 64 << 10];
                let _ = stream.read(&mut request).await;
                let head = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
            });
        }
    });
    Ok(at)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_and_health_say_why_a_store_takes_nothing_and_live_goes_on() -> anyhow::Result<()> {
    for (answer, problem, remedy) in [
        ("403 Forbidden", "no_permission", "leave to write"),
        ("507 Insufficient Storage", "no_space", "make room"),
        ("404 Not Found", "no_bucket", "does not exist"),
    ] {
        let folder = Folder::new(problem)?;
        let at = stubborn_store(answer).await?;
        let (site, rest) = site(s3_config(at, &folder, "recordings")).await?;
        let (made, path) = stream(&rest, json!({})).await?;
        let broadcast = push(&site, &made).await?;
        let list = format!("{path}/recordings");
        let told = until(&rest, &list, |l| !l["items"][0]["problem"].is_null()).await?;
        assert_eq!(told["items"][0]["problem"], problem, "{answer}");
        let health = until(&rest, &format!("{path}/health"), |h| {
            h["warnings"].to_string().contains(remedy)
        })
        .await?;
        assert_eq!(health["framesDropped"], 0, "{health}");
        let key = made["streamKey"].as_str().context("a key")?;
        let before = site.playlist(key, "video").await?.open_sequence();
        let since = Instant::now();
        while site.playlist(key, "video").await?.open_sequence() <= before {
            anyhow::ensure!(since.elapsed() < PATIENCE, "{answer}: live stands still");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        broadcast.end().await?;
        site.shutdown().await;
    }
    Ok(())
}

fn s3_config(at: SocketAddr, folder: &Folder, bucket: &str) -> Config {
    let mut config = recorded_in(folder);
    config.record.store = format!("s3://{bucket}/weir");
    for (name, value) in [
        ("aws_endpoint", format!("http://{at}")),
        ("aws_region", "us-east-1".to_owned()),
        ("aws_access_key_id", "test".to_owned()),
        ("aws_secret_access_key", "test".to_owned()),
        ("allow_http", "true".to_owned()),
    ] {
        config.record.options.insert(name.to_owned(), Secret::new(value));
    }
    config.record.every_broadcast = true;
    config
}

/// An S3 server of its own; ends with the value.
struct S3 {
    child: Child,
    at: SocketAddr,
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl S3 {
    /// `None`: moto is not installed (`pip install 'moto[server]'`).
    async fn start() -> anyhow::Result<Option<Self>> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
        for (program, first) in [("moto_server", None), (python.as_str(), Some(["-m", "moto.server"]))] {
            let spawned = Command::new(program)
                .args(first.iter().flatten())
                .args(["-H", "127.0.0.1", "-p", &port.to_string()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let Ok(child) = spawned else { continue };
            let mut server = Self {
                child,
                at: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            };
            let since = Instant::now();
            while since.elapsed() < PATIENCE {
                if server.child.try_wait()?.is_some() {
                    break;
                }
                if client::get(server.at, "/").await.is_ok() {
                    return Ok(Some(server));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(None)
    }

    async fn make_bucket(&self, name: &str) -> anyhow::Result<()> {
        let request = Request::put(format!("/{name}"))
            .header("host", self.at.to_string())
            .body(http_body_util::Full::default())?;
        let made = client::exchange(self.at, request).await?;
        anyhow::ensure!(made.status.is_success(), "{} {}", made.status, made.text());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_server_keeps_recordings_and_a_missing_bucket_is_told() -> anyhow::Result<()> {
    let Some(s3) = S3::start().await? else {
        eprintln!("SKIPPED: nothing was recorded to S3: moto is not installed");
        return Ok(());
    };
    let folder = Folder::new("s3")?;
    let (site, rest) = site(s3_config(s3.at, &folder, "recordings")).await?;
    let (made, path) = stream(&rest, json!({})).await?;
    let key = made["streamKey"].as_str().context("a key")?.to_owned();
    let broadcast = push(&site, &made).await?;
    // There is no such bucket: the API says so, health shows it, live goes on.
    let list = format!("{path}/recordings");
    let told = until(&rest, &list, |l| l["items"][0]["problem"] == "no_bucket").await?;
    assert_eq!(told["items"][0]["state"], "recording");
    let health = until(&rest, &format!("{path}/health"), |h| {
        h["warnings"].to_string().contains("does not exist") && h["bitrate"].as_u64() > Some(0)
    })
    .await?;
    assert_eq!(health["framesDropped"], 0, "{health}");
    assert!(site.playlist(&key, "video").await?.preload_hint.is_some());
    // It is made: everything that waited is stored, from the first segment on.
    s3.make_bucket("recordings").await?;
    until(&rest, &list, |l| l["items"][0]["problem"].is_null()).await?;
    broadcast.end().await?;
    let done = until(&rest, &list, |l| l["items"][0]["state"] == "completed").await?;
    let name = done["items"][0]["recording"].as_str().context("a name")?;
    let base = format!("/vod/{key}/{name}");
    let playlist = site.get(&format!("{base}/video.m3u8")).await?.playlist()?;
    assert!(playlist.ended && playlist.segments.iter().all(|s| !s.gap));
    for segment in &playlist.segments {
        let path = format!("{base}/{}", segment.uri.as_deref().context("an address")?);
        assert_eq!(site.get(&path).await?.status, StatusCode::OK);
    }
    let one = format!("{path}/recordings/{name}");
    assert_eq!(rest.get(&format!("{one}/download")).await?.status, StatusCode::OK);
    assert_eq!(
        rest.call(Method::DELETE, &one, None).await?.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(rest.get(&one).await?.status, StatusCode::NOT_FOUND);
    site.shutdown().await;
    Ok(())
}
