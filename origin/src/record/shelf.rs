//! Recordings as viewers find them: what is still growing here from memory, everything else from the object store, read
//! once however many ask.
//!
//! Before this: `deliver/vod.rs`. After this: `store.rs`, `manifest.rs`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use moka::{Expiry, future::Cache};
use object_store::{ObjectStore, ObjectStoreExt as _};
use tokio::sync::Semaphore;
use weir_shared::{
    hls::{address::VodObject, name::ObjectName},
    id::{RecordingName, StreamKey},
};

use super::{
    manifest::{self, Growth, IFRAMES, Summary},
    metrics::Metrics,
    store,
    studio::Unfinished,
    upload::SUMMARY,
};

/// How long something that may still change is believed.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// How long an object is kept without being looked for again: another origin may have deleted its recording.
const LONG_LIFE: Duration = Duration::from_secs(60);
/// Longest time for one read.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// Reads of the store under way at once.
const READS: usize = 64;
/// Largest object that is read, in bytes.
const OBJECT_LIMIT: u64 = 64 << 20;
/// Recordings of a stream that are looked at for the newest that can be played.
const CANDIDATES: usize = 8;
/// Streams of which it is remembered what their newest recording is.
const NEWEST_ENTRIES: u64 = 10_000;

/// Why there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// There is no such recording, or not this object in it.
    Absent,
    /// The store does not answer.
    StoreDown,
}

/// An object of a recording.
#[derive(Debug, Clone)]
pub struct Found {
    pub bytes: Bytes,
    /// It can't change any more.
    pub is_final: bool,
}

/// A recording's name and its multivariant playlist, with addresses below it.
#[derive(Debug, Clone)]
pub struct Newest {
    pub recording: RecordingName,
    pub index: Found,
}

/// What it is that was asked for: the key of the memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Wanted {
    key: StreamKey,
    recording: RecordingName,
    object: VodObject,
}

pub struct Shelf {
    store: Arc<dyn ObjectStore>,
    unfinished: Arc<Unfinished>,
    objects: Cache<Wanted, Found>,
    newest: Cache<StreamKey, Option<RecordingName>>,
    reads: Semaphore,
    metrics: Arc<Metrics>,
}

struct Lives;

impl Expiry<Wanted, Found> for Lives {
    fn expire_after_create(&self, _: &Wanted, found: &Found, _: Instant) -> Option<Duration> {
        Some(if found.is_final { LONG_LIFE } else { SHORT_LIFE })
    }
}

impl Shelf {
    /// `memory_bytes`: how much of what was read is kept.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        unfinished: Arc<Unfinished>,
        memory_bytes: u64,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let weight = |_: &Wanted, found: &Found| u32::try_from(found.bytes.len() + 512).unwrap_or(u32::MAX);
        Arc::new(Self {
            store,
            unfinished,
            objects: Cache::builder()
                .max_capacity(memory_bytes)
                .weigher(weight)
                .expire_after(Lives)
                .support_invalidation_closures()
                .build(),
            newest: Cache::builder()
                .max_capacity(NEWEST_ENTRIES)
                .time_to_live(SHORT_LIFE)
                .build(),
            reads: Semaphore::new(READS),
            metrics,
        })
    }

    /// An object of a recording.
    pub async fn get(&self, key: &StreamKey, recording: &RecordingName, object: &VodObject) -> Result<Found, Missing> {
        let wanted = Wanted {
            key: key.clone(),
            recording: recording.clone(),
            object: object.clone(),
        };
        let mut from = "cache";
        let found = self.objects.try_get_with(wanted.clone(), async {
            let (found, place) = self.look(&wanted).await?;
            from = place;
            Ok(found)
        });
        let found = found.await.map_err(|missing: Arc<Missing>| *missing);
        let from = if found.is_err() { "nowhere" } else { from };
        self.metrics.shelf_reads.with_label_values(&[from]).inc();
        found
    }

    /// The newest recording of a stream that can be played.
    pub async fn newest(&self, key: &StreamKey) -> Result<Newest, Missing> {
        let found = self.newest.try_get_with(key.clone(), self.look_for_newest(key)).await;
        let recording = found
            .map_err(|missing: Arc<Missing>| *missing)?
            .ok_or(Missing::Absent)?;
        let index = self.get(key, &recording, &VodObject::Index).await?;
        Ok(Newest { recording, index })
    }

    /// What a finished recording consists of.
    pub async fn summary(&self, key: &StreamKey, recording: &RecordingName) -> Result<Summary, Missing> {
        let at = store::object(key, recording, SUMMARY);
        let read = async {
            let Ok(_permit) = self.reads.acquire().await else {
                return Err(Missing::StoreDown);
            };
            let got = self.store.get(&at).await.map_err(missing)?;
            if got.meta.size > OBJECT_LIMIT {
                return Err(Missing::Absent);
            }
            got.bytes().await.map_err(missing)
        };
        let read = tokio::time::timeout(READ_TIMEOUT, read).await;
        let json = read.map_err(|_| Missing::StoreDown)??;
        serde_json::from_slice(&json).map_err(|error| {
            tracing::error!(%error, "a recording's summary can't be read");
            Missing::Absent
        })
    }

    /// Forgets a recording that is being deleted.
    pub async fn forget(&self, key: &StreamKey, recording: &RecordingName) {
        self.newest.invalidate(key).await;
        let (key, recording) = (key.clone(), recording.clone());
        // It fails only where closures are not supported, and they are.
        let _ = self
            .objects
            .invalidate_entries_if(move |wanted, _| wanted.key == key && wanted.recording == recording);
    }

    async fn look(&self, wanted: &Wanted) -> Result<(Found, &'static str), Missing> {
        if let Some(text) = self.growing(wanted) {
            let found = Found {
                bytes: text.into(),
                is_final: false,
            };
            return Ok((found, "memory"));
        }
        let at = store::object(&wanted.key, &wanted.recording, &wanted.object.to_string());
        let read = async {
            let Ok(_permit) = self.reads.acquire().await else {
                return Err(Missing::StoreDown);
            };
            let got = self.store.get(&at).await.map_err(missing)?;
            if got.meta.size > OBJECT_LIMIT {
                return Err(Missing::Absent);
            }
            got.bytes().await.map_err(missing)
        };
        let bytes = tokio::time::timeout(READ_TIMEOUT, read)
            .await
            .map_err(|_| Missing::StoreDown)??;
        let is_final = wanted.object.is_final(&bytes);
        Ok((Found { bytes, is_final }, "store"))
    }

    /// A playlist of a recording that this node still works on.
    fn growing(&self, wanted: &Wanted) -> Option<String> {
        let recording = self
            .unfinished
            .get(&(wanted.key.clone(), wanted.recording.clone()))?
            .clone();
        recording.read(|ledger| match &wanted.object {
            // The store has it as it stays.
            _ if ledger.finalised => None,
            VodObject::Thumbnails => manifest::thumbnails(ledger, Growth::Running),
            VodObject::Index => manifest::index(ledger, "", Growth::Running),
            VodObject::Named(ObjectName::MediaPlaylist(name)) => match name.as_str().strip_suffix(IFRAMES) {
                Some(video) => manifest::iframe_playlist(ledger, &video.parse().ok()?, Growth::Running),
                None => manifest::media_playlist(ledger, name, Growth::Running),
            },
            VodObject::Named(_) | VodObject::Picture { .. } => None,
        })
    }

    async fn look_for_newest(&self, key: &StreamKey) -> Result<Option<RecordingName>, Missing> {
        let mut names: Vec<RecordingName> = Vec::new();
        let growing = self.unfinished.iter().filter(|entry| entry.key().0 == *key);
        names.extend(growing.map(|entry| entry.key().1.clone()));
        let prefix = object_store::path::Path::from_iter(["vod", key.as_str()]);
        let listed = async {
            let Ok(_permit) = self.reads.acquire().await else {
                return Err(Missing::StoreDown);
            };
            self.store.list_with_delimiter(Some(&prefix)).await.map_err(missing)
        };
        let listed = tokio::time::timeout(READ_TIMEOUT, listed).await;
        match listed.map_err(|_| Missing::StoreDown).and_then(|listed| listed) {
            Ok(listed) => {
                let folders = listed.common_prefixes.iter().filter_map(|folder| folder.filename());
                names.extend(folders.filter_map(|name| name.parse::<RecordingName>().ok()));
            }
            // Some stores say that of a prefix without objects.
            Err(Missing::Absent) => {}
            // What this node works on is known without the store.
            Err(Missing::StoreDown) if !names.is_empty() => {}
            Err(down) => return Err(down),
        }
        names.sort();
        names.dedup();
        for name in names.into_iter().rev().take(CANDIDATES) {
            match self.get(key, &name, &VodObject::Index).await {
                Ok(_) => return Ok(Some(name)),
                Err(Missing::Absent) => {}
                Err(down) => return Err(down),
            }
        }
        Ok(None)
    }

    /// Removes a recording from the store: first what makes it playable, then the rest.
    pub async fn delete(&self, key: &StreamKey, recording: &RecordingName) -> Result<(), object_store::Error> {
        let index = store::object(key, recording, &VodObject::Index.to_string());
        match self.store.delete(&index).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        self.forget(key, recording).await;
        let folder = store::folder(key, recording);
        let names = self
            .store
            .list(Some(&folder))
            .map(|found| found.map(|meta| meta.location));
        let mut deleted = self.store.delete_stream(names.boxed());
        while let Some(one) = deleted.next().await {
            match one {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.forget(key, recording).await;
        Ok(())
    }
}

fn missing(error: object_store::Error) -> Missing {
    match error {
        object_store::Error::NotFound { .. } => Missing::Absent,
        error => {
            tracing::warn!(%error, "the store of recordings can't be read");
            Missing::StoreDown
        }
    }
}
