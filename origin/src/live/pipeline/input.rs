//! Of each variant's publishers one is shown: which, from where on, and its frames on their way to the direct flavour.
//!
//! Before this: `live/pipeline.rs`, which hears all of them. After this: `live/packager.rs`.

use std::time::Instant;

use weir_shared::media::time::MediaTime;

use super::{Pipeline, now};
use crate::{
    live::{
        failover::{self, Failover, Why},
        feed::Feed,
        splice::{self, Arrival, Candidate, Place, Reached},
        standby::Held,
    },
    package::frame::{Frame, TrackKind},
};

/// One variant: the feeds of its two slots become one.
pub(super) struct Input {
    pub(super) failover: Failover,
    pub(super) reached: Option<Reached>,
    /// From the shown feed's timeline to the stream's.
    pub(super) offset: MediaTime,
    /// From one video frame to the next.
    step: MediaTime,
    last_video: Option<MediaTime>,
    /// Since when nobody sends it.
    pub(super) gone: Option<Instant>,
}

impl Input {
    pub(super) fn new(policy: failover::Policy) -> Self {
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

impl Pipeline {
    /// The resilient flavour need not wait until the shown feed counts as silent.
    pub(super) fn steer(&mut self, index: usize, newest: &Held, now: Instant) {
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
    pub(super) fn choose(&mut self, variant: u8, now: Instant) {
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
    pub(super) fn deliver(&mut self, variant: u8, mut frame: Frame, arrived: Instant) {
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

    /// Variants that nobody sends any more leave the multivariant playlist after the grace time.
    pub(super) fn mark_gone(&mut self, now: Instant) {
        for (variant, input) in &mut self.inputs {
            let sent = self
                .feeds
                .iter()
                .any(|feed| feed.seat.variant == *variant && feed.sends());
            input.gone = if sent { None } else { input.gone.or(Some(now)) };
        }
    }
}
