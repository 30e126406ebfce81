//! One RTMP connection: its socket, its time limits, and what is asked of admission and of the door. The dialogue itself
//! is `session.rs`.
//!
//! Before this: `rtmp/server.rs`. After this: `rtmp/session.rs`; its events go to `live/pipeline.rs` through a bounded
//! channel.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    End, Limits, Server,
    session::{Session, Step},
};
use crate::ingest::{
    Event, Line, Publication, Refusal,
    admission::{Caller, Greeting, Tenure},
    counted::Counted,
    lobby::Place,
    timeline::Repair,
};

/// Bytes read from a publishing socket at a time.
const READ_BYTES: usize = 64 << 10;
/// Bytes read at a time before the publish: a handshake has 3 kB, and a thousand strangers shall cost little.
const STRANGER_READ_BYTES: usize = 4 << 10;
/// How often a stranger's speed is looked at.
const SPEED_CHECK: Duration = Duration::from_secs(1);

/// What a connection's last log line says.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    bytes: u64,
    frames: u64,
    dropped: u64,
    repairs: u64,
}

pub(super) struct Connection<S> {
    server: Arc<Server>,
    socket: S,
    line: Line,
    place: Place,
    session: Session,
    /// Between two reads it holds less than one chunk header, so it never grows beyond [`READ_BYTES`].
    input: BytesMut,
    /// Set by `connect`.
    caller: Option<Box<Caller>>,
    started: Instant,
    tally: Tally,
}

/// A publish that goes on.
struct Live {
    publication: Publication,
    tenure: Tenure,
    counted: Counted,
}

/// `run` leaves only with an [`End`].
enum Never {}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(server: Arc<Server>, socket: S, line: Line, place: Place) -> Self {
        Self {
            server,
            socket,
            line,
            place,
            session: Session::new(),
            input: BytesMut::new(),
            caller: None,
            started: Instant::now(),
            tally: Tally::default(),
        }
    }

    /// The whole life of the connection, its end told to all.
    pub(super) async fn serve(mut self) {
        debug!("connected");
        let mut live = None;
        let end = match self.run(&mut live).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        if let Some(Live {
            publication,
            tenure,
            counted,
        }) = live
        {
            // The pipeline learns of the end before the encoder does.
            drop((publication, counted));
            self.server.admission.left(tenure);
        }
        self.report(&end);
        self.part(&end).await;
    }

    async fn run(&mut self, live: &mut Option<Live>) -> Result<Never, End> {
        let server = self.server.clone();
        let limits = server.config.limits;
        let mut deadline = self.started + limits.publish_within;
        let mut speed_check = self.started + limits.slow_grace;
        let mut ping_due = self.started + limits.ping_after;
        loop {
            self.flush().await?;
            let room = if live.is_some() {
                READ_BYTES
            } else {
                STRANGER_READ_BYTES
            };
            self.input.reserve(room);
            let read = tokio::select! {
                biased;
                () = server.shutdown.cancelled() => return Err(End::ShuttingDown),
                end = ended(live) => return Err(end),
                () = self.place.evicted().cancelled(), if live.is_none() => return Err(End::Evicted),
                () = sleep_until(deadline.into()) => {
                    return Err(if live.is_some() { End::Silent } else { End::PublishTimeout });
                }
                () = sleep_until(speed_check.into()), if live.is_none() => {
                    if is_too_slow(self.tally.bytes, self.started.elapsed(), &limits) {
                        return Err(End::TooSlow);
                    }
                    speed_check += SPEED_CHECK;
                    continue;
                }
                () = sleep_until(ping_due.into()), if live.is_some() => {
                    self.session.ping(self.started.elapsed());
                    ping_due = Instant::now() + limits.ping_after;
                    continue;
                }
                read = self.socket.read_buf(&mut self.input) => no_more_is_zero(read)?,
            };
            if read == 0 {
                let cut_off = self.session.is_inside_message(&self.input);
                return Err(if cut_off { End::CutOff } else { End::Closed });
            }
            self.tally.bytes += read as u64;
            server.config.metrics.bytes.inc_by(read as u64);
            let now = Instant::now();
            ping_due = now + limits.ping_after;
            while let Some(step) = self.session.next(&mut self.input, now)? {
                match step {
                    Step::Connect { app, tc_url } => self.greet(&app, &tc_url, now)?,
                    Step::Publish { name } => {
                        *live = Some(self.ask(&name).await?);
                        deadline = Instant::now() + limits.silence;
                    }
                    Step::Event { event, repair } => {
                        self.count(&event, repair);
                        if let (Some(live), Some(_)) = (&live, repair) {
                            live.publication.tally.repaired.fetch_add(1, Ordering::Relaxed);
                        }
                        let is_media = !matches!(event, Event::Announced(_));
                        if let Some(live) = live {
                            hand_over(live, event, &server.shutdown).await?;
                        }
                        if is_media {
                            // After the hand-over: waiting for our own pipeline is not the encoder's silence.
                            deadline = Instant::now() + limits.silence;
                        }
                    }
                    Step::Dropped { track, reason } => {
                        let (track, reason) = (track.as_str(), reason.as_str());
                        server.config.metrics.dropped.with_label_values(&[track, reason]).inc();
                        self.tally.dropped += 1;
                        if let Some(live) = &live {
                            live.publication.tally.dropped.fetch_add(1, Ordering::Relaxed);
                        }
                        if is_worth_a_line(self.tally.dropped) {
                            warn!(track, reason, total = self.tally.dropped, "access unit left out");
                        }
                    }
                }
            }
        }
    }

    fn greet(&mut self, app: &str, tc_url: &str, now: Instant) -> Result<(), End> {
        match self.server.admission.greet(&self.line.entrance, app, tc_url, now) {
            Greeting::Welcome(caller) => {
                self.caller = Some(caller);
                self.session.welcome();
                Ok(())
            }
            Greeting::Challenge(description) => Err(End::Challenged(description)),
            Greeting::AuthFailed => {
                self.server.admission.count_refusal(Refusal::WrongCredentials);
                Err(End::AuthFailed)
            }
            Greeting::Refused(refusal) => Err(self.refuse(refusal)),
        }
    }

    /// Admission first, then the door: nobody comes to a pipeline without the one's word.
    async fn ask(&mut self, name: &str) -> Result<Live, End> {
        let server = self.server.clone();
        let Some(caller) = &self.caller else {
            return Err(End::OutOfOrder("connect has to come first"));
        };
        let judged = tokio::select! {
            () = server.shutdown.cancelled() => return Err(End::ShuttingDown),
            () = self.place.evicted().cancelled() => return Err(End::Evicted),
            judged = server.admission.admit(caller, name, self.line.clone()) => judged,
        };
        let (admitted, tenure) = judged.map_err(|refusal| self.refuse(refusal))?;
        if !self.place.settle() {
            return Err(End::Evicted);
        }
        let (slot, proof) = (admitted.slot().as_str(), admitted.proof().as_str());
        let key = admitted.key().clone();
        let publication = server.door.publish(admitted).map_err(|refusal| {
            server.admission.note_refusal(&key, refusal);
            self.refuse(refusal)
        })?;
        info!(slot, proof, "publish accepted");
        self.session.accept();
        Ok(Live {
            publication,
            tenure,
            counted: Counted::new(&server.config.metrics.publishing),
        })
    }

    fn refuse(&self, refusal: Refusal) -> End {
        self.server.admission.count_refusal(refusal);
        End::Refused(refusal)
    }

    fn count(&mut self, event: &Event, repair: Option<Repair>) {
        let Event::Frame(frame) = event else { return };
        let metrics = &self.server.config.metrics;
        let track = frame.track.kind.as_str();
        self.tally.frames += 1;
        metrics.frames.with_label_values(&[track]).inc();
        if let Some(repair) = repair {
            metrics.repairs.with_label_values(&[track, repair.as_str()]).inc();
            self.tally.repairs += 1;
            if is_worth_a_line(self.tally.repairs) {
                warn!(track, ?repair, total = self.tally.repairs, "timestamp put right");
            }
        }
    }

    fn report(&self, end: &End) {
        let reason = end.as_str();
        self.server.config.metrics.ended.with_label_values(&[reason]).inc();
        if let End::Revoked(revoked) = end {
            let revocations = &self.server.admission.metrics().revoked;
            revocations.with_label_values(&[revoked.as_str()]).inc();
        }
        let Tally {
            bytes,
            frames,
            dropped,
            repairs,
        } = self.tally;
        let seconds = self.started.elapsed().as_secs_f64();
        match end {
            End::Refused(refusal) => {
                info!(refusal = refusal.as_str(), why = %refusal, seconds, "publish refused");
            }
            End::AuthFailed => {
                info!(refusal = "wrong_credentials", why = %end, seconds, "publish refused");
            }
            End::Challenged(_) => debug!("challenged"),
            _ if end.is_fault() => {
                warn!(reason, %end, seconds, bytes, frames, dropped, repairs, "connection ended");
            }
            _ => info!(reason, %end, seconds, bytes, frames, dropped, repairs, "connection ended"),
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        let replies = self.session.take_replies()?;
        if replies.is_empty() {
            return Ok(());
        }
        let write = async {
            self.socket.write_all(&replies).await?;
            self.socket.flush().await
        };
        timeout(self.server.config.limits.write_within, write)
            .await
            .map_err(|_| End::WriteTimeout)??;
        Ok(())
    }

    /// Says why, closes our half and waits a little for the peer to close its own. After an ordinary goodbye the peer
    /// closes first: GStreamer takes a server that does for a fault. The place is kept meanwhile: whoever guesses passwords
    /// waits, and does so with few connections.
    async fn part(mut self, end: &End) {
        if matches!(end, End::Evicted) {
            return;
        }
        let limits = self.server.config.limits;
        if end.is_slow() {
            let server = self.server.clone();
            tokio::select! {
                () = server.shutdown.cancelled() => {}
                () = self.place.evicted().cancelled() => return,
                () = sleep(limits.slow_refusal) => {}
            }
        }
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
        let drained = timeout(limits.drain, drain(&mut self.socket)).await;
        if !matches!(drained, Ok(Ok(()))) {
            debug!("peer did not close by itself");
        }
    }
}

/// Waits while the pipeline's channel is full: nothing is read meanwhile, which is the back-pressure.
async fn hand_over(live: &mut Live, event: Event, shutdown: &CancellationToken) -> Result<(), End> {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Err(End::ShuttingDown),
        () = live.publication.stop.cancelled() => Err(End::Stopped),
        revoked = live.tenure.revoked() => Err(End::Revoked(revoked)),
        sent = live.publication.events.send(event) => sent.map_err(|_| End::PipelineGone),
    }
}

/// Returns when a running publish has to end; never for a connection that does not publish.
async fn ended(live: &mut Option<Live>) -> End {
    match live {
        None => std::future::pending().await,
        Some(live) => tokio::select! {
            () = live.publication.stop.cancelled() => End::Stopped,
            revoked = live.tenure.revoked() => End::Revoked(revoked),
        },
    }
}

/// Many encoders close a TLS connection without saying so in TLS first: that is an end like any other.
fn no_more_is_zero(read: io::Result<usize>) -> io::Result<usize> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        read => read,
    }
}

async fn drain<S: AsyncRead + Unpin>(socket: &mut S) -> io::Result<()> {
    let mut ignored = [0; 4096];
    while socket.read(&mut ignored).await? > 0 {}
    Ok(())
}

/// Whether a stranger has sent too little for its time. A handshake alone is enough for half a minute.
fn is_too_slow(bytes: u64, elapsed: Duration, limits: &Limits) -> bool {
    elapsed >= limits.slow_grace && bytes < limits.slowest.saturating_mul(elapsed.as_secs())
}

/// The 1st, 2nd, 4th, 8th … time: a fault that repeats does not fill the log.
fn is_worth_a_line(count: u64) -> bool {
    count.is_power_of_two()
}
