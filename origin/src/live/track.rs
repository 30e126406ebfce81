//! One track on its way from frames to snapshots: its segmenter, its window, its sequence numbers.
//!
//! Before this: `package/segmenter.rs`. After this: `package/window.rs`, `live/snapshot.rs`. Owned by `live/pipeline.rs`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::watch;
use weir_shared::{
    hls::{
        playlist::RenditionReport,
        position::{self, LiveEdge, MediaSequence, PartNumber},
    },
    id::RenditionName,
    media::time::{MediaTime, Timescale},
};

use super::{
    clock_map::ClockMap,
    master::{Facts, Flavour, Rendition},
    rates::{self, Rates},
    shared::SharedParts,
    snapshot::{self, RenditionSettings, Snapshot},
    text::SharedRuns,
};
use crate::{
    codec::CodecConfig,
    ingest::language::Language,
    metrics::Metrics,
    package::{
        fmp4,
        frame::{Frame, TrackKind},
        segmenter::{Draft, KeyRole, Mode, Output, Targets, TrackSegmenter},
        window::{self, Window},
    },
};

/// How far the programme date of a segment may be from where the one before it ended and still be said to be there.
///
/// The first frame of another publisher is shown when it is due, and decoded where the one before it ended; the samples after it
/// make up for that. A date that moved by as much would contradict EXTINF: Shaka places segments by their dates and parts by
/// durations, and where the two differ by a millisecond it resets the decoder's input in the middle of a group of pictures, and
/// shows nothing until the next key frame.
const DATE_BEARABLE: Duration = Duration::from_millis(100);

/// What a push brought about.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Something a reader can see changed.
    pub changed: bool,
    /// A new segment began here, in presentation time.
    pub segment_start: Option<MediaTime>,
    /// A segment was complete: figures of the multivariant playlist may have moved.
    pub segment_end: bool,
    /// A segment ended without a key frame in reach.
    pub forced_cut: bool,
}

/// A rendition that holds only silence for so long is not offered to new viewers while another one has sound.
const SILENT_AFTER: Duration = Duration::from_secs(2);

impl Progress {
    pub(super) fn add(&mut self, later: Self) {
        self.changed |= later.changed;
        self.segment_start = later.segment_start.or(self.segment_start);
        self.segment_end |= later.segment_end;
        self.forced_cut |= later.forced_cut;
    }
}

/// Where readers look.
struct Feed {
    settings: Arc<RenditionSettings>,
    runs: SharedRuns,
    sender: watch::Sender<Arc<Snapshot>>,
}

pub(super) struct Track {
    pub name: RenditionName,
    kind: TrackKind,
    config: Arc<CodecConfig>,
    segmenter: TrackSegmenter,
    window: Window,
    next_msn: MediaSequence,
    next_part: PartNumber,
    init_index: Option<u32>,
    /// Of the open segment.
    timescale: Timescale,
    /// Programme date at which the newest part ends.
    date: Option<SystemTime>,
    target_duration_seconds: u32,
    feed: Option<Feed>,
    ended: bool,
    /// Something changed since it was published.
    dirty: bool,
    /// The next segment holds another publisher's media.
    new_publisher: bool,
    rates: Rates,
    announced_bitrate: Option<u64>,
    language: Option<Language>,
    milli_frame_rate: Option<u64>,
    dropped: u64,
    /// How long what it carries has only filled.
    filled: Duration,
    flavour: Flavour,
    shared: Arc<SharedParts>,
}

/// What a track starts from.
pub(super) struct Start {
    pub config: Arc<CodecConfig>,
    pub mode: Mode,
    pub targets: Targets,
    pub first_msn: MediaSequence,
    /// Where EXT-X-DISCONTINUITY-SEQUENCE starts.
    pub discontinuity_sequence: u64,
    pub frame_rate: Option<f64>,
    pub bitrate: Option<u64>,
    pub language: Option<Language>,
    pub window: Duration,
    pub flavour: Flavour,
    pub shared: Arc<SharedParts>,
}

impl Track {
    pub(super) fn new(name: RenditionName, start: Start) -> Self {
        let kind = start.config.track();
        let target_duration_seconds = start.targets.target_duration_seconds;
        let mut window = Window::new(window::WindowSettings {
            duration: start.window,
            target_duration: Duration::from_secs(u64::from(target_duration_seconds)),
        });
        window.set_discontinuity_sequence(start.discontinuity_sequence);
        let segmenter = TrackSegmenter::new(start.config.clone(), start.frame_rate, start.mode, start.targets);
        Self {
            name,
            kind,
            timescale: segmenter.timescale(),
            date: None,
            segmenter,
            config: start.config,
            window,
            next_msn: start.first_msn,
            next_part: PartNumber(0),
            init_index: None,
            target_duration_seconds,
            feed: None,
            ended: false,
            dirty: false,
            new_publisher: false,
            rates: Rates::default(),
            announced_bitrate: start.bitrate,
            language: start.language,
            milli_frame_rate: None,
            dropped: 0,
            filled: Duration::ZERO,
            flavour: start.flavour,
            shared: start.shared,
        }
    }

    pub(super) fn config(&self) -> &Arc<CodecConfig> {
        &self.config
    }

    /// Takes effect at the next key frame. True if it is another one than before.
    pub(super) fn set_config(&mut self, config: Arc<CodecConfig>) -> bool {
        self.segmenter.set_config(config)
    }

    /// The next segment is not continuous with those before it.
    pub(super) fn mark_discontinuity(&mut self) {
        self.segmenter.mark_discontinuity();
    }

    /// The discontinuity sequence number of what comes now (section 4.4.3.3).
    pub(super) fn next_discontinuity_sequence(&self) -> u64 {
        let window = &self.window;
        let listed = window.listed().filter(|segment| segment.discontinuity).count() as u64;
        let open = window.open().is_some_and(|open| open.discontinuity);
        window.discontinuity_sequence() + listed + u64::from(open)
    }

    /// Figures of the input and of what comes of it are those of the direct flavour.
    fn is_counted(&self) -> bool {
        self.flavour == Flavour::Direct
    }

    /// A frame of this track can't be packaged.
    pub(super) fn leave_out(&mut self, metrics: &Metrics) {
        self.dropped = self.dropped.saturating_add(1);
        if self.is_counted() {
            metrics.frames_dropped.with_label_values(&[self.kind.as_str()]).inc();
        }
    }

    /// What a key frame with this decode time would do.
    pub(super) fn key_role(&self, at: MediaTime) -> KeyRole {
        self.segmenter.key_role(at)
    }

    /// The next frame comes from another encoder, or after a gap.
    pub(super) fn forget_key_rhythm(&mut self) {
        self.segmenter.forget_key_rhythm();
    }

    pub(super) fn set_mode(&mut self, mode: Mode) {
        self.segmenter.set_mode(mode);
    }

    pub(super) fn part_target(&self) -> Option<Duration> {
        self.segmenter.part_target()
    }

    pub(super) fn has_parts(&self) -> bool {
        self.next_part > PartNumber(0)
    }

    pub(super) fn is_published(&self) -> bool {
        self.feed.is_some()
    }

    /// Readers have not seen its newest state.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    pub(super) fn next_msn(&self) -> MediaSequence {
        self.next_msn
    }

    /// Nothing has come yet, and the leading track has come as far as segment `open`: this one starts there too.
    pub(super) fn join_at(&mut self, open: MediaSequence) {
        if !self.has_begun() {
            self.next_msn = self.next_msn.max(open);
        }
    }

    /// Its first segment is open, or was.
    pub(super) fn has_begun(&self) -> bool {
        self.init_index.is_some()
    }

    /// Decode time at which its open segment began.
    pub(super) fn segment_start(&self) -> Option<MediaTime> {
        self.segmenter.segment_start()
    }

    /// Its next segment counts as begun at `start`.
    pub(super) fn align_to(&mut self, start: MediaTime) {
        self.segmenter.align_to(start);
    }

    pub(super) fn media_bytes(&self) -> usize {
        self.window.media_bytes()
    }

    /// Its name, and its past.
    pub(super) fn window_mut(&mut self) -> (&RenditionName, &mut Window) {
        (&self.name, &mut self.window)
    }

    /// Frames that could not be packaged.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Its next frame fills for so long, or is a real one.
    pub(super) fn note_filler(&mut self, filler: Option<Duration>) {
        self.filled = filler.map_or(Duration::ZERO, |time| self.filled.saturating_add(time));
    }

    /// It has held nothing of an encoder's lately.
    pub(super) fn is_silent(&self) -> bool {
        self.filled >= SILENT_AFTER
    }

    pub(super) fn push(&mut self, frame: Frame, clock: &ClockMap, metrics: &Metrics) -> Progress {
        self.segmenter.push(frame);
        self.drain(clock, metrics)
    }

    pub(super) fn cut_at(&mut self, at: MediaTime, clock: &ClockMap, metrics: &Metrics) -> Progress {
        self.segmenter.cut_at(at);
        self.drain(clock, metrics)
    }

    /// What follows comes from another publisher: the open segment ends.
    pub(super) fn break_off(&mut self, clock: &ClockMap, metrics: &Metrics) -> Progress {
        self.segmenter.break_off();
        self.new_publisher = true;
        self.drain(clock, metrics)
    }

    /// Forgets what the window need not hold.
    pub(super) fn clear_window(&mut self) {
        self.window.clear();
    }

    /// The next frame is presented at `at` and has another configuration, or comes beside a track that has: its segment begins.
    pub(super) fn turn(&mut self, at: MediaTime, clock: &ClockMap, metrics: &Metrics) -> Progress {
        self.segmenter.turn(at);
        self.drain(clock, metrics)
    }

    /// Takes effect where the leading track cuts next.
    pub(super) fn set_config_at_cut(&mut self, config: Arc<CodecConfig>) {
        self.segmenter.set_config_at_cut(config);
    }

    /// Closes what is open and marks the end of the stream.
    pub(super) fn finish(&mut self, clock: &ClockMap, metrics: &Metrics) {
        self.segmenter.finish();
        let _ = self.drain(clock, metrics);
        self.ended = true;
        self.dirty = true;
    }

    fn drain(&mut self, clock: &ClockMap, metrics: &Metrics) -> Progress {
        let mut progress = Progress::default();
        while let Some(output) = self.segmenter.poll() {
            match output {
                Output::SegmentStart {
                    at,
                    independent,
                    discontinuity,
                    config,
                    init_index,
                    timescale,
                    ..
                } => {
                    self.timescale = timescale;
                    if self.init_index != Some(init_index) {
                        self.init_index = Some(init_index);
                        self.window
                            .push_init(init_index, fmp4::init_section(&config, timescale));
                        self.config = config;
                    }
                    // The direct flavour takes the break between two publishers out of media time.
                    let breaks = self.new_publisher && self.is_counted();
                    let date = self.date.take().filter(|_| !breaks);
                    let date = dated(date, clock.wall(at));
                    self.date = Some(date);
                    self.window.open_segment(window::SegmentStart {
                        msn: self.next_msn,
                        pdt: date,
                        discontinuity,
                        new_publisher: std::mem::take(&mut self.new_publisher),
                        init_index,
                        independent,
                        first_part: self.next_part,
                    });
                    progress.segment_start = Some(at);
                }
                Output::Part(draft) => {
                    self.push_part(&draft, metrics);
                    progress.changed = true;
                }
                Output::SegmentEnd { duration, forced } => {
                    let duration = duration.to_duration(self.timescale);
                    self.window.close_segment(duration);
                    self.next_msn = self.next_msn.next();
                    self.rates.close_segment(duration);
                    progress.segment_end = true;
                    progress.forced_cut |= forced;
                    progress.changed = true;
                    if self.is_counted() {
                        metrics.segments.with_label_values(&[self.kind.as_str()]).inc();
                    }
                }
                Output::Gap { missing } => {
                    self.date = self.date.map(|date| date + missing.to_duration());
                    self.tell_gap(missing, metrics);
                }
                Output::Dropped { .. } => self.leave_out(metrics),
            }
        }
        self.dirty |= progress.changed;
        progress
    }

    fn tell_gap(&self, missing: MediaTime, metrics: &Metrics) {
        let (track, missing_ms) = (self.kind.as_str(), missing.as_millis());
        // The resilient flavour tells of gaps itself.
        if self.is_counted() {
            metrics.gaps.with_label_values(&[track]).inc();
            tracing::warn!(track, missing_ms, "gap in the input");
        } else {
            tracing::debug!(missing_ms, "media time leaps");
        }
    }

    fn push_part(&mut self, draft: &Draft, metrics: &Metrics) {
        let scale = self.timescale;
        // By time, so that both flavours number the same part alike.
        let bytes = fmp4::part(draft.tfdt.to_duration(scale).as_millis() as u32, draft);
        let (bytes, shared) = match self.flavour {
            Flavour::Direct => {
                self.shared.offer(&self.name, draft.tfdt, &bytes);
                (bytes, false)
            }
            Flavour::Resilient => {
                let name = self.name.as_str();
                let direct = name.strip_prefix(self.flavour.prefix()).unwrap_or(name);
                self.shared.or_own(direct, draft.tfdt, bytes)
            }
        };
        let duration = draft.duration.to_duration(scale);
        self.date = self.date.map(|date| date + duration);
        self.rates.add(bytes.len());
        if self.milli_frame_rate.is_none() && self.kind == TrackKind::Video {
            self.milli_frame_rate = rates::milli_frame_rate(draft, scale);
        }
        if self.is_counted() {
            let label = [self.kind.as_str()];
            metrics.parts.with_label_values(&label).inc();
            metrics.part_bytes.with_label_values(&label).inc_by(bytes.len() as u64);
        }
        self.window.push_part(window::Part {
            number: self.next_part,
            bytes,
            shared,
            duration,
            independent: draft.independent,
        });
        self.next_part = self.next_part.next();
    }

    /// Opens this track to readers: from now on every [`publish`](Self::publish) reaches them.
    pub(super) fn launch(&mut self, settings: RenditionSettings) -> Rendition {
        let (settings, runs) = (Arc::new(settings), SharedRuns::default());
        let edge = self.live_edge(settings.part_target);
        let first = Snapshot::new(settings.clone(), runs.clone(), edge, self.window.clone(), Vec::new());
        let (sender, feed) = watch::channel(Arc::new(first));
        let name = settings.name.clone();
        self.feed = Some(Feed { settings, runs, sender });
        Rendition {
            name,
            track: self.kind,
            feed,
        }
    }

    /// Replaces what readers see.
    pub(super) fn publish(&mut self, reports: Vec<RenditionReport>) {
        let Some(Feed { settings, runs, sender }) = &self.feed else {
            return;
        };
        let edge = self.live_edge(settings.part_target);
        let snapshot = Snapshot::new(settings.clone(), runs.clone(), edge, self.window.clone(), reports);
        sender.send_replace(Arc::new(snapshot));
        self.dirty = false;
    }

    /// What the other renditions' playlists say of this track now.
    pub(super) fn report(&self) -> Option<RenditionReport> {
        let settings = &self.feed.as_ref()?.settings;
        Some(snapshot::report(&settings.name, &self.live_edge(settings.part_target)))
    }

    fn live_edge(&self, part_target: Duration) -> LiveEdge {
        LiveEdge {
            ended: self.ended,
            advance_parts: position::advance_part_limit(part_target.as_millis() as u64),
            next_part: self.next_part,
            open: self.next_msn,
            ..self.window.live_edge()
        }
    }

    /// What the multivariant playlist says of this track.
    pub(super) fn facts(&self) -> Facts {
        let (peak, average) = self.rates.told(self.announced_bitrate, self.target_duration_seconds);
        Facts {
            name: self.name.clone(),
            config: self.config.clone(),
            peak_bitrate: peak,
            average_bitrate: average,
            milli_frame_rate: self.milli_frame_rate,
            language: self.language,
        }
    }

    /// Whether every listed segment starts with an independent frame.
    pub(super) fn all_independent(&self) -> bool {
        self.window.all_independent()
    }
}

/// The programme date of a segment whose first sample is presented at `presented`; `end`: of the one before it.
fn dated(end: Option<SystemTime>, presented: SystemTime) -> SystemTime {
    let off = |end: SystemTime| presented.duration_since(end).unwrap_or_else(|before| before.duration());
    match end {
        Some(end) if off(end) <= DATE_BEARABLE => end,
        _ => presented,
    }
}
