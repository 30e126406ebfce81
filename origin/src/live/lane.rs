//! The tracks of one publish on their way to renditions: video and any number of audio tracks, cut together.
//!
//! Video leads: it cuts segments at its key frames and audio follows at the same presentation times, so that both
//! renditions carry the same sequence numbers for the same content. Audio alone cuts by itself: the track with the lowest
//! number leads the others.
//!
//! Before this: `live/pipeline.rs` (frames on the stream's timeline). After this: `live/packager.rs`, which owns one lane per
//! variant and publishes them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use weir_shared::{hls::position::MediaSequence, id::RenditionName, media::time::MediaTime};

use super::{
    clock_map::ClockMap,
    master::Flavour,
    shared::SharedParts,
    track::{Progress, Start, Track},
};
use crate::{
    codec::CodecConfig,
    ingest::Announced,
    metrics::Metrics,
    package::{
        frame::{Frame, TrackId, TrackKind},
        segmenter::{KeyRole, Mode, Targets},
    },
};

/// Audio frames kept while the first video key frame has not come; about 10 s of AAC. Older ones are dropped.
const WAITING_AUDIO: usize = 512;
/// How long a track that the encoder announced may keep the others from being published.
const ANNOUNCED_TRACK_WAIT: Duration = Duration::from_secs(1);
/// The same for a track that the encoder said nothing about.
const UNANNOUNCED_TRACK_WAIT: Duration = Duration::from_millis(300);

/// How streams are packaged.
#[derive(Debug, Clone)]
pub struct Settings {
    pub targets: Targets,
    /// How much of the past a live playlist lists.
    pub window: Duration,
    /// Viewers are meant to go back in it.
    pub dvr: bool,
    /// How far the resilient playlists are behind the direct ones.
    pub cushion: Duration,
}

/// Where a track begins that joins a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joining {
    pub first_msn: MediaSequence,
    /// Equal in all tracks of a life (section 6.2.4).
    pub discontinuity_sequence: u64,
}

/// Where a lane's video stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    open: MediaSequence,
    /// Decode time at which the open segment began; `None` between two segments.
    start: Option<MediaTime>,
}

/// Timestamps of one moment differ by less in several publishes of one encoder: half a frame at 60 per second.
const PACE_TOLERANCE: MediaTime = MediaTime::from_millis(8);

pub(super) struct Lane {
    flavour: Flavour,
    shared: Arc<SharedParts>,
    settings: Settings,
    announced: Announced,
    video: Option<Track>,
    /// The encoder's number of the video track that is packaged: the first it configured.
    video_number: u8,
    /// By the encoder's track number; each is a rendition of its own.
    audio: BTreeMap<u8, Track>,
    /// The audio track that cuts segments, once it is known that no video does.
    audio_lead: Option<u8>,
    video_started: bool,
    /// Another publisher continues: its video is shown from its first key frame.
    awaits_key: bool,
    waiting_audio: VecDeque<Frame>,
    /// When waiting for another track ends.
    patience: Option<Instant>,
    /// Waiting has ended once: later tracks join as they come.
    impatient: bool,
    /// Since it was taken last: whether a segment was complete, or had to be cut without a key frame.
    progress: Progress,
}

impl Lane {
    pub(super) fn new(flavour: Flavour, shared: Arc<SharedParts>, settings: Settings) -> Self {
        Self {
            flavour,
            shared,
            settings,
            announced: Announced::default(),
            video: None,
            video_number: 0,
            audio: BTreeMap::new(),
            audio_lead: None,
            video_started: false,
            awaits_key: false,
            waiting_audio: VecDeque::new(),
            patience: None,
            impatient: false,
            progress: Progress::default(),
        }
    }

    pub(super) fn announce(&mut self, announced: Announced) {
        self.announced = announced;
    }

    /// A decoder configuration, first or changed. True if it replaces another one.
    pub(super) fn configure(&mut self, id: TrackId, config: Arc<CodecConfig>) -> bool {
        if !self.is_packaged(id) {
            tracing::warn!(track = %id, "only one video track of a publish is packaged: this one is left out");
            return false;
        }
        self.track_mut(id).is_some_and(|track| track.set_config(config))
    }

    /// The next picture is presented at `at` and begins a segment that is not continuous with those before it: with this
    /// configuration, and these of its sounds, where they are other ones.
    pub(super) fn turn(
        &mut self,
        at: MediaTime,
        configs: Vec<(TrackId, Arc<CodecConfig>)>,
        clock: &ClockMap,
        metrics: &Metrics,
    ) {
        for (id, config) in configs {
            let Some(track) = self.track_mut(id) else { continue };
            if id.kind == TrackKind::Audio && track.has_begun() {
                track.set_config_at_cut(config);
            } else {
                track.set_config(config);
            }
        }
        let Some(video) = &mut self.video else { return };
        let progress = video.turn(at, clock, metrics);
        self.cut_audio_at(at, clock, metrics);
        self.progress.add(progress);
    }

    /// Whether a configuration of this track needs [`add`](Self::add).
    pub(super) fn lacks(&self, id: TrackId) -> bool {
        self.is_packaged(id) && self.track(id).is_none()
    }

    /// Begins a track.
    pub(super) fn add(&mut self, id: TrackId, name: RenditionName, config: Arc<CodecConfig>, joining: Joining) {
        let announced = self.announced;
        tracing::info!(codec = config.codec_string(), track = %name, "track");
        let start = Start {
            config,
            mode: match id.kind {
                TrackKind::Video => Mode::Lead,
                TrackKind::Audio => Mode::Follow,
            },
            targets: self.settings.targets,
            first_msn: joining.first_msn,
            discontinuity_sequence: joining.discontinuity_sequence,
            frame_rate: announced.frame_rate.filter(|_| id.kind == TrackKind::Video),
            bitrate: match id.kind {
                TrackKind::Video => announced.video_bitrate,
                TrackKind::Audio => announced.audio_bitrate.filter(|_| id == TrackId::AUDIO),
            },
            language: match id.kind {
                TrackKind::Video => None,
                TrackKind::Audio => announced.audio_languages.of(id.number),
            },
            window: self.settings.window,
            flavour: self.flavour,
            shared: self.shared.clone(),
        };
        let track = Track::new(name, start);
        match id.kind {
            TrackKind::Audio => {
                self.audio.insert(id.number, track);
            }
            TrackKind::Video => {
                self.video = Some(track);
                self.video_number = id.number;
                self.follow_video();
            }
        }
    }

    /// Where its video stands in its open segment, for lanes that begin beside it.
    pub(super) fn pace(&self) -> Option<Pace> {
        let video = self
            .video
            .as_ref()
            .filter(|video| video.has_begun() && !self.awaits_key)?;
        Some(Pace {
            open: video.next_msn(),
            start: video.segment_start(),
        })
    }

    /// Before `frame` is taken: if video begins with it, its first segment ends where the one of the lane beside it does,
    /// and has the same number if it is new.
    pub(super) fn keep_pace(&mut self, frame: &Frame, beside: Pace) {
        let awaits_key = self.awaits_key;
        let Some(video) = self.video.as_mut().filter(|video| awaits_key || !video.has_begun()) else {
            return;
        };
        if frame.track.kind != TrackKind::Video || !frame.key {
            return;
        }
        let target = MediaTime::from(self.settings.targets.segment);
        match beside.start {
            // That one is about to end at the very same key frame.
            Some(start) if frame.dts + PACE_TOLERANCE >= start + target => video.join_at(beside.open.next()),
            Some(start) => {
                video.join_at(beside.open);
                video.align_to(start);
            }
            None => video.join_at(beside.open),
        }
    }

    /// All tracks, video first.
    pub(super) fn tracks(&self) -> impl Iterator<Item = &Track> {
        self.video.iter().chain(self.audio.values())
    }

    /// All tracks, video first.
    pub(super) fn tracks_mut(&mut self) -> impl Iterator<Item = &mut Track> {
        self.video.iter_mut().chain(self.audio.values_mut())
    }

    /// A track's next frame fills for so long, or is a real one.
    pub(super) fn note_filler(&mut self, id: TrackId, filler: Option<Duration>) {
        if let Some(track) = self.track_mut(id) {
            track.note_filler(filler);
        }
    }

    /// Tracks to offer to viewers: of the sounds, those that are heard, if any is.
    pub(super) fn offered(&self) -> impl Iterator<Item = &Track> {
        let open = |track: &&Track| track.is_published();
        let any_heard = self.audio.values().filter(open).any(|track| !track.is_silent());
        let sounds = self
            .audio
            .values()
            .filter(move |track| !any_heard || !track.is_silent());
        self.video.iter().chain(sounds).filter(open)
    }

    pub(super) fn frame(&mut self, frame: Frame, clock: &ClockMap, metrics: &Metrics, now: Instant) {
        if !self.is_packaged(frame.track) {
            return;
        }
        match frame.track.kind {
            TrackKind::Video => self.push_video(frame, clock, metrics),
            TrackKind::Audio if self.video_started => self.push_audio(frame, clock, metrics),
            TrackKind::Audio if self.is_audio_alone() => {
                self.go_on_without_video(clock, metrics);
                self.push_audio(frame, clock, metrics);
            }
            TrackKind::Audio => {
                if self.waiting_audio.len() == WAITING_AUDIO {
                    self.waiting_audio.pop_front();
                }
                self.waiting_audio.push_back(frame);
                let wait = match self.announced.has_video {
                    Some(true) => ANNOUNCED_TRACK_WAIT * 5,
                    _ => ANNOUNCED_TRACK_WAIT,
                };
                self.patience.get_or_insert(now + wait);
            }
        }
    }

    /// What follows comes from another publisher: segments end here, and audio waits for the video to begin again.
    pub(super) fn splice(&mut self, clock: &ClockMap, metrics: &Metrics) {
        let mut ended = Progress::default();
        for track in self.tracks_mut() {
            ended.add(track.break_off(clock, metrics));
        }
        self.progress.add(ended);
        self.waiting_audio.clear();
        if self.video.is_some() {
            self.awaits_key = true;
            self.video_started = false;
            self.follow_video();
        }
    }

    /// Closes what is open and marks the end of the stream.
    pub(super) fn clear_windows(&mut self) {
        for track in self.tracks_mut() {
            track.clear_window();
        }
    }

    pub(super) fn finish(&mut self, clock: &ClockMap, metrics: &Metrics) {
        for track in self.tracks_mut() {
            track.finish(clock, metrics);
        }
        // Whoever was still being waited for is not coming.
        self.impatient = true;
    }

    /// The next picture is the first of another run of frames.
    pub(super) fn begin_run(&mut self) {
        if let Some(video) = &mut self.video {
            video.forget_key_rhythm();
        }
    }

    /// What a key frame with this decode time would do.
    pub(super) fn key_role(&self, at: MediaTime) -> KeyRole {
        self.video.as_ref().map_or(KeyRole::Inside, |video| video.key_role(at))
    }

    /// When to call [`lose_patience`](Self::lose_patience).
    pub(super) fn patience(&self) -> Option<Instant> {
        self.patience
    }

    /// A track kept the others waiting for too long: go on without it.
    pub(super) fn lose_patience(&mut self, clock: &ClockMap, metrics: &Metrics) {
        self.patience = None;
        self.impatient = true;
        if !self.video_started && !self.waiting_audio.is_empty() {
            tracing::info!("no video came: the stream goes on as audio only");
            self.go_on_without_video(clock, metrics);
        }
    }

    /// Whether every track that is coming has its first part. Asks for patience while one is missing.
    pub(super) fn is_complete(&mut self, now: Instant) -> bool {
        if self.impatient || self.tracks().any(Track::is_published) {
            return true;
        }
        let ready = |t: &Track| t.has_parts() && t.part_target().is_some();
        let audio_ready = self.audio.values().all(ready);
        let states = [
            (self.video.as_ref().map(ready), self.announced.has_video),
            (
                (!self.audio.is_empty()).then_some(audio_ready),
                self.announced.has_audio,
            ),
        ];
        let wait = states
            .into_iter()
            .map(|state| match state {
                (Some(true), _) | (None, Some(false)) => Duration::ZERO,
                (Some(false), _) | (None, Some(true)) => ANNOUNCED_TRACK_WAIT,
                (None, None) => UNANNOUNCED_TRACK_WAIT,
            })
            .max()
            .unwrap_or_default();
        if wait.is_zero() {
            self.patience = None;
            return true;
        }
        self.patience.get_or_insert(now + wait);
        false
    }

    /// What happened since this was asked last.
    pub(super) fn take_progress(&mut self) -> Progress {
        std::mem::take(&mut self.progress)
    }

    fn push_video(&mut self, frame: Frame, clock: &ClockMap, metrics: &Metrics) {
        let Some(video) = &mut self.video else { return };
        if self.awaits_key && !frame.key {
            video.leave_out(metrics);
            return;
        }
        self.awaits_key = false;
        let progress = video.push(frame, clock, metrics);
        if let Some(at) = progress.segment_start {
            if self.video_started {
                self.cut_audio_at(at, clock, metrics);
            } else {
                self.start_audio_at(at, clock, metrics);
            }
        }
        self.progress.add(progress);
    }

    /// The leading track begins a segment: so do those that follow it and have begun at all.
    fn cut_audio_at(&mut self, at: MediaTime, clock: &ClockMap, metrics: &Metrics) {
        let lead = self.audio_lead;
        for (_, audio) in self
            .audio
            .iter_mut()
            .filter(|(number, audio)| Some(**number) != lead && audio.has_begun())
        {
            let followed = audio.cut_at(at, clock, metrics);
            self.progress.add(followed);
        }
    }

    /// The first key frame is here: audio from its time on is packaged, what came before is not.
    fn start_audio_at(&mut self, at: MediaTime, clock: &ClockMap, metrics: &Metrics) {
        self.video_started = true;
        self.patience = None;
        for frame in std::mem::take(&mut self.waiting_audio) {
            if frame.pts() >= at {
                self.push_audio(frame, clock, metrics);
            }
        }
    }

    fn push_audio(&mut self, frame: Frame, clock: &ClockMap, metrics: &Metrics) {
        let number = frame.track.number;
        let lead = self.audio_lead.and_then(|lead| self.audio.get(&lead));
        let open = self.video.as_ref().or(lead).map(Track::next_msn);
        let Some(audio) = self.audio.get_mut(&number) else {
            return;
        };
        if let Some(open) = open {
            audio.join_at(open);
        }
        let progress = audio.push(frame, clock, metrics);
        if self.audio_lead == Some(number)
            && let Some(at) = progress.segment_start
        {
            self.cut_audio_at(at, clock, metrics);
        }
        self.progress.add(progress);
    }

    /// No video is coming: known from the encoder, or waited for long enough.
    fn is_audio_alone(&self) -> bool {
        self.video.is_none() && self.announced.has_video == Some(false)
    }

    fn follow_video(&mut self) {
        self.audio_lead = None;
        for audio in self.audio.values_mut() {
            audio.set_mode(Mode::Follow);
        }
    }

    /// Audio cuts its segments itself from now on.
    fn go_on_without_video(&mut self, clock: &ClockMap, metrics: &Metrics) {
        self.video_started = true;
        if let Some((&number, audio)) = self.audio.iter_mut().next() {
            audio.set_mode(Mode::Lead);
            self.audio_lead = Some(number);
        }
        for frame in std::mem::take(&mut self.waiting_audio) {
            self.push_audio(frame, clock, metrics);
        }
    }

    /// Of a kind's tracks all are packaged if it is audio, and the first that was configured if it is video.
    fn is_packaged(&self, id: TrackId) -> bool {
        id.kind == TrackKind::Audio || self.video.is_none() || id.number == self.video_number
    }

    fn track(&self, id: TrackId) -> Option<&Track> {
        match id.kind {
            TrackKind::Video => self.video.as_ref(),
            TrackKind::Audio => self.audio.get(&id.number),
        }
    }

    fn track_mut(&mut self, id: TrackId) -> Option<&mut Track> {
        match id.kind {
            TrackKind::Video => self.video.as_mut(),
            TrackKind::Audio => self.audio.get_mut(&id.number),
        }
    }
}
