//! What a stream's windows hold in memory: old segments are moved to the cold tier, and where that is not possible the past
//! is cut, so that memory stays within its bounds and live goes on.
//!
//! Before this: `live/packager.rs`, after each segment. After this: `package/window.rs`, `dvr/cold.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use weir_shared::{hls::position::MediaSequence, id::RenditionName};

use crate::{
    dvr::{
        budget::{Budget, Holding},
        cold::{ColdStore, Moved, Outcome},
        metrics::Metrics,
    },
    package::window::{Cold, Window},
};

/// How much more media than wanted may be in memory, and for how long, before the past is cut: a store that is slow for a
/// moment costs nothing.
const SLACK: Duration = Duration::from_secs(30);
/// Wait after a segment that could not be moved, before the next try.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Segments of a rendition that are on their way at a time.
const ON_THEIR_WAY: usize = 32;
/// A warning stays for so long after its last cause.
const WARNED: Duration = Duration::from_secs(60);

/// What was configured for each stream.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Media that stays in memory, if there is a cold tier.
    pub hot: Duration,
    /// Media that stays in any case: what playlists must list, and what players near the live end read.
    pub hot_min: Duration,
    /// Bytes of media in memory.
    pub bytes_max: u64,
}

/// What all streams of a node share.
#[derive(Debug, Clone)]
pub struct Tiers {
    pub settings: Settings,
    pub budget: Arc<Budget>,
    /// `None`: all media stays in memory.
    pub cold: Option<Arc<ColdStore>>,
    pub metrics: Metrics,
}

impl Tiers {
    /// The budget of one stream, which all its playlists share.
    pub(super) fn stream_budget(&self) -> Arc<Budget> {
        self.budget.within(self.settings.bytes_max)
    }
}

/// Why viewers can't go back as far as they should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The cold tier does not take segments, or not fast enough.
    StoreFails,
    /// There is no cold tier, and too little memory.
    MemoryFull,
}

impl Trouble {
    /// In plain words, with the remedy.
    pub const fn message(self) -> &'static str {
        match self {
            Self::StoreFails => {
                "the past of this stream is kept in memory only, and cut short: the cold tier (dvr.store) does not take its \
                 segments; make room there, or see whether it can be reached and written to"
            }
            Self::MemoryFull => {
                "the past of this stream is cut short: memory for media is full; raise dvr.memory and \
                 dvr.memory_per_stream, or name a dvr.store"
            }
        }
    }
}

/// Memory of one stream's playlists of one flavour.
#[derive(Debug)]
pub struct Memory {
    tiers: Tiers,
    holding: Holding,
    moving: BTreeMap<RenditionName, Moving>,
    /// No segment is offered before.
    pause: Option<Instant>,
    /// The last one was refused: one at a time is offered.
    probing: bool,
    /// More than [`SLACK`] too much has been in memory since.
    over_since: Option<Instant>,
    /// And when it was seen last.
    trouble: Option<(Trouble, Instant)>,
}

/// One rendition's segments on their way out of memory.
#[derive(Debug, Default)]
struct Moving {
    moved: Moved,
    offered: BTreeSet<MediaSequence>,
    /// Written, and waiting for those before them.
    written: BTreeMap<MediaSequence, Cold>,
}

/// What has come of a rendition's offers.
#[derive(Debug, Default, Clone, Copy)]
struct News {
    written: bool,
    refused: bool,
}

impl Memory {
    /// `budget`: the stream's.
    pub fn new(tiers: Tiers, budget: Arc<Budget>) -> Self {
        Self {
            tiers,
            holding: Holding::new(budget),
            moving: BTreeMap::new(),
            pause: None,
            probing: false,
            over_since: None,
            trouble: None,
        }
    }

    /// What is wrong, if anything is.
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble.map(|(trouble, _)| trouble)
    }

    /// Moves what is old, and cuts what cannot be moved. To be called after each segment.
    pub fn tend(&mut self, mut windows: Vec<(&RenditionName, &mut Window)>, now: Instant) {
        let mut news = News::default();
        for (name, window) in &mut windows {
            if let Some(moving) = self.moving.get_mut(*name) {
                let of_one = moving.take_moved(window);
                news.written |= of_one.written;
                news.refused |= of_one.refused;
            }
        }
        self.weigh(&windows);
        let hot = self.hot(&windows);
        self.offer(&windows, hot, news, now);
        let cut = self.cut(&mut windows, hot, now);
        self.note(cut, news, now);
        self.weigh(&windows);
    }

    fn weigh(&mut self, windows: &[(&RenditionName, &mut Window)]) {
        let own = windows.iter().map(|(_, window)| window.own_bytes() as u64);
        self.hold(own.sum());
    }

    fn hold(&mut self, bytes: u64) {
        self.holding.set(bytes);
        let used = i64::try_from(self.tiers.budget.used()).unwrap_or(i64::MAX);
        self.tiers.metrics.memory_bytes.set(used);
    }

    /// How much media may be in memory.
    fn hot(&self, windows: &[(&RenditionName, &mut Window)]) -> Duration {
        let settings = self.tiers.settings;
        let wanted = match self.tiers.cold {
            Some(_) => settings.hot,
            None => Duration::MAX,
        };
        self.holding.hot(wanted, longest(windows), settings.hot_min)
    }

    fn offer(&mut self, windows: &[(&RenditionName, &mut Window)], hot: Duration, news: News, now: Instant) {
        let Some(cold) = &self.tiers.cold else { return };
        if news.refused {
            self.pause = Some(now + TRY_AGAIN_AFTER);
        }
        self.probing = news.refused || self.probing && !news.written;
        if self.pause.is_some_and(|until| until > now) {
            return;
        }
        self.pause = None;
        let at_most = if self.probing { 1 } else { ON_THEIR_WAY };
        for (name, window) in windows {
            let moving = match self.moving.get_mut(*name) {
                Some(moving) => moving,
                None => self.moving.entry((*name).clone()).or_default(),
            };
            moving.offer(window, hot, at_most, cold);
        }
    }

    /// Lets go of what should be in the cold tier and does not get there.
    fn cut(&mut self, windows: &mut [(&RenditionName, &mut Window)], hot: Duration, now: Instant) -> bool {
        let slack = match self.tiers.cold {
            Some(_) => SLACK,
            None => Duration::ZERO,
        };
        if longest(windows) <= hot.saturating_add(slack) {
            self.over_since = None;
            return false;
        }
        let since = *self.over_since.get_or_insert(now);
        if now.saturating_duration_since(since) < slack {
            return false;
        }
        self.over_since = None;
        for (name, window) in windows {
            if window.hot_time() > hot {
                self.moving.remove(*name);
                window.cut(hot);
            }
        }
        self.tiers.metrics.cuts.inc();
        true
    }

    fn note(&mut self, cut: bool, news: News, now: Instant) {
        let seen = match self.tiers.cold {
            Some(_) if cut || news.refused => Some(Trouble::StoreFails),
            None if cut => Some(Trouble::MemoryFull),
            _ => None,
        };
        let before = self.trouble;
        let lasts = before.filter(|(_, last)| now.saturating_duration_since(*last) < WARNED);
        self.trouble = seen.map(|trouble| (trouble, now)).or(lasts);
        match (before, self.trouble) {
            (None, Some((trouble, _))) => {
                self.tiers.metrics.degraded.inc();
                tracing::warn!("{}", trouble.message());
            }
            (Some(_), None) => {
                self.tiers.metrics.degraded.dec();
                tracing::info!("the past of this stream grows again");
            }
            _ => {}
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.hold(0);
        if self.trouble.is_some() {
            self.tiers.metrics.degraded.dec();
        }
    }
}

impl Moving {
    /// Lets go of the bytes of what was written, oldest first.
    fn take_moved(&mut self, window: &mut Window) -> News {
        let mut news = News::default();
        for (msn, outcome) in self.moved.take() {
            self.offered.remove(&msn);
            match outcome {
                Outcome::Written(cold) => {
                    news.written = true;
                    self.written.insert(msn, cold);
                }
                Outcome::Refused => news.refused = true,
                Outcome::Gone => {}
            }
        }
        while let Some((msn, cold)) = self.written.pop_first() {
            if window.cool(msn, cold.clone()) {
                continue;
            }
            if window.segment(msn).is_some_and(|segment| segment.cold.is_none()) {
                // One before it is still being written.
                self.written.insert(msn, cold);
                break;
            }
            // It has left the window meanwhile.
        }
        news
    }

    fn offer(&mut self, window: &Window, hot: Duration, at_most: usize, cold: &ColdStore) {
        for segment in window.to_cool(hot) {
            if self.offered.len() + self.written.len() >= at_most {
                break;
            }
            if self.offered.contains(&segment.msn) || self.written.contains_key(&segment.msn) {
                continue;
            }
            if !cold.offer(segment, &self.moved) {
                break;
            }
            self.offered.insert(segment.msn);
        }
    }
}

/// Media in memory of the rendition that has most.
fn longest(windows: &[(&RenditionName, &mut Window)]) -> Duration {
    let times = windows.iter().map(|(_, window)| window.hot_time());
    times.max().unwrap_or_default()
}

#[cfg(test)]
mod tests;
