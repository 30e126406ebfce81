//! The cold tier: segments of live playlists on a local disk or in an object store, one object each.
//!
//! A stream offers its old segments and goes on; when one is stored, the stream hears of it and lets its bytes go. Nothing
//! here is ever waited for: if the queue is full or the store fails, segments stay where they are. Objects are removed
//! when nobody can ask for them any more; those of an earlier life of the origin, at its start.
//!
//! Before this: `live/memory.rs`. After this: `object.rs`.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload, path::Path};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_shared::hls::position::MediaSequence;

use super::{
    metrics::{self, Metrics},
    object::{Object, Sum, sum_of},
};
use crate::package::window::{Cold, Segment};

/// Segments that wait to be written, of all streams. Beyond that a stream is told to offer them again.
const QUEUE: usize = 1024;
/// Segments written at a time, and objects removed at a time.
const WRITES: usize = 8;
/// Segments read at a time: the rest waits.
const READS: usize = 64;
/// Longest time for one write, for one removal, and for one more page of names.
const PATIENCE: Duration = Duration::from_secs(30);
/// Objects that wait to be removed. Beyond that they are left for the next start.
const REMOVALS: usize = 65_536;
/// Objects in one folder.
const FOLDER: u64 = 1024;
const SUFFIX: &str = ".m4s";

/// The store and what has been put there.
#[derive(Debug)]
pub struct ColdStore {
    pub(super) store: Arc<dyn ObjectStore>,
    /// Folder of this life of the origin, in that of its node.
    folder: Path,
    jobs: mpsc::Sender<Job>,
    removals: mpsc::Sender<Path>,
    pub(super) reads: Semaphore,
    pub(super) metrics: Metrics,
    /// Names are numbers: they need not mean anything.
    next: AtomicU64,
    /// What is there already: direct and resilient playlists mostly have the same segments.
    known: Mutex<HashMap<Sum, Weak<Object>>>,
}

/// Whose objects these are.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The same after a restart, and no other origin's.
    pub node: String,
    /// A number that no earlier start of the node had, such as the time.
    pub life: u64,
}

/// A segment that is to be moved out of memory. If it has left its window before its turn comes, nothing holds it.
#[derive(Debug)]
struct Job {
    msn: MediaSequence,
    segment: Weak<Segment>,
    moved: Moved,
}

/// What has become of a segment.
#[derive(Debug)]
pub enum Outcome {
    Written(Cold),
    /// It has left its window meanwhile.
    Gone,
    /// The store did not take it.
    Refused,
}

/// Where a stream hears what has become of its segments.
#[derive(Debug, Clone, Default)]
pub struct Moved(Arc<Mutex<Vec<(MediaSequence, Outcome)>>>);

impl Moved {
    /// What is new since the last call, in any order.
    pub fn take(&self) -> Vec<(MediaSequence, Outcome)> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl ColdStore {
    /// Starts its work on `tasks`, until `stop`.
    pub fn start(
        store: Arc<dyn ObjectStore>,
        owner: &Owner,
        metrics: Metrics,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let (jobs, offered) = mpsc::channel(QUEUE);
        let (removals, unwanted) = mpsc::channel(REMOVALS);
        let life = owner.life.to_string();
        let this = Arc::new(Self {
            store,
            folder: Path::from_iter([owner.node.as_str(), &life]),
            jobs,
            removals,
            reads: Semaphore::new(READS),
            metrics,
            next: AtomicU64::new(0),
            known: Mutex::default(),
        });
        let until_stopped = |work: BoxFuture<'static, ()>| stop.clone().run_until_cancelled_owned(work);
        tasks.spawn(until_stopped(this.clone().write_all(offered).boxed()));
        tasks.spawn(until_stopped(this.clone().remove_all(unwanted).boxed()));
        tasks.spawn(until_stopped(
            this.clone().sweep(Path::from_iter([owner.node.as_str()]), life).boxed(),
        ));
        this
    }

    /// Asks for a segment to be written. False: not now, too many wait.
    pub fn offer(&self, segment: &Arc<Segment>, moved: &Moved) -> bool {
        let job = Job {
            msn: segment.msn,
            segment: Arc::downgrade(segment),
            moved: moved.clone(),
        };
        let taken = self.jobs.try_send(job).is_ok();
        if taken {
            self.metrics.waiting.inc();
        }
        taken
    }

    async fn write_all(self: Arc<Self>, mut offered: mpsc::Receiver<Job>) {
        let queue = stream::poll_fn(move |context| offered.poll_recv(context));
        queue
            .for_each_concurrent(WRITES, |job| {
                let this = self.clone();
                async move {
                    let outcome = match job.segment.upgrade() {
                        Some(segment) => this.clone().write(chunks(&segment)).await,
                        None => Outcome::Gone,
                    };
                    this.metrics.waiting.dec();
                    job.moved.0.lock().push((job.msn, outcome));
                }
            })
            .await;
    }

    async fn write(self: Arc<Self>, chunks: Vec<Bytes>) -> Outcome {
        let summed = tokio::task::spawn_blocking(move || (sum_of(&chunks), chunks));
        let Ok((sum, chunks)) = summed.await else {
            return Outcome::Refused;
        };
        let known = self.known.lock().get(&sum).and_then(Weak::upgrade);
        if let Some(known) = known {
            return Outcome::Written(Cold::new(known));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let at = self
            .folder
            .clone()
            .join((number / FOLDER).to_string())
            .join(format!("{number}{SUFFIX}"));
        let payload: PutPayload = chunks.into_iter().collect();
        let length = payload.content_length() as u64;
        let put = tokio::time::timeout(PATIENCE, self.store.put(&at, payload)).await;
        let failure = match put {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        let label = metrics::outcome(failure.is_none());
        self.metrics.writes.with_label_values(&[label]).inc();
        if let Some(error) = failure {
            tracing::debug!(error, "a segment could not be moved out of memory");
            // A piece of it may be there.
            self.remove(at);
            return Outcome::Refused;
        }
        let object = Arc::new(Object::new(self.clone(), at, length, sum));
        self.known.lock().insert(sum, Arc::downgrade(&object));
        Outcome::Written(Cold::new(object))
    }

    /// An object is gone: another one of the same bytes may have taken its place.
    pub(super) fn forget(&self, sum: &Sum) {
        let mut known = self.known.lock();
        if known.get(sum).is_some_and(|object| object.strong_count() == 0) {
            known.remove(sum);
        }
    }

    /// Asks for an object to be removed.
    pub(super) fn remove(&self, at: Path) {
        if self.removals.try_send(at).is_err() {
            self.metrics.left_behind.inc();
        }
    }

    async fn remove_all(self: Arc<Self>, mut unwanted: mpsc::Receiver<Path>) {
        let queue = stream::poll_fn(move |context| unwanted.poll_recv(context));
        queue
            .for_each_concurrent(WRITES, |at| {
                let this = self.clone();
                async move {
                    this.delete(&at).await;
                }
            })
            .await;
    }

    async fn delete(&self, at: &Path) {
        match tokio::time::timeout(PATIENCE, self.store.delete(at)).await {
            Ok(Ok(()) | Err(object_store::Error::NotFound { .. })) => {}
            Ok(Err(_)) | Err(_) => self.metrics.left_behind.inc(),
        }
    }

    /// Removes what earlier lives of this node have left: their playlists are gone.
    async fn sweep(self: Arc<Self>, node: Path, life: String) {
        let is_old = |at: &Path| {
            let own = at.prefix_match(&node).and_then(|mut rest| rest.next());
            let other_life = |name: &str| name != life && name.bytes().all(|b| b.is_ascii_digit());
            own.is_some_and(|name| other_life(name.as_ref())) && at.as_ref().ends_with(SUFFIX)
        };
        let mut names = self.store.list(Some(&node));
        // A store that says nothing more is not listened to any longer.
        let found = stream::unfold(&mut names, async |names| {
            let next = tokio::time::timeout(PATIENCE, names.next()).await;
            Some((next.ok().flatten()?, names))
        });
        found
            .for_each_concurrent(WRITES, |object| {
                let old = object.ok().map(|object| object.location).filter(|at| is_old(at));
                let this = self.clone();
                async move {
                    if let Some(at) = old {
                        this.delete(&at).await;
                    }
                }
            })
            .await;
    }
}

/// A segment is its parts in order.
fn chunks(segment: &Segment) -> Vec<Bytes> {
    segment.parts.iter().map(|part| part.bytes.clone()).collect()
}

#[cfg(test)]
mod tests;
