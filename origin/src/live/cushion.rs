//! The resilient flavour of a stream: its packager, fed by what `package/resilience.rs` decides to show now.
//!
//! Before this: `live/pipeline.rs`, which tells of publishers, frames and the time. After this: `live/packager.rs`.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use weir_shared::media::time::MediaTime;

use super::{feed::Feed, health::Health, packager::Packager, slate::Slates, standby::Held};
use crate::{
    codec::CodecConfig,
    metrics::Metrics,
    package::{
        frame::{TrackId, TrackKind},
        resilience::{Action, Arrival, Counts, Resilience, Source},
        slate::Slate,
    },
};

/// How often the cushion's level is looked at.
const LEVEL_PERIOD: Duration = Duration::from_secs(1);
/// A publisher that was heard within this is there to take over.
const FRESH: Duration = Duration::from_millis(500);

pub(super) struct Cushion {
    resilience: Resilience,
    packager: Packager,
    /// Time filled so far, of the variant and kind of track that was filled most.
    filled: Duration,
    counted: Counts,
    level_due: Instant,
    /// From a publisher's timeline to the direct flavour's media time.
    direct_shift: Option<MediaTime>,
    /// Has the operator's picture encoded, if there is one.
    slates: Option<Arc<Slates>>,
    /// Slates that are being made, by variant.
    coming: BTreeMap<u8, watch::Receiver<Option<Slate>>>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl Cushion {
    pub(super) fn new(
        resilience: Resilience,
        packager: Packager,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        now: Instant,
    ) -> Self {
        Self {
            resilience,
            packager,
            filled: Duration::ZERO,
            counted: Counts::default(),
            level_due: now,
            direct_shift: None,
            slates: None,
            coming: BTreeMap::new(),
            health,
            metrics,
        }
    }

    /// Long gaps show the operator's picture.
    pub(super) fn with_slates(mut self, slates: Option<Arc<Slates>>) -> Self {
        self.slates = slates;
        self
    }

    pub(super) fn announced(&mut self, feed: &Feed) {
        if self.shows(feed) {
            self.packager.announce(feed.seat.variant, feed.announced);
        }
    }

    pub(super) fn configured(&mut self, feed: &Feed, id: TrackId, config: Arc<CodecConfig>) {
        if self.shows(feed) {
            self.ask_for_slate(feed.seat.variant, id, &config);
        }
        self.resilience.configure(feed.seat.variant, feed.seat.id, id, config);
    }

    /// A frame came from a publisher that is shown or not.
    pub(super) fn heard(&mut self, variant: u8, source: Source, held: &Held) {
        self.resilience.push(variant, source, arrival(held.clone()));
    }

    /// From now on this publisher is shown; `backlog` is what it has sent lately.
    pub(super) fn show<'a>(&mut self, feed: &Feed, backlog: impl IntoIterator<Item = &'a Held>) {
        if self.shows(feed) {
            return;
        }
        let variant = feed.seat.variant;
        self.packager.announce(variant, feed.announced);
        let backlog = backlog.into_iter().cloned().map(arrival);
        self.resilience.switch(variant, feed.seat.id, &feed.configs, backlog);
        for (id, config) in &feed.configs {
            self.ask_for_slate(variant, *id, config);
        }
    }

    /// Takes another publisher at once while the one that the direct playlists wait for keeps viewers waiting, and that
    /// one again when it delivers steadily. `held`: what has just come from `feed`.
    pub(super) fn steer(&mut self, active: Option<&Feed>, feed: &Feed, held: &Held, now: Instant) {
        let Some(active) = active else { return };
        if active.seat.id == feed.seat.id {
            if held.starts && !self.shows(feed) && self.resilience.is_settled(feed.seat.id) {
                self.show(feed, [held]);
            }
            return;
        }
        let is_late = now.saturating_duration_since(active.heard) > FRESH;
        if is_late && self.shows(active) && self.resilience.is_filling(feed.seat.variant) {
            self.show(feed, feed.standby.frames());
        }
    }

    /// How the direct flavour maps the first publisher's timeline: the resilient one begins alike.
    pub(super) fn begin_like(&mut self, direct_shift: MediaTime) {
        self.direct_shift.get_or_insert(direct_shift);
    }

    /// A publisher is gone.
    pub(super) fn gone(&mut self, source: Source) {
        self.resilience.forget(source);
    }

    /// Whether the multivariant playlist names a variant's renditions. One that it does not name is not filled.
    pub(super) fn list(&mut self, variant: u8, listed: bool) {
        self.packager.list(variant, listed);
        if !listed {
            self.resilience.stop(variant);
        }
    }

    pub(super) fn clear_windows(&mut self, now: Instant) {
        self.packager.clear_windows(now);
    }

    /// Shows what is left and ends the playlists.
    pub(super) fn finish(&mut self, now: Instant) {
        for action in self.resilience.drain() {
            self.act(action, now);
        }
        self.packager.finish(now);
    }

    /// When to call [`timeout`](Self::timeout).
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.resilience
            .next_timeout()
            .into_iter()
            .chain(self.packager.patience())
            .min()
    }

    /// Publishes what is due.
    pub(super) fn timeout(&mut self, now: Instant) {
        while let Some(actions) = self
            .resilience
            .poll(now, |variant, at| self.packager.key_role(variant, at))
        {
            for action in actions {
                self.act(action, now);
            }
        }
        if self.packager.patience().is_some_and(|at| at <= now) {
            self.packager.lose_patience(now);
        }
        if self.level_due <= now {
            self.level_due = now + LEVEL_PERIOD;
            self.take_slates();
            self.report(now);
        }
    }

    fn ask_for_slate(&mut self, variant: u8, id: TrackId, config: &CodecConfig) {
        if id.kind == TrackKind::Video
            && let Some(slate) = self.slates.as_ref().and_then(|slates| slates.ask(config))
        {
            self.coming.insert(variant, slate);
        }
    }

    /// Slates that have been made since.
    fn take_slates(&mut self) {
        let Some(slates) = &self.slates else { return };
        let (resilience, after) = (&mut self.resilience, slates.after());
        self.coming.retain(|variant, coming| {
            let slate = coming.borrow();
            if let Some(slate) = &*slate {
                resilience.set_slate(*variant, slate, after);
            }
            slate.is_none()
        });
    }

    fn shows(&self, feed: &Feed) -> bool {
        self.resilience.source(feed.seat.variant) == Some(feed.seat.id)
    }

    fn act(&mut self, action: Action, now: Instant) {
        match action {
            Action::Configure { variant, id, config } => self.packager.configure(variant, id, config),
            Action::Run { variant } => self.packager.begin_run(variant),
            Action::Turn { variant, at, configs } => self.packager.turn(variant, at, configs, now),
            Action::Frame { variant, frame, filler } => {
                if let Some(time) = filler {
                    let kind = frame.track.kind;
                    let seconds = self.metrics.filler_seconds.with_label_values(&[kind.as_str()]);
                    seconds.inc_by(time.as_secs_f64());
                    if kind == TrackKind::Video || !self.packager.has_video() {
                        self.filled += time;
                    }
                }
                if let (Some(direct), Some(line)) = (self.direct_shift, self.resilience.shift(variant)) {
                    self.packager.begin(direct - line);
                }
                self.packager.note_filler(variant, frame.track, filler);
                self.packager.frame(variant, frame, now);
            }
        }
    }

    fn report(&mut self, now: Instant) {
        let counts = self.resilience.counts();
        for (place, kind) in [TrackKind::Video, TrackKind::Audio].into_iter().enumerate() {
            let newly = |now: [u64; 2], before: [u64; 2]| {
                let of = |counts: [u64; 2]| counts.get(place).copied().unwrap_or(0);
                of(now).saturating_sub(of(before))
            };
            let label = [kind.as_str()];
            let (gaps, late) = (&self.metrics.filled_gaps, &self.metrics.frames_late);
            gaps.with_label_values(&label)
                .inc_by(newly(counts.gaps, self.counted.gaps));
            late.with_label_values(&label)
                .inc_by(newly(counts.late, self.counted.late));
        }
        self.counted = counts;
        let levels = || {
            self.resilience
                .variants()
                .filter_map(|variant| self.resilience.cushion(variant, now))
        };
        for level in levels() {
            self.metrics.cushion_seconds.observe(level.as_secs_f64());
        }
        let filling = self
            .resilience
            .variants()
            .any(|variant| self.resilience.is_filling(variant));
        self.health.cushioned(levels().min(), filling, self.filled, counts);
    }
}

fn arrival(held: Held) -> Arrival {
    Arrival {
        frame: held.frame,
        starts: held.starts,
        at: held.arrived,
    }
}

#[cfg(test)]
mod tests;
