//! The task that owns a stream: takes its publishers' events, decides which of them is shown, drives the packaging. The
//! only writer. It outlives its publishers: one that comes back within the grace time continues the same playlists.
//!
//! Before this: `live/feed.rs` (events of sessions). Its decisions: `lifecycle.rs`, `failover.rs`, `splice.rs` (pure), and
//! `pipeline/input.rs`, which lets one publisher of each variant be shown. After this, side by side: `live/packager.rs` (the
//! direct flavour) and `live/cushion.rs` (the resilient one).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::input::Input;
use super::{
    cushion::Cushion,
    failover,
    feed::{self, Feed},
    health::{Health, PublisherReport},
    lifecycle::{Lifecycle, State},
    orders::Orders,
    packager::Packager,
    seats::Seats,
    status::{Board, Reason, Status},
};
use crate::{
    ingest::{Event, Slot},
    metrics::Metrics,
};

mod input;

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

/// Why a pipeline has stopped.
pub(super) enum Stopped {
    /// For good. Dropping it closes what readers hold.
    Over(Pipeline),
    /// The playlists have ended, and new ones are wanted of the same publishers.
    Again(Pipeline),
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
