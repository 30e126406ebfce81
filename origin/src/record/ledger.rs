//! What is known of one recording: the sum of its journal's lines. Pure.
//!
//! A running recorder and one that picks a recording up after a crash go through the same [`Ledger::apply`]: there is no
//! state that the journal does not hold.
//!
//! Before this: `collect.rs` (new lines), `journal.rs` (old ones). After this: `manifest.rs` (playlists), `upload.rs` (what is
//! still to be stored).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use weir_shared::{
    hls::{
        name::{MediaObject, ObjectName},
        position::MediaSequence,
    },
    id::{Epoch, RecordingName, RenditionName, StreamKey},
};

mod line;

pub use line::{Digest, Init, Line, PartCheck, Position, Stage, Take};

/// Renditions of one recording, at most: a line beyond them is not believed.
pub const MAX_RENDITIONS: usize = 64;

#[derive(Debug, Clone, PartialEq, Default)]
pub struct RenditionLedger {
    pub inits: BTreeMap<(Epoch, u32), Init>,
    pub takes: BTreeMap<Position, Take>,
    pub target_duration_seconds: u32,
    open: Option<Position>,
    /// Segments that are in the journal and not in the store.
    kept: BTreeSet<Position>,
}

/// A recording: everything its journal says.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    pub key: StreamKey,
    pub recording: RecordingName,
    pub started_ms: u64,
    pub master: String,
    pub renditions: BTreeMap<RenditionName, RenditionLedger>,
    /// Thumbnails in the store: of which segments, and of which rendition each is.
    pub pictures: BTreeMap<Position, RenditionName>,
    pub finished: bool,
    pub failure: Option<String>,
    pub finalised: bool,
    sums: Sums,
}

/// What is asked for with every part, so that it must not cost more the longer a recording is.
#[derive(Debug, Clone, PartialEq, Default)]
struct Sums {
    /// Bytes of segments that are open or only in the journal.
    backlog_bytes: u64,
    /// Bytes of segments that are not lost.
    media_bytes: u64,
    stored: usize,
    /// Of each position the duration in the rendition where it is longest.
    durations: BTreeMap<Position, Duration>,
    total: Duration,
}

/// A line that can't follow those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    #[error("the journal does not begin with its beginning")]
    NoBeginning,
    #[error("more renditions than a recording may have")]
    TooManyRenditions,
    #[error("a part or an end without an open segment")]
    NothingOpen,
    #[error("something that was never recorded")]
    Unknown,
}

/// Something that is in the journal and not yet in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub name: ObjectName,
    pub bytes: u64,
    pub sha256: Digest,
}

impl Ledger {
    pub fn new(key: StreamKey, recording: RecordingName, started_ms: u64) -> Self {
        Self {
            key,
            recording,
            started_ms,
            master: String::new(),
            renditions: BTreeMap::new(),
            pictures: BTreeMap::new(),
            finished: false,
            failure: None,
            finalised: false,
            sums: Sums::default(),
        }
    }

    /// A ledger from a journal's lines. Stops at the first that makes no sense: gives how many made some.
    pub fn replay(lines: &[Line]) -> Result<(Self, usize), BadLine> {
        let Some((
            Line::Begin {
                key,
                recording,
                started_ms,
            },
            rest,
        )) = lines.split_first()
        else {
            return Err(BadLine::NoBeginning);
        };
        let mut ledger = Self::new(key.clone(), recording.clone(), *started_ms);
        let good = rest.iter().take_while(|line| ledger.apply(line).is_ok()).count();
        Ok((ledger, good + 1))
    }

    /// One more line. What is refused leaves the ledger as it was.
    pub fn apply(&mut self, line: &Line) -> Result<(), BadLine> {
        match line {
            Line::Begin { .. } => Err(BadLine::NoBeginning),
            Line::Master { text } => {
                self.master.clone_from(text);
                Ok(())
            }
            Line::Init {
                rendition,
                epoch,
                index,
                bytes,
                sha256,
                target_duration_seconds,
            } => {
                if !self.renditions.contains_key(rendition) && self.renditions.len() >= MAX_RENDITIONS {
                    return Err(BadLine::TooManyRenditions);
                }
                let of = self.renditions.entry(rendition.clone()).or_default();
                of.target_duration_seconds = of.target_duration_seconds.max(*target_duration_seconds);
                of.inits.entry((Epoch(*epoch), *index)).or_insert(Init {
                    bytes: *bytes,
                    sha256: sha256.clone(),
                    stored: false,
                });
                Ok(())
            }
            Line::Stored { rendition, epoch, msn } => self.settle(rendition, *epoch, *msn, Stage::Stored),
            Line::Lost { rendition, epoch, msn } => self.settle(rendition, *epoch, *msn, Stage::Lost),
            Line::InitStored {
                rendition,
                epoch,
                index,
            } => {
                let of = self.renditions.get_mut(rendition).ok_or(BadLine::Unknown)?;
                let init = of.inits.get_mut(&(Epoch(*epoch), *index)).ok_or(BadLine::Unknown)?;
                init.stored = true;
                Ok(())
            }
            Line::Picture { rendition, epoch, msn } => {
                let of = self.renditions.get(rendition).ok_or(BadLine::Unknown)?;
                let at = Position {
                    epoch: Epoch(*epoch),
                    msn: MediaSequence(*msn),
                };
                if !of.takes.contains_key(&at) {
                    return Err(BadLine::Unknown);
                }
                self.pictures.insert(at, rendition.clone());
                Ok(())
            }
            Line::Finish { failure } => {
                self.finished = true;
                self.failure.clone_from(failure);
                Ok(())
            }
            Line::Finalised => {
                self.finalised = true;
                Ok(())
            }
            Line::Open { rendition, .. } | Line::Part { rendition, .. } | Line::Close { rendition, .. } => {
                let of = self.renditions.get_mut(rendition).ok_or(BadLine::Unknown)?;
                let (at, bytes) = of.apply(line)?;
                if let Some(take) = of.takes.get(&at) {
                    self.sums.grow(at, bytes, take);
                }
                Ok(())
            }
        }
    }

    fn settle(&mut self, rendition: &RenditionName, epoch: u64, msn: u64, stage: Stage) -> Result<(), BadLine> {
        let of = self.renditions.get_mut(rendition).ok_or(BadLine::Unknown)?;
        let at = Position {
            epoch: Epoch(epoch),
            msn: MediaSequence(msn),
        };
        let take = of.takes.get_mut(&at).ok_or(BadLine::Unknown)?;
        let before = std::mem::replace(&mut take.stage, stage);
        let bytes = take.bytes;
        of.kept.remove(&at);
        let waited = matches!(before, Stage::Open | Stage::Kept);
        if waited {
            self.sums.backlog_bytes = self.sums.backlog_bytes.saturating_sub(bytes);
        }
        match (before, stage) {
            (Stage::Stored, Stage::Stored) | (Stage::Lost, Stage::Lost) => {}
            (_, Stage::Stored) => self.sums.stored += 1,
            (Stage::Stored, _) => self.sums.stored = self.sums.stored.saturating_sub(1),
            _ => {}
        }
        if stage == Stage::Lost && before != Stage::Lost {
            self.sums.media_bytes = self.sums.media_bytes.saturating_sub(bytes);
            let left = self.renditions.values().filter_map(|of| of.takes.get(&at));
            let left = left
                .filter(|take| take.stage != Stage::Lost)
                .map(|take| take.duration)
                .max();
            self.sums.set_duration(at, left.unwrap_or_default());
        }
        Ok(())
    }

    /// What the store lacks: init sections first, then segments in the order of time. At most `most`, and none of
    /// those that `is_taken` names.
    pub fn pending(&self, most: usize, is_taken: impl Fn(&ObjectName) -> bool) -> Vec<Pending> {
        let inits = self.renditions.iter().flat_map(|(rendition, of)| {
            let lacking = of.inits.iter().filter(|(_, init)| !init.stored);
            lacking.map(|((epoch, index), init)| Pending {
                name: name(rendition, *epoch, MediaObject::Init(*index)),
                bytes: init.bytes,
                sha256: init.sha256.clone(),
            })
        });
        let mut found: Vec<Pending> = inits.filter(|pending| !is_taken(&pending.name)).take(most).collect();
        let mut segments: Vec<(Position, Pending)> = Vec::new();
        for (rendition, of) in &self.renditions {
            let lacking = of.kept.iter().filter_map(|at| Some((at, of.takes.get(at)?)));
            let named = lacking.map(|(at, take)| {
                let pending = Pending {
                    name: name(rendition, at.epoch, MediaObject::Segment(at.msn)),
                    bytes: take.bytes,
                    sha256: take.sha256.clone(),
                };
                (*at, pending)
            });
            segments.extend(named.filter(|(_, pending)| !is_taken(&pending.name)).take(most));
        }
        segments.sort_by_key(|(at, _)| *at);
        found.extend(segments.into_iter().map(|(_, pending)| pending));
        found.truncate(most);
        found
    }

    /// Whether everything that can be is in the store.
    pub fn is_settled(&self) -> bool {
        self.renditions.values().all(|of| {
            let inits = of.inits.values().all(|init| init.stored);
            inits && of.kept.is_empty() && of.open.is_none()
        })
    }

    /// Media bytes in the journal that wait for the store.
    pub fn backlog_bytes(&self) -> u64 {
        self.sums.backlog_bytes
    }

    /// Media bytes recorded and not lost.
    pub fn media_bytes(&self) -> u64 {
        self.sums.media_bytes
    }

    /// Time recorded: at each position that of the longest rendition.
    pub fn duration(&self) -> Duration {
        self.sums.total
    }

    /// Positions after one of them, or all, in the order of time, each with the duration in the rendition where it is longest.
    pub fn positions_after(&self, after: Option<Position>) -> impl Iterator<Item = (Position, Duration)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.sums.durations.range((from, Bound::Unbounded));
        later.map(|(at, duration)| (*at, *duration))
    }

    /// Segments in the store, of all renditions.
    pub fn stored_segments(&self) -> usize {
        self.sums.stored
    }

    /// The lines that give up what is open.
    pub fn lost_open_segments(&self) -> Vec<Line> {
        let lost = |(rendition, at): (RenditionName, Position)| {
            let close = Line::Close {
                rendition: rendition.clone(),
                bytes: 0,
                duration_us: 0,
                sha256: String::new(),
            };
            let lost = Line::Lost {
                rendition,
                epoch: at.epoch.0,
                msn: at.msn.0,
            };
            [close, lost]
        };
        self.open_segments().into_iter().flat_map(lost).collect()
    }

    /// Segments that are still open, with their renditions: after a crash they are closed as they are.
    pub fn open_segments(&self) -> Vec<(RenditionName, Position)> {
        let open = |(name, of): (&RenditionName, &RenditionLedger)| Some((name.clone(), of.open?));
        self.renditions.iter().filter_map(open).collect()
    }
}

impl Sums {
    /// A segment that is being made or was completed has these many bytes more, or fewer.
    fn grow(&mut self, at: Position, bytes: i64, take: &Take) {
        self.backlog_bytes = self.backlog_bytes.saturating_add_signed(bytes);
        self.media_bytes = self.media_bytes.saturating_add_signed(bytes);
        let longest = self.durations.get(&at).copied().unwrap_or_default().max(take.duration);
        self.set_duration(at, longest);
    }

    fn set_duration(&mut self, at: Position, duration: Duration) {
        let before = self.durations.insert(at, duration).unwrap_or_default();
        self.total = self.total.saturating_sub(before).saturating_add(duration);
    }
}

impl RenditionLedger {
    /// Which segment the line was about, and by how many bytes that has grown.
    fn apply(&mut self, line: &Line) -> Result<(Position, i64), BadLine> {
        match line {
            Line::Open {
                epoch,
                msn,
                pdt_ms,
                discontinuity,
                new_publisher,
                init,
                independent,
                ..
            } => {
                let at = Position {
                    epoch: Epoch(*epoch),
                    msn: MediaSequence(*msn),
                };
                if !self.inits.contains_key(&(at.epoch, *init)) || self.takes.contains_key(&at) {
                    return Err(BadLine::Unknown);
                }
                self.open = Some(at);
                self.takes.insert(
                    at,
                    Take {
                        stage: Stage::Open,
                        duration: Duration::ZERO,
                        pdt_ms: *pdt_ms,
                        discontinuity: *discontinuity,
                        new_publisher: *new_publisher,
                        init: *init,
                        independent: *independent,
                        bytes: 0,
                        sha256: String::new(),
                        key_frame_bytes: None,
                        parts: Vec::new(),
                    },
                );
                Ok((at, 0))
            }
            Line::Part {
                bytes,
                duration_us,
                sum,
                key_frame_bytes,
                ..
            } => {
                let (at, take) = self.open_take().ok_or(BadLine::NothingOpen)?;
                let duration = Duration::from_micros(*duration_us);
                if take.parts.is_empty() {
                    take.key_frame_bytes = *key_frame_bytes;
                }
                take.bytes = take.bytes.saturating_add(*bytes);
                take.duration = take.duration.saturating_add(duration);
                take.parts.push(PartCheck {
                    bytes: *bytes,
                    duration,
                    sum: sum.clone(),
                });
                Ok((at, i64::try_from(*bytes).unwrap_or(i64::MAX)))
            }
            Line::Close {
                bytes,
                duration_us,
                sha256,
                ..
            } => {
                let (at, take) = self.open_take().ok_or(BadLine::NothingOpen)?;
                let grown = i128::from(*bytes) - i128::from(take.bytes);
                take.bytes = *bytes;
                take.duration = Duration::from_micros(*duration_us);
                take.sha256.clone_from(sha256);
                take.stage = Stage::Kept;
                // Only an open segment has to be told from a torn one part by part.
                take.parts = Vec::new();
                self.open = None;
                self.kept.insert(at);
                Ok((at, i64::try_from(grown).unwrap_or(0)))
            }
            _ => Err(BadLine::Unknown),
        }
    }

    fn open_take(&mut self) -> Option<(Position, &mut Take)> {
        let at = self.open?;
        Some((at, self.takes.get_mut(&at)?))
    }
}

/// The name of an object, the one it had while it was live.
pub fn name(rendition: &RenditionName, epoch: Epoch, object: MediaObject) -> ObjectName {
    ObjectName::Media {
        epoch,
        rendition: rendition.clone(),
        object,
    }
}

#[cfg(test)]
pub(super) mod tests;
