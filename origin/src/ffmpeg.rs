//! An ffmpeg process of its own for one picture: with a low priority, without this process's environment, with an end to
//! its time, its memory and what is read of it. What it does wrong costs a picture.
//!
//! Before this: `record/thumbnails/picture.rs` and `live/slate.rs`. After this: the `ffmpeg` program.

use std::{
    ffi::OsStr,
    io,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
    time::timeout,
};

/// How much it stands back: it has a tenth of what others have of a busy processor. With more it would starve on machines that
/// are always busy.
const NICENESS: &str = "10";
/// Most of a complaint that is read, in bytes.
const COMPLAINT_LIMIT: u64 = 1024;
/// Largest piece of memory that ffmpeg may ask for, in bytes: a picture of 8K is half of it.
const ALLOCATION_LIMIT: &str = "268435456";
/// Largest that the answer to `-version` may be, in bytes.
const VERSION_LIMIT: u64 = 64 << 10;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum NoPicture {
    #[error("ffmpeg can't be started: {0}")]
    NotStarted(#[source] io::Error),
    #[error("ffmpeg did not end in time")]
    TooSlow,
    #[error("ffmpeg gave no picture: {0}")]
    Refused(String),
}

impl NoPicture {
    /// Label value.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NotStarted(_) => "not_started",
            Self::TooSlow => "too_slow",
            Self::Refused(_) => "refused",
        }
    }
}

/// A program that was found to be there.
#[derive(Debug, Clone)]
pub struct Ffmpeg {
    program: String,
    /// Longest time for one picture.
    timeout: Duration,
    /// Whether `nice` is there to give it a low priority.
    has_nice: bool,
}

/// A process that does not outlive this value.
struct Running(Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        // Fails only when it has ended already.
        let _ = child.kill();
        // Its remains are cleared away; nobody waits for that. It is bounded by how many may run at once.
        let _ = std::thread::Builder::new().spawn(move || child.wait());
    }
}

impl Ffmpeg {
    /// Looks whether there is such a program.
    pub async fn find(program: &str, timeout: Duration) -> Result<Self, NoPicture> {
        let mut ffmpeg = Self {
            program: program.to_owned(),
            timeout,
            has_nice: true,
        };
        let version = ["-version"].map(OsStr::new);
        let mut said = ffmpeg.start(&version, Bytes::new(), VERSION_LIMIT).await;
        // Without `nice` the program is asked by itself.
        if let Err(NoPicture::NotStarted(_)) = said {
            ffmpeg.has_nice = false;
            said = ffmpeg.start(&version, Bytes::new(), VERSION_LIMIT).await;
        }
        match said {
            Ok(said) if !said.output.starts_with(b"ffmpeg version") => Err(NoPicture::Refused(said.complaint)),
            // A busy machine, perhaps: pictures will tell.
            Ok(_) | Err(NoPicture::TooSlow) => Ok(ffmpeg),
            Err(error) => Err(error),
        }
    }

    /// What it makes of `input`, up to `limit` bytes.
    pub async fn run(&self, arguments: &[impl AsRef<OsStr>], input: Bytes, limit: u64) -> Result<Said, NoPicture> {
        let always = ["-hide_banner", "-v", "error", "-max_alloc", ALLOCATION_LIMIT].map(OsStr::new);
        let arguments: Vec<_> = always.into_iter().chain(arguments.iter().map(AsRef::as_ref)).collect();
        self.start(&arguments, input, limit).await
    }

    async fn start(&self, arguments: &[&OsStr], input: Bytes, limit: u64) -> Result<Said, NoPicture> {
        let mut command = match self.has_nice {
            true => {
                let mut command = Command::new("nice");
                command.args(["-n", NICENESS, &self.program]);
                command
            }
            false => Command::new(&self.program),
        };
        command.args(arguments).env_clear().current_dir("/");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        let spawned = tokio::task::spawn_blocking(move || command.spawn()).await;
        let mut child = spawned
            .map_err(|error| NoPicture::NotStarted(io::Error::other(error)))?
            .map_err(NoPicture::NotStarted)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let _running = Running(Some(child));
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(NoPicture::NotStarted(io::Error::other("no pipes")));
        };
        let talk = async {
            let mut stdin = pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?;
            let stdout = pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?;
            let stderr = pipe::Receiver::from_owned_fd(OwnedFd::from(stderr))?;
            let write = async move {
                // It may have seen enough before the end.
                let _ = stdin.write_all(&input).await;
            };
            let ((), output, complaint) = tokio::join!(write, all(stdout, limit), all(stderr, COMPLAINT_LIMIT));
            Ok(Said {
                output: output?,
                complaint: first_line(&complaint?),
            })
        };
        match timeout(self.timeout, talk).await {
            Ok(said) => said.map_err(NoPicture::NotStarted),
            Err(_) => Err(NoPicture::TooSlow),
        }
    }
}

/// What came of a process.
pub struct Said {
    pub output: Vec<u8>,
    /// The first line of what it complained of.
    pub complaint: String,
}

/// Everything up to the end or the limit; what comes after that is not read.
async fn all(from: impl AsyncRead + Unpin, limit: u64) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    from.take(limit).read_to_end(&mut read).await?;
    Ok(read)
}

fn first_line(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    text.lines().next().unwrap_or("it said nothing").to_owned()
}
