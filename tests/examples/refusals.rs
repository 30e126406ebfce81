//! What bad tickets cost, and what good viewers notice of them.
//!
//!     cargo build --release -p weir-edge
//!     taskset -c 1 cargo run --release -p weir-tests --example refusals -- \
//!         "taskset -c 0 target/release/weir-edge" [viewers] [bad tickets/s] [seconds]
//!
//! An origin and a made-up broadcast run in this process, the edge in one of its own, on a core of its own. Viewers with
//! tickets follow the live playlist by blocking reloads; how late each of them hears of a part is counted from the moment the
//! origin's own answer to the same request is here. Then the same again while tampered session tickets arrive, on pipelined
//! connections, at the given rate (0: as fast as they are refused). The edge's CPU time is read from /proc.

use std::{
    io::Write as _,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};
use weir_loadtest::{synthetic::Synthetic, system};
use weir_shared::{
    config::Secret,
    directory::PlaybackSecret,
    playback::{
        policy::Policy,
        session::{Session, ViewerId},
    },
};
use weir_tests::{
    client,
    control::project,
    site::{self, Broadcast},
};

const CREDENTIAL: &str = "the-fleet's-own-credential";
const KEY: &str = "show";
/// Refusals asked for at once on one connection.
const DEPTH: usize = 16;
const CONNECTIONS: usize = 32;

struct EdgeProcess {
    child: Child,
    file: std::path::PathBuf,
}

impl Drop for EdgeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |n: usize, default: u64| arguments.get(n).map_or(Ok(default), |text| text.parse());
    let program = arguments
        .first()
        .context("the edge's program, with taskset before it perhaps")?;
    let (viewers, rate, seconds) = (number(1, 200)?, number(2, 50_000)?, number(3, 10)?);

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

    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let _edge = start_edge(program, &origin, port)?;
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
    let ready = async {
        loop {
            match client::get(port, playlist).await {
                Ok(reply) if reply.status == 200 => return,
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ready)
        .await
        .context("the edge plays")?;

    // What is only at the beginning: until an encoder's rhythm is known, the end of a segment is told with the part after it.
    watch(&origin, port, &playlists, 8).await?;
    let quiet = watch(&origin, port, &playlists, seconds).await?;
    println!("{}", line("without bad tickets", &quiet));
    let attack = Attack::default();
    let pid = _edge.child.id();
    let before = (system::usage(pid)?.cpu_seconds, Instant::now());
    let mut attackers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        attackers.spawn(attack.clone().run(port, tampered(session), rate / CONNECTIONS as u64));
    }
    let loud = watch(&origin, port, &playlists, seconds).await?;
    let (cpu, wall) = (
        system::usage(pid)?.cpu_seconds - before.0,
        before.1.elapsed().as_secs_f64(),
    );
    attack.over.store(true, Ordering::Relaxed);
    while let Some(ended) = attackers.join_next().await {
        ended??;
    }
    let refused = attack.refused.load(Ordering::Relaxed) as f64;
    println!("{}", line("with bad tickets   ", &loud));
    println!(
        "refused {:.0}/s with {:.0} % of a core: {:.0} for each second of the edge's CPU, viewers included; p99 moved by {:+.1} %",
        refused / wall,
        100.0 * cpu / wall,
        refused / cpu,
        100.0 * (percentile(&loud, 0.99).as_secs_f64() / percentile(&quiet, 0.99).as_secs_f64() - 1.0),
    );
    broadcast.end().await?;
    origin.shutdown().await;
    Ok(())
}

fn start_edge(
    program: &str,
    origin: &weir_origin::app::Origin,
    at: std::net::SocketAddr,
) -> anyhow::Result<EdgeProcess> {
    let file = std::env::temp_dir().join(format!("weir-refusals-{}.yaml", std::process::id()));
    let mut text = std::fs::File::create(&file)?;
    write!(
        text,
        "http: {{ listen: \"{at}\" }}\nhttps: null\nadmin: {{ listen: \"127.0.0.1:0\" }}\norigins: [\"http://{}\"]\n\
         directory: {{ origins: [\"http://{}\"], credential: \"{CREDENTIAL}\" }}\n",
        origin.http, origin.api
    )?;
    let mut words = program.split_whitespace();
    let child = Command::new(words.next().context("a program")?)
        .args(words)
        .arg("--config")
        .arg(&file)
        .env("WEIR_LOG", "warn")
        .stdout(Stdio::null())
        .spawn()?;
    Ok(EdgeProcess { child, file })
}

/// How late viewers heard of parts during this time, sorted.
async fn watch(
    origin: &weir_origin::app::Origin,
    edge: std::net::SocketAddr,
    playlists: &[String],
    seconds: u64,
) -> anyhow::Result<Vec<Duration>> {
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut late = Vec::new();
    while Instant::now() < until {
        let first = playlists.first().context("a viewer at least")?;
        let newest = client::get(edge, first).await?.playlist()?;
        // The end of the open segment.
        let next = newest.media_sequence.0 + newest.segments.iter().filter(|s| s.uri.is_some()).count() as u64;
        let query = format!("?_HLS_msn={next}");
        let mut waiting = JoinSet::new();
        for playlist in playlists {
            let path = format!("{playlist}{query}");
            waiting.spawn(async move {
                let reply = client::get(edge, &path).await?;
                anyhow::ensure!(reply.status == 200, "a viewer got {}", reply.status);
                anyhow::Ok(Instant::now())
            });
        }
        let own = client::get(origin.http, &format!("/app/{KEY}/d/video.m3u8{query}")).await?;
        let told = Instant::now();
        anyhow::ensure!(own.status == 200, "the origin said {}", own.status);
        while let Some(heard) = waiting.join_next().await {
            late.push(heard??.saturating_duration_since(told));
        }
    }
    late.sort();
    Ok(late)
}

#[derive(Clone, Default)]
struct Attack {
    refused: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Attack {
    /// `rate`: requests each second; 0: no limit.
    async fn run(self, edge: std::net::SocketAddr, ticket: String, rate: u64) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(edge).await?;
        stream.set_nodelay(true)?;
        let request = format!("GET /app/{KEY}/~{ticket}/d/video.m3u8 HTTP/1.1\r\nhost: edge\r\n\r\n").repeat(DEPTH);
        let mut answers = vec![0; 64 * 1024];
        let (begin, mut sent) = (Instant::now(), 0u64);
        while !self.over.load(Ordering::Relaxed) {
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
            self.refused.fetch_add(DEPTH as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// One bit of the signature is wrong.
fn tampered(ticket: &str) -> String {
    let (good, last) = ticket.split_at(ticket.len() - 4);
    let turned: String = last.chars().map(|c| if c == 'A' { 'B' } else { 'A' }).collect();
    format!("{good}{turned}")
}

fn percentile(sorted: &[Duration], of: f64) -> Duration {
    let at = (sorted.len() as f64 * of) as usize;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

fn line(what: &str, late: &[Duration]) -> String {
    let ms = |of| percentile(late, of).as_secs_f64() * 1000.0;
    format!(
        "{what}: {} answers, p50 {:.2} ms, p99 {:.2} ms",
        late.len(),
        ms(0.5),
        ms(0.99)
    )
}
