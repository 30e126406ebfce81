//! One call over SRT: what is asked of admission and of the door, and the session's packets, payloads and timeouts. The
//! protocol itself is `session.rs`.
//!
//! Before this: `srt/port.rs`. After this: `srt/session.rs` and `ingest/ts.rs`; its events go to `live/pipeline.rs` through
//! a bounded channel. When that is full, payloads are left out: an encoder over SRT can't be held up.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tokio::{
    sync::mpsc,
    time::{sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use super::{
    End, Server,
    crypto::{KeyError, Keyring},
    handshake::Knock,
    port::{Datagram, Direct, Heard, Port, Registered},
    receiver::Output,
    reject::Reject,
    session::{Session, Stats},
    streamid::Wish,
    wire::destination,
};
use crate::ingest::{
    Entrance, Event, Line, Link, Publication, Refusal,
    admission::{Caller, Tenure, claims::Claims},
    counted::Counted,
    lobby::Place,
    ts::{Demuxer, Step},
};

/// Datagrams looked at before the session's timers are again.
const BATCH: usize = 64;
/// Waking up later than this means that datagrams may be waiting before the port …
const LATE: Duration = Duration::from_millis(20);
/// … which gets this long to hand them out.
const CATCH_UP: Duration = Duration::from_millis(2);
/// Datagrams from the inbox, and batches from the call's own socket, heard before timers are looked at.
const CATCH_UP_DATAGRAMS: usize = 1024;
const CATCH_UP_BATCHES: usize = 64;
/// How often the link's figures are given out.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the pipeline may take for what is left at the end.
const REST_WITHIN: Duration = Duration::from_secs(2);
/// Events that wait for the pipeline, and their bytes; beyond either, payloads are left out.
const BACKLOG_EVENTS: usize = 512;
const BACKLOG_BYTES: usize = 8 << 20;

/// What a call's last log line says, beyond the session's figures.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    frames: u64,
    dropped: u64,
    repairs: u64,
    /// Payloads left out because the pipeline was slow.
    backlog: u64,
}

pub(super) struct Connection {
    server: Arc<Server>,
    port: Arc<Port>,
    registered: Registered,
    inbox: mpsc::Receiver<Datagram>,
    line: Line,
    place: Place,
    demuxer: Demuxer,
    backlog: VecDeque<Event>,
    backlog_bytes: usize,
    tally: Tally,
    started: Instant,
}

/// A publish that goes on.
struct Live {
    /// Its own socket. `None`: everything comes through the port's.
    direct: Option<Direct>,
    publication: Publication,
    tenure: Tenure,
    session: Session,
    /// The figures that were given out last, and when.
    looked: (Stats, Instant),
    /// When the last media came.
    media_at: Instant,
}

impl Connection {
    pub(super) fn new(
        server: Arc<Server>,
        port: Arc<Port>,
        registered: Registered,
        inbox: mpsc::Receiver<Datagram>,
        line: Line,
        place: Place,
    ) -> Self {
        Self {
            demuxer: Demuxer::new(server.config.ts),
            server,
            port,
            registered,
            inbox,
            line,
            place,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            tally: Tally::default(),
            started: Instant::now(),
        }
    }

    /// The whole life of the call, its end told to all.
    pub(super) async fn serve(mut self, knock: Knock) {
        let server = self.server.clone();
        let metrics = &server.config.metrics;
        let _call = Counted::new(&metrics.calls);
        match self.ask(&knock).await {
            Ok(mut live) => {
                let publishing = Counted::new(&metrics.publishing);
                let direct = live.direct.as_ref().map(|_| Counted::new(&metrics.direct));
                let end = self.run(&mut live).await;
                drop((publishing, direct));
                let stats = self.look(&mut live, Instant::now());
                if !matches!(end, End::Closed) {
                    self.send(&live, &live.session.farewell(Instant::now()));
                }
                // The pipeline learns of the end before anybody else.
                drop(live.publication);
                server.admission.left(live.tenure);
                self.report(&end, Some(&stats));
            }
            Err(end) => {
                self.report(&end, None);
                if let Some(reject) = end.reject() {
                    metrics.rejected.with_label_values(&[reject.as_str()]).inc();
                    if self.is_answered(&end).await {
                        self.port.send(&knock.reject(reject), self.line.peer);
                    }
                }
            }
        }
    }

    /// Passphrase first, then admission, then the door: nobody comes to a pipeline without their word.
    async fn ask(&self, knock: &Knock) -> Result<Live, End> {
        let server = &self.server;
        let mut wish = Wish::parse(&knock.stream_id).map_err(End::Rejected)?;
        if wish.name.is_empty() {
            wish.name = match &self.line.entrance {
                Entrance::Own(key) => key.as_str().to_owned(),
                Entrance::Shared => return Err(End::Rejected(Reject::BadRequest)),
            };
        }
        let (caller, keys) = self.unlock(wish.claims, &wish.name, knock)?;
        let judged = tokio::select! {
            () = server.shutdown.cancelled() => return Err(End::ShuttingDown),
            () = self.place.evicted().cancelled() => return Err(End::Evicted),
            judged = server.admission.admit(&caller, &wish.name, self.line.clone()) => judged,
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
        let locked = keys.is_some();
        let beginning = self.port.listener.accept(knock, self.registered.socket, keys);
        let latency_ms = beginning.latency_ms;
        info!(slot, proof, locked, latency_ms, "publish accepted");
        let now = Instant::now();
        Ok(Live {
            direct: self.port.direct(self.line.peer),
            publication,
            tenure,
            session: Session::new(beginning, server.config.session),
            looked: (Stats::default(), now),
            media_at: now,
        })
    }

    /// The stream's passphrase has to fit the caller's key material, or both have to be missing.
    fn unlock(&self, claims: Claims, name: &str, knock: &Knock) -> Result<(Caller, Option<Keyring>), End> {
        let admission = &self.server.admission;
        let (key, passphrase) = admission
            .passphrase(&self.line.entrance, name)
            .map_err(|refusal| self.refuse(refusal))?;
        let refused = |refusal| {
            admission.note_refusal(&key, refusal);
            self.refuse(refusal)
        };
        match (passphrase, &knock.key_material) {
            (None, None) => Ok((Caller::over_srt(claims, None), None)),
            (None, Some(_)) => Err(refused(Refusal::UnexpectedPassphrase)),
            (Some(_), None) => Err(refused(Refusal::NoPassphrase)),
            (Some(passphrase), Some(message)) => match Keyring::unlock(passphrase.expose(), message) {
                Ok(keys) => Ok((Caller::over_srt(claims, Some(passphrase)), Some(keys))),
                Err(KeyError::WrongPassphrase) => Err(refused(Refusal::WrongPassphrase)),
                Err(KeyError::Malformed | KeyError::Cipher) => Err(End::Rejected(Reject::Rogue)),
            },
        }
    }

    /// Waits before a refusal that may answer a guess. `false`: others need the place, and no answer is given.
    async fn is_answered(&self, end: &End) -> bool {
        if !matches!(end, End::Refused(refusal) if refusal.is_guess()) {
            return true;
        }
        tokio::select! {
            () = self.server.shutdown.cancelled() => true,
            () = self.place.evicted().cancelled() => false,
            () = sleep(self.server.config.limits.slow_refusal) => true,
        }
    }

    fn refuse(&self, refusal: Refusal) -> End {
        self.server.admission.count_refusal(refusal);
        End::Refused(refusal)
    }

    async fn run(&mut self, live: &mut Live) -> End {
        let server = self.server.clone();
        let mut batch = Vec::with_capacity(BATCH);
        let mut wanted_at = Instant::now();
        loop {
            if live.direct.is_none() && wanted_at.elapsed() > LATE {
                // The machine was busy elsewhere: what came meanwhile is heard before anything is given up for missing.
                sleep(CATCH_UP).await;
            }
            if self.hear_direct(live).is_err() {
                live.direct = None;
            }
            for datagram in std::iter::from_fn(|| self.inbox.try_recv().ok()).take(CATCH_UP_DATAGRAMS) {
                live.session.datagram(datagram.bytes, datagram.at);
            }
            let now = Instant::now();
            let over = live.session.tick(now).err();
            while let Some(output) = live.session.output(now) {
                if let Err(end) = self.take(output, live, now) {
                    return end;
                }
            }
            while let Some(packet) = live.session.transmit() {
                self.send(live, &packet);
            }
            if let Some(over) = over {
                self.hand_over_rest(live).await;
                return over.into();
            }
            let silent_at = live.media_at + server.config.limits.silence;
            if now >= silent_at {
                return End::Silent;
            }
            if now >= live.looked.1 + LOOK_EVERY {
                self.look(live, now);
            }
            let next = live.session.timeout().min(silent_at);
            // Unless something comes before.
            wanted_at = next.max(now);
            tokio::select! {
                biased;
                () = server.shutdown.cancelled() => return End::ShuttingDown,
                () = live.publication.stop.cancelled() => return End::Stopped,
                revoked = live.tenure.revoked() => return End::Revoked(revoked),
                place = live.publication.events.reserve(), if !self.backlog.is_empty() => {
                    let Ok(place) = place else { return End::PipelineGone };
                    if let Some(event) = self.next_event() {
                        place.send(event);
                    }
                    while let Ok(place) = live.publication.events.try_reserve()
                        && let Some(event) = self.next_event()
                    {
                        place.send(event);
                    }
                }
                // Heard at the top of the loop.
                _ = readable(live.direct.as_ref()) => {}
                count = self.inbox.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return End::PortClosed;
                    }
                    for datagram in batch.drain(..) {
                        live.session.datagram(datagram.bytes, datagram.at);
                    }
                }
                () = sleep_until(next.into()) => {}
            }
        }
    }

    /// What has come to the call's own socket, nearly all of it for this call.
    fn hear_direct(&self, live: &mut Live) -> io::Result<()> {
        let Some(direct) = &live.direct else { return Ok(()) };
        let (session, own) = (&mut live.session, self.registered.socket);
        let mut heard = Heard::default();
        let each = |bytes: &[u8], peer, at| {
            if peer == self.line.peer && destination(bytes) == Some(own) {
                session.datagram(BytesMut::from(bytes), at);
            } else {
                self.port.pass_on(bytes, peer, at, &mut heard);
            }
        };
        direct.socket.take_batches(CATCH_UP_BATCHES, each)?;
        self.server.take(&self.port, heard);
        Ok(())
    }

    fn send(&self, live: &Live, packet: &[u8]) {
        match &live.direct {
            Some(direct) => direct.socket.send(packet, self.line.peer),
            None => self.port.send(packet, self.line.peer),
        }
    }

    /// A payload becomes events for the pipeline.
    fn take(&mut self, output: Output, live: &mut Live, now: Instant) -> Result<(), End> {
        let metrics = self.server.config.metrics.clone();
        match output {
            Output::Gap(_) => self.demuxer.gap(),
            Output::Payload(_) if self.backlog.len() >= BACKLOG_EVENTS || self.backlog_bytes >= BACKLOG_BYTES => {
                metrics.dropped.with_label_values(&["backlog"]).inc();
                self.tally.backlog += 1;
                self.demuxer.gap();
            }
            Output::Payload(payload) => self.demuxer.push(&payload, now).map_err(End::Media)?,
        }
        while let Some(step) = self.demuxer.poll() {
            match step {
                Step::Event { event, repair } => {
                    if let Event::Frame(frame) = &event {
                        let track = frame.track.kind.as_str();
                        self.tally.frames += 1;
                        self.backlog_bytes += frame.data.len();
                        metrics.frames.with_label_values(&[track]).inc();
                        if let Some(repair) = repair {
                            metrics.repairs.with_label_values(&[track, repair.as_str()]).inc();
                            live.publication.tally.repaired.fetch_add(1, Ordering::Relaxed);
                            self.tally.repairs += 1;
                        }
                    }
                    if !matches!(event, Event::Announced(_)) {
                        live.media_at = now;
                    }
                    self.backlog.push_back(event);
                }
                Step::Dropped { track, reason } => {
                    let labels = [track.as_str(), reason.as_str()];
                    metrics.frames_dropped.with_label_values(&labels).inc();
                    live.publication.tally.dropped.fetch_add(1, Ordering::Relaxed);
                    self.tally.dropped += 1;
                }
            }
        }
        Ok(())
    }

    fn next_event(&mut self) -> Option<Event> {
        let event = self.backlog.pop_front()?;
        if let Event::Frame(frame) = &event {
            self.backlog_bytes -= frame.data.len();
        }
        Some(event)
    }

    /// The encoder said goodbye: what it sent before belongs to the broadcast.
    async fn hand_over_rest(&mut self, live: &Live) {
        let rest = async {
            while let Some(event) = self.next_event() {
                if live.publication.events.send(event).await.is_err() {
                    return;
                }
            }
        };
        if timeout(REST_WITHIN, rest).await.is_err() {
            debug!("the pipeline did not take the rest in time");
        }
    }

    /// Gives out what the link is like.
    fn look(&self, live: &mut Live, now: Instant) -> Stats {
        let stats = live.session.stats();
        let metrics = &self.server.config.metrics;
        metrics.add(&live.looked.0, &stats);
        metrics.observe(&stats);
        let link = Link {
            rtt: stats.rtt,
            latency: stats.latency,
            buffer: stats.buffer,
            packets: stats.counts.packets,
            packets_missing: stats.counts.missing,
            packets_lost: stats.counts.lost,
            packets_retransmitted: stats.retransmitted,
            packets_undecrypted: stats.undecrypted,
            acknowledgements_unanswered: stats.unanswered,
        };
        *live.publication.tally.link.lock() = Some(link);
        live.looked = (stats, now);
        stats
    }

    fn report(&self, end: &End, stats: Option<&Stats>) {
        let reason = end.as_str();
        self.server.config.metrics.ended.with_label_values(&[reason]).inc();
        if let End::Revoked(revoked) = end {
            let revocations = &self.server.admission.metrics().revoked;
            revocations.with_label_values(&[revoked.as_str()]).inc();
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let Some(stats) = stats else {
            match end {
                End::Refused(refusal) => {
                    info!(refusal = refusal.as_str(), why = %refusal, seconds, "publish refused");
                }
                _ => info!(refusal = reason, why = %end, seconds, "publish refused"),
            }
            return;
        };
        let Tally {
            frames,
            dropped,
            repairs,
            backlog,
        } = self.tally;
        let counts = stats.counts;
        let (bytes, packets, missing, lost) = (counts.bytes, counts.packets, counts.missing, counts.lost);
        let (undecrypted, unanswered) = (stats.undecrypted, stats.unanswered);
        if end.is_fault() {
            warn!(reason, %end, seconds, bytes, packets, missing, lost, undecrypted, unanswered, frames, dropped, repairs, backlog, "call ended");
        } else {
            info!(reason, %end, seconds, bytes, packets, missing, lost, undecrypted, unanswered, frames, dropped, repairs, backlog, "call ended");
        }
    }
}

/// When something comes to the call's own socket; never without one.
async fn readable(direct: Option<&Direct>) -> io::Result<()> {
    match direct {
        Some(direct) => direct.socket.readable().await,
        None => std::future::pending().await,
    }
}
