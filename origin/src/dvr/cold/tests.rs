//! Segments that go, come back, and are removed; and stores that fail.

use std::{
    io,
    ops::ControlFlow,
    time::{Instant, SystemTime},
};

use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutOptions,
    PutResult, Result as StoreResult, memory::InMemory,
};
use tokio_util::sync::DropGuard;
use weir_shared::hls::position::PartNumber;

use super::*;
use crate::package::window::PartEntry;

const PATIENCE: Duration = Duration::from_secs(10);

struct Tier {
    inner: Arc<InMemory>,
    cold: Arc<ColdStore>,
    metrics: Metrics,
    _stop: DropGuard,
}

/// A store that removes nothing and never says so, and breaks off in the middle of naming what it has.
#[derive(Debug)]
struct Mute(Arc<InMemory>);

impl std::fmt::Display for Mute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a store that falls silent")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Mute {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.0.put_opts(at, payload, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.0.get_opts(at, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(at, options).await
    }

    fn delete_stream(&self, _: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        stream::pending().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.0.list(prefix).chain(stream::pending()).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.0.copy_opts(from, to, options).await
    }
}

fn tier(inner: Arc<InMemory>) -> Tier {
    let stop = CancellationToken::new();
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let owner = Owner {
        node: "here:1".to_owned(),
        life: 7,
    };
    Tier {
        cold: ColdStore::start(inner.clone(), &owner, metrics.clone(), &TaskTracker::new(), &stop),
        inner,
        metrics,
        _stop: stop.drop_guard(),
    }
}

fn segment(msn: u64, parts: &[&'static str]) -> Arc<Segment> {
    let part = |text: &&'static str| PartEntry {
        bytes: Bytes::from_static(text.as_bytes()),
        shared: false,
        duration: Duration::from_secs(1),
        independent: true,
    };
    Arc::new(Segment {
        msn: MediaSequence(msn),
        duration: Duration::from_secs(1),
        pdt: SystemTime::UNIX_EPOCH,
        discontinuity: false,
        new_publisher: false,
        init_index: 0,
        independent: true,
        first_part: PartNumber(msn),
        parts: parts.iter().map(part).collect(),
        cold: None,
    })
}

/// Looks again and again until there is an answer.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> ControlFlow<T>) -> T {
    let begun = Instant::now();
    loop {
        if let ControlFlow::Break(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn objects(store: &InMemory) -> usize {
    store.list(None).count().await
}

async fn objects_become(store: &InMemory, count: usize) {
    until("the number of objects", async || match objects(store).await == count {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    })
    .await;
}

impl Tier {
    async fn moved(&self, segment: &Arc<Segment>) -> Outcome {
        let moved = Moved::default();
        assert!(self.cold.offer(segment, &moved));
        until("what has become of it", async || match moved.take().pop() {
            Some((_, outcome)) => ControlFlow::Break(outcome),
            None => ControlFlow::Continue(()),
        })
        .await
    }

    async fn written(&self, segment: &Arc<Segment>) -> Cold {
        match self.moved(segment).await {
            Outcome::Written(cold) => cold,
            other => panic!("{other:?}"),
        }
    }

    async fn only_object(&self) -> Path {
        self.inner.list(None).next().await.unwrap().unwrap().location
    }
}

#[tokio::test]
async fn a_segment_goes_comes_back_and_is_removed_with_its_last_reader() {
    let tier = tier(Arc::default());
    let cold = tier.written(&segment(3, &["one", "two"])).await;
    assert_eq!(objects(&tier.inner).await, 1);
    assert_eq!(tier.metrics.cold_bytes.get(), 6);
    let reader = cold.clone();
    drop(cold);
    assert_eq!(reader.read().await.unwrap(), "onetwo");
    drop(reader);
    objects_become(&tier.inner, 0).await;
    assert_eq!((tier.metrics.cold_bytes.get(), tier.metrics.waiting.get()), (0, 0));
}

#[tokio::test]
async fn the_same_bytes_are_stored_once_for_both_flavours() {
    let tier = tier(Arc::default());
    let direct = tier.written(&segment(3, &["one", "two"])).await;
    let resilient = tier.written(&segment(9, &["on", "etwo"])).await;
    let other = tier.written(&segment(10, &["else"])).await;
    assert_eq!((objects(&tier.inner).await, tier.metrics.cold_bytes.get()), (2, 10));
    drop((direct, other));
    objects_become(&tier.inner, 1).await;
    assert_eq!(resilient.read().await.unwrap(), "onetwo");
    drop(resilient);
    objects_become(&tier.inner, 0).await;
    // What is gone is not taken for what is there.
    let again = tier.written(&segment(20, &["onetwo"])).await;
    assert_eq!(again.read().await.unwrap(), "onetwo");
}

#[tokio::test]
async fn a_segment_that_has_left_its_window_is_not_written() {
    let tier = tier(Arc::default());
    let moved = Moved::default();
    let gone = segment(3, &["x"]);
    assert!(tier.cold.offer(&gone, &moved));
    // The writers run on this thread, and have not had their turn.
    drop(gone);
    let outcome = until("what has become of it", async || match moved.take().pop() {
        Some((_, outcome)) => ControlFlow::Break(outcome),
        None => ControlFlow::Continue(()),
    })
    .await;
    assert!(matches!(outcome, Outcome::Gone), "{outcome:?}");
    assert_eq!(objects(&tier.inner).await, 0);
}

#[tokio::test]
async fn what_earlier_lives_left_is_removed_and_nothing_else() {
    let inner = Arc::new(InMemory::new());
    let node = Path::from_iter(["here:1"]);
    for at in ["6/0/0.m4s", "6/0/1.m4s", "notes.txt", "7/0/9.m4s", "x6/0/1.m4s"] {
        let at: Path = node.parts().chain(Path::from(at).parts()).collect();
        inner.put(&at, "x".into()).await.unwrap();
    }
    // Another origin's, in the same bucket.
    inner.put(&Path::from("there/6/0/0.m4s"), "x".into()).await.unwrap();
    let tier = tier(inner);
    objects_become(&tier.inner, 4).await;
    let notes = node.join("notes.txt");
    assert!(tier.inner.head(&notes).await.is_ok());
    assert!(tier.inner.head(&Path::from("there/6/0/0.m4s")).await.is_ok());
}

#[tokio::test]
async fn readers_at_the_same_time_share_one_read() {
    let tier = tier(Arc::default());
    let cold = tier.written(&segment(3, &["one", "two"])).await;
    let mut readers: Vec<_> = (0..100).map(|_| cold.read()).collect();
    // The first to ask goes away: that is nobody else's business.
    drop(readers.remove(0));
    for read in futures_util::future::join_all(readers).await {
        assert_eq!(read.unwrap(), "onetwo");
    }
    assert_eq!(tier.metrics.reads.with_label_values(&["ok"]).get(), 1);
    cold.read().await.unwrap();
    assert_eq!(tier.metrics.reads.with_label_values(&["ok"]).get(), 2, "it is not kept");
}

#[tokio::test]
async fn an_object_that_vanished_or_rotted_is_an_error_and_not_media() {
    let tier = tier(Arc::default());
    let cold = tier.written(&segment(3, &["abc"])).await;
    let at = tier.only_object().await;
    tier.inner.delete(&at).await.unwrap();
    assert!(cold.read().await.is_err());
    tier.inner.put(&at, "abx".into()).await.unwrap();
    assert_eq!(cold.read().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    tier.inner.put(&at, "abc".into()).await.unwrap();
    assert_eq!(cold.read().await.unwrap(), "abc");
    assert_eq!(tier.metrics.reads.with_label_values(&["failed"]).get(), 2);
}

#[tokio::test]
async fn a_disk_that_takes_nothing_refuses() {
    let folder = std::env::temp_dir().join(format!("weir-cold-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let store = object_store::local::LocalFileSystem::new_with_prefix(&folder).unwrap();
    let stop = CancellationToken::new();
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let owner = Owner {
        node: "here:1".to_owned(),
        life: 7,
    };
    let cold = ColdStore::start(Arc::new(store), &owner, metrics.clone(), &TaskTracker::new(), &stop);
    // A file where the folder should be.
    std::fs::remove_dir(&folder).unwrap();
    std::fs::write(&folder, "").unwrap();
    let tier = Tier {
        inner: Arc::default(),
        cold,
        metrics,
        _stop: stop.drop_guard(),
    };
    let kept = segment(1, &["x"]);
    assert!(matches!(tier.moved(&kept).await, Outcome::Refused));
    assert_eq!(tier.metrics.writes.with_label_values(&["failed"]).get(), 1);
    std::fs::remove_file(&folder).unwrap();
    assert!(matches!(tier.moved(&kept).await, Outcome::Written(_)));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_given_up_and_counted() {
    let inner = Arc::new(InMemory::new());
    inner
        .put(&Path::from_iter(["here:1", "6", "0", "0.m4s"]), "x".into())
        .await
        .unwrap();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let owner = Owner {
        node: "here:1".to_owned(),
        life: 7,
    };
    let cold = ColdStore::start(Arc::new(Mute(inner)), &owner, metrics.clone(), &tasks, &stop);
    // More than are removed at a time, and what an earlier life left.
    let unwanted = 3 * WRITES;
    for number in 0..unwanted {
        cold.remove(Path::from(format!("{number}.m4s")));
    }
    let given_up = until("what was given up", async || match metrics.left_behind.get() {
        given_up if given_up > unwanted as u64 => ControlFlow::Break(given_up),
        _ => ControlFlow::Continue(()),
    });
    tokio::time::timeout(6 * super::PATIENCE, given_up).await.unwrap();
    // Its list had no end either: only the writers and removers are left.
    assert_eq!(tasks.len(), 2);
}
