//! A stream's renditions: opens them to readers, publishes what has changed, writes the multivariant playlist.
//!
//! Before this: `live/pipeline.rs`, which owns it. Beside it: `live/lane.rs`, one per variant. After this:
//! `live/snapshot.rs`, `live/master.rs` (what readers see).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use tokio::sync::watch;
use weir_shared::{
    hls::{
        multivariant,
        playlist::{RenditionReport, ServerControl},
        position::MediaSequence,
    },
    id::{Epoch, RenditionName},
    media::time::MediaTime,
};

use super::{
    clock_map::ClockMap,
    health::Health,
    lane::{Joining, Lane, Settings},
    master::{self, Flavour, Master, Rendition},
    memory::Memory,
    shared::SharedParts,
    snapshot::{self, RenditionSettings},
    track::Track,
};
use crate::{
    codec::CodecConfig,
    ingest::Announced,
    metrics::Metrics,
    package::{
        frame::{Frame, TrackId, TrackKind},
        segmenter::KeyRole,
    },
};

/// The variant of a publish that names none.
pub(super) const MAIN: u8 = 1;

/// Changes of decoder configurations that are told of within this time are one discontinuity.
const SAME_TURN: MediaTime = MediaTime::from_millis(1000);

pub(super) struct Packager {
    flavour: Flavour,
    shared: Arc<SharedParts>,
    settings: Settings,
    epoch: Epoch,
    first_msn: MediaSequence,
    /// Told to a successor, which starts above it.
    next_msn: Arc<AtomicU64>,
    /// Set by the first frame.
    clock: Option<ClockMap>,
    lanes: BTreeMap<u8, Lane>,
    /// Variants that nobody sends: not listed until somebody does again.
    retired: BTreeSet<u8>,
    server_control: Option<ServerControl>,
    /// Where decoder configurations changed last, as told ahead.
    turned_at: Option<MediaTime>,
    renditions: Vec<Rendition>,
    /// `None`: windows are all that bounds it.
    memory: Option<Memory>,
    master: watch::Sender<Arc<Master>>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl Packager {
    pub(super) fn new(
        flavour: Flavour,
        settings: Settings,
        epoch: Epoch,
        next_msn: Arc<AtomicU64>,
        master: watch::Sender<Arc<Master>>,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            flavour,
            shared: Arc::default(),
            settings,
            epoch,
            first_msn: MediaSequence(next_msn.load(Ordering::Acquire)),
            next_msn,
            clock: None,
            lanes: BTreeMap::new(),
            retired: BTreeSet::new(),
            server_control: None,
            turned_at: None,
            renditions: Vec::new(),
            memory: None,
            master,
            health,
            metrics,
        }
    }

    /// With the other flavour of the same stream.
    pub(super) fn sharing(mut self, shared: Arc<SharedParts>) -> Self {
        self.shared = shared;
        self
    }

    /// Within this much memory.
    pub(super) fn within(mut self, memory: Memory) -> Self {
        self.memory = Some(memory);
        self
    }

    /// What the encoder of a variant says it will send.
    pub(super) fn announce(&mut self, variant: u8, announced: Announced) {
        self.lane(variant).announce(announced);
    }

    /// A track's decoder configuration, first or changed. A change is a discontinuity in every rendition: matching content
    /// has matching discontinuity sequence numbers (section 6.2.4).
    pub(super) fn configure(&mut self, variant: u8, id: TrackId, config: Arc<CodecConfig>) {
        if self.lane(variant).lacks(id) {
            let Some(name) = self.free_name(variant, id) else {
                return;
            };
            // A track that joins late carries the same sequence numbers as those already there.
            let joining = Joining {
                first_msn: self.tracks().map(Track::next_msn).max().unwrap_or(self.first_msn),
                discontinuity_sequence: self.discontinuity_sequence(),
            };
            self.lane(variant).add(id, name, config, joining);
        } else if self.lane(variant).configure(id, config) {
            tracing::info!(variant, track = %id, "the decoder configuration has changed");
            self.mark_discontinuity();
        }
    }

    /// The same for what is known of the next picture, presented at `at` of the stream's timeline: all that changes with it,
    /// told before it comes.
    pub(super) fn turn(&mut self, variant: u8, at: MediaTime, configs: Vec<(TrackId, Arc<CodecConfig>)>, now: Instant) {
        let Some(clock) = self.clock else { return };
        tracing::info!(variant, tracks = configs.len(), "the decoder configuration changes");
        // All variants of an encoder change together, and each tells of it.
        let is_same = |last: MediaTime| (at - last).as_nanos().abs() < SAME_TURN.as_nanos();
        if !self.turned_at.replace(at).is_some_and(is_same) {
            self.mark_discontinuity();
        }
        let metrics = self.metrics.clone();
        self.lane(variant).turn(clock.media(at), configs, &clock, &metrics);
        self.publish(now);
    }

    fn mark_discontinuity(&mut self) {
        for track in self.lanes.values_mut().flat_map(Lane::tracks_mut) {
            track.mark_discontinuity();
        }
    }

    /// From ingest time to media time; `None` before the first frame.
    pub(super) fn shift(&self) -> Option<MediaTime> {
        self.clock.as_ref().map(ClockMap::shift)
    }

    /// Before the first frame: what media time is to be.
    pub(super) fn begin(&mut self, shift: MediaTime) {
        self.clock.get_or_insert_with(|| ClockMap::shifted(shift));
    }

    /// A track's next frame fills for so long, or is a real one.
    pub(super) fn note_filler(&mut self, variant: u8, id: TrackId, filler: Option<Duration>) {
        self.lane(variant).note_filler(id, filler);
    }

    /// A frame on the stream's timeline.
    pub(super) fn frame(&mut self, variant: u8, mut frame: Frame, now: Instant) {
        let clock = *self
            .clock
            .get_or_insert_with(|| ClockMap::starting(frame.dts, SystemTime::now()));
        frame.dts = clock.media(frame.dts);
        let metrics = self.metrics.clone();
        let others = self.lanes.iter().filter(|(other, _)| **other != variant);
        if let Some(beside) = others.filter_map(|(_, lane)| lane.pace()).next() {
            self.lane(variant).keep_pace(&frame, beside);
        }
        self.lane(variant).frame(frame, &clock, &metrics, now);
        self.publish(now);
    }

    /// What follows in this variant comes from another publisher; `skipped` of its time is not in media time.
    pub(super) fn splice(&mut self, variant: u8, skipped: MediaTime, now: Instant) {
        let Some(clock) = &mut self.clock else { return };
        let before = *clock;
        clock.leave_out(skipped.to_duration());
        let metrics = self.metrics.clone();
        self.lane(variant).splice(&before, &metrics);
        self.publish(now);
    }

    /// Whether the multivariant playlist names a variant's renditions.
    pub(super) fn list(&mut self, variant: u8, listed: bool) {
        let changed = match listed {
            true => self.retired.remove(&variant),
            false => self.retired.insert(variant),
        };
        if changed {
            self.refresh_master();
        }
    }

    /// Forgets the past of all renditions; players that are near the live end notice nothing.
    pub(super) fn clear_windows(&mut self, now: Instant) {
        for lane in self.lanes.values_mut() {
            lane.clear_windows();
        }
        self.tend_memory(now);
        self.publish(now);
    }

    /// Ends all renditions.
    pub(super) fn finish(&mut self, now: Instant) {
        let Some(clock) = self.clock else { return };
        for lane in self.lanes.values_mut() {
            lane.finish(&clock, &self.metrics);
        }
        self.publish(now);
    }

    /// When to call [`lose_patience`](Self::lose_patience).
    pub(super) fn patience(&self) -> Option<Instant> {
        self.lanes.values().filter_map(Lane::patience).min()
    }

    /// Goes on without tracks that were waited for until now.
    pub(super) fn lose_patience(&mut self, now: Instant) {
        let Some(clock) = self.clock else { return };
        for lane in self
            .lanes
            .values_mut()
            .filter(|lane| lane.patience().is_some_and(|at| at <= now))
        {
            lane.lose_patience(&clock, &self.metrics);
        }
        self.publish(now);
    }

    pub(super) fn has_video(&self) -> bool {
        self.tracks().any(|track| track.config().track() == TrackKind::Video)
    }

    /// A variant's next picture is the first of another run of frames.
    pub(super) fn begin_run(&mut self, variant: u8) {
        self.lane(variant).begin_run();
    }

    /// What a key frame with this decode time on the stream's timeline would do for a variant's segments.
    pub(super) fn key_role(&self, variant: u8, at: MediaTime) -> KeyRole {
        let (Some(clock), Some(lane)) = (&self.clock, self.lanes.get(&variant)) else {
            return KeyRole::Inside;
        };
        lane.key_role(clock.media(at))
    }

    fn lane(&mut self, variant: u8) -> &mut Lane {
        self.lanes
            .entry(variant)
            .or_insert_with(|| Lane::new(self.flavour, self.shared.clone(), self.settings.clone()))
    }

    fn tracks(&self) -> impl Iterator<Item = &Track> {
        self.lanes.values().flat_map(Lane::tracks)
    }

    /// `video` and `audio`, then `video-2`: by the variant if there are several, else by the track.
    fn free_name(&self, variant: u8, id: TrackId) -> Option<RenditionName> {
        let kind = format!("{}{}", self.flavour.prefix(), id.kind.as_str());
        let track = u16::from(id.number) + 1;
        let plain = match (variant, track) {
            (MAIN, 1) => kind.clone(),
            (MAIN, track) => format!("{kind}-{track}"),
            (variant, 1) => format!("{kind}-{variant}"),
            (variant, track) => format!("{kind}-{variant}-{track}"),
        };
        let name = plain.parse().ok()?;
        if self.tracks().any(|track| track.name == name) {
            return format!("{kind}-{variant}-{track}").parse().ok();
        }
        Some(name)
    }

    fn discontinuity_sequence(&self) -> u64 {
        self.tracks().map(Track::next_discontinuity_sequence).max().unwrap_or(0)
    }

    /// Makes what has changed visible.
    fn publish(&mut self, now: Instant) {
        let launched = self.launch(now);
        let dirty: Vec<RenditionName> = self
            .tracks()
            .filter(|track| track.is_dirty() && track.is_published())
            .map(|track| track.name.clone())
            .collect();
        if !dirty.is_empty() {
            let reports: Vec<(RenditionName, RenditionReport)> = self
                .tracks()
                .filter_map(|track| Some((track.name.clone(), track.report()?)))
                .collect();
            for track in self.lanes.values_mut().flat_map(Lane::tracks_mut) {
                if !launched && !dirty.contains(&track.name) {
                    continue;
                }
                let others = reports.iter().filter(|(name, _)| *name != track.name);
                track.publish(others.map(|(_, report)| report.clone()).collect());
                self.next_msn.fetch_max(track.next_msn().next().0, Ordering::AcqRel);
            }
        }
        let mut segment_end = false;
        for lane in self.lanes.values_mut() {
            let progress = lane.take_progress();
            segment_end |= progress.segment_end;
            if progress.forced_cut {
                self.health.forced_cut(self.settings.targets.target_duration_seconds);
            }
        }
        if segment_end || launched {
            self.tend_memory(now);
            self.refresh_figures();
        }
    }

    /// Old segments leave memory.
    fn tend_memory(&mut self, now: Instant) {
        let Some(memory) = &mut self.memory else { return };
        let tracks = self.lanes.values_mut().flat_map(Lane::tracks_mut);
        memory.tend(tracks.map(Track::window_mut).collect(), now);
        self.health.past(self.flavour, memory.trouble());
    }

    /// Opens tracks to readers as soon as it is known which there are. True if any was opened.
    fn launch(&mut self, now: Instant) -> bool {
        let epoch = self.epoch;
        let target_duration_seconds = self.settings.targets.target_duration_seconds;
        let mut fresh: Vec<&mut Track> = Vec::new();
        for lane in self.lanes.values_mut() {
            let has_news = lane.tracks().any(|track| track.is_dirty() && !track.is_published());
            if has_news && lane.is_complete(now) {
                let ready = |t: &&mut Track| !t.is_published() && t.has_parts() && t.part_target().is_some();
                fresh.extend(lane.tracks_mut().filter(ready));
            }
        }
        let Some(longest_part) = fresh.iter().filter_map(|track| track.part_target()).max() else {
            return false;
        };
        let server_control = *self
            .server_control
            .get_or_insert_with(|| server_control(target_duration_seconds, longest_part));
        for track in fresh {
            let settings = RenditionSettings {
                name: track.name.clone(),
                track: track.config().track(),
                epoch,
                target_duration_seconds,
                part_target: track.part_target().unwrap_or(longest_part),
                server_control,
                dvr: self.settings.dvr,
            };
            self.renditions.push(track.launch(settings));
        }
        true
    }

    fn refresh_figures(&mut self) {
        let sum = |f: fn(&Track) -> u64| self.tracks().map(f).sum::<u64>();
        let (bytes, dropped) = (sum(|track| track.media_bytes() as u64), sum(Track::dropped));
        self.health.packaged(self.flavour, bytes, dropped);
        self.refresh_master();
    }

    fn refresh_master(&self) {
        let listed = self.lanes.iter().filter(|(variant, _)| !self.retired.contains(variant));
        let open: Vec<&Track> = listed.flat_map(|(_, lane)| lane.offered()).collect();
        let facts: Vec<_> = open.iter().map(|track| track.facts()).collect();
        let independent = open.iter().all(|track| track.all_independent());
        let text = |prefix| Bytes::from(multivariant::write(&master::multivariant(&facts, prefix, independent)));
        self.master.send_modify(|master| {
            let master = Arc::make_mut(master);
            match self.flavour {
                Flavour::Direct => (master.renditions, master.direct) = (self.renditions.clone(), text("")),
                Flavour::Resilient => (master.resilient, master.index) = (self.renditions.clone(), text("d/")),
            }
        });
    }
}

/// EXT-X-SERVER-CONTROL: distances from the live end that keep a player out of trouble (section 4.4.3.8).
fn server_control(target_duration_seconds: u32, longest_part: Duration) -> ServerControl {
    let target = Duration::from_secs(u64::from(target_duration_seconds));
    // In whole milliseconds: never a hair below three parts as they are declared.
    let three_parts = snapshot::declared(longest_part) * 3;
    let part_hold_back = Duration::from_millis(three_parts.as_micros().div_ceil(1000) as u64);
    ServerControl {
        can_block_reload: true,
        can_skip_until: Some(target * 6),
        hold_back: Some(target * 3),
        part_hold_back: Some(part_hold_back),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_hold_back_is_never_below_three_parts() {
        // 200 ms at 30 and 29.97, 333 ms at 30 and 29.97 frames per second, 16 AAC frames at 48 kHz.
        for micros in [200_000, 200_200, 333_333, 333_666, 341_333] {
            let part = Duration::from_micros(micros);
            let hold_back = server_control(4, part).part_hold_back.unwrap_or_default();
            assert!(hold_back >= snapshot::declared(part) * 3, "{hold_back:?} for {part:?}");
            assert!(hold_back < snapshot::declared(part) * 3 + Duration::from_millis(1));
        }
    }
}
