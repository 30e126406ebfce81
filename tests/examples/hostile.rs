//! What good viewers notice of hostile clients, and what those cost the edge in memory.
//!
//!     cargo build --release -p weir-edge
//!     taskset -c 1 cargo run --release -p weir-tests --example hostile -- \
//!         "taskset -c 0 target/release/weir-edge" [viewers] [seconds] [requests/s]
//!
//! A made-up origin runs in this process, the edge in one of its own, on a core of its own. Viewers follow the live playlist by
//! blocking reloads; how late each hears of a part is counted from the moment the origin's own answer to the same request
//! is here. First undisturbed, then while each of the attackers does what it can: requests and connections up to the given rate
//! (default 5000/s; 0: as many as the edge answers, which takes its whole core). Bad tickets have an example of their own
//! (`refusals.rs`), and so have QUIC's tricks (`tests/edge/quic.py`).

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
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
    time::sleep,
};
use weir_loadtest::{
    content::Shape,
    defect::Defects,
    origin::{MadeUpOrigin, Options},
    system,
};
use weir_tests::client;

const PLAYLIST: &str = "/app/s0/d/video.m3u8";
/// Connections of each attacker.
const CONNECTIONS: usize = 200;
/// Requests written at once.
const DEPTH: usize = 16;
/// How long a flood may go on before its connection is made anew, whatever the edge does.
const ROUND: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

struct EdgeProcess {
    child: Child,
    file: std::path::PathBuf,
}

impl Drop for EdgeProcess {
    fn drop(&mut self) {
        // Gone already, or going.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// One way of being a nuisance.
#[derive(Debug, Clone, Copy)]
enum Attack {
    /// Heads that never end, a byte each second.
    SlowHeads,
    /// The largest object, asked for and not read.
    SlowReaders,
    /// HTTP/2 requests that are taken back at once.
    RapidReset,
    /// Streams that there are not, each another one.
    MadeUpKeys,
    /// A request and away.
    Connections,
}

const ATTACKS: [Attack; 5] = [
    Attack::SlowHeads,
    Attack::SlowReaders,
    Attack::RapidReset,
    Attack::MadeUpKeys,
    Attack::Connections,
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |n: usize, default: u64| arguments.get(n).map_or(Ok(default), |text| text.parse());
    let program = arguments
        .first()
        .context("the edge's program, with taskset before it perhaps")?;
    let (viewers, seconds, rate) = (number(1, 200)?, number(2, 10)?, number(3, 5000)?);
    let options = Options {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        shape: Shape::default(),
        defects: Defects::default(),
        ticket_secret: None,
    };
    let origin = MadeUpOrigin::start(options).await?;
    let edge = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let process = start_edge(program, origin.address, edge)?;
    let playing = async {
        while !client::get(edge, PLAYLIST).await.is_ok_and(|reply| reply.status == 200) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), playing)
        .await
        .context("the edge plays")?;

    // What is only at the beginning.
    watch(origin.address, edge, viewers, 1).await?;
    let quiet = watch(origin.address, edge, viewers, seconds).await?;
    let usual = percentile(&quiet, 0.99);
    println!("undisturbed: {}", line(&quiet, process.child.id())?);
    for attack in ATTACKS {
        let done = Arc::new(AtomicU64::new(0));
        let pace = match rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs(CONNECTIONS as u64) / u32::try_from(rate)?,
        };
        let mut attackers = JoinSet::new();
        for n in 0..CONNECTIONS {
            attackers.spawn(attack.run(edge, n, pace, done.clone()));
        }
        let late = watch(origin.address, edge, viewers, seconds).await?;
        let told = line(&late, process.child.id())?;
        attackers.shutdown().await;
        let moved = 100.0 * (percentile(&late, 0.99).as_secs_f64() / usual.as_secs_f64() - 1.0);
        let rate = done.load(Ordering::Relaxed) / seconds.max(1);
        println!("{attack:?}, {rate}/s: {told}, p99 moved by {moved:+.1} %");
    }
    Ok(())
}

fn start_edge(program: &str, origin: SocketAddr, at: SocketAddr) -> anyhow::Result<EdgeProcess> {
    let file = std::env::temp_dir().join(format!("weir-hostile-{}.yaml", std::process::id()));
    let mut text = std::fs::File::create(&file)?;
    write!(
        text,
        "http: {{ listen: \"{at}\" }}\nhttps: null\nadmin: {{ listen: \"127.0.0.1:0\" }}\norigins: [\"http://{origin}\"]\n"
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

/// How late viewers heard of segments during this time, sorted.
async fn watch(origin: SocketAddr, edge: SocketAddr, viewers: u64, seconds: u64) -> anyhow::Result<Vec<Duration>> {
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut late = Vec::new();
    while Instant::now() < until {
        let newest = client::get(edge, PLAYLIST).await?.playlist()?;
        let path = format!("{PLAYLIST}?_HLS_msn={}", newest.open_sequence());
        let mut waiting = JoinSet::new();
        for _ in 0..viewers {
            let path = path.clone();
            waiting.spawn(async move {
                let reply = client::get(edge, &path).await?;
                anyhow::ensure!(reply.status == 200, "a viewer got {}", reply.status);
                anyhow::Ok(Instant::now())
            });
        }
        let own = client::get(origin, &path).await?;
        let told = Instant::now();
        anyhow::ensure!(own.status == 200, "the origin said {}", own.status);
        while let Some(heard) = waiting.join_next().await {
            late.push(heard??.saturating_duration_since(told));
        }
    }
    late.sort();
    Ok(late)
}

impl Attack {
    /// Goes on until it is aborted, with a request each `pace`; whatever the edge does about it is right.
    async fn run(self, edge: SocketAddr, n: usize, pace: Duration, done: Arc<AtomicU64>) {
        // Not all in the same moment.
        sleep(pace * n as u32 / CONNECTIONS as u32).await;
        loop {
            let begun = tokio::time::Instant::now();
            let round = async {
                let stream = TcpStream::connect(edge).await?;
                match self {
                    Self::SlowHeads => slow_head(stream, &done).await,
                    Self::SlowReaders => slow_reader(stream, &done).await,
                    Self::RapidReset => rapid_reset(stream, pace, &done).await,
                    Self::MadeUpKeys => made_up_keys(stream, n, pace, &done).await,
                    Self::Connections => one_request(stream, &done).await,
                }
            };
            if tokio::time::timeout(ROUND, round)
                .await
                .is_ok_and(|ended| ended.is_err())
            {
                // Ended by the edge: not in a loop that only measures how fast connections are refused.
                sleep(Duration::from_millis(50)).await;
            }
            if matches!(self, Self::Connections) {
                tokio::time::sleep_until(begun + pace).await;
            }
        }
    }
}

async fn slow_head(mut stream: TcpStream, done: &AtomicU64) -> std::io::Result<()> {
    stream.write_all(b"GET /app/s0/index.m3u8 HTTP/1.1\r\nx: ").await?;
    loop {
        stream.write_all(b"y").await?;
        done.fetch_add(1, Ordering::Relaxed);
        sleep(SECOND).await;
    }
}

async fn slow_reader(mut stream: TcpStream, done: &AtomicU64) -> std::io::Result<()> {
    let request = "GET /play/assets/hls-1.7.4.min.js HTTP/1.1\r\nhost: edge\r\n\r\n".repeat(DEPTH);
    stream.write_all(request.as_bytes()).await?;
    done.fetch_add(DEPTH as u64, Ordering::Relaxed);
    std::future::pending().await
}

async fn rapid_reset(mut stream: TcpStream, pace: Duration, done: &AtomicU64) -> std::io::Result<()> {
    let frame = |kind: u8, flags: u8, id: u32, payload: &[u8]| {
        let length = (payload.len() as u32).to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(id.to_be_bytes());
        frame.extend(payload);
        frame
    };
    // GET and http from the static table, path and authority spelt out (RFC 7541).
    let path = format!("{PLAYLIST}?_HLS_msn=1");
    let fields = [&[0x82, 0x86, 0x04, path.len() as u8], path.as_bytes(), &[0x01, 1, b'x']].concat();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
    stream.write_all(&frame(4, 0, 0, &[])).await?;
    let mut ignored = vec![0; 16 * 1024];
    for id in (1u32..).step_by(2) {
        let pair = [frame(1, 5, id, &fields), frame(3, 0, id, &8u32.to_be_bytes())].concat();
        stream.write_all(&pair).await?;
        done.fetch_add(1, Ordering::Relaxed);
        // What the edge says is not held against it.
        if id % 64 == 1 {
            let _ = stream.try_read(&mut ignored);
            sleep(pace * 32).await;
        }
    }
    Ok(())
}

async fn made_up_keys(mut stream: TcpStream, n: usize, pace: Duration, done: &AtomicU64) -> std::io::Result<()> {
    let mut answers = vec![0; 64 * 1024];
    let begun = tokio::time::Instant::now();
    for round in 0u64.. {
        tokio::time::sleep_until(begun + pace * (round as u32) * DEPTH as u32).await;
        let request: String = (0..DEPTH)
            .map(|k| format!("GET /app/made-up-{n}-{round}-{k}/d/video.m3u8 HTTP/1.1\r\nhost: edge\r\n\r\n"))
            .collect();
        stream.write_all(request.as_bytes()).await?;
        let mut seen = 0;
        // Every refusal ends with the same two braces.
        while seen < DEPTH {
            match stream.read(&mut answers).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => {
                    seen += answers
                        .get(..read)
                        .map_or(0, |text| text.windows(2).filter(|w| w == b"}}").count())
                }
            }
        }
        done.fetch_add(DEPTH as u64, Ordering::Relaxed);
    }
    Ok(())
}

async fn one_request(mut stream: TcpStream, done: &AtomicU64) -> std::io::Result<()> {
    let request = "GET /app/s0/index.m3u8 HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    done.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn percentile(sorted: &[Duration], of: f64) -> Duration {
    let at = (sorted.len() as f64 * of) as usize;
    let at = sorted.get(at.min(sorted.len().saturating_sub(1)));
    at.copied().unwrap_or_default()
}

fn line(late: &[Duration], edge: u32) -> anyhow::Result<String> {
    let ms = |of| percentile(late, of).as_secs_f64() * 1000.0;
    let memory = system::usage(edge)?.resident_bytes >> 20;
    Ok(format!(
        "{} answers, p50 {:.2} ms, p99 {:.2} ms, edge {memory} MiB",
        late.len(),
        ms(0.5),
        ms(0.99)
    ))
}
