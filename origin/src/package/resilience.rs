//! What the resilient playlists show, and when: frames of the input a cushion after they came, at the pace of the wall
//! clock, and filler where there are none. Pure; the time is an argument, and it asks for its next timeout.
//!
//! The **viewer's timeline** is this machine's clock: a decode time is *due* at one instant and never at another. Each source
//! (one publish) keeps a fixed distance to it, chosen so that its frames come a cushion before they are due. So a hiccup
//! shorter than the cushion is not seen, a longer one is filled, and whatever comes too late is left out: latency can't
//! grow. Joining another source, coming back after a stall and making up for a source that has become later or earlier for
//! good are the same act: what is queued is cut at a key frame, and the source goes on from there.
//!
//! | file | decides |
//! |---|---|
//! | `resilience/lag.rs` | how late a source's frames come |
//! | `resilience/line.rs` | for one variant: where a source is put, what is too late |
//! | `resilience/queue.rs` | for one track: the next frame, real or filler |
//!
//! Before this: `live/cushion.rs`, which tells of frames and the time. After this: the same, on the way to `live/packager.rs`.

mod lag;
mod line;
mod queue;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use weir_shared::media::time::MediaTime;

use self::{lag::Lag, line::Line};
use super::{
    frame::{Frame, TrackId},
    segmenter::KeyRole,
    slate::Slate,
};
use crate::codec::CodecConfig;

/// A publish.
pub type Source = u64;

/// Where the timeline begins.
const START: MediaTime = MediaTime::from_millis(1000);
/// Frames are published when they are due, rounded up to this: a timer for each would be one too many.
const QUANTUM: Duration = Duration::from_millis(20);

/// What is to be done now.
#[derive(Debug, Clone)]
pub enum Action {
    /// A track's decoder configuration, first or changed.
    Configure {
        variant: u8,
        id: TrackId,
        config: Arc<CodecConfig>,
    },
    /// The next picture, presented at `at`, is a key frame with which these decoder configurations change. Told together with
    /// the picture before it.
    Turn {
        variant: u8,
        at: MediaTime,
        configs: Vec<(TrackId, Arc<CodecConfig>)>,
    },
    /// The next picture is the first of another run of frames: of another encoder, or after a gap.
    Run { variant: u8 },
    /// A frame on the viewer's timeline. `filler`: how long it fills.
    Frame {
        variant: u8,
        frame: Frame,
        filler: Option<Duration>,
    },
}

/// A frame of a source, on the source's own timeline.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub frame: Frame,
    /// A source's frames can begin to be shown with it.
    pub starts: bool,
    pub at: Instant,
}

/// What has happened so far, by kind of track where it is one's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Times the input was missing, video and audio.
    pub gaps: [u64; 2],
    /// Frames that came for a time that was already filled, video and audio.
    pub late: [u64; 2],
}

/// One stream's resilience.
#[derive(Debug)]
pub struct Resilience {
    clock: Clock,
    lags: BTreeMap<Source, Lag>,
    lines: BTreeMap<u8, Line>,
    counts: Counts,
}

/// The viewer's timeline.
#[derive(Debug, Clone, Copy)]
struct Clock {
    start: Instant,
    cushion: MediaTime,
}

impl Clock {
    /// What is due at this instant.
    fn media(self, at: Instant) -> MediaTime {
        START + MediaTime::from(at.saturating_duration_since(self.start))
    }

    fn due(self, media: MediaTime) -> Instant {
        self.start + (media - START).to_duration()
    }
}

impl Resilience {
    pub fn new(cushion: Duration, start: Instant) -> Self {
        Self {
            clock: Clock {
                start,
                cushion: MediaTime::from(cushion),
            },
            lags: BTreeMap::new(),
            lines: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// Whose frames a variant shows.
    pub fn source(&self, variant: u8) -> Option<Source> {
        self.lines.get(&variant)?.source()
    }

    /// From the timeline of a variant's source to the viewer's.
    pub fn shift(&self, variant: u8) -> Option<MediaTime> {
        self.lines.get(&variant)?.shift()
    }

    /// From now on a variant shows this source; `backlog` is what it has sent lately, oldest first. Frames of the source
    /// before are shown up to the first key frame of this one that comes in time.
    pub fn switch(
        &mut self,
        variant: u8,
        source: Source,
        configs: &BTreeMap<TrackId, Arc<CodecConfig>>,
        backlog: impl IntoIterator<Item = Arrival>,
    ) {
        let clock = self.clock;
        let others: Vec<MediaTime> = self
            .lines
            .iter()
            .filter(|(other, _)| **other != variant)
            .filter_map(|(_, line)| line.shift())
            .collect();
        if !others.is_empty() {
            for line in self.lines.values_mut() {
                line.set_slate(None);
            }
        }
        let line = self.lines.entry(variant).or_default();
        line.switch(source, others);
        for (id, config) in configs {
            line.configure(*id, config.clone());
        }
        let lag = self.lags.entry(source).or_default();
        for arrival in backlog {
            line.push(clock, lag, arrival, &mut self.counts);
        }
    }

    /// A decoder configuration of the source that the variant shows.
    pub fn configure(&mut self, variant: u8, source: Source, id: TrackId, config: Arc<CodecConfig>) {
        if let Some(line) = self
            .lines
            .get_mut(&variant)
            .filter(|line| line.source() == Some(source))
        {
            line.configure(id, config);
        }
    }

    /// A frame came, from a source that is shown or not.
    pub fn push(&mut self, variant: u8, source: Source, arrival: Arrival) {
        let clock = self.clock;
        let lag = self.lags.entry(source).or_default();
        lag.note(
            arrival.frame.track,
            clock.media(arrival.at) - arrival.frame.dts,
            arrival.at,
        );
        if let Some(line) = self
            .lines
            .get_mut(&variant)
            .filter(|line| line.source() == Some(source))
        {
            line.push(clock, lag, arrival, &mut self.counts);
        }
    }

    /// What the only variant shows in gaps that last longer than `after`. With others beside it, all hold their last picture.
    pub fn set_slate(&mut self, variant: u8, slate: &Slate, after: Duration) {
        // Several variants would not turn to it in one step, as their discontinuities must.
        if self.lines.len() == 1
            && let Some(line) = self.lines.get_mut(&variant)
        {
            line.set_slate(Some((slate, MediaTime::from(after))));
        }
    }

    /// A source will send nothing more. What came of it is still shown.
    pub fn forget(&mut self, source: Source) {
        self.lags.remove(&source);
    }

    /// A variant is not filled any more until it has a source again.
    pub fn stop(&mut self, variant: u8) {
        if let Some(line) = self.lines.get_mut(&variant) {
            line.stop();
        }
    }

    /// What is due, one frame at a time; `None`: nothing more now. `key_role`: what a key frame with this decode time
    /// would do for a variant's segments.
    pub fn poll(&mut self, now: Instant, key_role: impl Fn(u8, MediaTime) -> KeyRole) -> Option<Vec<Action>> {
        let (clock, counts) = (self.clock, &mut self.counts);
        let (variant, line) = self
            .lines
            .iter_mut()
            .filter_map(|(variant, line)| Some((line.next(clock).filter(|next| next.at <= now)?, *variant, line)))
            .min_by_key(|(next, variant, _)| (next.media, *variant))
            .map(|(_, variant, line)| (variant, line))?;
        line.take(clock, variant, counts, |media| key_role(variant, media))
    }

    /// When something will be due.
    pub fn next_timeout(&self) -> Option<Instant> {
        let at = self
            .lines
            .values()
            .filter_map(|line| Some(line.next(self.clock)?.at))
            .min()?;
        // On a grid: tracks and variants are due together then.
        let since = at.saturating_duration_since(self.clock.start);
        let steps = since.as_nanos().div_ceil(QUANTUM.as_nanos());
        Some(self.clock.start + QUANTUM * u32::try_from(steps).unwrap_or(u32::MAX))
    }

    /// The stream ends: what came is due at once. Nothing is filled any more.
    pub fn drain(&mut self) -> Vec<Action> {
        let mut rest = Vec::new();
        for (variant, line) in &mut self.lines {
            line.drain(*variant, &mut rest);
        }
        rest
    }

    /// How long a variant can go on without new frames.
    pub fn cushion(&self, variant: u8, now: Instant) -> Option<Duration> {
        let end = self.lines.get(&variant)?.end()?;
        Some((end - self.clock.media(now)).to_duration())
    }

    /// Whether a source delivers without coming any later, or catching up.
    pub fn is_settled(&self, source: Source) -> bool {
        self.lags.get(&source).is_some_and(Lag::is_settled)
    }

    /// Whether a variant is being filled now.
    pub fn is_filling(&self, variant: u8) -> bool {
        self.lines.get(&variant).is_some_and(Line::is_filling)
    }

    pub fn variants(&self) -> impl Iterator<Item = u8> {
        self.lines.keys().copied()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests;
