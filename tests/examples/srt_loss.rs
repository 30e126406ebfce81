//! How much of a transport stream gets through a lossy link: to our receiver and to libsrt's, in one run.
//!
//! `cargo run --release -p weir-tests --example srt_loss -- [--mbits 7] [--seconds 60] [--loss 0,1,5,10] [--passphrase …]
//! [--refresh <packets>] [--delay 20] [--latency 200] [--seed 1] [--only ours|libsrt]`
//!
//! The sender is libsrt's (srt-live-transmit of Debian's srt-tools), fed with numbered transport packets at an even pace.
//! Losses are of both directions. One line of JSON per receiver and loss.

use std::{
    io::Read as _,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::BytesMut;
use sha2::{Digest as _, Sha256};
use tokio::net::UdpSocket;
use weir_origin::ingest::srt::{
    handshake::{Answer, Listener, Offer},
    receiver::Output,
    session::{Session, Settings, Stats},
};
use weir_shared::srt::{
    crypto::Keyring,
    wire::{Kind, Packet},
};
use weir_tests::lossy::{Conditions, Link, roomy_socket};

const PACKET: usize = 188;
/// Transport packets in a datagram.
const TRAIN: usize = 7;
/// Datagrams heard before timers are looked at.
const HEARD_MAX: usize = 512;
/// Datagrams that follow those that count.
const PUSHING_TRAINS: u64 = 200;

#[derive(Clone)]
struct Args {
    mbits: f64,
    seconds: u64,
    loss: Vec<f64>,
    delay: u64,
    latency: u16,
    seed: u64,
    passphrase: Option<String>,
    refresh: Option<u32>,
    only: Option<String>,
}

/// What came out of a receiver.
#[derive(Default)]
struct Received {
    next: u64,
    packets: u64,
    lost: u64,
    disorder: u64,
    hash: Sha256,
    /// Packets that count: more are sent, to push the last ones out of every buffer on the way.
    counted: u64,
    rest: Vec<u8>,
}

impl Received {
    fn new(args: &Args) -> Self {
        Self {
            counted: trains(args) * TRAIN as u64,
            ..Self::default()
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let whole = self.rest.len() / PACKET * PACKET;
        let ready: Vec<u8> = self.rest.drain(..whole).collect();
        for packet in ready.chunks_exact(PACKET) {
            let number = packet[4..].first_chunk().map_or(0, |n| u64::from_be_bytes(*n));
            if packet[0] != 0x47 || number < self.next {
                self.disorder += 1;
                continue;
            }
            if number >= self.counted {
                self.lost += self.counted - self.next;
                self.next = self.counted;
                continue;
            }
            self.lost += number - self.next;
            self.next = number + 1;
            self.packets += 1;
            self.hash.update(packet);
        }
    }
}

/// A numbered transport packet with noise in it.
fn packet(number: u64) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[..4].copy_from_slice(&[0x47, 0x01, 0x00, 0x10 | (number & 15) as u8]);
    packet[4..12].copy_from_slice(&number.to_be_bytes());
    let mut noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for byte in &mut packet[12..] {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        *byte = noise as u8;
    }
    packet
}

fn sender(args: &Args, to: SocketAddr) -> anyhow::Result<Child> {
    let mut url = format!("srt://{to}?mode=caller&latency={}&streamid=show", args.latency);
    if let Some(passphrase) = &args.passphrase {
        url.push_str(&format!("&passphrase={passphrase}"));
    }
    if let Some(refresh) = args.refresh {
        url.push_str(&format!("&kmrefreshrate={refresh}&kmpreannounce={}", refresh / 4));
    }
    Command::new("srt-live-transmit")
        .args(["-q", "-chunk:1316", "file://con", &url])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("srt-live-transmit (Debian: srt-tools) can't be started")
}

fn trains_per_second(args: &Args) -> f64 {
    args.mbits * 1e6 / 8.0 / (PACKET * TRAIN) as f64
}

fn trains(args: &Args) -> u64 {
    (trains_per_second(args) * args.seconds as f64) as u64
}

/// Feeds the sender at an even pace; returns how many packets there were.
fn feed(child: &mut Child, args: &Args) -> anyhow::Result<u64> {
    use std::io::Write as _;
    let mut input = child.stdin.take().context("the sender has no input")?;
    let per_second = trains_per_second(args);
    // It throws away what it reads before it is connected.
    std::thread::sleep(Duration::from_secs(2));
    let began = Instant::now();
    for train in 0..trains(args) + PUSHING_TRAINS {
        let due = began + Duration::from_secs_f64(train as f64 / per_second);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut bytes = Vec::with_capacity(PACKET * TRAIN);
        for n in 0..TRAIN as u64 {
            bytes.extend_from_slice(&packet(train * TRAIN as u64 + n));
        }
        input.write_all(&bytes)?;
        input.flush()?;
    }
    // What is in flight arrives, then the input ends and the sender with it.
    std::thread::sleep(Duration::from_secs(2));
    Ok(trains(args) * TRAIN as u64)
}

/// Our receiver with a plain socket around it.
async fn receive(socket: UdpSocket, args: Args, done: Arc<AtomicBool>) -> anyhow::Result<(Received, Stats)> {
    let offer = Offer {
        latency_ms: args.latency,
        ..Offer::default()
    };
    let listener = Listener::new([7; 32], offer, Instant::now());
    let mut session: Option<(Session, SocketAddr)> = None;
    let mut received = Received::new(&args);
    let mut buffer = vec![0; 2048];
    while !done.load(Ordering::Relaxed) {
        let timeout = session
            .as_ref()
            .map_or(Instant::now() + Duration::from_millis(100), |(s, _)| s.timeout());
        tokio::select! {
            readable = socket.readable() => readable?,
            () = tokio::time::sleep_until(timeout.into()) => {}
        }
        // As the origin does it: what has come is heard before anything is given up for missing.
        for _ in 0..HEARD_MAX {
            let (length, peer) = match socket.try_recv_from(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                heard => heard?,
            };
            let now = Instant::now();
            let bytes = &buffer[..length];
            let packet = Packet::parse(bytes)?;
            match (packet.kind, &mut session) {
                (Kind::Handshake(content), None) => match listener.hear(peer, packet.timestamp, content, now) {
                    Answer::Induction(answer) => {
                        socket.send_to(&answer, peer).await?;
                    }
                    Answer::Knock(knock) => {
                        let keys = match (&args.passphrase, &knock.key_material) {
                            (Some(passphrase), Some(message)) => Some(Keyring::unlock(passphrase, message)?),
                            _ => None,
                        };
                        let beginning = listener.accept(&knock, 5, keys);
                        session = Some((Session::new(beginning, Settings::default()), peer));
                    }
                    other => anyhow::bail!("{other:?}"),
                },
                (_, Some((session, _))) => session.datagram(BytesMut::from(bytes), now),
                _ => {}
            }
        }
        let now = Instant::now();
        if let Some((session, peer)) = &mut session {
            let over = session.tick(now).is_err();
            while let Some(output) = session.output(now) {
                if let Output::Payload(payload) = output {
                    received.take(&payload);
                }
            }
            while let Some(packet) = session.transmit() {
                socket.send_to(&packet, *peer).await?;
            }
            if over {
                break;
            }
        }
    }
    let stats = session.map(|(session, _)| session.stats()).context("nobody called")?;
    Ok((received, stats))
}

fn report(who: &str, args: &Args, loss: f64, sent: u64, received: &mut Received, stats: Option<Stats>) {
    let lost = received.lost + sent.saturating_sub(received.next);
    let hash = std::mem::take(&mut received.hash).finalize();
    let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    println!(
        "{}",
        serde_json::json!({
            "receiver": who, "mbits": args.mbits, "seconds": args.seconds, "loss_percent": loss, "sent": sent,
            "lost": lost, "lost_percent": lost as f64 * 100.0 / sent as f64, "disorder": received.disorder, "hash": hash,
            "refreshes": stats.map(|s| s.key_refreshes), "undecrypted": stats.map(|s| s.undecrypted),
            "rtt_ms": stats.map(|s| s.rtt.as_secs_f64() * 1000.0),
            "missing": stats.map(|s| s.counts.missing), "retransmitted": stats.map(|s| s.retransmitted),
            "duplicates": stats.map(|s| s.counts.duplicates),
        })
    );
}

async fn ours(args: &Args, loss: f64) -> anyhow::Result<()> {
    let socket = roomy_socket().await?;
    let link = Link::open(socket.local_addr()?, conditions(args, loss)).await?;
    let done = Arc::<AtomicBool>::default();
    let receiving = tokio::spawn(receive(socket, args.clone(), done.clone()));
    let (to, with) = (link.address, args.clone());
    let sent = tokio::task::spawn_blocking(move || {
        let mut child = sender(&with, to)?;
        let sent = feed(&mut child, &with);
        child.kill()?;
        child.wait()?;
        sent
    })
    .await??;
    done.store(true, Ordering::Relaxed);
    let (mut received, stats) = receiving.await??;
    report("ours", args, loss, sent, &mut received, Some(stats));
    Ok(())
}

async fn libsrt(args: &Args, loss: f64) -> anyhow::Result<()> {
    // Free at this moment; it can't be handed over.
    let target = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    let mut url = format!("srt://{target}?mode=listener&latency={}", args.latency);
    if let Some(passphrase) = &args.passphrase {
        url.push_str(&format!("&passphrase={passphrase}"));
    }
    let mut receiver = Command::new("srt-live-transmit")
        .args(["-q", "-chunk:1316", &url, "file://con"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = receiver.stdout.take().context("the receiver has no output")?;
    let (sender_side, results) = mpsc::channel();
    let mut received = Received::new(args);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = output.read(&mut buffer) {
            received.take(&buffer[..length]);
        }
        let _ = sender_side.send(received);
    });
    let link = Link::open(target, conditions(args, loss)).await?;
    let (to, with) = (link.address, args.clone());
    let sent = tokio::task::spawn_blocking(move || {
        let mut child = sender(&with, to)?;
        let sent = feed(&mut child, &with);
        child.kill()?;
        child.wait()?;
        sent
    })
    .await??;
    receiver.kill()?;
    receiver.wait()?;
    let mut received = tokio::task::spawn_blocking(move || results.recv()).await??;
    report("libsrt", args, loss, sent, &mut received, None);
    Ok(())
}

fn conditions(args: &Args, loss: f64) -> Conditions {
    Conditions {
        loss: loss / 100.0,
        delay: Duration::from_millis(args.delay),
        seed: args.seed,
    }
}

fn arguments() -> anyhow::Result<Args> {
    let mut args = Args {
        mbits: 7.0,
        seconds: 60,
        loss: vec![0.0, 1.0, 5.0, 10.0],
        delay: 20,
        latency: 200,
        seed: 1,
        passphrase: None,
        refresh: None,
        only: None,
    };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().with_context(|| format!("{name} wants a value"))?;
        match name.as_str() {
            "--mbits" => args.mbits = value.parse()?,
            "--seconds" => args.seconds = value.parse()?,
            "--loss" => args.loss = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--delay" => args.delay = value.parse()?,
            "--latency" => args.latency = value.parse()?,
            "--seed" => args.seed = value.parse()?,
            "--passphrase" => args.passphrase = Some(value),
            "--refresh" => args.refresh = Some(value.parse()?),
            "--only" => args.only = Some(value),
            _ => anyhow::bail!("{name} is not known"),
        }
    }
    Ok(args)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = arguments()?;
    for loss in args.loss.clone() {
        if args.only.as_deref() != Some("libsrt") {
            ours(&args, loss).await?;
        }
        if args.only.as_deref() != Some("ours") {
            libsrt(&args, loss).await?;
        }
    }
    Ok(())
}
