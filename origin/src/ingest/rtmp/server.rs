//! RTMP sockets: accept, read, reply, and every time limit. The dialogue itself is `session.rs`.
//!
//! A connection is one task that owns all its state; a panic or a stall in it costs that connection only.
//!
//! Before this: the broadcaster. After this: `rtmp/session.rs`; its events go to `live/pipeline.rs` through a bounded
//! channel.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, info, info_span, warn};

use super::{
    Config, End,
    session::{Session, Step},
};
use crate::ingest::{Door, Event, Publication, PublishRequest, redacted};

/// Bytes read from a socket at a time.
const READ_BYTES: usize = 64 << 10;
/// Pause after a failed accept: no more file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts encoders until `shutdown`, then ends all sessions and returns when they have ended.
pub async fn serve(listener: TcpListener, config: Config, door: Arc<dyn Door>, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(config.limits.connections.min(Semaphore::MAX_PERMITS)));
    let sessions = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            config.metrics.over_limit.inc();
            debug!(%peer, limit = config.limits.connections, "connection limit reached");
            continue;
        };
        let (config, door, shutdown) = (config.clone(), Arc::clone(&door), shutdown.clone());
        let connection = async move {
            config.metrics.connections.inc();
            let _open = Counted(config.metrics.connections.clone());
            serve_one(socket, peer, config, door, shutdown).await;
            drop(slot);
        };
        sessions.spawn(connection.instrument(info_span!("rtmp", %peer)));
    }
    sessions.close();
    sessions.wait().await;
}

/// Lowers a gauge when dropped, on a panic too.
struct Counted(prometheus::IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn serve_one(
    socket: TcpStream,
    peer: SocketAddr,
    config: Config,
    door: Arc<dyn Door>,
    shutdown: CancellationToken,
) {
    debug!("connected");
    let started = Instant::now();
    let mut connection = Connection {
        socket,
        peer,
        session: Session::new(),
        input: BytesMut::new(),
        config,
        door,
        shutdown,
        tally: Tally::default(),
    };
    let end = match connection.run().await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    connection.config.metrics.ended.with_label_values(&[end.as_str()]).inc();
    let Tally {
        frames,
        dropped,
        repairs,
        bytes,
    } = connection.tally;
    let (reason, seconds) = (end.as_str(), started.elapsed().as_secs_f64());
    if end.is_fault() {
        warn!(reason, %end, seconds, bytes, frames, dropped, repairs, "connection ended");
    } else {
        info!(reason, %end, seconds, bytes, frames, dropped, repairs, "connection ended");
    }
    connection.part(&end).await;
}

/// What a connection's last log line says.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    bytes: u64,
    frames: u64,
    dropped: u64,
    repairs: u64,
}

struct Connection {
    socket: TcpStream,
    peer: SocketAddr,
    session: Session,
    /// Between two reads it holds less than one chunk header, so it never grows beyond [`READ_BYTES`].
    input: BytesMut,
    config: Config,
    door: Arc<dyn Door>,
    shutdown: CancellationToken,
    tally: Tally,
}

/// `run` leaves only with an [`End`].
enum Never {}

impl Connection {
    /// The whole life of the connection. The publication, if any, is dropped before this returns.
    async fn run(&mut self) -> Result<Never, End> {
        self.socket.set_nodelay(true)?;
        let local = self.socket.local_addr()?;
        let limits = self.config.limits;
        let mut publication: Option<(Publication, Counted)> = None;
        let mut deadline = Instant::now() + limits.publish_within;
        loop {
            self.flush().await?;
            self.input.reserve(READ_BYTES);
            let stop = publication.as_ref().map(|(publication, _)| publication.stop.clone());
            let read = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Err(End::ShuttingDown),
                () = cancelled(stop) => return Err(End::Stopped),
                () = sleep_until(deadline.into()) => {
                    return Err(if publication.is_some() { End::Silent } else { End::PublishTimeout });
                }
                read = self.socket.read_buf(&mut self.input) => read?,
            };
            if read == 0 {
                let cut_off = self.session.is_inside_message(&self.input);
                return Err(if cut_off { End::CutOff } else { End::Closed });
            }
            self.tally.bytes += read as u64;
            self.config.metrics.bytes.inc_by(read as u64);
            let now = Instant::now();
            while let Some(step) = self.session.next(&mut self.input, now)? {
                match step {
                    Step::Publish { key, query } => {
                        publication = Some(self.ask_at_the_door(key, query, local)?);
                        deadline = Instant::now() + limits.silence;
                    }
                    Step::Event { event, repair } => {
                        self.count(&event, repair);
                        let live = !matches!(event, Event::Announced(_));
                        if let Some((publication, _)) = &publication {
                            self.hand_over(publication, event).await?;
                        }
                        if live {
                            // After the hand-over: waiting for our own pipeline is not the encoder's silence.
                            deadline = Instant::now() + limits.silence;
                        }
                    }
                    Step::Dropped { track, reason } => {
                        let (track, reason) = (track.as_str(), reason.as_str());
                        self.config.metrics.dropped.with_label_values(&[track, reason]).inc();
                        self.tally.dropped += 1;
                        if is_worth_a_line(self.tally.dropped) {
                            warn!(track, reason, total = self.tally.dropped, "access unit left out");
                        }
                    }
                }
            }
        }
    }

    fn ask_at_the_door(
        &mut self,
        key: weir_shared::id::StreamKey,
        query: Option<String>,
        local: SocketAddr,
    ) -> Result<(Publication, Counted), End> {
        let shown = redacted(&key);
        let request = PublishRequest {
            key,
            query,
            peer: self.peer,
            local,
        };
        match self.door.publish(request) {
            Ok(publication) => {
                info!(key = shown, "publish accepted");
                self.session.accept();
                let publishing = &self.config.metrics.publishing;
                publishing.inc();
                Ok((publication, Counted(publishing.clone())))
            }
            Err(refusal) => {
                info!(key = shown, refusal = refusal.as_str(), "publish refused");
                Err(End::Refused(refusal))
            }
        }
    }

    /// Waits while the pipeline's channel is full: nothing is read meanwhile, which is the back-pressure.
    async fn hand_over(&self, publication: &Publication, event: Event) -> Result<(), End> {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(End::ShuttingDown),
            () = publication.stop.cancelled() => Err(End::Stopped),
            sent = publication.events.send(event) => sent.map_err(|_| End::PipelineGone),
        }
    }

    fn count(&mut self, event: &Event, repair: Option<crate::ingest::timeline::Repair>) {
        let Event::Frame(frame) = event else { return };
        let track = frame.track.kind.as_str();
        self.tally.frames += 1;
        self.config.metrics.frames.with_label_values(&[track]).inc();
        if let Some(repair) = repair {
            let kind = repair.as_str();
            self.config.metrics.repairs.with_label_values(&[track, kind]).inc();
            self.tally.repairs += 1;
            if is_worth_a_line(self.tally.repairs) {
                warn!(track, ?repair, total = self.tally.repairs, "timestamp put right");
            }
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        let replies = self.session.take_replies()?;
        if replies.is_empty() {
            return Ok(());
        }
        timeout(self.config.limits.write_within, self.socket.write_all(&replies))
            .await
            .map_err(|_| End::WriteTimeout)??;
        Ok(())
    }

    /// Says why, closes our half and waits a little for the peer to close its own. After an ordinary goodbye the peer
    /// closes first: GStreamer takes a server that does for a fault.
    async fn part(mut self, end: &End) {
        self.session.farewell(end);
        if let Err(error) = self.flush().await {
            debug!(%error, "last reply not sent");
            return;
        }
        if !matches!(end, End::Unpublished)
            && let Err(error) = self.socket.shutdown().await
        {
            debug!(%error, "own half not closed");
            return;
        }
        let drained = timeout(self.config.limits.drain, drain(&mut self.socket)).await;
        if !matches!(drained, Ok(Ok(()))) {
            debug!("peer did not close by itself");
        }
    }
}

async fn drain(socket: &mut TcpStream) -> io::Result<()> {
    let mut ignored = [0; 4096];
    while socket.read(&mut ignored).await? > 0 {}
    Ok(())
}

async fn cancelled(stop: Option<CancellationToken>) {
    match stop {
        Some(stop) => stop.cancelled_owned().await,
        None => std::future::pending().await,
    }
}

/// The 1st, 2nd, 4th, 8th … time: a fault that repeats does not fill the log.
fn is_worth_a_line(count: u64) -> bool {
    count.is_power_of_two()
}

#[cfg(test)]
mod tests;
