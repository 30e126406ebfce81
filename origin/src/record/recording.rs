//! One recording of this process: its ledger and its journal, changed together.
//!
//! Before this: `recorder.rs` (new media) and `upload.rs` (what is stored). After this: `shelf.rs`, which plays it while it
//! grows.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use object_store::ObjectStore;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use weir_shared::id::{RecordingName, StreamKey};

use super::{
    collect::Entry,
    journal::{Journal, Spool},
    ledger::{Ledger, Line},
    metrics::Metrics,
    register::Register,
    store::Problem,
    thumbnails::Thumbnails,
};

/// How recordings are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder of the journals.
    pub journal: PathBuf,
    /// How long a recording whose stream was cut off waits for its next life.
    pub wait: Duration,
    /// A recording that has become this long is continued in a new one.
    pub split_after: Duration,
    /// Most media that waits for the store, of all recordings together.
    pub backlog_bytes: u64,
    /// Every broadcast is recorded, whatever its stream's `vodEnabled` says.
    pub every_broadcast: bool,
}

/// What all recordings of a node share.
pub struct Shared {
    pub settings: Settings,
    pub store: Arc<dyn ObjectStore>,
    pub register: Arc<dyn Register>,
    pub metrics: Arc<Metrics>,
    /// Puts under way at once.
    pub puts: Semaphore,
    /// `None`: recordings have none.
    pub thumbnails: Option<Thumbnails>,
    /// Media in journals that waits for the store.
    pub backlog_bytes: AtomicU64,
}

/// A recording that is being made, or whose rest is being stored.
pub struct Recording {
    pub key: StreamKey,
    pub name: RecordingName,
    ledger: Mutex<Ledger>,
    /// Locked only on threads that may wait for a disk.
    journal: Arc<Mutex<Journal>>,
    spool: Spool,
    problem: Mutex<Option<Problem>>,
    /// It was told that the store refuses it.
    gave_up: AtomicBool,
    /// Something was added, stored, or finished.
    pub news: Notify,
    progress: watch::Sender<Progress>,
    shared: Arc<Shared>,
}

/// How much of a recording the store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub stored_segments: usize,
    /// Nothing more will be recorded, and all of it is there.
    pub settled: bool,
}

impl Progress {
    fn of(ledger: &Ledger) -> Self {
        Self {
            stored_segments: ledger.stored_segments(),
            settled: ledger.finished && ledger.is_settled(),
        }
    }
}

/// A recording at one moment, for listings.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub name: RecordingName,
    pub duration: Duration,
    pub bytes: u64,
    pub problem: Option<Problem>,
}

impl Recording {
    pub fn new(journal: Journal, ledger: Ledger, shared: Arc<Shared>) -> Arc<Self> {
        shared.count_backlog(0, ledger.backlog_bytes());
        let (progress, _) = watch::channel(Progress::of(&ledger));
        Arc::new(Self {
            key: ledger.key.clone(),
            name: ledger.recording.clone(),
            spool: journal.spool(),
            journal: Arc::new(Mutex::new(journal)),
            ledger: Mutex::new(ledger),
            problem: Mutex::new(None),
            gave_up: AtomicBool::new(false),
            news: Notify::new(),
            progress,
            shared,
        })
    }

    /// Looks at the ledger. Short: everybody waits meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.ledger.lock())
    }

    /// What the store has of it, as it changes.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub fn spool(&self) -> Spool {
        self.spool.clone()
    }

    /// Acknowledges media: when this returns without an error, no crash loses it.
    pub async fn append(&self, entries: Vec<Entry>) -> Result<(), Problem> {
        let journal = self.journal.clone();
        let written = tokio::task::spawn_blocking(move || journal.lock().append(&entries).map(|()| entries)).await;
        let entries = flat(written)?;
        self.apply(entries.iter().map(|entry| &entry.line));
        Ok(())
    }

    /// Writes lines without media.
    pub async fn note(&self, lines: Vec<Line>) -> Result<(), Problem> {
        let journal = self.journal.clone();
        let written = tokio::task::spawn_blocking(move || journal.lock().note(&lines).map(|()| lines)).await;
        let lines = flat(written)?;
        self.apply(lines.iter());
        Ok(())
    }

    /// The same for a disk that takes nothing any more: this process knows, the next one finds out again.
    pub async fn note_or_remember(&self, lines: Vec<Line>) {
        if self.note(lines.clone()).await.is_err() {
            self.apply(lines.iter());
        }
    }

    /// Ends the segments that are open where the journal has them: the disk takes no more of them.
    pub async fn seal(&self) {
        let (journal, ledger) = (self.journal.clone(), self.read(Ledger::clone));
        let lost = ledger.lost_open_segments();
        let sealed = tokio::task::spawn_blocking(move || journal.lock().seal(&ledger)).await;
        let lines = match sealed {
            Ok(Ok(lines)) => lines,
            // Not even that: what was open is given up, so that the rest can be finished.
            Ok(Err(_)) | Err(_) => lost,
        };
        self.note_or_remember(lines).await;
    }

    fn apply<'a>(&self, lines: impl Iterator<Item = &'a Line>) {
        let mut ledger = self.ledger.lock();
        let before = ledger.backlog_bytes();
        for line in lines {
            if let Err(error) = ledger.apply(line) {
                // A defect of ours: what is recorded is told by what the collector saw.
                tracing::error!(%error, "a line does not fit its recording");
            }
        }
        let after = ledger.backlog_bytes();
        let now = Progress::of(&ledger);
        drop(ledger);
        self.progress
            .send_if_modified(|progress| std::mem::replace(progress, now) != now);
        self.shared.count_backlog(before, after);
        self.news.notify_one();
    }

    pub fn set_problem(&self, problem: Option<Problem>) {
        let mut held = self.problem.lock();
        if *held == problem {
            return;
        }
        *held = problem;
        drop(held);
        match problem {
            Some(problem) => tracing::warn!(
                recording = %self.name,
                problem = problem.as_str(),
                "{}",
                problem.message()
            ),
            None => tracing::info!(recording = %self.name, "the recording is being stored again"),
        }
    }

    /// True for the first who asks: that the store refuses a recording is told once.
    pub fn given_up_for_now(&self) -> bool {
        !self.gave_up.swap(true, Ordering::AcqRel)
    }

    pub fn report(&self) -> Report {
        let (duration, bytes) = self.read(|ledger| (ledger.duration(), ledger.media_bytes()));
        Report {
            name: self.name.clone(),
            duration,
            bytes,
            problem: *self.problem.lock(),
        }
    }
}

impl Shared {
    fn count_backlog(&self, before: u64, after: u64) {
        let total = match after >= before {
            true => self.backlog_bytes.fetch_add(after - before, Ordering::AcqRel) + (after - before),
            false => self
                .backlog_bytes
                .fetch_sub(before - after, Ordering::AcqRel)
                .saturating_sub(before - after),
        };
        self.metrics.backlog_bytes.set(i64::try_from(total).unwrap_or(i64::MAX));
    }

    pub fn has_room(&self) -> bool {
        self.backlog_bytes.load(Ordering::Acquire) < self.settings.backlog_bytes
    }
}

fn flat<T>(written: Result<io::Result<T>, tokio::task::JoinError>) -> Result<T, Problem> {
    match written {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            tracing::warn!(%error, "a recording's journal could not be written");
            Err(Problem::of_disk(&error))
        }
        Err(_) => Err(Problem::JournalFails),
    }
}
