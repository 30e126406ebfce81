//! Viewers of one live playlist beside whom something happens, and how late each of them hears of a part.
//!
//! Each keeps a connection, as players do. The clock of a part starts when a viewer at the origin itself has the answer to the
//! same request. What disturbs them runs in a thread of its own that gives way: else it would be the measuring that is late.

use std::{
    fmt,
    future::Future,
    io::Write as _,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::oneshot, task::JoinSet, time::sleep};
use weir_loadtest::system;
use weir_shared::hls::parse;

use crate::client;

/// How long an edge may take until it plays, and for an answer: longer than any hold.
const PATIENCE: Duration = Duration::from_secs(20);
/// Priority of what disturbs: the lowest.
const NICE: i32 = 19;

/// An edge as a process of its own, over when dropped.
pub struct EdgeProcess {
    child: Child,
    file: std::path::PathBuf,
    /// Where it serves plain HTTP.
    pub at: SocketAddr,
}

impl EdgeProcess {
    /// `program`: with `taskset` before it, perhaps. `settings`: what its configuration says besides the listeners, as YAML.
    pub fn start(program: &str, settings: &str) -> anyhow::Result<Self> {
        let at = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let file = std::env::temp_dir().join(format!("weir-edge-{}.yaml", at.port()));
        let mut text = std::fs::File::create(&file)?;
        writeln!(
            text,
            "http: {{ listen: \"{at}\" }}\nhttps: null\nadmin: {{ listen: \"127.0.0.1:0\" }}\n{settings}"
        )?;
        let mut words = program.split_whitespace();
        let child = Command::new(words.next().context("a program")?)
            .args(words)
            .arg("--config")
            .arg(&file)
            .env("WEIR_LOG", "warn")
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { child, file, at })
    }

    /// Waits until it has this playlist.
    pub async fn plays(&self, playlist: &str) -> anyhow::Result<()> {
        let playing = async {
            while !client::get(self.at, playlist)
                .await
                .is_ok_and(|reply| reply.status == StatusCode::OK)
            {
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, playing).await.context("the edge plays")
    }

    pub fn usage(&self) -> anyhow::Result<system::Usage> {
        Ok(system::usage(self.child.id())?)
    }
}

impl Drop for EdgeProcess {
    fn drop(&mut self) {
        // Gone already, or going.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Viewers, and the one at the origin.
pub struct Audience {
    viewers: Vec<Viewer>,
    reference: Viewer,
}

struct Viewer {
    sender: SendRequest<Empty<Bytes>>,
    host: String,
    playlist: String,
}

impl Audience {
    /// A viewer for each of `playlists` at the edge, and one for `reference` at the origin.
    pub async fn enter(
        edge: SocketAddr,
        playlists: &[String],
        origin: SocketAddr,
        reference: &str,
    ) -> anyhow::Result<Self> {
        let mut viewers = Vec::with_capacity(playlists.len());
        for playlist in playlists {
            viewers.push(Viewer::connect(edge, playlist).await?);
        }
        let reference = Viewer::connect(origin, reference).await?;
        Ok(Self { viewers, reference })
    }

    /// Follows the broadcast by blocking reloads, part by part.
    pub async fn watch(&mut self, time: Duration) -> anyhow::Result<Late> {
        let until = Instant::now() + time;
        let mut late = Vec::new();
        let (newest, _) = self.reference.ask("").await?;
        let mut next = position(&newest)?;
        while Instant::now() < until {
            let query = format!("?_HLS_msn={}&_HLS_part={}", next.0, next.1);
            let mut waiting = JoinSet::new();
            for mut viewer in self.viewers.drain(..) {
                let query = query.clone();
                waiting.spawn(async move {
                    let (_, heard) = viewer.ask(&query).await?;
                    anyhow::Ok((viewer, heard))
                });
            }
            let (newest, told) = self.reference.ask(&query).await?;
            next = position(&newest)?;
            while let Some(done) = waiting.join_next().await {
                let (viewer, heard) = done??;
                late.push(heard.saturating_duration_since(told));
                self.viewers.push(viewer);
            }
        }
        Ok(Late::new(late))
    }
}

impl Viewer {
    async fn connect(at: SocketAddr, playlist: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let (host, playlist) = (at.to_string(), playlist.to_owned());
        Ok(Self { sender, host, playlist })
    }

    /// The playlist, and when it was there.
    async fn ask(&mut self, query: &str) -> anyhow::Result<(Bytes, Instant)> {
        let answer = tokio::time::timeout(PATIENCE, self.exchange(query)).await;
        answer.with_context(|| format!("{}{query}: no answer in {PATIENCE:?}", self.playlist))?
    }

    async fn exchange(&mut self, query: &str) -> anyhow::Result<(Bytes, Instant)> {
        let request = Request::get(format!("{}{query}", self.playlist))
            .header("host", &self.host)
            .body(Empty::new())?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        anyhow::ensure!(
            response.status() == StatusCode::OK,
            "a viewer got {}",
            response.status()
        );
        let body = response.into_body().collect().await?.to_bytes();
        Ok((body, Instant::now()))
    }
}

/// That of the part that comes next.
fn position(playlist: &[u8]) -> anyhow::Result<(u64, usize)> {
    let playlist = parse::parse(std::str::from_utf8(playlist)?)?;
    Ok((playlist.open_sequence().0, playlist.open_parts().len()))
}

/// How late viewers were, sorted.
pub struct Late(Vec<Duration>);

impl Late {
    pub fn new(mut late: Vec<Duration>) -> Self {
        late.sort_unstable();
        Self(late)
    }

    /// In milliseconds, of a fraction of all.
    pub fn percentile(&self, of: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let at = self.0.get(((self.0.len() as f64 * of) as usize).min(last));
        at.copied().unwrap_or_default().as_secs_f64() * 1000.0
    }
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, p50, p99) = (self.0.len(), self.percentile(0.5), self.percentile(0.99));
        write!(f, "{count} answers, p50 {p50:.2} ms, p99 {p99:.2} ms")
    }
}

/// The middle one; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Runs until it is stopped, in a thread of the lowest priority.
pub struct Disturbance {
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<anyhow::Result<()>>,
}

impl Disturbance {
    pub fn begin<F>(what: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                tokio::select! {
                    ended = what() => ended,
                    _ = stopped => Ok(()),
                }
            })
        });
        Self { stop, thread }
    }

    /// Says why, if it ended before.
    pub fn end(self) -> anyhow::Result<()> {
        let _ = self.stop.send(());
        match self.thread.join() {
            Ok(ended) => ended,
            Err(_) => anyhow::bail!("what disturbs panicked"),
        }
    }
}
