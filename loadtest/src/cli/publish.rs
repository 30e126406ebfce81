//! `publish`: broadcasters without ffmpeg.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weir_shared::config::HumanDuration;

use crate::{
    clip::Clip,
    demo,
    publisher::{self, Publish, PublishError, Report, Uplink},
    rhythm::Rhythm,
    synthetic::{Synthetic, SyntheticAudio, SyntheticVideo},
};

/// Largest clip, in bytes.
const CLIP_LIMIT: u64 = 512 << 20;
/// Most publishers of one process.
const MAX_PUBLISHERS: u32 = 10_000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// rtmp://host[:port]/app, or srt://host:port with latency (ms), passphrase and pbkeylen as encoders have them:
    /// srt://127.0.0.1:9000?latency=200&passphrase=…
    url: String,
    /// Stream key, over SRT the stream id; `{}` becomes the publisher's number. A streamid in the URL goes first.
    #[arg(long, default_value = "s{}")]
    key: String,
    /// How many publish at once.
    #[arg(long, default_value_t = 1)]
    publishers: u32,
    /// They begin evenly over this time.
    #[arg(long, default_value = "1s")]
    arrival: HumanDuration,
    /// Default: until Ctrl-C.
    #[arg(long)]
    duration: Option<HumanDuration>,
    /// An FLV file, looped.
    #[arg(long, conflicts_with = "demo")]
    clip: Option<PathBuf>,
    /// The demo clip, whose picture tells the time.
    #[arg(long)]
    demo: bool,
    /// Video bits per second of a made-up stream.
    #[arg(long, default_value_t = 2_500_000)]
    bitrate: u32,
    #[arg(long, default_value_t = 30)]
    fps: u32,
    /// Distance of key frames.
    #[arg(long, default_value = "1s")]
    gop: HumanDuration,
    #[arg(long)]
    b_frames: bool,
    #[arg(long)]
    no_audio: bool,
    /// Frames leave in bundles that span so long, in turn (200ms, or 200ms,600ms,50ms), as encoders and relays bundle
    /// them. Default: each by itself.
    #[arg(long, value_delimiter = ',', value_name = "TIMES")]
    part_pattern: Vec<HumanDuration>,
    /// Each frame (or bundle) leaves up to so much later, at random. Timestamps stay.
    #[arg(long, default_value = "0s")]
    jitter: HumanDuration,
    /// Makes the jitter repeatable.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Clone)]
enum Broadcast {
    Clip(Arc<Clip>),
    MadeUp(Synthetic),
}

pub(super) async fn main(args: Args, interrupt: CancellationToken) -> anyhow::Result<bool> {
    let publishers = args.publishers;
    anyhow::ensure!(
        (1..=MAX_PUBLISHERS).contains(&publishers),
        "--publishers: 1 to {MAX_PUBLISHERS}"
    );
    anyhow::ensure!(
        publishers == 1 || args.key.contains("{}"),
        "--key: say where the publisher's number goes, like s{{}}"
    );
    crate::system::allow_files(u64::from(publishers) + 64)?;
    let broadcast = broadcast(&args)?;
    let spans: Vec<_> = args.part_pattern.iter().map(|span| span.0).collect();
    let rhythm = |n: u32| Rhythm::new(spans.clone(), args.jitter.0, args.seed.wrapping_add(u64::from(n)));
    let stop = interrupt.child_token();
    let mut tasks = JoinSet::new();
    for n in 0..publishers {
        let number = n.to_string();
        let (url, key) = (args.url.replace("{}", &number), args.key.replace("{}", &number));
        let begins = args.arrival.0.mul_f64(f64::from(n) / f64::from(publishers));
        let (broadcast, rhythm, stop) = (broadcast.clone(), rhythm(n)?, stop.clone());
        tasks.spawn(async move {
            let waited = stop.run_until_cancelled(tokio::time::sleep(begins)).await;
            if waited.is_none() {
                return Ok(Report::default());
            }
            publish(url, key, broadcast, rhythm, stop).await
        });
    }
    if let Some(duration) = args.duration {
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(duration.0).await;
            stop.cancel();
        });
    }
    println!("{publishers} publishing to {}; Ctrl-C ends it", args.url);
    tell(tasks).await
}

fn broadcast(args: &Args) -> anyhow::Result<Broadcast> {
    if args.demo {
        return Ok(Broadcast::Clip(demo::clip()));
    }
    if let Some(path) = &args.clip {
        let name = path.display();
        let length = std::fs::metadata(path).with_context(|| format!("--clip {name}"))?.len();
        anyhow::ensure!(length <= CLIP_LIMIT, "--clip {name}: larger than {CLIP_LIMIT} bytes");
        let bytes = std::fs::read(path).with_context(|| format!("--clip {name}"))?;
        return Ok(Broadcast::Clip(Arc::new(
            Clip::from_flv(bytes.into()).with_context(|| format!("--clip {name}"))?,
        )));
    }
    let video = SyntheticVideo {
        fps: (args.fps.clamp(1, 240), 1),
        gop_seconds: args.gop.0.as_secs_f64(),
        bitrate: args.bitrate,
        b_frames: args.b_frames,
    };
    let audio = (!args.no_audio).then(SyntheticAudio::default);
    Ok(Broadcast::MadeUp(Synthetic {
        video: Some(video),
        audio,
    }))
}

async fn publish(
    url: String,
    key: String,
    broadcast: Broadcast,
    rhythm: Rhythm,
    stop: CancellationToken,
) -> Result<Report, PublishError> {
    match broadcast {
        Broadcast::Clip(clip) => {
            let start_at = Some(SystemTime::UNIX_EPOCH);
            publisher::publish(
                Publish {
                    url,
                    key,
                    clip,
                    looped: true,
                    start_at,
                    rhythm,
                },
                stop,
            )
            .await
        }
        Broadcast::MadeUp(synthetic) => {
            let Some(session) = stop
                .run_until_cancelled(Uplink::connect(&url, &key))
                .await
                .transpose()?
            else {
                return Ok(Report::default());
            };
            publisher::push(session, synthetic.source(), Instant::now(), rhythm, &stop).await
        }
    }
}

async fn tell(mut tasks: JoinSet<Result<Report, PublishError>>) -> anyhow::Result<bool> {
    let (mut frames, mut bytes, mut repeated, mut worst, mut failed) = (0, 0, 0, Duration::ZERO, 0u32);
    while let Some(ended) = tasks.join_next().await {
        match ended? {
            Ok(report) => {
                frames += report.video_frames + report.audio_frames;
                bytes += report.bytes;
                repeated += report.repeated;
                worst = worst.max(report.worst_lateness);
            }
            Err(error) => {
                failed += 1;
                if failed <= 5 {
                    eprintln!("a publisher ended: {error}");
                }
            }
        }
    }
    println!(
        "{frames} frames, {} MB sent, {repeated} datagrams again; sent at most {worst:.1?} late; {failed} publishers failed",
        bytes / 1_000_000
    );
    Ok(failed == 0)
}
