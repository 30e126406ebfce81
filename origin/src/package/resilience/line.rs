//! One variant: where its source is put on the viewer's timeline, and what of it is too late. Pure.
//!
//! Before this: `package/resilience.rs`. After this: `resilience/queue.rs`, one per track.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use weir_shared::media::time::MediaTime;

use super::{
    Action, Arrival, Clock, Counts, Source,
    lag::Lag,
    queue::{Next, Queue, Queued, What},
};
use crate::{
    codec::CodecConfig,
    package::{
        frame::{Frame, TrackId, TrackKind},
        segmenter::KeyRole,
        slate::Slate,
    },
};

/// Another source of this variant that agrees so closely with the one before has the same clock.
const SAME_CLOCK: MediaTime = MediaTime::from_millis(250);
/// The same for the sources of two variants, whose connections an encoder opens one after the other.
const SAME_ENCODER: MediaTime = MediaTime::from_millis(3000);
/// A source that comes so much earlier than it had to is brought forward.
const EXCESS: MediaTime = MediaTime::from_millis(80);
/// A source that has come too late for so long, and does not settle, is taken as it is: it may never do better.
const PATIENCE: MediaTime = MediaTime::from_millis(4000);
/// Frames kept while none came yet that the source can begin with.
const EARLY_MAX: usize = 512;

/// One variant.
#[derive(Debug, Default)]
pub(super) struct Line {
    source: Option<Source>,
    /// From the source's timeline to the viewer's.
    shift: Option<MediaTime>,
    /// Where sources of other variants were put when this one came.
    others: Vec<MediaTime>,
    /// Grows each time a source is put anew.
    run: u64,
    /// The source has begun.
    begun: bool,
    /// Its first picture.
    from: Option<MediaTime>,
    /// The run whose first picture was published last.
    shown: u64,
    /// The run of which it has been told what it changes.
    told: u64,
    /// Nothing of this run is published: it can still be put better.
    settling: bool,
    /// Since when the source could have begun anew, had it not been too late.
    refused: Option<MediaTime>,
    /// Frames of a source that has not begun.
    early: VecDeque<Frame>,
    /// Tracks that the source sends, and as which ones viewers have them.
    sent: BTreeMap<TrackId, TrackId>,
    tracks: BTreeMap<TrackId, Queue>,
    stopped: bool,
}

impl Line {
    pub(super) fn source(&self) -> Option<Source> {
        self.source
    }

    pub(super) fn shift(&self) -> Option<MediaTime> {
        self.shift
    }

    /// Whether something is missing. The silence of a sound that the source does not send is not.
    pub(super) fn is_filling(&self) -> bool {
        self.awaited().any(Queue::is_filling)
    }

    /// From here on a track has nothing.
    pub(super) fn end(&self) -> Option<MediaTime> {
        self.awaited().filter_map(Queue::end).min()
    }

    fn awaited(&self) -> impl Iterator<Item = &Queue> {
        let is_sent = |id: &TrackId| self.sent.values().any(|shown| shown == id);
        self.tracks
            .iter()
            .filter(move |(id, _)| id.kind == TrackKind::Video || is_sent(id))
            .map(|(_, queue)| queue)
    }

    pub(super) fn switch(&mut self, source: Source, others: Vec<MediaTime>) {
        self.source = Some(source);
        self.others = others;
        self.begun = false;
        self.stopped = false;
        self.early.clear();
        self.sent.clear();
    }

    pub(super) fn configure(&mut self, id: TrackId, config: Arc<CodecConfig>) {
        let shown = self.shown_as(id, &config);
        self.sent.insert(id, shown);
        let queue = self.tracks.entry(shown).or_insert_with(|| Queue::new(shown, id));
        queue.newest_config = Some(config);
    }

    /// Sound in another codec is a track of its own, and the one before goes on as silence: players that listen to it would
    /// end with an error. hls.js takes what the multivariant playlist says for the codec, and Shaka never changes a buffer's.
    fn shown_as(&self, id: TrackId, config: &CodecConfig) -> TrackId {
        if id.kind == TrackKind::Video {
            return id;
        }
        let is_same = |queue: &Queue| {
            queue.of == id
                && queue
                    .newest_config
                    .as_ref()
                    .is_none_or(|before| before.is_same_codec(config))
        };
        let same = self.tracks.iter().find(|(_, queue)| is_same(queue));
        let others = (0..=u8::MAX).map(|number| TrackId { number, ..id });
        let free = || [id].into_iter().chain(others).find(|id| !self.tracks.contains_key(id));
        same.map(|(shown, _)| *shown).or_else(free).unwrap_or(id)
    }

    pub(super) fn set_slate(&mut self, slate: Option<(&Slate, MediaTime)>) {
        let pictures = self.tracks.iter_mut().filter(|(id, _)| id.kind == TrackKind::Video);
        for (_, queue) in pictures {
            queue.set_slate(slate.map(|(slate, after)| (slate.clone(), after)));
        }
    }

    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Takes a frame of its source.
    pub(super) fn push(&mut self, clock: Clock, lag: &Lag, arrival: Arrival, counts: &mut Counts) {
        let Arrival { mut frame, starts, .. } = arrival;
        // Nothing is shown of a track before its configuration.
        let Some(shown) = self.sent.get(&frame.track) else {
            return;
        };
        frame.track = *shown;
        if starts {
            self.refused = self.refusal(&frame).map(|now| self.refused.unwrap_or(now));
        }
        if starts && let Some((shift, settling)) = self.place(clock, lag, &frame) {
            self.refused = None;
            self.begin(&frame, shift, settling, counts);
        }
        if !self.begun {
            if self.early.len() == EARLY_MAX {
                self.early.pop_front();
            }
            self.early.push_back(frame);
            return;
        }
        if self.settling {
            self.settle(clock, lag);
        }
        self.queue(frame, counts);
    }

    /// Whether to put the source anew with this frame: where, and whether that may still change.
    fn place(&self, clock: Clock, lag: &Lag, frame: &Frame) -> Option<(MediaTime, bool)> {
        let fitting = |lateness: MediaTime| lateness + clock.cushion;
        let wanted = fitting(lag.least()?);
        let in_time = |shift: MediaTime| self.is_in_time(frame, shift);
        let Some(shift) = self.shift.filter(|_| self.begun) else {
            let before = self.shift.map(|shift| (shift, SAME_CLOCK));
            let beside = self.others.iter().map(|shift| (*shift, SAME_ENCODER));
            let least = lag.least()?;
            let agrees =
                |(shift, tolerance): &(MediaTime, MediaTime)| distance(*shift, wanted) <= *tolerance && *shift >= least;
            let same = before
                .into_iter()
                .chain(beside)
                .filter(agrees)
                .map(|(shift, _)| shift)
                .min_by_key(|shift| distance(*shift, wanted));
            let shift = same.unwrap_or(wanted);
            return in_time(shift).then_some((shift, same.is_none()));
        };
        if !in_time(shift) {
            // It has become later for good: it will not catch up.
            let position = self.position(frame.track).0;
            let waited = self.refused.zip(position).map(|(since, now)| now - since);
            let settled = lag.is_settled();
            return (settled || waited.is_some_and(|waited| waited >= PATIENCE))
                .then(|| lag.lately())
                .flatten()
                .map(|lately| (fitting(lately), settled));
        }
        let earlier = lag.most().is_some_and(|most| fitting(most) + EXCESS < shift);
        (earlier && in_time(wanted)).then_some((wanted, false))
    }

    /// Whether this frame's time on the viewer's timeline is still to come.
    fn is_in_time(&self, frame: &Frame, shift: MediaTime) -> bool {
        let (position, half) = self.position(frame.track);
        position.is_none_or(|position| frame.dts + shift + half >= position)
    }

    /// Where viewers are, if a source that has begun comes too late for them with this frame.
    fn refusal(&self, frame: &Frame) -> Option<MediaTime> {
        let shift = self.shift.filter(|_| self.begun)?;
        let position = self.position(frame.track).0;
        position.filter(|_| !self.is_in_time(frame, shift))
    }

    /// The source goes on from this frame, whatever was queued for that time.
    fn begin(&mut self, frame: &Frame, shift: MediaTime, settling: bool, counts: &mut Counts) {
        self.run += 1;
        self.shift = Some(shift);
        self.settling = settling;
        self.begun = true;
        self.from = (frame.track.kind == TrackKind::Video).then_some(frame.dts + shift);
        for queue in self.tracks.values_mut() {
            queue.cut(frame.dts + shift);
        }
        for early in std::mem::take(&mut self.early) {
            // Sound is sent ahead of its picture.
            if early.track.kind == TrackKind::Audio {
                self.queue(early, counts);
            }
        }
    }

    /// The source's first frames may have been delayed by how a connection begins.
    fn settle(&mut self, clock: Clock, lag: &Lag) {
        let (Some(shift), Some(least)) = (self.shift, lag.least()) else {
            return;
        };
        let mut by = shift - (least + clock.cushion);
        for (earliest, first) in self.tracks.values().filter_map(|queue| queue.room(self.run)) {
            by = by.min(earliest.map_or(by, |earliest| first - earliest));
        }
        if by > MediaTime::ZERO {
            self.shift = Some(shift - by);
            self.from = self.from.map(|from| from - by);
            for queue in self.tracks.values_mut() {
                queue.bring_forward(self.run, by);
            }
        }
    }

    fn queue(&mut self, mut frame: Frame, counts: &mut Counts) {
        let Some(shift) = self.shift else { return };
        let kind = frame.track.kind;
        frame.dts = frame.dts + shift;
        let Some(queue) = self.tracks.get_mut(&frame.track) else {
            return;
        };
        let Some(config) = queue.newest_config.clone() else {
            return;
        };
        // Another sound begins with its picture: all renditions turn to the other configurations at the same moment.
        let early = |from: MediaTime| frame.dts + queue.half_step() < from;
        if kind == TrackKind::Audio && queue.changes() && self.from.is_some_and(early) {
            return;
        }
        let run = self.run;
        if !queue.fits(&frame, run) || !queue.push(Queued { frame, config, run }) {
            counts.late[usize::from(kind == TrackKind::Audio)] += 1;
        }
    }

    fn position(&self, id: TrackId) -> (Option<MediaTime>, MediaTime) {
        let queue = self.tracks.get(&id);
        (
            queue.and_then(Queue::position),
            queue.map_or(MediaTime::ZERO, Queue::half_step),
        )
    }

    /// What comes next, and when. Video before the sound of the same moment: it cuts the segments of both.
    pub(super) fn next(&self, clock: Clock) -> Option<Next> {
        self.next_track(clock).map(|(_, next)| next)
    }

    fn next_track(&self, clock: Clock) -> Option<(TrackId, Next)> {
        self.tracks
            .iter()
            .filter_map(|(id, queue)| Some((*id, queue.next(clock, !self.stopped)?)))
            .min_by_key(|(id, next)| (next.at, next.media, *id))
    }

    /// Does what comes next.
    pub(super) fn take(
        &mut self,
        clock: Clock,
        variant: u8,
        counts: &mut Counts,
        key_role: impl Fn(MediaTime) -> KeyRole,
    ) -> Option<Vec<Action>> {
        let (id, next) = self.next_track(clock)?;
        let queue = self.tracks.get_mut(&id)?;
        let place = usize::from(id.kind == TrackKind::Audio);
        let mut actions = Vec::new();
        match next.what {
            What::Frame => {
                let was_filling = queue.is_filling();
                let (queued, is_new) = queue.take()?;
                self.settling &= queued.run != self.run;
                if id.kind == TrackKind::Video && (was_filling || queued.run != self.shown) {
                    actions.push(Action::Run { variant });
                }
                if id.kind == TrackKind::Video && queued.run != self.shown {
                    self.shown = queued.run;
                    let turned = |(id, queue): (&TrackId, &mut Queue)| Some((*id, queue.turn(queued.run)?));
                    let sounds = self.tracks.iter_mut().filter(|(id, _)| id.kind == TrackKind::Audio);
                    let configure = |(id, config)| Action::Configure { variant, id, config };
                    let changed: Vec<Action> = sounds.filter_map(turned).map(configure).collect();
                    actions.extend(changed.into_iter().filter(|_| self.told != queued.run));
                }
                actions.extend(published(variant, queued, is_new));
            }
            What::Filler => {
                let was_filling = queue.is_filling();
                let filled = queue.fill(key_role);
                counts.gaps[place] += u64::from(!was_filling);
                counts.late[place] += filled.lost as u64;
                let configure = |config| Action::Configure { variant, id, config };
                actions.extend(filled.config.map(configure));
                let filler = Some(queue.step().to_duration());
                actions.extend(filled.frame.map(|frame| Action::Frame { variant, frame, filler }));
            }
        }
        if id.kind == TrackKind::Video {
            actions.extend(self.turn(id, variant));
        }
        Some(actions)
    }

    /// What the picture that comes next changes, if it begins a run.
    fn turn(&mut self, id: TrackId, variant: u8) -> Option<Action> {
        let next = self.tracks.get(&id)?.next_key().filter(|next| next.run != self.shown)?;
        let (run, at) = (next.run, next.frame.pts());
        let change = |(id, queue): (&TrackId, &Queue)| Some((*id, queue.change(run)?.clone()));
        let configs: Vec<_> = self.tracks.iter().filter_map(change).collect();
        if configs.is_empty() || self.told == run {
            return None;
        }
        self.told = run;
        // The sounds before this picture are still of the run before.
        self.tracks.get_mut(&id)?.turn(run);
        Some(Action::Turn { variant, at, configs })
    }

    pub(super) fn drain(&mut self, variant: u8, rest: &mut Vec<Action>) {
        loop {
            let first = self.tracks.values_mut().filter(|queue| queue.front().is_some());
            let Some(queue) = first.min_by_key(|queue| queue.front()) else {
                return;
            };
            let Some((queued, is_new)) = queue.take() else { return };
            rest.extend(published(variant, queued, is_new));
        }
    }
}

fn published(variant: u8, queued: Queued, is_new: bool) -> impl Iterator<Item = Action> {
    let Queued { frame, config, .. } = queued;
    let id = frame.track;
    let configure = is_new.then_some(Action::Configure { variant, id, config });
    configure.into_iter().chain([Action::Frame {
        variant,
        frame,
        filler: None,
    }])
}

fn distance(a: MediaTime, b: MediaTime) -> MediaTime {
    (a - b).max(b - a)
}
