//! One picture out of a key frame, by an ffmpeg process of its own: with a low priority, without this process's
//! environment, with an end to its time, its memory and what is read of it. What it does wrong costs a picture.
//!
//! Before this: `thumbnails.rs`. After this: the `ffmpeg` program.

use std::{
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
/// Largest picture, in bytes.
const PICTURE_LIMIT: u64 = 1 << 20;
/// Most of a complaint that is read, in bytes.
const COMPLAINT_LIMIT: u64 = 1024;
/// Largest piece of memory that ffmpeg may ask for, in bytes: a picture of 8K is half of it.
const ALLOCATION_LIMIT: &str = "268435456";
/// JPEG's scale of ffmpeg: 2 is best, 31 worst.
const QUALITY: &str = "5";
/// What every JPEG file begins and ends with.
const JPEG: (&[u8], &[u8]) = (&[0xff, 0xd8], &[0xff, 0xd9]);

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
        // Without `nice` the program is asked by itself.
        if let Err(NoPicture::NotStarted(_)) = ffmpeg.run(&["-version"], Bytes::new()).await {
            ffmpeg.has_nice = false;
        }
        match ffmpeg.run(&["-version"], Bytes::new()).await {
            Ok(said) if !said.output.starts_with(b"ffmpeg version") => Err(NoPicture::Refused(said.complaint)),
            // A busy machine, perhaps: pictures will tell.
            Ok(_) | Err(NoPicture::TooSlow) => Ok(ffmpeg),
            Err(error) => Err(error),
        }
    }

    /// The first picture of `media` (init section and fragment), no side of it longer than `size` pixels.
    pub async fn picture(&self, media: Bytes, size: u32) -> Result<Bytes, NoPicture> {
        let scale = format!(
            "scale=w={size}:h={size}:force_original_aspect_ratio=decrease:force_divisible_by=2,format=yuvj420p"
        );
        let arguments = [
            "-hide_banner",
            "-v",
            "error",
            "-max_alloc",
            ALLOCATION_LIMIT,
            "-protocol_whitelist",
            "pipe",
            "-threads",
            "1",
            "-f",
            "mov",
            "-i",
            "pipe:0",
            "-an",
            "-frames:v",
            "1",
            "-vf",
            &scale,
            "-threads",
            "1",
            "-c:v",
            "mjpeg",
            "-q:v",
            QUALITY,
            "-f",
            "image2pipe",
            "pipe:1",
        ];
        let said = self.run(&arguments, media).await?;
        let (begins, ends) = JPEG;
        match said.output.starts_with(begins) && said.output.ends_with(ends) {
            true => Ok(said.output.into()),
            false => Err(NoPicture::Refused(said.complaint)),
        }
    }

    async fn run(&self, arguments: &[&str], input: Bytes) -> Result<Said, NoPicture> {
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
            let ((), output, complaint) = tokio::join!(write, all(stdout, PICTURE_LIMIT), all(stderr, COMPLAINT_LIMIT));
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
struct Said {
    output: Vec<u8>,
    complaint: String,
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
