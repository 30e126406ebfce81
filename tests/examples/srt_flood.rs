//! What a flood of SRT handshakes costs: memory, packets of an established publish, and patience of a good caller.
//!
//!     cargo build --release -p weir && cargo build --release -p weir-tests --example srt_flood
//!     target/release/examples/srt_flood target/release/weir [rounds]
//!
//! The server runs in a process of its own. A publish of 5 Mbit/s is established first; then, per round, 60 000 source ports
//! of another loopback address send an induction and a conclusion with a made-up cookie each, unpaced, on two threads, while
//! good callers call one after the other. One line of JSON per round.

use std::{
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::time::sleep;
use weir_loadtest::{
    publisher::Uplink,
    synthetic::{Synthetic, SyntheticVideo},
    system,
};
use weir_tests::{
    flood, folder,
    site::{Broadcast, metric},
};

/// Where the flood comes from.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const FIRST_PORT: u16 = 2_000;
const THREADS: u16 = 2;
const PORTS_OF_A_THREAD: u16 = 30_000;
/// Until the publish's window in memory is full, and everything has its size.
const SETTLE: Duration = Duration::from_secs(25);
const BETWEEN: Duration = Duration::from_secs(10);
/// A short window, so that memory stops growing soon.
const CONFIG: &str = "
origin:
  srt: { listen: \"127.0.0.1:0\" }
  ingest: { grace: 0s }
  packaging: { part_target: 200ms, segment_target: 1s, window: 6s }
  streams:
    - { key: show }
    - { key: good }
";

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().context("the program weir")?;
    let rounds = arguments.next().map_or(Ok(3), |rounds| rounds.parse::<u32>())?;
    let config = folder::unused("srt-flood").with_extension("yaml");
    std::fs::write(&config, CONFIG)?;
    let mut server = Server(
        Command::new(program)
            .args(["up", "--ephemeral", "--json", "--config"])
            .arg(&config)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?,
    );
    let mut ready = String::new();
    BufReader::new(server.0.stdout.take().context("its output")?).read_line(&mut ready)?;
    std::fs::remove_file(&config)?;
    let ready: serde_json::Value = serde_json::from_str(&ready)?;
    let address = |name: &str| {
        let url = ready["origin"][name].as_str().unwrap_or_default();
        url.split("://").last().unwrap_or_default().parse::<SocketAddr>()
    };
    let (srt, admin, pid) = (address("srt")?, address("admin")?, server.0.id());

    let synthetic = Synthetic {
        video: Some(SyntheticVideo {
            bitrate: 5_000_000,
            ..Default::default()
        }),
        ..Default::default()
    };
    let established = Broadcast::push(&format!("srt://{srt}?latency=120"), "show", &synthetic).await?;
    sleep(SETTLE).await;
    for round in 1..=rounds {
        let fate = async |fate: &str| metric(admin, "weir_origin_srt_packets_total", fate).await;
        let before = (
            resident(pid).await?,
            fate("\"lost\"").await?,
            fate("\"missing\"").await?,
        );
        let began = Instant::now();
        let floods: Vec<_> = (0..THREADS)
            .map(|thread| {
                let first = FIRST_PORT + thread * PORTS_OF_A_THREAD;
                std::thread::spawn(move || flood::handshakes(srt, SOURCE, first..first + PORTS_OF_A_THREAD))
            })
            .collect();
        let mut waits = Vec::new();
        while !floods.iter().all(std::thread::JoinHandle::is_finished) {
            let called = Instant::now();
            let uplink = Uplink::connect(&format!("srt://{srt}"), "good").await?;
            waits.push(called.elapsed().as_millis());
            uplink.close().await?;
        }
        let flooded = began.elapsed().as_secs_f64();
        let mut sent = 0;
        for flood in floods {
            sent += flood.join().map_err(|_| anyhow::anyhow!("the flood broke"))??;
        }
        sleep(BETWEEN).await;
        let (lost, missing) = (
            fate("\"lost\"").await? - before.1,
            fate("\"missing\"").await? - before.2,
        );
        let dropped = metric(admin, "weir_origin_srt_frames_dropped_total", "").await?;
        let answered = metric(admin, "weir_origin_srt_handshakes_total", "").await?;
        println!(
            "{}",
            serde_json::json!({
                "round": round, "handshakes": sent, "seconds": flooded, "heard_in_all": answered,
                "memory_growth_bytes": resident(pid).await? as i64 - before.0 as i64,
                "packets_missing": missing, "packets_lost": lost, "frames_dropped": dropped,
                "good_callers_ms": waits.iter().map(|ms| *ms as u64).collect::<Vec<_>>(),
            })
        );
    }
    let report = established.end().await?;
    println!(
        "{}",
        serde_json::json!({ "frames": report.video_frames, "repeated_datagrams": report.repeated })
    );
    Ok(())
}

/// The median of five seconds: parts come and go.
async fn resident(pid: u32) -> anyhow::Result<u64> {
    let mut samples = Vec::new();
    for _ in 0..25 {
        samples.push(system::usage(pid)?.resident_bytes);
        sleep(Duration::from_millis(200)).await;
    }
    samples.sort_unstable();
    Ok(samples[samples.len() / 2])
}
