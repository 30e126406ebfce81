//! What good viewers notice of hostile clients, and what those cost the edge in memory.
//!
//!     cargo build --release -p weir-edge
//!     taskset -c 1 cargo run --release -p weir-tests --example hostile -- \
//!         "taskset -c 0 target/release/weir-edge" [viewers] [seconds] [requests/s] [rounds]
//!
//! A made-up origin runs in this process, the edge in one of its own, on a core of its own. How late viewers hear of a part is
//! measured undisturbed, then while an attacker does what it can: requests and connections up to the given rate (default
//! 5000/s; 0: as many as the edge answers, which takes its whole core); then the same with the next attacker, and all of it in
//! as many rounds as are asked for. At the end, the median of the rounds. Bad tickets have an example of their own
//! (`refusals.rs`), and so have QUIC's tricks (`tests/edge/quic.py`).

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
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
};
use weir_tests::audience::{Audience, Disturbance, EdgeProcess, median};

const PLAYLIST: &str = "/app/s0/d/video.m3u8";
/// Connections of each attacker.
const CONNECTIONS: usize = 200;
/// Requests written at once.
const DEPTH: usize = 16;
/// How long a flood may go on before its connection is made anew, whatever the edge does.
const ROUND: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

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
    let (time, rounds) = (Duration::from_secs(seconds), number(4, 1)?);
    let options = Options {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        shape: Shape::default(),
        defects: Defects::default(),
        ticket_secret: None,
    };
    let origin = MadeUpOrigin::start(options).await?;
    let edge = EdgeProcess::start(program, &format!("origins: [\"http://{}\"]", origin.address))?;
    edge.plays(PLAYLIST).await?;
    let playlists = vec![PLAYLIST.to_owned(); usize::try_from(viewers)?];
    let mut audience = Audience::enter(edge.at, &playlists, origin.address, PLAYLIST).await?;
    // What is only at the beginning.
    audience.watch(Duration::from_secs(2)).await?;
    let mut seen: Vec<Seen> = ATTACKS.map(Seen::new).into();
    for round in 1..=rounds {
        for seen in &mut seen {
            let quiet = audience.watch(time).await?;
            let done = Arc::new(AtomicU64::new(0));
            let (attack, at, counted) = (seen.attack, edge.at, done.clone());
            let attackers = Disturbance::begin(move || attack.all(at, rate, counted));
            let loud = audience.watch(time).await?;
            let memory = edge.usage()?.resident_bytes >> 20;
            attackers.end()?;
            let rate = done.load(Ordering::Relaxed) / seconds.max(1);
            println!("round {round}: undisturbed {quiet}; {attack:?}, {rate}/s: {loud}, edge {memory} MiB");
            for (into, late) in [(&mut seen.quiet, quiet), (&mut seen.loud, loud)] {
                into.0.push(late.percentile(0.5));
                into.1.push(late.percentile(0.99));
            }
        }
    }
    println!("medians of {rounds}, p50 and p99 in ms");
    for Seen { attack, quiet, loud } in &seen {
        let (before, with) = (median(&quiet.1), median(&loud.1));
        println!(
            "{attack:?}: undisturbed {:.2} and {before:.2}, with it {:.2} and {with:.2}; p99 moved by {:+.1} %",
            median(&quiet.0),
            median(&loud.0),
            100.0 * (with / before - 1.0),
        );
    }
    Ok(())
}

/// p50 and p99 of each round, without an attack and with it.
struct Seen {
    attack: Attack,
    quiet: (Vec<f64>, Vec<f64>),
    loud: (Vec<f64>, Vec<f64>),
}

impl Seen {
    fn new(attack: Attack) -> Self {
        Self {
            attack,
            quiet: Default::default(),
            loud: Default::default(),
        }
    }
}

impl Attack {
    /// All attackers; they do not end.
    async fn all(self, edge: SocketAddr, rate: u64, done: Arc<AtomicU64>) -> anyhow::Result<()> {
        let pace = match rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs(CONNECTIONS as u64) / u32::try_from(rate)?,
        };
        let mut attackers = JoinSet::new();
        for n in 0..CONNECTIONS {
            attackers.spawn(self.run(edge, n, pace, done.clone()));
        }
        while let Some(ended) = attackers.join_next().await {
            ended?;
        }
        Ok(())
    }

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
