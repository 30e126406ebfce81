//! The publisher: a source of tags, sent in real time over one RTMP or SRT session.
//!
//! Before this: [`crate::pace`]. After this: [`crate::rtmp::session`] or [`crate::srt::session`].

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio_util::sync::CancellationToken;

pub use crate::rtmp::session::PublishError;
use crate::{
    clip::{Clip, ClipLoop},
    pace::{Due, Pacer},
    rhythm::Rhythm,
    rtmp::{self, Status},
    srt,
    tag::{Opening, Source, Tag, Track},
};

/// A clip to publish, and where.
#[derive(Debug, Clone)]
pub struct Publish {
    /// `rtmp://host[:port]/app` or `srt://host:port`.
    pub url: String,
    /// The stream key, with its query if it has one.
    pub key: String,
    pub clip: Arc<Clip>,
    /// Begin again at the end, for ever.
    pub looped: bool,
    /// When the clip's first frame is, was or would have been sent: the publish joins at the next key frame. Two
    /// publishers with the same value are in step; with [`SystemTime::UNIX_EPOCH`] the picture tells its own age (see
    /// [`crate::demo`]). `None`: the clip begins when the server has accepted the publish.
    pub start_at: Option<SystemTime>,
    pub rhythm: Rhythm,
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    pub video_frames: u64,
    pub audio_frames: u64,
    /// Bytes on the connection, protocol headers included: over RTMP those after the handshake.
    pub bytes: u64,
    /// Datagrams that were sent again because the server missed them. SRT only.
    pub repeated: u64,
    /// Time of the last tag that was sent.
    pub media_time: Duration,
    /// How far behind its deadline the latest tag was handed to the socket.
    pub worst_lateness: Duration,
}

/// An accepted publish, over whichever protocol.
pub enum Uplink {
    Rtmp(Box<rtmp::Session>),
    Srt(Box<srt::Session>),
}

impl Uplink {
    /// Calls `url`; its scheme chooses the protocol.
    pub async fn connect(url: &str, key: &str) -> Result<Self, PublishError> {
        if url.starts_with("srt:") {
            return Ok(srt::Session::connect(url, key).await?.into());
        }
        Ok(rtmp::Session::connect(url, key).await?.into())
    }

    async fn send_opening(&mut self, opening: &Opening) -> Result<(), PublishError> {
        match self {
            Self::Rtmp(session) => session.send_opening(opening).await,
            Self::Srt(session) => session.send_opening(opening).await,
        }
    }

    async fn send_tag(&mut self, tag: Tag) -> Result<(), PublishError> {
        match self {
            Self::Rtmp(session) => session.send_tag(tag).await,
            Self::Srt(session) => session.send_tag(tag).await,
        }
    }

    async fn next_status(&mut self) -> Result<Status, PublishError> {
        match self {
            Self::Rtmp(session) => session.next_status().await,
            Self::Srt(session) => session.next_status().await,
        }
    }

    fn bytes_sent(&self) -> u64 {
        match self {
            Self::Rtmp(session) => session.bytes_sent(),
            Self::Srt(session) => session.bytes_sent(),
        }
    }

    /// Repeated datagrams; none over RTMP.
    fn repeated(&self) -> u64 {
        match self {
            Self::Rtmp(_) => 0,
            Self::Srt(session) => session.counts().repeated,
        }
    }

    pub async fn close(self) -> Result<(), PublishError> {
        match self {
            Self::Rtmp(session) => session.close().await,
            Self::Srt(session) => session.close().await,
        }
    }
}

impl From<rtmp::Session> for Uplink {
    fn from(session: rtmp::Session) -> Self {
        Self::Rtmp(Box::new(session))
    }
}

impl From<srt::Session> for Uplink {
    fn from(session: srt::Session) -> Self {
        Self::Srt(Box::new(session))
    }
}

/// Publishes until the clip is over (unless looped), `stop` is cancelled, or something fails. Ends gracefully on `stop`.
pub async fn publish(publish: Publish, stop: CancellationToken) -> Result<Report, PublishError> {
    let connect = Uplink::connect(&publish.url, &publish.key);
    let Some(session) = stop.run_until_cancelled(connect).await.transpose()? else {
        return Ok(Report::default());
    };
    let (source, start) = line_up(&publish, SystemTime::now(), Instant::now());
    push(session, source, start, publish.rhythm, &stop).await
}

/// Where in the loop to begin, and when that is. Pure: `wall` and `now` are the same moment.
fn line_up(publish: &Publish, wall: SystemTime, now: Instant) -> (ClipLoop, Instant) {
    let join = |from_ms| ClipLoop::new(Arc::clone(&publish.clip), from_ms, publish.looped);
    let Some(anchor) = publish.start_at else {
        return (join(0), now);
    };
    match wall.duration_since(anchor) {
        Ok(gone_by) => {
            let from_ms = u64::try_from(gone_by.as_nanos().div_ceil(1_000_000)).unwrap_or(0);
            let source = join(from_ms);
            let wait = Duration::from_millis(source.start_ms()).saturating_sub(gone_by);
            (source, now + wait)
        }
        Err(ahead) => (join(0), now + ahead.duration()),
    }
}

/// Sends `source` over an accepted publish, the tag at 0 ms at `start`. Ends like [`publish`].
pub async fn push(
    session: impl Into<Uplink>,
    source: impl Source,
    start: Instant,
    rhythm: Rhythm,
    stop: &CancellationToken,
) -> Result<Report, PublishError> {
    let mut session = session.into();
    session.send_opening(&source.opening()).await?;
    let mut pacer = Pacer::new(source, start, rhythm);
    let mut report = Report::default();
    loop {
        match pacer.next_due(Instant::now()) {
            Due::Now { .. } if stop.is_cancelled() => break,
            Due::Now { tag, late } => {
                match tag.track {
                    Track::Video => report.video_frames += 1,
                    Track::Audio => report.audio_frames += 1,
                }
                report.media_time = Duration::from_millis(tag.at_ms);
                report.worst_lateness = report.worst_lateness.max(late);
                session.send_tag(tag).await?;
                (report.bytes, report.repeated) = (session.bytes_sent(), session.repeated());
            }
            Due::At(deadline) => tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => {}
                () = stop.cancelled() => break,
                status = session.next_status() => {
                    let status = status?;
                    if status.is_error() {
                        return Err(PublishError::Refused(status));
                    }
                }
            },
            Due::Ended => break,
        }
    }
    session.close().await?;
    Ok(report)
}

#[cfg(test)]
mod tests;
