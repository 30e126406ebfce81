//! The task that owns a stream: takes a session's events, drives the segmenters, publishes snapshots. The only writer.
//!
//! Before this: `ingest` (events). After this: `live/snapshot.rs`, `live/master.rs` (what readers see).
//!
//! Video leads: it cuts segments at its key frames and audio follows at the same presentation times, so that both
//! renditions carry the same sequence numbers for the same content. Audio alone cuts by itself: the track with the lowest
//! number leads the others.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use weir_shared::{
    hls::{
        multivariant,
        playlist::{RenditionReport, ServerControl},
        position::MediaSequence,
    },
    id::{Epoch, RenditionName, StreamKey},
    media::time::MediaTime,
};

use super::{
    master::{self, Master, Rendition},
    snapshot::{self, RenditionSettings},
    track::{ClockMap, Progress, Start, Track},
};
use crate::{
    codec::CodecConfig,
    ingest::{Announced, Event},
    metrics::Metrics,
    package::{
        frame::{Frame, TrackId, TrackKind},
        segmenter::{Mode, Targets},
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
}

/// What is known of a stream's condition, for the admin listing. Written by the pipeline, read by anyone.
#[derive(Debug, Default)]
pub struct Health {
    /// A segment had to be cut without a key frame: key frames are further apart than the target duration.
    pub key_frames_too_rare: AtomicBool,
    /// Frames that could not be packaged.
    pub frames_dropped: AtomicU64,
    /// Media bytes held in the windows.
    pub window_bytes: AtomicU64,
}

/// One life of a stream.
pub struct Pipeline {
    key: StreamKey,
    settings: Settings,
    epoch: Epoch,
    first_msn: MediaSequence,
    /// Told to a successor, which starts above it.
    next_msn: Arc<AtomicU64>,
    clock: Option<ClockMap>,
    announced: Announced,
    video: Option<Track>,
    /// The encoder's number of the video track that is packaged: the first it configured.
    video_number: u8,
    /// By the encoder's track number; each is a rendition of its own.
    audio: BTreeMap<u8, Track>,
    /// The audio track that cuts segments, once it is known that no video does.
    audio_lead: Option<u8>,
    video_started: bool,
    waiting_audio: VecDeque<Frame>,
    /// When waiting for another track ends.
    patience: Option<Instant>,
    /// Waiting has ended once: later tracks join as they come.
    impatient: bool,
    server_control: Option<ServerControl>,
    renditions: Vec<Rendition>,
    master: watch::Sender<Arc<Master>>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl Pipeline {
    pub fn new(
        key: StreamKey,
        settings: Settings,
        epoch: Epoch,
        next_msn: Arc<AtomicU64>,
        master: watch::Sender<Arc<Master>>,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            key,
            settings,
            epoch,
            first_msn: MediaSequence(next_msn.load(Ordering::Acquire)),
            next_msn,
            clock: None,
            announced: Announced::default(),
            video: None,
            video_number: 0,
            audio: BTreeMap::new(),
            audio_lead: None,
            video_started: false,
            waiting_audio: VecDeque::new(),
            patience: None,
            impatient: false,
            server_control: None,
            renditions: Vec::new(),
            master,
            health,
            metrics,
        }
    }

    /// Runs until the publisher is gone (the playlists then end) or `stop` is cancelled (they do not: a successor, in
    /// this process or the next, continues at the same addresses). Returns itself: dropping it closes the feeds.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>, stop: CancellationToken) -> Self {
        self.metrics.streams_live.inc();
        tracing::info!(epoch = %self.epoch, first_msn = %self.first_msn, "stream starts");
        let ended = loop {
            let patience = self.patience;
            tokio::select! {
                biased;
                () = stop.cancelled() => break false,
                event = events.recv() => match event {
                    Some(event) => self.handle(event),
                    None => break true,
                },
                () = sleep_until(patience) => self.lose_patience(),
            }
        };
        if ended {
            self.finish();
        }
        self.metrics.streams_live.dec();
        tracing::info!(epoch = %self.epoch, next_msn = self.next_msn.load(Ordering::Relaxed), ended, "stream stops");
        self
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Announced(announced) => self.announce(announced),
            Event::Config(track, config) => self.configure(track, config),
            Event::Frame(frame) => self.frame(frame),
        }
    }

    /// Later words add to earlier ones: some encoders announce in pieces.
    fn announce(&mut self, new: Announced) {
        let old = self.announced;
        self.announced = Announced {
            has_video: new.has_video.or(old.has_video),
            has_audio: new.has_audio.or(old.has_audio),
            frame_rate: new.frame_rate.or(old.frame_rate),
            video_bitrate: new.video_bitrate.or(old.video_bitrate),
            audio_bitrate: new.audio_bitrate.or(old.audio_bitrate),
        };
    }

    fn configure(&mut self, id: TrackId, config: Arc<CodecConfig>) {
        if !self.is_packaged(id) {
            tracing::warn!(track = %id, "only one video track of a publish is packaged: this one is left out");
            return;
        }
        if let Some(track) = self.track_mut(id) {
            track.set_config(config);
            return;
        }
        let name = match id.kind {
            TrackKind::Video => TrackId::VIDEO.to_string(),
            TrackKind::Audio => id.to_string(),
        };
        let Ok(name) = name.parse::<RenditionName>() else {
            return;
        };
        // A track that joins late carries the same sequence numbers as those already there.
        let there = self.tracks().map(Track::next_msn).max();
        let first_msn = there.unwrap_or(self.first_msn).max(self.first_msn);
        let announced = self.announced;
        tracing::info!(codec = config.codec_string(), track = %id, "track");
        let track = Track::new(
            name,
            Start {
                config,
                mode: match id.kind {
                    TrackKind::Video => Mode::Lead,
                    TrackKind::Audio => Mode::Follow,
                },
                targets: self.settings.targets,
                first_msn,
                frame_rate: announced.frame_rate.filter(|_| id.kind == TrackKind::Video),
                bitrate: match id.kind {
                    TrackKind::Video => announced.video_bitrate,
                    TrackKind::Audio => announced.audio_bitrate.filter(|_| id == TrackId::AUDIO),
                },
                window: self.settings.window,
            },
        );
        match id.kind {
            TrackKind::Audio => {
                self.audio.insert(id.number, track);
            }
            TrackKind::Video => {
                self.video = Some(track);
                self.video_number = id.number;
                self.audio_lead = None;
                for audio in self.audio.values_mut() {
                    audio.set_mode(Mode::Follow);
                }
            }
        }
    }

    /// All tracks, video first.
    fn tracks(&self) -> impl Iterator<Item = &Track> {
        self.video.iter().chain(self.audio.values())
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

    fn frame(&mut self, frame: Frame) {
        if !self.is_packaged(frame.track) {
            return;
        }
        let clock = *self.clock.get_or_insert_with(|| ClockMap {
            media: frame.dts,
            wall: SystemTime::now(),
        });
        match frame.track.kind {
            TrackKind::Video => {
                let Some(video) = &mut self.video else { return };
                let progress = video.push(frame, &clock, &self.metrics);
                self.advance_video(progress, &clock);
            }
            TrackKind::Audio if self.video_started => self.push_audio(frame, &clock),
            TrackKind::Audio if self.is_audio_alone() => {
                self.go_on_without_video(&clock);
                self.push_audio(frame, &clock);
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
                self.patience.get_or_insert_with(|| Instant::now() + wait);
            }
        }
    }

    fn advance_video(&mut self, progress: Progress, clock: &ClockMap) {
        if progress.forced_cut && !self.health.key_frames_too_rare.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target_duration_seconds = self.settings.targets.target_duration_seconds,
                "key frames are further apart than the target duration: a segment was cut without one. Players can join \
                 only where a key frame is; set the encoder's key-frame interval to 1 or 2 seconds"
            );
        }
        if let Some(at) = progress.segment_start {
            if self.video_started {
                self.cut_audio_at(at, clock);
            } else {
                self.start_audio_at(at, clock);
            }
        }
        self.publish(TrackId::VIDEO, &progress);
    }

    /// The leading track begins a segment: so do those that follow it and have begun at all.
    fn cut_audio_at(&mut self, at: MediaTime, clock: &ClockMap) {
        let begun = self.audio.iter().filter(|(_, audio)| audio.has_begun());
        let followers: Vec<u8> = begun
            .map(|(number, _)| *number)
            .filter(|number| self.audio_lead != Some(*number))
            .collect();
        for number in followers {
            let Some(audio) = self.audio.get_mut(&number) else {
                continue;
            };
            let followed = audio.cut_at(at, clock, &self.metrics);
            self.publish(audio_track(number), &followed);
        }
    }

    /// The first key frame is here: audio from its time on is packaged, what came before is not.
    fn start_audio_at(&mut self, at: MediaTime, clock: &ClockMap) {
        self.video_started = true;
        self.patience = None;
        for frame in std::mem::take(&mut self.waiting_audio) {
            if frame.pts() >= at {
                self.push_audio(frame, clock);
            }
        }
    }

    fn push_audio(&mut self, frame: Frame, clock: &ClockMap) {
        let number = frame.track.number;
        let lead = self.audio_lead.and_then(|lead| self.audio.get(&lead));
        let open = self.video.as_ref().or(lead).map(Track::next_msn);
        let Some(audio) = self.audio.get_mut(&number) else {
            return;
        };
        if let Some(open) = open {
            audio.join_at(open);
        }
        let progress = audio.push(frame, clock, &self.metrics);
        if self.audio_lead == Some(number)
            && let Some(at) = progress.segment_start
        {
            self.cut_audio_at(at, clock);
        }
        self.publish(audio_track(number), &progress);
    }

    /// No video is coming: known from the encoder, or waited for long enough.
    fn is_audio_alone(&self) -> bool {
        self.video.is_none() && self.announced.has_video == Some(false)
    }

    /// Audio cuts its segments itself from now on.
    fn go_on_without_video(&mut self, clock: &ClockMap) {
        self.video_started = true;
        if let Some((&number, audio)) = self.audio.iter_mut().next() {
            audio.set_mode(Mode::Lead);
            self.audio_lead = Some(number);
        }
        for frame in std::mem::take(&mut self.waiting_audio) {
            self.push_audio(frame, clock);
        }
    }

    /// A track kept the others waiting for too long: go on without it.
    fn lose_patience(&mut self) {
        self.patience = None;
        self.impatient = true;
        let Some(clock) = self.clock else { return };
        if !self.video_started && !self.waiting_audio.is_empty() {
            tracing::info!("no video came: the stream goes on as audio only");
            self.go_on_without_video(&clock);
        }
        let waited = Progress {
            changed: true,
            ..Progress::default()
        };
        self.publish(TrackId::VIDEO, &waited);
    }

    /// Makes what `progress` changed in one rendition visible.
    fn publish(&mut self, id: TrackId, progress: &Progress) {
        if !progress.changed || !self.launch() {
            return;
        }
        let own = self.track(id).map(|track| track.name.clone());
        let reports = own.map(|own| self.reports_beside(&own)).unwrap_or_default();
        if let Some(track) = self.track_mut(id) {
            track.publish(reports);
            let next = track.next_msn().next();
            self.next_msn.fetch_max(next.0, Ordering::AcqRel);
        }
        if progress.segment_end {
            self.refresh_figures();
        }
    }

    /// What a rendition's playlist says of the others.
    fn reports_beside(&self, name: &RenditionName) -> Vec<RenditionReport> {
        self.tracks()
            .filter(|track| track.name != *name)
            .filter_map(Track::report)
            .collect()
    }

    /// Opens tracks to readers as soon as it is known which there are. True when at least one is open.
    fn launch(&mut self) -> bool {
        if !self.is_complete() {
            return self.server_control.is_some();
        }
        let tracks = self.video.iter_mut().chain(self.audio.values_mut());
        let fresh: Vec<&mut Track> = tracks
            .filter(|t| !t.is_published() && t.has_parts() && t.part_target().is_some())
            .collect();
        if fresh.is_empty() {
            return self.server_control.is_some();
        }
        let target_duration_seconds = self.settings.targets.target_duration_seconds;
        let longest_part = fresh.iter().filter_map(|t| t.part_target()).max().unwrap_or_default();
        let server_control = *self
            .server_control
            .get_or_insert_with(|| server_control(target_duration_seconds, longest_part));
        for track in fresh {
            let settings = RenditionSettings {
                name: track.name.clone(),
                track: track.config().track(),
                epoch: self.epoch,
                target_duration_seconds,
                part_target: track.part_target().unwrap_or(longest_part),
                server_control,
            };
            self.renditions.push(track.launch(settings));
        }
        let every: Vec<(RenditionName, RenditionReport)> = self
            .tracks()
            .filter_map(|track| Some((track.name.clone(), track.report()?)))
            .collect();
        for track in self.video.iter_mut().chain(self.audio.values_mut()) {
            let others = every.iter().filter(|(name, _)| *name != track.name);
            track.publish(others.map(|(_, report)| report.clone()).collect());
        }
        self.refresh_master();
        true
    }

    /// Whether every track that is coming has its first part. Asks for patience while one is missing.
    fn is_complete(&mut self) -> bool {
        if self.impatient || self.server_control.is_some() {
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
        self.patience.get_or_insert_with(|| Instant::now() + wait);
        false
    }

    fn refresh_figures(&mut self) {
        let sum = |f: fn(&Track) -> u64| self.tracks().map(f).sum::<u64>();
        let health = &self.health;
        health
            .window_bytes
            .store(sum(|t| t.media_bytes() as u64), Ordering::Relaxed);
        health.frames_dropped.store(sum(Track::dropped), Ordering::Relaxed);
        self.refresh_master();
    }

    fn refresh_master(&self) {
        let open: Vec<&Track> = self.tracks().filter(|t| t.is_published()).collect();
        let facts: Vec<_> = open.iter().map(|t| t.facts()).collect();
        let independent = open.iter().all(|t| t.all_independent());
        let text = |prefix| Bytes::from(multivariant::write(&master::multivariant(&facts, prefix, independent)));
        self.master.send_replace(Arc::new(Master {
            renditions: self.renditions.clone(),
            direct: text(""),
            index: text("d/"),
        }));
    }

    fn finish(&mut self) {
        let Some(clock) = self.clock else { return };
        for track in self.video.iter_mut().chain(self.audio.values_mut()) {
            track.finish(&clock, &self.metrics);
        }
        // Whoever was still being waited for is not coming.
        self.impatient = true;
        let ended = Progress {
            changed: true,
            segment_end: true,
            ..Progress::default()
        };
        self.publish(TrackId::VIDEO, &ended);
        let audio: Vec<u8> = self.audio.keys().copied().collect();
        for number in audio {
            self.publish(audio_track(number), &ended);
        }
    }

    /// Whose life this is.
    pub fn key(&self) -> &StreamKey {
        &self.key
    }
}

const fn audio_track(number: u8) -> TrackId {
    TrackId {
        kind: TrackKind::Audio,
        number,
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

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
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
