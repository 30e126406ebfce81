//! Reads one life of a stream into a recording, part by part, until it ends, is cut off, or is long enough.
//!
//! It reads what any viewer reads: the newest snapshot, whenever there is a newer one. So it can't delay anything, and a
//! disk that is slow for less than the window lasts loses nothing: what has left memory meanwhile is read back.
//!
//! Before this: `live/registry.rs`. After this: `recording.rs`. Who is recorded is decided in `studio.rs`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::select_all};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_shared::{
    hls::position::MediaSequence,
    id::{Epoch, RenditionName},
};

use super::{
    collect::{Cursor, Entry},
    ledger::Line,
    manifest,
    recording::{Recording, Shared},
    store::Problem,
};
use crate::{
    live::{master::Master, registry::Live, snapshot::Snapshot},
    package::window::Segment,
};

/// Segments that the others may be ahead of a rendition that stands still when a recording is split.
const SPLIT_PATIENCE: u64 = 3;

/// Tries to read a segment out of the cold tier, and the wait between them.
const READS: u32 = 5;
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With everything that is in memory.
    Beginning,
    /// With the segment that is being made.
    Now,
    /// With a segment, which may be in memory.
    At(MediaSequence),
}

/// Why reading has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The broadcast is over.
    Ended,
    /// The stream is gone without an end: another life may continue it.
    CutOff,
    /// Somebody called for it.
    Stopped,
    /// It has become long enough; the next one begins here.
    Split(MediaSequence),
    Failed(Problem),
}

/// A segment out of the cold tier. `None`: even after [`READS`] tries there is none.
async fn whole(segment: &Segment) -> Option<Bytes> {
    let cold = segment.cold.as_ref()?;
    for left in (0..READS).rev() {
        match cold.read().await {
            Ok(bytes) => return Some(bytes),
            Err(_) if left > 0 => tokio::time::sleep(READ_AGAIN_AFTER).await,
            Err(_) => {}
        }
    }
    None
}

struct Reader {
    cursor: Cursor,
    feed: watch::Receiver<Arc<Snapshot>>,
}

/// One life being read.
struct Session<'a> {
    recording: &'a Recording,
    shared: &'a Shared,
    epoch: Epoch,
    master: watch::Receiver<Arc<Master>>,
    master_text: String,
    readers: BTreeMap<RenditionName, Reader>,
    from: From,
    until: Option<MediaSequence>,
}

/// Records until there is a reason to end. `stop` is whoever calls for an end.
pub async fn record(
    recording: &Recording,
    shared: &Shared,
    live: Live,
    from: From,
    stop: &CancellationToken,
) -> Outcome {
    let mut session = Session {
        recording,
        shared,
        epoch: live.epoch,
        master: live.master,
        master_text: recording.read(|ledger| ledger.master.clone()),
        readers: BTreeMap::new(),
        from,
        until: None,
    };
    let outcome = loop {
        match session.read().await {
            Err(problem) => break Outcome::Failed(problem),
            Ok(Some(outcome)) => break outcome,
            Ok(None) => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                // What has come up to the call is part of it.
                break match session.read().await {
                    Err(problem) => Outcome::Failed(problem),
                    Ok(_) => Outcome::Stopped,
                };
            }
            open = session.changed() => if !open {
                // The last of it may not have been read.
                break match session.read().await {
                    Err(problem) => Outcome::Failed(problem),
                    Ok(outcome) => outcome.unwrap_or(Outcome::CutOff),
                };
            }
        }
    };
    match session.close().await {
        Err(problem) if !matches!(outcome, Outcome::Failed(_)) => Outcome::Failed(problem),
        _ => outcome,
    }
}

impl Session<'_> {
    /// Waits until there is something new. False: nothing will come any more.
    async fn changed(&mut self) -> bool {
        let feeds = self.readers.values_mut().map(|reader| reader.feed.changed().boxed());
        let master = self.master.changed().boxed();
        let (first, _, _) = select_all(feeds.chain([master])).await;
        first.is_ok()
    }

    /// Takes everything that is new.
    async fn read(&mut self) -> Result<Option<Outcome>, Problem> {
        let master = self.master.borrow_and_update().clone();
        self.meet(&master);
        self.read_back().await?;
        let mut entries = self.newer_master(&master);
        let mut ended = !self.readers.is_empty();
        let mut furthest = MediaSequence(0);
        let mut missed = 0;
        for reader in self.readers.values_mut() {
            let snapshot = reader.feed.borrow_and_update().clone();
            let mut collected = reader.cursor.collect(&snapshot.window, self.until);
            entries.append(&mut collected.entries);
            missed += collected.segments_missed;
            ended &= snapshot.edge.ended;
            furthest = furthest.max(snapshot.edge.open);
        }
        if missed > 0 {
            tracing::warn!(recording = %self.recording.name, missed, "segments left memory before they were recorded");
            self.shared.metrics.segments_missed.inc_by(missed);
        }
        if !entries.is_empty() {
            if !self.shared.has_room() {
                return Err(Problem::BacklogFull);
            }
            self.recording.append(entries).await?;
        }
        if let Some(until) = self.until {
            let all_there = self.readers.values().all(|reader| reader.cursor.next() >= until);
            if all_there || furthest.0 >= until.0.saturating_add(SPLIT_PATIENCE) {
                return Ok(Some(Outcome::Split(until)));
            }
        }
        if ended {
            return Ok(Some(Outcome::Ended));
        }
        if self.until.is_none() && self.is_long_enough() {
            let open = self.readers.values().map(|reader| reader.cursor.next()).max();
            self.until = open.map(MediaSequence::next);
        }
        Ok(None)
    }

    /// Takes segments that have left memory before they were read: the journal's disk was slow for long. One after the
    /// other, so that they do not fill memory again.
    async fn read_back(&mut self) -> Result<(), Problem> {
        for reader in self.readers.values_mut() {
            loop {
                let snapshot = reader.feed.borrow().clone();
                let Some(segment) = reader.cursor.next_cold(&snapshot.window, self.until) else {
                    break;
                };
                let Some(bytes) = whole(segment).await else { break };
                let collected = reader.cursor.read_back(segment, &bytes, &snapshot.window);
                if collected.segments_missed > 0 {
                    self.shared.metrics.segments_missed.inc_by(collected.segments_missed);
                }
                if !self.shared.has_room() {
                    return Err(Problem::BacklogFull);
                }
                self.recording.append(collected.entries).await?;
            }
        }
        Ok(())
    }

    /// Renditions that are new.
    fn meet(&mut self, master: &Master) {
        for rendition in &master.renditions {
            if self.readers.contains_key(&rendition.name) {
                continue;
            }
            let snapshot = rendition.feed.borrow().clone();
            if self.from == From::Now {
                self.from = From::At(snapshot.edge.open);
            }
            let kept = || snapshot.window.kept_from(MediaSequence(0));
            let hot = kept().find(|segment| segment.cold.is_none());
            let from = match self.from {
                From::At(msn) => kept().next().map_or(snapshot.edge.open, |oldest| msn.max(oldest.msn)),
                From::Beginning | From::Now => hot.map_or(snapshot.edge.open, |segment| segment.msn),
            };
            let target = snapshot.settings.target_duration_seconds;
            self.readers.insert(
                rendition.name.clone(),
                Reader {
                    cursor: Cursor::new(rendition.name.clone(), self.epoch, target, from),
                    feed: rendition.feed.clone(),
                },
            );
        }
    }

    fn newer_master(&mut self, master: &Master) -> Vec<Entry> {
        let Ok(newest) = std::str::from_utf8(&master.direct) else {
            return Vec::new();
        };
        if newest.is_empty() {
            return Vec::new();
        }
        let text = manifest::merged_master(&self.master_text, newest);
        if text == self.master_text {
            return Vec::new();
        }
        self.master_text.clone_from(&text);
        vec![Entry {
            line: Line::Master { text },
            media: None,
        }]
    }

    fn is_long_enough(&self) -> bool {
        let limit = self.shared.settings.split_after;
        self.recording.read(|ledger| ledger.duration()) >= limit
    }

    /// Segments that will not be completed end here.
    async fn close(&mut self) -> Result<(), Problem> {
        let open = self.readers.values_mut().map(|reader| reader.cursor.break_off());
        let entries: Vec<Entry> = open.flat_map(|collected| collected.entries).collect();
        match entries.is_empty() {
            true => Ok(()),
            false => self.recording.append(entries).await,
        }
    }
}
