//! From a rendition's newest snapshot to the lines that its recording lacks. Pure.
//!
//! Before this: `live/snapshot.rs`. After this: `journal.rs`.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use weir_shared::{
    hls::{
        name::{MediaObject, ObjectName},
        position::MediaSequence,
    },
    id::{Epoch, RenditionName},
};

use super::{
    boxes,
    ledger::{Line, name},
};
use crate::package::window::{PartEntry, Segment, Window};

/// A line for the journal, and the media bytes that it tells of: an init section, or a part to append to its segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub line: Line,
    pub media: Option<(ObjectName, Bytes)>,
}

/// What came of looking at a snapshot.
#[derive(Debug, Default)]
pub struct Collected {
    pub entries: Vec<Entry>,
    /// Segments that left the window before they were read.
    pub segments_missed: u64,
}

/// How far a recording has read one rendition of one life of its stream.
#[derive(Debug)]
pub struct Cursor {
    rendition: RenditionName,
    epoch: Epoch,
    target_duration_seconds: u32,
    /// The segment to read from.
    next: MediaSequence,
    open: Option<OpenTake>,
    inits: BTreeSet<u32>,
}

/// The segment that is being read.
#[derive(Debug)]
struct OpenTake {
    msn: MediaSequence,
    parts: usize,
    bytes: u64,
    duration: Duration,
    sha256: Sha256,
}

/// What a segment begins with, complete or open.
struct Head<'a> {
    msn: MediaSequence,
    pdt: SystemTime,
    discontinuity: bool,
    new_publisher: bool,
    init_index: u32,
    independent: bool,
    parts: &'a [PartEntry],
}

impl<'a> Head<'a> {
    fn of(segment: &'a Segment) -> Self {
        Self {
            msn: segment.msn,
            pdt: segment.pdt,
            discontinuity: segment.discontinuity,
            new_publisher: segment.new_publisher,
            init_index: segment.init_index,
            independent: segment.independent,
            parts: &segment.parts,
        }
    }
}

impl Cursor {
    /// Reads from segment `from` on.
    pub fn new(rendition: RenditionName, epoch: Epoch, target_duration_seconds: u32, from: MediaSequence) -> Self {
        Self {
            rendition,
            epoch,
            target_duration_seconds,
            next: from,
            open: None,
            inits: BTreeSet::new(),
        }
    }

    /// The first segment that was not read to its end.
    pub fn next(&self) -> MediaSequence {
        self.next
    }

    /// The next segment, if it has left memory: [`read_back`](Self::read_back) takes it before anything that is newer.
    pub fn next_cold<'a>(&self, window: &'a Window, until: Option<MediaSequence>) -> Option<&'a Arc<Segment>> {
        let next = window.kept_from(self.next).next()?;
        let is_wanted = until.is_none_or(|until| next.msn < until);
        (is_wanted && next.cold.is_some()).then_some(next)
    }

    /// Takes a segment that had left memory, from its bytes. Where its parts began is not known any more: what was not
    /// read of it before counts as one part.
    pub fn read_back(&mut self, segment: &Segment, bytes: &Bytes, window: &Window) -> Collected {
        let mut found = Collected::default();
        let head = Head::of(segment);
        self.skip_to(segment.msn, &mut found);
        let open = self.begin(&head, window, &mut found);
        let taken = usize::try_from(open.bytes).unwrap_or(usize::MAX);
        let rest = PartEntry {
            bytes: bytes.slice(taken.min(bytes.len())..),
            shared: false,
            duration: segment.duration.saturating_sub(open.duration),
            independent: segment.independent && open.parts == 0,
        };
        if !rest.bytes.is_empty() {
            self.take(&head, &rest, &mut found);
        }
        self.close(segment.duration, &mut found);
        found
    }

    /// Everything the window has in memory from here on, up to and without segment `until`.
    pub fn collect(&mut self, window: &Window, until: Option<MediaSequence>) -> Collected {
        let mut found = Collected::default();
        let is_wanted = |msn: MediaSequence| until.is_none_or(|until| msn < until);
        // Where what has left memory could not be read back, it counts as missed.
        let hot = window.kept_from(self.next).filter(|s| s.cold.is_none());
        for segment in hot.filter(|s| is_wanted(s.msn)) {
            self.skip_to(segment.msn, &mut found);
            self.read(&Head::of(segment), window, &mut found);
            self.close(segment.duration, &mut found);
        }
        let open = window
            .open()
            .filter(|open| open.msn >= self.next && is_wanted(open.msn));
        if let Some(open) = open.filter(|open| !open.parts.is_empty()) {
            self.skip_to(open.msn, &mut found);
            self.read(
                &Head {
                    msn: open.msn,
                    pdt: open.pdt,
                    discontinuity: open.discontinuity,
                    new_publisher: open.new_publisher,
                    init_index: open.init_index,
                    independent: open.independent,
                    parts: &open.parts,
                },
                window,
                &mut found,
            );
        }
        found
    }

    /// Ends a segment that will not be completed: its life is over.
    pub fn break_off(&mut self) -> Collected {
        let mut found = Collected::default();
        if let Some(open) = &self.open {
            let duration = open.duration;
            self.close(duration, &mut found);
        }
        found
    }

    /// Segments before `msn` are gone.
    fn skip_to(&mut self, msn: MediaSequence, found: &mut Collected) {
        if msn <= self.next {
            return;
        }
        found.segments_missed += msn.0 - self.next.0;
        if let Some(open) = &self.open {
            let duration = open.duration;
            self.close(duration, found);
        }
        self.next = msn;
    }

    /// What is new of a segment.
    fn read(&mut self, head: &Head<'_>, window: &Window, found: &mut Collected) {
        let taken = self.begin(head, window, found).parts;
        for part in head.parts.iter().skip(taken) {
            self.take(head, part, found);
        }
    }

    /// The segment that is being read, which may be this one's beginning.
    fn begin(&mut self, head: &Head<'_>, window: &Window, found: &mut Collected) -> &OpenTake {
        if self.open.is_none() {
            self.note_init(head.init_index, window, found);
            found.entries.push(Entry {
                line: Line::Open {
                    rendition: self.rendition.clone(),
                    epoch: self.epoch.0,
                    msn: head.msn.0,
                    pdt_ms: millis(head.pdt),
                    discontinuity: head.discontinuity,
                    new_publisher: head.new_publisher,
                    init: head.init_index,
                    independent: head.independent,
                },
                media: None,
            });
        }
        self.open.get_or_insert_with(|| OpenTake {
            msn: head.msn,
            parts: 0,
            bytes: 0,
            duration: Duration::ZERO,
            sha256: Sha256::new(),
        })
    }

    fn take(&mut self, head: &Head<'_>, part: &PartEntry, found: &mut Collected) {
        let Some(open) = &mut self.open else { return };
        // Renditions are named after what they carry; trick play shows pictures.
        let is_video = self.rendition.as_str().starts_with("video");
        let is_first = open.parts == 0;
        open.parts += 1;
        open.bytes += part.bytes.len() as u64;
        open.duration += part.duration;
        open.sha256.update(&part.bytes);
        let segment = name(&self.rendition, self.epoch, MediaObject::Segment(head.msn));
        found.entries.push(Entry {
            line: Line::Part {
                rendition: self.rendition.clone(),
                bytes: part.bytes.len() as u64,
                duration_us: micros(part.duration),
                sum: part_sum(&part.bytes),
                key_frame_bytes: (is_first && head.independent && is_video)
                    .then(|| boxes::key_frame_end(&part.bytes))
                    .flatten(),
            },
            media: Some((segment, part.bytes.clone())),
        });
    }

    fn note_init(&mut self, index: u32, window: &Window, found: &mut Collected) {
        let Some(bytes) = window.init(index) else { return };
        if !self.inits.insert(index) {
            return;
        }
        found.entries.push(Entry {
            line: Line::Init {
                rendition: self.rendition.clone(),
                epoch: self.epoch.0,
                index,
                bytes: bytes.len() as u64,
                sha256: digest(&bytes),
                target_duration_seconds: self.target_duration_seconds,
            },
            media: Some((name(&self.rendition, self.epoch, MediaObject::Init(index)), bytes)),
        });
    }

    fn close(&mut self, duration: Duration, found: &mut Collected) {
        let Some(open) = self.open.take() else { return };
        self.next = open.msn.next();
        found.entries.push(Entry {
            line: Line::Close {
                rendition: self.rendition.clone(),
                bytes: open.bytes,
                duration_us: micros(duration),
                sha256: hex(&open.sha256.finalize()),
            },
            media: None,
        });
    }
}

/// SHA-256, hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Enough of a part's SHA-256 to tell it from a torn one.
pub fn part_sum(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).get(..8).unwrap_or_default())
}

pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0'));
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
