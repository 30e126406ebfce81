//! The task that owns a stream: takes its publishers' events, decides which of them is shown, drives the packaging. The
//! only writer. It outlives its publishers: one that comes back within the grace time continues the same playlists.
//!
//! Before this: `live/feed.rs` (events of sessions). Its decisions: `lifecycle.rs`, `failover.rs`, `splice.rs` (pure). After
//! this: `live/packager.rs`.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use weir_shared::media::time::MediaTime;

use super::{
    cushion::Cushion,
    failover::{self, Failover, Why},
    feed::{self, Feed},
    health::{Health, PublisherReport},
    lifecycle::{Lifecycle, State},
    packager::Packager,
    seats::Seats,
    splice::{self, Arrival, Candidate, Place, Reached},
    standby::Held,
    status::{Board, Reason, Status},
};
use crate::{
    ingest::{Event, Slot},
    metrics::Metrics,
    package::frame::{Frame, TrackKind},
};

/// How often the listing's figures are renewed.
const HEALTH_PERIOD: Duration = Duration::from_secs(1);

/// Longer than any broadcast: a grace time that never ends.
pub const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How publishers come, go and follow one another.
#[derive(Debug, Clone, Copy)]
pub struct Continuity {
    /// How long a stream without a publisher waits for one before it ends.
    pub grace: Duration,
    /// How long a publisher may be connected and send nothing before the stream ends.
    pub idle: Duration,
    pub failover: failover::Policy,
}

/// One life of a stream.
pub(super) struct Pipeline {
    continuity: Continuity,
    joins: mpsc::Receiver<Feed>,
    seats: Arc<Seats>,
    feeds: Vec<Feed>,
    /// The feed that is asked first next time.
    turn: usize,
    inputs: BTreeMap<u8, Input>,
    lifecycle: Lifecycle,
    packager: Packager,
    cushion: Cushion,
    /// The playlists have ended, and what publishers send is thrown away.
    hidden: bool,
    board: Board,
    health: Arc<Health>,
    health_due: Option<Instant>,
    orders: Arc<Orders>,
    metrics: Arc<Metrics>,
}

/// What the operator may want of a running stream.
#[derive(Debug)]
pub(super) struct Orders {
    /// End the playlists, and the publishers' sessions.
    pub end: CancellationToken,
    /// False: end the playlists while publishers go on. True again: begin new ones.
    pub shown: watch::Sender<bool>,
    /// Forget the past.
    pub clear: Notify,
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            end: CancellationToken::new(),
            shown: watch::channel(true).0,
            clear: Notify::new(),
        }
    }
}

/// Why a pipeline has stopped.
pub(super) enum Stopped {
    /// For good. Dropping it closes what readers hold.
    Over(Pipeline),
    /// The playlists have ended, and new ones are wanted of the same publishers.
    Again(Pipeline),
}

/// One variant: the feeds of its two slots become one.
struct Input {
    failover: Failover,
    reached: Option<Reached>,
    /// From the shown feed's timeline to the stream's.
    offset: MediaTime,
    /// From one video frame to the next.
    step: MediaTime,
    last_video: Option<MediaTime>,
    /// Since when nobody sends it.
    gone: Option<Instant>,
}

impl Input {
    fn new(policy: failover::Policy) -> Self {
        Self {
            failover: Failover::new(policy),
            reached: None,
            offset: MediaTime::ZERO,
            step: splice::STEP_DEFAULT,
            last_video: None,
            gone: None,
        }
    }
}

/// What a pipeline is made of.
pub(super) struct Parts {
    pub continuity: Continuity,
    pub joins: mpsc::Receiver<Feed>,
    pub seats: Arc<Seats>,
    /// The direct flavour.
    pub packager: Packager,
    /// The resilient flavour.
    pub cushion: Cushion,
    pub board: Board,
    pub health: Arc<Health>,
    pub orders: Arc<Orders>,
    pub metrics: Arc<Metrics>,
}

impl Pipeline {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            continuity: parts.continuity,
            joins: parts.joins,
            seats: parts.seats,
            feeds: Vec::new(),
            turn: 0,
            inputs: BTreeMap::new(),
            lifecycle: Lifecycle::new(parts.continuity.grace),
            packager: parts.packager,
            cushion: parts.cushion,
            hidden: false,
            board: parts.board,
            health: parts.health,
            health_due: None,
            orders: parts.orders,
            metrics: parts.metrics,
        }
    }

    /// The same publishers, on playlists of their own. What they send next decides where these begin.
    pub(super) fn again(mut self, packager: Packager, cushion: Cushion) -> Self {
        self.packager = packager;
        self.cushion = cushion;
        self.hidden = false;
        self.inputs.clear();
        let (now, policy) = (now(), self.continuity.failover);
        for feed in &self.feeds {
            let input = self
                .inputs
                .entry(feed.seat.variant)
                .or_insert_with(|| Input::new(policy));
            input.failover.joined(feed.seat.slot, now);
        }
        self
    }

    /// Runs until the grace time after the last publisher is over (the playlists then end) or `stop` is cancelled (they do
    /// not: the next process continues at the same addresses).
    pub(super) async fn run(mut self, stop: CancellationToken) -> Stopped {
        let orders = self.orders.clone();
        let mut shown = orders.shown.subscribe();
        self.metrics.streams_live.inc();
        tracing::info!("stream starts");
        let reason = loop {
            let deadline = self.next_timeout();
            tokio::select! {
                biased;
                () = stop.cancelled() => break Reason::ShuttingDown,
                () = orders.end.cancelled() => break Reason::ToldToEnd,
                Ok(()) = shown.changed() => {
                    let shown = *shown.borrow_and_update();
                    if shown && self.hidden {
                        self.metrics.streams_live.dec();
                        return Stopped::Again(self);
                    }
                    if !shown {
                        self.hide();
                    }
                }
                () = orders.clear.notified() => {
                    self.packager.clear_windows(now());
                    self.cushion.clear_windows(now());
                }
                Some(feed) = self.joins.recv() => self.join(feed),
                (index, event) = feed::next_event(&mut self.feeds, self.turn) => {
                    self.turn = index + 1;
                    match event {
                        Some(event) => self.handle(index, event),
                        None => self.leave(index),
                    }
                }
                () = sleep_until(deadline) => self.timeout(),
            }
            if self.lifecycle.state() == State::Ended {
                if !self.feeds.is_empty() || self.seats.close_if_empty() {
                    break Reason::GraceOver;
                }
                // Somebody was let in this very moment.
                self.lifecycle.spare(now());
            }
        };
        self.seats.close();
        self.feeds.clear();
        let ended = matches!(reason, Reason::GraceOver | Reason::ToldToEnd);
        if ended && !self.hidden {
            self.packager.finish(now());
            self.cushion.finish(now());
        }
        self.lifecycle.end();
        self.tell(reason);
        self.metrics.streams_live.dec();
        tracing::info!(ended, "stream stops");
        Stopped::Over(self)
    }

    fn hide(&mut self) {
        if !self.hidden {
            self.packager.finish(now());
            self.cushion.finish(now());
            self.hidden = true;
            for feed in &mut self.feeds {
                drop(feed.standby.take());
            }
            tracing::info!("the playlists end, the publishers go on");
        }
    }

    fn join(&mut self, feed: Feed) {
        let now = now();
        let (variant, slot) = (feed.seat.variant, feed.seat.slot);
        tracing::info!(variant, slot = slot.as_str(), "publisher joins");
        self.lifecycle.joined(now);
        let policy = self.continuity.failover;
        let input = self.inputs.entry(variant).or_insert_with(|| Input::new(policy));
        input.failover.joined(slot, now);
        let old = self
            .feeds
            .iter()
            .position(|old| (old.seat.variant, old.seat.slot) == (variant, slot));
        self.feeds.push(feed);
        if let Some(old) = old {
            let old = self.feeds.remove(old);
            self.cushion.gone(old.seat.id);
            self.metrics.takeovers.inc();
            self.lifecycle.left(now);
            self.tell(Reason::TakenOver);
        }
    }

    fn leave(&mut self, index: usize) {
        let now = now();
        let feed = self.feeds.remove(index);
        self.seats.leave(feed.seat.id);
        tracing::info!(
            variant = feed.seat.variant,
            slot = feed.seat.slot.as_str(),
            "publisher leaves"
        );
        if let Some(input) = self.inputs.get_mut(&feed.seat.variant) {
            input.failover.left(feed.seat.slot);
        }
        self.lifecycle.left(now);
        self.cushion.gone(feed.seat.id);
        let variant = feed.seat.variant;
        let others = self
            .feeds
            .iter()
            .filter(|other| other.seat.variant == variant && other.sends());
        if let Some(other) = others.max_by_key(|other| other.heard) {
            self.cushion.show(other, other.standby.frames());
        }
        self.choose(variant, now);
        self.mark_gone(now);
        self.tell(Reason::PublisherLeft);
    }

    fn handle(&mut self, index: usize, event: Event) {
        let Some(feed) = self.feeds.get_mut(index) else { return };
        let (variant, slot) = (feed.seat.variant, feed.seat.slot);
        let Some(input) = self.inputs.get_mut(&variant) else {
            return;
        };
        let active = input.failover.active() == Some(slot) && !self.hidden;
        match event {
            Event::Announced(announced) => {
                feed.announce(announced);
                self.cushion.announced(feed);
                if active {
                    self.packager.announce(variant, feed.announced);
                }
            }
            Event::Config(id, config) => {
                feed.meter.configured(id, &config);
                feed.configs.insert(id, config.clone());
                self.cushion.configured(feed, id, config.clone());
                if active {
                    self.packager.configure(variant, id, config);
                }
            }
            Event::Frame(frame) => {
                let (now, before) = (now(), self.lifecycle.state());
                feed.heard = now;
                feed.meter.frame(&frame, now);
                let was_silent = !feed.sends();
                feed.set_sends(true);
                let held = feed.held(frame, now);
                if feed.delivers_with(&held.frame) {
                    input.failover.heard(slot, held.starts, now);
                } else {
                    input.failover.sounded(slot, now);
                }
                let newest = held.clone();
                if self.hidden {
                    self.lifecycle.heard();
                } else {
                    self.cushion.heard(variant, feed.seat.id, &newest);
                    if active {
                        self.deliver(variant, held.frame, now);
                    } else {
                        let shown = input.reached.map(|reached| reached.arrived);
                        feed.standby.push(held, shown);
                    }
                    self.steer(index, &newest, now);
                }
                self.choose(variant, now);
                if was_silent || self.lifecycle.state() != before {
                    self.tell(Reason::Published);
                }
                self.renew_health(now);
            }
        }
    }

    /// The resilient flavour need not wait until the shown feed counts as silent.
    fn steer(&mut self, index: usize, newest: &Held, now: Instant) {
        let Some(feed) = self.feeds.get(index) else { return };
        let variant = feed.seat.variant;
        let slot = self.inputs.get(&variant).and_then(|input| input.failover.active());
        let active = slot.and_then(|slot| {
            let is_active = |feed: &&Feed| (feed.seat.variant, feed.seat.slot) == (variant, slot);
            self.feeds.iter().find(is_active)
        });
        self.cushion.steer(active, feed, newest, now);
    }

    /// Switches to another feed if it is time to.
    fn choose(&mut self, variant: u8, now: Instant) {
        if self.hidden {
            return;
        }
        let Some(input) = self.inputs.get_mut(&variant) else {
            return;
        };
        let Some((slot, why)) = input.failover.choose(now) else {
            return;
        };
        let (previous, step, old_offset) = (input.reached, input.step, input.offset);
        let video = input.last_video;
        let feed = self
            .feeds
            .iter_mut()
            .find(|feed| (feed.seat.variant, feed.seat.slot) == (variant, slot));
        let Some(feed) = feed else { return };
        let held = feed.standby.take();
        self.cushion.show(feed, &held);
        let starts: Vec<Arrival> = held.iter().filter(|held| held.starts).map(Held::arrival).collect();
        let Some(newest) = held.back().map(Held::arrival) else {
            return;
        };
        let others = || self.inputs.iter().filter(|(other, _)| **other != variant);
        let mut candidates: Vec<Candidate> = others()
            .filter(|(_, other)| other.reached.is_some())
            .map(|(_, other)| Candidate {
                offset: other.offset,
                tolerance: splice::SAME_ENCODER,
            })
            .collect();
        let reached = self.inputs.values().filter_map(|input| input.reached);
        let furthest = reached.max_by_key(|reached| reached.arrived);
        let after = previous.zip(furthest).map(|(reached, furthest)| splice::After {
            reached,
            video,
            furthest,
            step,
        });
        let place = match after {
            Some(after) => {
                candidates.push(Candidate {
                    offset: old_offset,
                    tolerance: splice::SAME_CLOCK,
                });
                let others_go_on = others().any(|(_, other)| other.gone.is_none());
                after.place(newest, &starts, &candidates, others_go_on)
            }
            None => Place {
                offset: splice::offset(furthest, newest, &candidates),
                skipped: MediaTime::ZERO,
            },
        };
        if let Some(input) = self.inputs.get_mut(&variant) {
            input.offset = place.offset;
            input.gone = None;
        }
        tracing::info!(variant, slot = slot.as_str(), why = why.as_str(), "shown from now on");
        if after.is_some() {
            self.packager.splice(variant, place.skipped, now);
        }
        if why != Why::OnlyOne {
            self.metrics.switches.with_label_values(&[why.as_str()]).inc();
        }
        self.packager.list(variant, true);
        self.cushion.list(variant, true);
        self.packager.announce(variant, feed.announced);
        for (id, config) in &feed.configs {
            self.packager.configure(variant, *id, config.clone());
        }
        for held in held {
            if after.is_none_or(|after| held.frame.dts + place.offset >= after.earliest()) {
                self.deliver(variant, held.frame, held.arrived);
            }
        }
    }

    /// A frame of the feed that is shown, on its way to the renditions.
    fn deliver(&mut self, variant: u8, mut frame: Frame, arrived: Instant) {
        let Some(input) = self.inputs.get_mut(&variant) else {
            return;
        };
        frame.dts = frame.dts + input.offset;
        let media = input.reached.map_or(frame.dts, |reached| reached.media.max(frame.dts));
        if frame.track.kind == TrackKind::Video {
            input.step = input
                .last_video
                .map_or(input.step, |last| splice::step(last, frame.dts, input.step));
            input.last_video = Some(frame.dts);
        }
        input.reached = Some(Reached { media, arrived });
        self.lifecycle.heard();
        let offset = input.offset;
        self.packager.frame(variant, frame, now());
        if let Some(shift) = self.packager.shift() {
            self.cushion.begin_like(shift + offset);
        }
    }

    fn timeout(&mut self) {
        let now = now();
        let after = self.continuity.failover.after;
        for feed in &mut self.feeds {
            if feed.silent_at(after).is_some_and(|at| at <= now) {
                let (variant, slot) = (feed.seat.variant, feed.seat.slot.as_str());
                tracing::warn!(
                    variant,
                    slot,
                    seconds = after.as_secs_f64(),
                    "publisher has fallen silent"
                );
                feed.set_sends(false);
            }
        }
        let variants: Vec<u8> = self.inputs.keys().copied().collect();
        for variant in variants {
            self.choose(variant, now);
        }
        if !self.feeds.iter().any(Feed::sends) {
            let heard = self.feeds.iter().map(|feed| feed.heard).max().unwrap_or(now);
            self.lifecycle.fell_silent(heard + self.continuity.idle);
        }
        self.mark_gone(now);
        let grace = self.continuity.grace;
        for (variant, input) in &self.inputs {
            if input.gone.is_some_and(|gone| gone + grace <= now) && self.lifecycle.state() == State::Live {
                self.packager.list(*variant, false);
                self.cushion.list(*variant, false);
            }
        }
        if self.packager.patience().is_some_and(|at| at <= now) {
            self.packager.lose_patience(now);
        }
        if !self.hidden {
            self.cushion.timeout(now);
        }
        self.lifecycle.timeout(now);
        self.renew_health(now);
        if self.lifecycle.state() != State::Ended {
            self.tell(Reason::FellSilent);
        }
    }

    /// Variants that nobody sends any more leave the multivariant playlist after the grace time.
    fn mark_gone(&mut self, now: Instant) {
        for (variant, input) in &mut self.inputs {
            let sent = self
                .feeds
                .iter()
                .any(|feed| feed.seat.variant == *variant && feed.sends());
            input.gone = if sent { None } else { input.gone.or(Some(now)) };
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let now = now();
        let after = self.continuity.failover.after;
        let grace = self.continuity.grace;
        let silences = self.feeds.iter().filter_map(|feed| feed.silent_at(after));
        let failovers = self
            .inputs
            .values()
            .filter_map(|input| input.failover.next_timeout(now));
        let retirements = self.inputs.values().filter_map(|input| Some(input.gone? + grace));
        silences
            .chain(failovers)
            .chain(retirements.filter(|at| *at > now))
            .chain(self.lifecycle.next_timeout())
            .chain(self.packager.patience())
            .chain(self.cushion.next_timeout().filter(|_| !self.hidden))
            .min()
    }

    fn tell(&self, reason: Reason) {
        let sends = |slot| self.feeds.iter().any(|feed| feed.seat.slot == slot && feed.sends());
        let status = Status {
            state: self.lifecycle.state(),
            live: sends(Slot::Primary),
            backup_live: sends(Slot::Backup),
        };
        self.board.post(status, reason);
    }

    fn renew_health(&mut self, now: Instant) {
        if self.health_due.is_some_and(|due| due > now) {
            return;
        }
        self.health_due = Some(now + HEALTH_PERIOD);
        let publishers = self.feeds.iter().map(|feed| {
            let active = self
                .inputs
                .get(&feed.seat.variant)
                .and_then(|input| input.failover.active());
            PublisherReport {
                variant: feed.seat.variant,
                slot: feed.seat.slot.as_str(),
                shown: active == Some(feed.seat.slot),
                sends: feed.sends(),
                input: feed.meter.report(now),
            }
        });
        self.health.renew(publishers.collect(), &self.metrics);
    }
}

/// The clock that timers run by, so that tests can hold it.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
