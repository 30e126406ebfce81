//! `kill -9` at random moments while a broadcast is recorded: each recording plays afterwards, without a break, and lacks
//! at most the part that was being written.
//!
//! The origin runs in a process of its own; this one pushes to it and watches the live playlist, so it knows which parts
//! there were. The next process picks the recording up, finishes it, and is killed in its turn.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use weir_origin::{
    app::Origin,
    record::boxes::{boxes, descend, u32_at, u64_at},
};
use weir_shared::{
    config::HumanDuration,
    hls::{
        address::{THUMBNAILS, THUMBNAILS_END},
        name::{MediaObject, ObjectName},
        parse,
    },
};

use crate::{
    client,
    site::{self, Broadcast},
    victim::{Victim, say_ready},
};

/// Set for the process that is killed: the folder of its store and its journal.
pub const FOLDER: &str = "WEIR_RECORD_CRASH_FOLDER";
/// Longest life after the first part, in milliseconds.
const LIFE_MS: u64 = 2500;
/// Longest wait for a part.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for a recording to be finished: thumbnails are taken with what a machine has left.
const FINISH_PATIENCE: Duration = Duration::from_secs(120);

/// The killed process: an origin that records everything, says where it listens, and runs until it is killed.
pub async fn serve_until_killed() -> anyhow::Result<()> {
    let folder = PathBuf::from(std::env::var(FOLDER).context("started by hand")?);
    let mut config = site::origin_config();
    config.record.store = folder.join("store").display().to_string();
    config.record.journal = folder.join("journal");
    config.record.every_broadcast = true;
    config.record.wait = HumanDuration(Duration::ZERO);
    config.record.thumbnails.enabled = true;
    config.record.thumbnails.every = HumanDuration(Duration::from_secs(1));
    let origin = Origin::start(config).await?;
    say_ready(&[origin.http.port().to_string(), origin.rtmp.port().to_string()]);
    std::future::pending().await
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    pub kills: u32,
    /// Parts that viewers had seen before the kills.
    pub seen: u64,
    /// Those of them that no recording has. At most one per kill and rendition.
    pub missing: u64,
    /// Recordings that ffprobe read without a complaint.
    pub probed: u32,
    /// Thumbnails that their tracks name.
    pub thumbnails: u64,
}

/// A broadcast that was being recorded when its origin was killed.
struct Killed {
    key: String,
    /// Parts of each rendition that viewers had seen.
    seen: Vec<(&'static str, u64)>,
}

/// Kills the origin `kills` times. `program` starts the process that calls [`serve_until_killed`].
pub async fn kill_again_and_again(
    program: impl Fn() -> Command,
    folder: &Path,
    kills: u32,
    seed: u64,
) -> anyhow::Result<Outcome> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut outcome = Outcome::default();
    let mut last: Option<Killed> = None;
    for kill in 0..=kills {
        let mut command = program();
        command.env(FOLDER, folder);
        let server = Victim::start(command)?;
        let (http, rtmp) = (server.address(0)?, server.address(1)?);
        if let Some(killed) = last.take() {
            let told = || format!("seed {seed}, kill {kill}");
            verify(folder, &killed, &mut outcome).await.with_context(told)?;
        }
        if kill == kills {
            break;
        }
        let key = format!("show{kill}");
        let broadcast = Broadcast::start_demo(rtmp, "app", &key).await?;
        let parts: Vec<_> = ["video", "audio"]
            .into_iter()
            .map(|rendition| {
                let seen = Arc::new(AtomicU64::new(0));
                let watching = tokio::spawn(watch(http, key.clone(), rendition, seen.clone()));
                (rendition, seen, watching)
            })
            .collect();
        let deadline = Instant::now() + PATIENCE;
        while parts.iter().any(|(_, seen, _)| seen.load(Ordering::Acquire) == 0) {
            anyhow::ensure!(Instant::now() < deadline, "no part came");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // A random moment: what is awaited here is chance itself.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..LIFE_MS))).await;
        let seen = parts
            .iter()
            .map(|(rendition, seen, _)| (*rendition, seen.load(Ordering::Acquire)))
            .collect();
        server.kill()?;
        broadcast.cut();
        for (_, _, watching) in parts {
            watching.abort();
        }
        outcome.kills += 1;
        last = Some(Killed { key, seen });
    }
    Ok(outcome)
}

/// Follows a rendition as a player does, and counts its parts.
async fn watch(http: SocketAddr, key: String, rendition: &'static str, seen: Arc<AtomicU64>) -> anyhow::Result<()> {
    let base = format!("/app/{key}/d/{rendition}.m3u8");
    client::get(http, &format!("/app/{key}/index.m3u8")).await?;
    let mut path = base.clone();
    loop {
        let Ok(playlist) = client::get(http, &path).await?.playlist() else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let hint = playlist.preload_hint.as_ref().map(|hint| ObjectName::parse(&hint.uri));
        if let Some(Some(ObjectName::Media {
            object: MediaObject::Part(next),
            ..
        })) = hint
        {
            // Parts are numbered from zero: the next one's number is how many there are.
            seen.store(next.0, Ordering::Release);
        }
        let (msn, part) = (playlist.open_sequence(), playlist.open_parts().len());
        path = format!("{base}?_HLS_msn={msn}&_HLS_part={part}");
    }
}

/// The recording is finished, whole and continuous.
async fn verify(folder: &Path, killed: &Killed, outcome: &mut Outcome) -> anyhow::Result<()> {
    let journal = folder.join("journal").join(&killed.key);
    let deadline = Instant::now() + FINISH_PATIENCE;
    while journal.exists() {
        anyhow::ensure!(Instant::now() < deadline, "{} was not finished", killed.key);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let store = folder.join("store/vod").join(&killed.key);
    let recording = std::fs::read_dir(&store)?.next().context("no recording")??.path();
    for (rendition, seen) in &killed.seen {
        let text = std::fs::read_to_string(recording.join(format!("{rendition}.m3u8")))?;
        anyhow::ensure!(text.ends_with("#EXT-X-ENDLIST\n"), "{rendition} has no end");
        let playlist = parse::parse(&text)?;
        let mut parts = 0u64;
        let mut next = None;
        let last = playlist.segments.len().saturating_sub(1);
        for (n, segment) in playlist.segments.iter().enumerate() {
            // The kill may fall between the renditions' first parts of a segment: that part is the one that is missing.
            if segment.gap && n == last {
                break;
            }
            anyhow::ensure!(!segment.gap && !segment.discontinuity, "{rendition} has a hole");
            let bytes = std::fs::read(recording.join(segment.uri.as_deref().context("an address")?))?;
            for moof in boxes(&bytes).filter(|found| found.kind == *b"moof") {
                let (time, duration) = times(moof.content).context("a fragment's times")?;
                anyhow::ensure!(
                    next.is_none_or(|next| next == time),
                    "{rendition} jumps from {next:?} to {time}"
                );
                next = Some(time + duration);
                parts += 1;
            }
        }
        let missing = seen.saturating_sub(parts);
        anyhow::ensure!(
            missing <= 1,
            "{rendition}: {seen} parts were seen, {parts} are recorded"
        );
        outcome.seen += seen;
        outcome.missing += missing;
    }
    if probe(&recording)? {
        outcome.probed += 1;
    }
    outcome.thumbnails += thumbnails(&recording)?;
    std::fs::remove_dir_all(&store)?;
    Ok(())
}

/// The track is finished, and whatever it names is there. Without ffmpeg there is none.
fn thumbnails(recording: &Path) -> anyhow::Result<u64> {
    let Ok(track) = std::fs::read_to_string(recording.join(THUMBNAILS)) else {
        return Ok(0);
    };
    anyhow::ensure!(track.ends_with(THUMBNAILS_END), "the thumbnails' track has no end");
    let mut count = 0;
    for picture in track.lines().filter(|line| line.ends_with(".jpg")) {
        let bytes = std::fs::read(recording.join(picture))?;
        anyhow::ensure!(bytes.starts_with(b"\xff\xd8"), "{picture} is no JPEG");
        count += 1;
    }
    Ok(count)
}

/// Decode time of a fragment and the sum of its samples' durations.
fn times(moof: &[u8]) -> Option<(u64, u64)> {
    let (_, tfdt) = descend(moof, &[b"traf", b"tfdt"])?;
    let (_, trun) = descend(moof, &[b"traf", b"trun"])?;
    let samples = usize::try_from(u32_at(trun, 4)?).ok()?;
    let durations = (0..samples).map(|n| u32_at(trun, 12 + 16 * n));
    let sum: Option<u64> = durations.map(|duration| duration.map(u64::from)).sum();
    Some((u64_at(tfdt, 4)?, sum?))
}

/// ffprobe reads it through its playlists and finds nothing to complain about. False: there is no ffprobe.
fn probe(recording: &Path) -> anyhow::Result<bool> {
    let probed = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-count_packets",
            "-show_entries",
            "stream=codec_type,nb_read_packets",
        ])
        .args(["-of", "csv=p=0", "-allowed_extensions", "ALL", "-i"])
        .arg(recording.join("index.m3u8"))
        .output();
    let Ok(probed) = probed else { return Ok(false) };
    let complaints = String::from_utf8_lossy(&probed.stderr);
    let found = String::from_utf8_lossy(&probed.stdout);
    anyhow::ensure!(
        probed.status.success() && complaints.is_empty(),
        "ffprobe: {complaints}"
    );
    anyhow::ensure!(
        found.contains("video") && found.contains("audio"),
        "ffprobe found {found}"
    );
    Ok(true)
}
