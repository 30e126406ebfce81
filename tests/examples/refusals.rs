//! What bad tickets cost, and what good viewers notice of them.
//!
//!     cargo build --release -p weir-edge
//!     taskset -c 1 cargo run --release -p weir-tests --example refusals -- \
//!         "taskset -c 0 target/release/weir-edge" [viewers] [bad tickets/s] [seconds] [rounds]
//!
//! An origin and a made-up broadcast run in this process, the edge in one of its own, on a core of its own. How late viewers with
//! tickets hear of a part is measured undisturbed, then while tampered session tickets arrive, on pipelined connections, at the
//! given rate (0: as fast as they are refused), in as many rounds as are asked for. The edge's CPU time is read from /proc.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use weir_loadtest::synthetic::Synthetic;
use weir_shared::{
    config::Secret,
    directory::PlaybackSecret,
    playback::{
        policy::Policy,
        session::{Session, ViewerId},
    },
};
use weir_tests::{
    audience::{Audience, Disturbance, EdgeProcess, median},
    control::project,
    site::{self, Broadcast},
};

const CREDENTIAL: &str = "the-fleet's-own-credential";
const KEY: &str = "show";
/// Refusals asked for at once on one connection.
const DEPTH: usize = 16;
const CONNECTIONS: usize = 32;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |n: usize, default: u64| arguments.get(n).map_or(Ok(default), |text| text.parse());
    let program = arguments
        .first()
        .context("the edge's program, with taskset before it perhaps")?;
    let (viewers, rate, seconds) = (number(1, 200)?, number(2, 50_000)?, number(3, 10)?);
    let (time, rounds) = (Duration::from_secs(seconds), number(4, 1)?);

    let mut config = site::origin_config();
    config.any_key = false;
    config.directory = Some(weir_origin::config::Directory {
        credential: Secret::new(CREDENTIAL),
        url: None,
    });
    let origin = weir_origin::app::Origin::start(config).await?;
    let stream = weir_origin::control::service::NewStream {
        key: Some(KEY.parse()?),
        settings: weir_origin::control::model::Settings {
            signed_playback: true,
            ..Default::default()
        },
        active: true,
        ..Default::default()
    };
    let stream = origin.control.create_stream(&project()?, stream, None).await?.stream;
    let secret = PlaybackSecret::new(stream.credentials.playback_secret.clone());
    let name = format!("{KEY}?t={}", stream.credentials.token);
    let broadcast = Broadcast::start_in(origin.rtmp, "key", &name, &Synthetic::default()).await?;

    let edge = EdgeProcess::start(
        program,
        &format!(
            "origins: [\"http://{}\"]\ndirectory: {{ origins: [\"http://{}\"], credential: \"{CREDENTIAL}\" }}",
            origin.http, origin.api
        ),
    )?;
    // Each with a ticket of his own: what one ticket may ask is limited.
    let sessions: Vec<String> = (0..viewers)
        .map(|viewer| Ok(Session::of(&Policy::until(0), ViewerId(viewer)).mint(&KEY.parse()?, &secret)?))
        .collect::<anyhow::Result<_>>()?;
    let playlists: Vec<String> = sessions
        .iter()
        .map(|session| format!("/app/{KEY}/~{session}/d/video.m3u8"))
        .collect();
    let session = sessions.first().context("a viewer at least")?;
    let playlist = playlists.first().context("a viewer at least")?;
    edge.plays(playlist).await?;
    let mut audience = Audience::enter(edge.at, &playlists, origin.http, &format!("/app/{KEY}/d/video.m3u8")).await?;
    // What is only at the beginning: until an encoder's rhythm is known, the end of a segment is told with the part after it.
    audience.watch(Duration::from_secs(8)).await?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let quiet = audience.watch(time).await?;
        let refused = Arc::new(AtomicU64::new(0));
        let (at, ticket, counted) = (edge.at, tampered(session), refused.clone());
        let before = (edge.usage()?.cpu_seconds, Instant::now());
        let attackers = Disturbance::begin(move || attack(at, ticket, rate, counted));
        let loud = audience.watch(time).await?;
        let (cpu, wall) = (edge.usage()?.cpu_seconds - before.0, before.1.elapsed().as_secs_f64());
        attackers.end()?;
        let refused = refused.load(Ordering::Relaxed) as f64;
        println!(
            "round {round}: {quiet}; with bad tickets {loud}; refused {:.0}/s with {:.0} % of a core: {:.0} for each second of the \
             edge's CPU, viewers included",
            refused / wall,
            100.0 * cpu / wall,
            refused / cpu,
        );
        without.push(quiet.percentile(0.99));
        with.push(loud.percentile(0.99));
    }
    println!(
        "medians of {rounds}: p99 {:.2} ms, with bad tickets {:.2} ms, moved by {:+.1} %",
        median(&without),
        median(&with),
        100.0 * (median(&with) / median(&without) - 1.0)
    );
    broadcast.end().await?;
    origin.shutdown().await;
    Ok(())
}

/// On all connections together `rate` bad tickets a second; 0: no limit. Ends only if one is let in, or the edge hangs up.
async fn attack(edge: SocketAddr, ticket: String, rate: u64, refused: Arc<AtomicU64>) -> anyhow::Result<()> {
    let mut attackers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let share = rate / CONNECTIONS as u64;
        attackers.spawn(attacker(edge, ticket.clone(), share, refused.clone()));
    }
    while let Some(ended) = attackers.join_next().await {
        ended??;
    }
    Ok(())
}

async fn attacker(edge: SocketAddr, ticket: String, rate: u64, refused: Arc<AtomicU64>) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(edge).await?;
    stream.set_nodelay(true)?;
    let request = format!("GET /app/{KEY}/~{ticket}/d/video.m3u8 HTTP/1.1\r\nhost: edge\r\n\r\n").repeat(DEPTH);
    let mut answers = vec![0; 64 * 1024];
    let (begin, mut sent) = (Instant::now(), 0u64);
    loop {
        if rate > 0 {
            let due = begin + Duration::from_secs_f64(sent as f64 / rate as f64);
            tokio::time::sleep_until(due.into()).await;
        }
        stream.write_all(request.as_bytes()).await?;
        sent += DEPTH as u64;
        // Every answer ends with the same two braces.
        let mut seen = 0;
        while seen < DEPTH {
            let read = stream.read(&mut answers).await?;
            anyhow::ensure!(read > 0, "the edge hung up");
            let text = &answers[..read];
            anyhow::ensure!(
                !text.windows(12).any(|w| w == b"HTTP/1.1 200"),
                "a bad ticket was let in"
            );
            seen += text.windows(2).filter(|w| *w == b"}}").count();
        }
        refused.fetch_add(DEPTH as u64, Ordering::Relaxed);
    }
}

/// One bit of the signature is wrong.
fn tampered(ticket: &str) -> String {
    let (good, last) = ticket.split_at(ticket.len() - 4);
    let turned: String = last.chars().map(|c| if c == 'A' { 'B' } else { 'A' }).collect();
    format!("{good}{turned}")
}
