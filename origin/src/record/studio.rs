//! Who is recorded: starts a recording when a stream that wants one goes live or somebody calls for it, carries it over
//! from one life of the stream to the next, splits it, ends it, and picks up after a crash.
//!
//! Before this: `live/registry.rs` (who is live), `control/api` (calls). After this: `recorder.rs`, `upload.rs`.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dashmap::{DashMap, DashSet, Entry};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;
use weir_shared::{
    hls::date,
    id::{Epoch, RecordingName, StreamKey},
};

use super::{
    journal::{Journal, JournalError},
    ledger::Line,
    recorder::{self, From, Outcome},
    recording::{Recording, Report, Shared},
    store::Problem,
    upload,
};
use crate::{
    ingest::redacted,
    live::{
        lifecycle::State,
        registry::{Live, Registry},
        status::StatusChange,
    },
};

/// Recordings that are made or stored by this node, by stream and name.
pub type Unfinished = DashMap<(StreamKey, RecordingName), Arc<Recording>>;

/// A stream that is being recorded.
#[derive(Debug, Clone)]
struct Take {
    name: RecordingName,
    stop: CancellationToken,
}

/// All recordings of this node.
pub struct Studio {
    registry: Arc<Registry>,
    shared: Arc<Shared>,
    /// What this node still works on; `shelf.rs` plays it.
    pub unfinished: Arc<Unfinished>,
    takes: DashMap<StreamKey, Take>,
    /// Streams of which every broadcast is recorded.
    wanted: DashSet<StreamKey>,
    /// The life of a stream that was recorded to its end, or until somebody called for it.
    done: DashMap<StreamKey, Epoch>,
    last_name_ms: AtomicU64,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What a director begins with.
enum Begin {
    New {
        name: RecordingName,
        started_ms: u64,
        from: From,
    },
    /// Left behind by an earlier process.
    Resumed(Arc<Recording>),
}

impl Studio {
    pub fn new(registry: Arc<Registry>, shared: Arc<Shared>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            registry,
            shared,
            unfinished: Arc::default(),
            takes: DashMap::new(),
            wanted: DashSet::new(),
            done: DashMap::new(),
            last_name_ms: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            stop,
        })
    }

    /// Picks up what an earlier process left. A journal that can't be read is left alone and told of.
    pub async fn resume(self: &Arc<Self>) {
        let root = self.shared.settings.journal.clone();
        let found = tokio::task::spawn_blocking(move || {
            let dirs = Journal::list(&root)?;
            Ok::<_, std::io::Error>(dirs.into_iter().map(|dir| (Journal::reopen(&dir), dir)).collect())
        });
        let journals: Vec<(Result<_, JournalError>, _)> = match found.await {
            Ok(Ok(journals)) => journals,
            Ok(Err(error)) => {
                tracing::error!(%error, "the journals of recordings can't be listed");
                return;
            }
            Err(_) => return,
        };
        for (journal, dir) in journals {
            match journal {
                Ok((journal, ledger)) => {
                    tracing::info!(recording = %ledger.recording, finished = ledger.finished, "recording is picked up");
                    let recording = Recording::new(journal, ledger, self.shared.clone());
                    self.direct(recording.key.clone(), Begin::Resumed(recording));
                }
                Err(error) => tracing::error!(%error, recording = folder_name(&dir), "a recording can't be picked up"),
            }
        }
    }

    /// Whether every broadcast of a stream is recorded from now on; one that is under way too.
    pub fn want(self: &Arc<Self>, key: &StreamKey, wanted: bool) {
        match wanted {
            true => {
                if self.wanted.insert(key.clone()) {
                    self.consider(key, From::Now);
                }
            }
            false => {
                self.wanted.remove(key);
            }
        }
    }

    /// Records a stream from now on. The name of its recording, which may be under way already; `None`: it is not live here.
    pub fn start(self: &Arc<Self>, key: &StreamKey) -> Option<RecordingName> {
        if let Some(take) = self.takes.get(key) {
            return Some(take.name.clone());
        }
        // Of one whose broadcast was stopped there is nothing to see, nor to record.
        self.live(key).filter(Live::is_shown)?;
        self.begin(key, From::Now)
    }

    /// Ends a stream's recording. Its name, or `None` if there is none.
    pub fn stop(&self, key: &StreamKey) -> Option<RecordingName> {
        let take = self.takes.get(key)?.clone();
        take.stop.cancel();
        Some(take.name)
    }

    /// The recording of a stream that is being made.
    pub fn current(&self, key: &StreamKey) -> Option<Report> {
        let name = self.takes.get(key)?.name.clone();
        // One that was begun this moment has no journal yet.
        Some(self.unfinished(key, &name).unwrap_or(Report {
            name,
            duration: Duration::ZERO,
            bytes: 0,
            problem: None,
        }))
    }

    /// A recording that is being made, or that is not wholly stored yet.
    pub fn unfinished(&self, key: &StreamKey, name: &RecordingName) -> Option<Report> {
        let recording = self.unfinished.get(&(key.clone(), name.clone()))?;
        Some(recording.report())
    }

    /// What is wrong with the recordings of a stream.
    pub fn problem(&self, key: &StreamKey) -> Option<Problem> {
        let mut of_stream = self.unfinished.iter().filter(|entry| entry.key().0 == *key);
        of_stream.find_map(|entry| entry.value().report().problem)
    }

    /// Follows the streams of this node until `stop`.
    pub async fn run(self: Arc<Self>) {
        let mut changes: broadcast::Receiver<StatusChange> = self.registry.watch_status();
        for (key, _) in self.registry.list() {
            self.consider(&key, From::Beginning);
        }
        loop {
            let change = tokio::select! {
                () = self.stop.cancelled() => break,
                change = changes.recv() => change,
            };
            match change {
                Ok(change) if change.state == State::Live => self.consider(&change.key, From::Beginning),
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => {
                    for (key, _) in self.registry.list() {
                        self.consider(&key, From::Beginning);
                    }
                }
                Err(RecvError::Closed) => break,
            }
        }
    }

    /// Waits until every journal is closed (after `stop`).
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Begins a recording if the stream is live, is to be recorded, and is not.
    fn consider(self: &Arc<Self>, key: &StreamKey, from: From) {
        if !self.shared.settings.every_broadcast && !self.wanted.contains(key) {
            return;
        }
        let Some(live) = self.live(key) else { return };
        if self.done.get(key).is_some_and(|done| *done == live.epoch) {
            return;
        }
        self.begin(key, from);
    }

    fn live(&self, key: &StreamKey) -> Option<Live> {
        let live = self.registry.find(key).ok()?;
        let state = live.status.borrow().state;
        matches!(state, State::Live | State::Grace { .. }).then_some(live)
    }

    fn begin(self: &Arc<Self>, key: &StreamKey, from: From) -> Option<RecordingName> {
        let (name, started_ms) = self.new_name()?;
        let begin = Begin::New {
            name: name.clone(),
            started_ms,
            from,
        };
        self.direct(key.clone(), begin).or(Some(name))
    }

    /// Gives a stream's recording a task of its own. If it has one already: that one's name.
    fn direct(self: &Arc<Self>, key: StreamKey, begin: Begin) -> Option<RecordingName> {
        let name = match &begin {
            Begin::New { name, .. } => name.clone(),
            Begin::Resumed(recording) => recording.name.clone(),
        };
        let stop = CancellationToken::new();
        let is_over = matches!(&begin, Begin::Resumed(recording) if recording.read(|ledger| ledger.finished));
        if let (true, Begin::Resumed(recording)) = (is_over, &begin) {
            self.store(recording.clone());
            return None;
        }
        match self.takes.entry(key.clone()) {
            Entry::Occupied(taken) => {
                let taken = taken.get().name.clone();
                if let Begin::Resumed(recording) = begin {
                    // Two of one stream were under way: only the newest can be continued.
                    let studio = self.clone();
                    self.tasks.spawn(async move {
                        recording.note_or_remember(vec![Line::Finish { failure: None }]).await;
                        studio.store(recording);
                    });
                }
                return Some(taken);
            }
            Entry::Vacant(place) => {
                place.insert(Take {
                    name,
                    stop: stop.clone(),
                });
            }
        }
        let studio = self.clone();
        let span = tracing::info_span!("recording", key = %redacted(&key));
        self.shared.metrics.active.inc();
        self.tasks.spawn(
            async move {
                let last = studio.clone().follow(&key, begin, &stop).await;
                if let Some(epoch) = last {
                    studio.done.insert(key.clone(), epoch);
                }
                studio.takes.remove(&key);
                studio.shared.metrics.active.dec();
                if !studio.stop.is_cancelled() {
                    // The next broadcast may have begun meanwhile.
                    studio.consider(&key, From::Beginning);
                    studio.forget_ended();
                }
            }
            .instrument(span),
        );
        None
    }

    /// One stream's recording, through all lives and splits. The last life that was recorded.
    async fn follow(self: Arc<Self>, key: &StreamKey, begin: Begin, stop: &CancellationToken) -> Option<Epoch> {
        let (mut recording, mut from, mut last) = match begin {
            Begin::New { name, started_ms, from } => match self.create(key, name, started_ms).await {
                Ok(recording) => (recording, from, None),
                Err(error) => {
                    tracing::error!(%error, "the recording could not be begun");
                    return self.live(key).map(|live| live.epoch);
                }
            },
            Begin::Resumed(recording) => {
                let last = recording.read(|ledger| {
                    let takes = ledger.renditions.values().filter_map(|of| of.takes.keys().next_back());
                    takes.map(|at| at.epoch).max()
                });
                self.store(recording.clone());
                (recording, From::Beginning, last)
            }
        };
        let failure = loop {
            let Some(live) = self.next_life(key, last, stop).await else {
                break None;
            };
            last = Some(live.epoch);
            let outcome = recorder::record(&recording, &self.shared, live, from, stop).await;
            tracing::info!(recording = %recording.name, ?outcome, "reading ends");
            if self.stop.is_cancelled() {
                break None;
            }
            match outcome {
                Outcome::Ended | Outcome::Stopped => break None,
                Outcome::Failed(problem) => {
                    recording.set_problem(Some(problem));
                    recording.seal().await;
                    break Some(problem.message().to_owned());
                }
                Outcome::CutOff => from = From::Beginning,
                Outcome::Split(at) => {
                    let next = match self.new_name() {
                        Some((name, started_ms)) => self.create(key, name, started_ms).await,
                        None => break None,
                    };
                    let next = match next {
                        Ok(next) => next,
                        Err(error) => {
                            tracing::error!(%error, "the recording could not be continued");
                            break Some(Problem::JournalFails.message().to_owned());
                        }
                    };
                    recording.note_or_remember(vec![Line::Finish { failure: None }]).await;
                    if let Some(mut take) = self.takes.get_mut(key) {
                        take.name = next.name.clone();
                    }
                    recording = next;
                    from = From::At(at);
                    // The same life goes on.
                    last = None;
                }
            }
        };
        // Told to end with the process: the next one goes on.
        if !self.stop.is_cancelled() {
            recording.note_or_remember(vec![Line::Finish { failure }]).await;
        }
        last
    }

    /// The stream's life after `last`; waits for it for a while.
    async fn next_life(&self, key: &StreamKey, last: Option<Epoch>, stop: &CancellationToken) -> Option<Live> {
        let deadline = Instant::now() + self.shared.settings.wait;
        let mut changes = self.registry.watch_status();
        loop {
            // One that has ended was hidden, and is shown again in a life of its own.
            let next = |live: &Live| Some(live.epoch) != last && !live.has_ended();
            if let Some(live) = self.live(key).filter(next) {
                return Some(live);
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep_until(deadline) => return None,
                change = changes.recv() => if matches!(change, Err(RecvError::Closed)) {
                    return None;
                }
            }
        }
    }

    async fn create(
        self: &Arc<Self>,
        key: &StreamKey,
        name: RecordingName,
        started_ms: u64,
    ) -> Result<Arc<Recording>, JournalError> {
        let (root, key) = (self.shared.settings.journal.clone(), key.clone());
        let made = tokio::task::spawn_blocking(move || Journal::create(&root, &key, &name, started_ms)).await;
        let (journal, ledger) = made.map_err(|error| JournalError::Disk(std::io::Error::other(error)))??;
        let recording = Recording::new(journal, ledger, self.shared.clone());
        tracing::info!(recording = %recording.name, "recording begins");
        self.store(recording.clone());
        Ok(recording)
    }

    /// Lets a recording's media go to the store.
    fn store(self: &Arc<Self>, recording: Arc<Recording>) {
        let id = (recording.key.clone(), recording.name.clone());
        self.unfinished.insert(id.clone(), recording.clone());
        self.shared.metrics.unfinished.inc();
        let studio = self.clone();
        self.tasks.spawn(async move {
            upload::upload(recording, studio.shared.clone(), studio.stop.clone()).await;
            studio.unfinished.remove(&id);
            studio.shared.metrics.unfinished.dec();
        });
    }

    /// Lives that are over can't come again.
    fn forget_ended(&self) {
        self.done.retain(|key, _| self.registry.find(key).is_ok());
    }

    /// A name above all earlier ones, and its moment in milliseconds since 1970.
    fn new_name(&self) -> Option<(RecordingName, u64)> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let before = self
            .last_name_ms
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(now.max(last + 1)))
            .unwrap_or(now);
        let ms = now.max(before + 1);
        Some((name_of(ms)?, ms))
    }
}

/// `20261118T110640123Z`: names sort by time.
fn name_of(ms: u64) -> Option<RecordingName> {
    let mut text = String::with_capacity(24);
    date::push_date(&mut text, UNIX_EPOCH + Duration::from_millis(ms));
    text.retain(|c| c.is_ascii_alphanumeric());
    text.parse().ok()
}

fn folder_name(dir: &Path) -> &str {
    dir.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_when_and_sort_by_it() {
        let name = |ms| name_of(ms).unwrap();
        assert_eq!(name(1_795_000_000_123).as_str(), "20261118T110640123Z");
        assert!(name(1_795_000_000_123) < name(1_795_000_000_124));
        assert!(name(999) < name(1_000));
    }
}
