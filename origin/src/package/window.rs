//! The DVR ring: what a live playlist lists, and for a while what it listed.
//!
//! Before this: `package/fmp4` (bytes). After this: `live/snapshot.rs`, which holds a clone. Cloning is cheap: complete
//! segments sit in shared blocks, so a clone copies one pointer per block and per segment of the newest block.

mod segment;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use weir_shared::hls::position::{LiveEdge, MediaSequence, PartNumber};

use self::segment::Weight;
pub use self::segment::{Cold, ColdMedia, OpenSegment, Part, PartEntry, Segment, SegmentStart};

/// Segments per frozen block.
const BLOCK: usize = 64;

/// How much a window lists.
#[derive(Debug, Clone, Copy)]
pub struct WindowSettings {
    /// Media listed; at least three target durations are, whatever this says (section 6.2.2).
    pub duration: Duration,
    pub target_duration: Duration,
}

/// The ring. One writer changes it; readers hold clones.
#[derive(Debug, Clone)]
pub struct Window {
    settings: WindowSettings,
    /// Blocks of `BLOCK` segments, oldest first; the front one shrinks as its segments are let go.
    frozen: VecDeque<Arc<[Arc<Segment>]>>,
    /// Segments after the frozen blocks, fewer than `BLOCK`.
    tail: Vec<Arc<Segment>>,
    open: Option<OpenSegment>,
    inits: VecDeque<(u32, Bytes)>,
    /// Kept segments that are cold, at the front.
    cold: usize,
    /// Media of the others.
    hot_time: Duration,
    /// Kept segments that are not listed any more, at the front.
    unlisted: usize,
    unlisted_time: Duration,
    listed_time: Duration,
    /// The longest the list ever was, the segment that pushed others off it included.
    longest_list: Duration,
    /// Listed segments that begin with a dependent frame.
    dependent: usize,
    /// A segment has left the list: it is no longer all there ever was.
    slides: bool,
    /// EXT-X-DISCONTINUITY tags that left the list.
    discontinuity_sequence: u64,
    next_msn: MediaSequence,
    next_part: PartNumber,
    media: Weight,
}

impl Window {
    pub fn new(settings: WindowSettings) -> Self {
        Self {
            settings,
            frozen: VecDeque::new(),
            tail: Vec::new(),
            open: None,
            inits: VecDeque::new(),
            cold: 0,
            hot_time: Duration::ZERO,
            unlisted: 0,
            unlisted_time: Duration::ZERO,
            listed_time: Duration::ZERO,
            longest_list: Duration::ZERO,
            dependent: 0,
            slides: false,
            discontinuity_sequence: 0,
            next_msn: MediaSequence(0),
            next_part: PartNumber(0),
            media: Weight::default(),
        }
    }

    /// Where EXT-X-DISCONTINUITY-SEQUENCE starts. Before the first segment only.
    pub fn set_discontinuity_sequence(&mut self, sequence: u64) {
        self.discontinuity_sequence = sequence;
    }

    /// Adds a codec configuration's init section.
    pub fn push_init(&mut self, index: u32, bytes: Bytes) {
        self.inits.push_back((index, bytes));
    }

    /// Starts the next segment. An open one is dropped: close it first.
    pub fn open_segment(&mut self, start: SegmentStart) {
        if let Some(dropped) = self.open.take() {
            self.media.remove(Weight::of(&dropped.parts));
        }
        self.next_msn = start.msn;
        self.next_part = start.first_part;
        self.open = Some(OpenSegment {
            msn: start.msn,
            pdt: start.pdt,
            discontinuity: start.discontinuity,
            new_publisher: start.new_publisher,
            init_index: start.init_index,
            independent: start.independent,
            first_part: start.first_part,
            parts: Vec::new(),
        });
    }

    /// Adds a part to the open segment.
    pub fn push_part(&mut self, part: Part) {
        let Some(open) = &mut self.open else { return };
        debug_assert_eq!(part.number, self.next_part);
        self.next_part = part.number.next();
        self.media.add(&part.bytes, part.shared);
        open.parts.push(PartEntry {
            bytes: part.bytes,
            shared: part.shared,
            duration: part.duration,
            independent: part.independent,
        });
    }

    /// Completes the open segment and lets go of what is too old.
    pub fn close_segment(&mut self, duration: Duration) {
        let Some(open) = self.open.take() else { return };
        self.next_msn = open.msn.next();
        self.listed_time += duration;
        self.hot_time += duration;
        self.longest_list = self.longest_list.max(self.listed_time);
        self.dependent += usize::from(!open.independent);
        self.tail.push(Arc::new(Segment {
            msn: open.msn,
            duration,
            pdt: open.pdt,
            discontinuity: open.discontinuity,
            new_publisher: open.new_publisher,
            init_index: open.init_index,
            independent: open.independent,
            first_part: open.first_part,
            parts: open.parts,
            cold: None,
        }));
        if self.tail.len() == BLOCK {
            self.frozen.push_back(std::mem::take(&mut self.tail).into());
        }
        self.unlist();
        self.forget();
    }

    /// Complete segments that the playlist lists, oldest first.
    pub fn listed(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.kept().skip(self.unlisted)
    }

    /// Complete segments from `msn` on, listed or only kept, oldest first.
    pub fn kept_from(&self, msn: MediaSequence) -> impl Iterator<Item = &Arc<Segment>> {
        let first = self.nth(0).map_or(msn, |s| s.msn);
        let index = usize::try_from(msn.0.saturating_sub(first.0)).unwrap_or(usize::MAX);
        (index..self.kept_len()).map_while(|at| self.nth(at))
    }

    /// The segment being made.
    pub fn open(&self) -> Option<&OpenSegment> {
        self.open.as_ref()
    }

    /// How many complete segments are listed.
    pub fn listed_len(&self) -> usize {
        self.kept_len() - self.unlisted
    }

    /// The listed segment at this place, 0 being the oldest.
    pub fn listed_at(&self, index: usize) -> Option<&Arc<Segment>> {
        self.nth(self.unlisted.checked_add(index)?)
    }

    /// Segments have left the list since the first one: it tells only the end of what there was.
    pub fn slides(&self) -> bool {
        self.slides
    }

    /// Whether every segment that is listed, and the one being made, begins with an independent frame.
    pub fn all_independent(&self) -> bool {
        self.dependent == 0 && self.open.as_ref().is_none_or(|open| open.independent)
    }

    /// A complete segment, listed or only kept.
    pub fn segment(&self, msn: MediaSequence) -> Option<&Arc<Segment>> {
        let first = self.nth(0)?.msn;
        let index = usize::try_from(msn.0.checked_sub(first.0)?).ok()?;
        self.nth(index)
    }

    /// A part of a kept or of the open segment.
    pub fn part(&self, number: PartNumber) -> Option<&PartEntry> {
        if let Some(open) = &self.open
            && let Some(index) = number.0.checked_sub(open.first_part.0)
        {
            return open.parts.get(usize::try_from(index).ok()?);
        }
        // Part numbers grow with the segments: the last segment that starts at or below this one holds it.
        let (mut low, mut high) = (0, self.kept_len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.nth(middle)?.first_part <= number {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let segment = self.nth(low.checked_sub(1)?)?;
        let index = usize::try_from(number.0 - segment.first_part.0).ok()?;
        segment.parts.get(index)
    }

    /// An init section by index.
    pub fn init(&self, index: u32) -> Option<Bytes> {
        self.inits.iter().find(|(i, _)| *i == index).map(|(_, b)| b.clone())
    }

    /// Discontinuities before the first listed segment, plus the start value (section 4.4.3.3).
    pub fn discontinuity_sequence(&self) -> u64 {
        self.discontinuity_sequence
    }

    /// Media bytes held.
    pub fn media_bytes(&self) -> usize {
        self.media.all
    }

    /// Those of them that no other window shares.
    pub fn own_bytes(&self) -> usize {
        self.media.all - self.media.shared
    }

    /// Where the playlist stands. `ended` is false and `advance_parts` zero: the caller knows those.
    pub fn live_edge(&self) -> LiveEdge {
        let last = self.kept_len().checked_sub(1).and_then(|i| self.nth(i));
        LiveEdge {
            first: self.listed().next().map_or(self.next_msn, |s| s.msn),
            open: self.next_msn,
            open_parts: self.open.as_ref().map_or(0, |o| o.parts.len() as u32),
            last_complete_parts: last.map_or(0, |s| s.parts.len() as u32),
            next_part: self.next_part,
            ended: false,
            advance_parts: 0,
        }
    }

    /// Forgets the past: from now on the list begins where a playlist must at least begin, three target durations before
    /// the live end. Nothing that left the list is kept.
    pub fn clear(&mut self) {
        self.cut(Duration::ZERO);
    }

    /// Forgets all but the newest `keep` of media, and what a playlist must list. Nothing that left the list is kept.
    pub fn cut(&mut self, keep: Duration) {
        self.unlist_beyond(keep);
        while self.unlisted > 0 {
            self.drop_front();
        }
    }

    /// Media of complete segments that are in memory.
    pub fn hot_time(&self) -> Duration {
        self.hot_time
    }

    /// Segments in memory that are older than the newest `hot` of media, oldest first.
    pub fn to_cool(&self, hot: Duration) -> impl Iterator<Item = &Arc<Segment>> {
        let mut newer = self.hot_time;
        (self.cold..)
            .map_while(|index| self.nth(index))
            .take_while(move |segment| {
                newer = newer.saturating_sub(segment.duration);
                newer >= hot
            })
    }

    /// The oldest segment in memory is somewhere else now: its bytes are let go. False if it is another one than `msn`.
    pub fn cool(&mut self, msn: MediaSequence, cold: Cold) -> bool {
        let Some(oldest) = self.nth(self.cold).filter(|segment| segment.msn == msn) else {
            return false;
        };
        let freed = Weight::of(&oldest.parts);
        let cooled = Segment {
            parts: Vec::new(),
            cold: Some(cold),
            ..Segment::clone(oldest)
        };
        self.media.remove(freed);
        self.hot_time = self.hot_time.saturating_sub(cooled.duration);
        self.replace(self.cold, Arc::new(cooled));
        self.cold += 1;
        true
    }

    /// Takes segments off the list while enough remains listed.
    fn unlist(&mut self) {
        self.unlist_beyond(self.settings.duration);
    }

    fn unlist_beyond(&mut self, wanted: Duration) {
        let enough = wanted.max(self.settings.target_duration * 3);
        while let Some(oldest) = self.nth(self.unlisted) {
            let (duration, discontinuity, independent) = (oldest.duration, oldest.discontinuity, oldest.independent);
            let rest = self.listed_time.saturating_sub(duration);
            if rest < enough {
                break;
            }
            if discontinuity {
                self.discontinuity_sequence += 1;
            }
            self.dependent -= usize::from(!independent);
            self.slides = true;
            self.unlisted_time += duration;
            self.listed_time = rest;
            self.unlisted += 1;
        }
    }

    /// Lets go of segments whose Availability Duration has passed: their own duration plus that of the longest playlist
    /// that listed them (section 6.2.2). The media that came since they left the list measures that time.
    fn forget(&mut self) {
        while self.unlisted > 0 {
            let Some(oldest) = self.nth(0).cloned() else { break };
            let after_it = self.unlisted_time.saturating_sub(oldest.duration) + self.listed_time;
            // When it left, no more than a longest list came after it: the rest is new since then.
            let since_removal = after_it.saturating_sub(self.longest_list);
            if since_removal < oldest.duration + self.longest_list {
                break;
            }
            self.drop_front();
        }
        if let Some(oldest) = self.nth(0).map(|s| s.init_index) {
            self.inits.retain(|(index, _)| *index >= oldest);
        }
    }

    /// Lets go of the oldest segment, which is not listed any more.
    fn drop_front(&mut self) {
        let Some(oldest) = self.nth(0).cloned() else { return };
        self.unlisted_time = self.unlisted_time.saturating_sub(oldest.duration);
        self.unlisted = self.unlisted.saturating_sub(1);
        self.media.remove(Weight::of(&oldest.parts));
        if self.cold > 0 {
            self.cold -= 1;
        } else {
            self.hot_time = self.hot_time.saturating_sub(oldest.duration);
        }
        match self.frozen.front() {
            Some(block) if block.len() > 1 => {
                // The block is shared with snapshots: replace it by a shorter one, so that the bytes are freed.
                let rest: Arc<[_]> = block.iter().skip(1).cloned().collect();
                self.frozen[0] = rest;
            }
            Some(_) => {
                self.frozen.pop_front();
            }
            None => {
                self.tail.remove(0);
            }
        }
    }

    /// Puts another segment in the place of a kept one. Snapshots that share its block keep the one before.
    fn replace(&mut self, index: usize, segment: Arc<Segment>) {
        let mut index = index;
        for block in &mut self.frozen {
            if index < block.len() {
                let mut changed: Vec<_> = block.to_vec();
                changed[index] = segment;
                *block = changed.into();
                return;
            }
            index -= block.len();
        }
        if let Some(place) = self.tail.get_mut(index) {
            *place = segment;
        }
    }

    fn kept(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.frozen.iter().flat_map(|b| b.iter()).chain(&self.tail)
    }

    fn kept_len(&self) -> usize {
        self.frozen.iter().map(|b| b.len()).sum::<usize>() + self.tail.len()
    }

    fn nth(&self, index: usize) -> Option<&Arc<Segment>> {
        let mut index = index;
        if let Some(front) = self.frozen.front() {
            if index < front.len() {
                return front.get(index);
            }
            index -= front.len();
            let block = 1 + index / BLOCK;
            if block < self.frozen.len() {
                return self.frozen.get(block)?.get(index % BLOCK);
            }
            index -= (self.frozen.len() - 1) * BLOCK;
        }
        self.tail.get(index)
    }
}

#[cfg(test)]
mod tests;
