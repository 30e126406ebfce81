//! Thumbnails of a recording: for every few seconds of it a small JPEG beside its segments, and a WebVTT track that says
//! which belongs where.
//!
//! Pictures are taken from what is stored already, one process at a time, by a task that nothing waits for but the end of the
//! journal: without ffmpeg, or with one that hangs or crashes, a recording just has no thumbnails. The journal says which
//! were taken, so a restart goes on with the rest.
//!
//! Before this: `upload.rs` (segments that are stored). After this: `plan.rs` (which moments, **P**), `picture.rs` (the picture),
//! `manifest/track.rs` (the track, **P**).

pub mod picture;
pub mod plan;

use std::{future::Future, time::Duration};

use bytes::{Bytes, BytesMut};
use object_store::{ObjectStoreExt as _, path::Path};
use tokio::sync::{OnceCell, Semaphore};
use weir_shared::{
    hls::{
        address::{INDEX, THUMBNAILS, VodObject},
        name::MediaObject,
    },
    retry::Backoff,
};

use self::{
    picture::picture,
    plan::{Next, Plan, Shot},
};
use super::{
    ledger::{Line, name},
    manifest::{self, Growth},
    recording::{Recording, Shared},
    register::Told,
    store,
    upload::{STALE_SHARE, tell},
};
use crate::ffmpeg::{Ffmpeg, NoPicture};

/// Largest key frame that is looked at, in bytes.
const KEY_FRAME_LIMIT: u64 = 16 << 20;
/// Largest init section, in bytes.
const INIT_LIMIT: u64 = 1 << 20;
/// Pictures that may fail one after another before a recording gets no more.
const FAILURES: u32 = 3;
/// How often the store is asked for, or given, one object.
const TRIES: u32 = 5;
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How thumbnails are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program, by name or by absolute path.
    pub ffmpeg: String,
    /// From one picture to the next.
    pub every: Duration,
    /// Longest side of a picture, in pixels.
    pub size: u32,
    /// Longest time for one picture.
    pub timeout: Duration,
    /// Processes at once, of all recordings together.
    pub processes: usize,
}

/// What the recordings of a node share to make them.
pub struct Thumbnails {
    settings: Settings,
    processes: Semaphore,
    /// Found out when the first recording wants one; `None`: it is not there.
    ffmpeg: OnceCell<Option<Ffmpeg>>,
}

/// Why one moment has no picture.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Picture(#[from] NoPicture),
    #[error("the store of recordings: {0}")]
    Store(&'static str),
    #[error("the key frame is too large")]
    TooLarge,
    /// The recording was deleted meanwhile.
    #[error("the recording is gone")]
    Deleted,
}

impl Failure {
    /// Label value.
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Picture(why) => why.as_str(),
            Self::Store(_) => "store",
            Self::TooLarge => "too_large",
            Self::Deleted => "deleted",
        }
    }
}

impl Thumbnails {
    pub fn new(settings: Settings) -> Self {
        Self {
            processes: Semaphore::new(settings.processes),
            ffmpeg: OnceCell::new(),
            settings,
        }
    }

    async fn ffmpeg(&self) -> Option<&Ffmpeg> {
        let look = async {
            match Ffmpeg::find(&self.settings.ffmpeg, self.settings.timeout).await {
                Ok(ffmpeg) => Some(ffmpeg),
                Err(why) => {
                    let program = &self.settings.ffmpeg;
                    tracing::info!(program, %why, "recordings have no thumbnails: they need ffmpeg");
                    None
                }
            }
        };
        self.ffmpeg.get_or_init(|| look).await.as_ref()
    }
}

/// Takes a recording's thumbnails while it is stored, and what is left of them afterwards.
pub async fn take(recording: &Recording, shared: &Shared) {
    let Some(thumbnails) = &shared.thumbnails else { return };
    let Some(ffmpeg) = thumbnails.ffmpeg().await else {
        return;
    };
    let taker = Taker {
        recording,
        shared,
        thumbnails,
        ffmpeg,
    };
    match taker.run().await {
        Ok(()) | Err(Failure::Deleted) => {}
        Err(why) => tracing::warn!(recording = %recording.name, %why, "a recording gets no more thumbnails"),
    }
}

struct Taker<'a> {
    recording: &'a Recording,
    shared: &'a Shared,
    thumbnails: &'a Thumbnails,
    ffmpeg: &'a Ffmpeg,
}

impl Taker<'_> {
    async fn run(&self) -> Result<(), Failure> {
        let mut plan = Plan::new(self.thumbnails.settings.every);
        let mut progress = self.recording.progress();
        let (mut in_a_row, mut published) = (0, 0);
        let outcome = loop {
            // What is stored from here on wakes the wait below.
            progress.borrow_and_update();
            let shot = match self.recording.read(|ledger| plan.next(ledger)) {
                Next::Take(shot) => shot,
                Next::End => break Ok(()),
                Next::Wait => match progress.changed().await {
                    Ok(()) => continue,
                    Err(_) => return Ok(()),
                },
            };
            let taken = self.take_one(&shot).await;
            let label = taken.as_ref().map_or_else(Failure::as_str, |()| "ok");
            self.shared.metrics.thumbnails.with_label_values(&[label]).inc();
            match taken {
                Ok(()) => in_a_row = 0,
                Err(Failure::Deleted) => return Err(Failure::Deleted),
                Err(why) => {
                    tracing::debug!(recording = %self.recording.name, %why, "a moment has no thumbnail");
                    in_a_row += 1;
                    if in_a_row >= FAILURES {
                        break Err(why);
                    }
                }
            }
            published = self.publish_growing(published).await?;
        };
        self.publish_finished().await?;
        outcome
    }

    async fn take_one(&self, shot: &Shot) -> Result<(), Failure> {
        let (epoch, msn) = (shot.at.epoch, shot.at.msn);
        if shot.bytes > KEY_FRAME_LIMIT {
            return Err(Failure::TooLarge);
        }
        let jpeg = {
            // Whoever waits here holds no media.
            let Ok(_permit) = self.thumbnails.processes.acquire().await else {
                return Err(Failure::Deleted);
            };
            let init = name(&shot.rendition, epoch, MediaObject::Init(shot.init)).to_string();
            let segment = name(&shot.rendition, epoch, MediaObject::Segment(msn)).to_string();
            let mut media = BytesMut::from(self.read(&init, INIT_LIMIT).await?);
            media.extend_from_slice(&self.read(&segment, shot.bytes).await?);
            picture(self.ffmpeg, media.freeze(), self.thumbnails.settings.size).await?
        };
        let picture = VodObject::Picture {
            epoch,
            rendition: shot.rendition.clone(),
            msn,
        };
        self.put(&picture.to_string(), jpeg).await?;
        let line = Line::Picture {
            rendition: shot.rendition.clone(),
            epoch: epoch.0,
            msn: msn.0,
        };
        self.recording.note_or_remember(vec![line]).await;
        Ok(())
    }

    /// The first bytes of an object of the recording, all of them if there are fewer than `limit`.
    async fn read(&self, object: &str, limit: u64) -> Result<Bytes, Failure> {
        let at = self.at(object);
        let read = || async {
            let read = self.shared.store.get_range(&at, 0..limit);
            tokio::time::timeout(store::REQUEST_TIMEOUT, read).await.ok()?.ok()
        };
        again(read).await.ok_or(Failure::Store("it can't be read"))
    }

    async fn put(&self, object: &str, bytes: Bytes) -> Result<(), Failure> {
        let at = self.at(object);
        let put = || async {
            let _permit = self.shared.puts.acquire().await.ok()?;
            let put = store::put(self.shared.store.as_ref(), &at, bytes.clone(), &self.shared.metrics);
            put.await.ok()
        };
        again(put).await.ok_or(Failure::Store("it can't be written"))?;
        // A finished recording may be deleted, its index first. What is put afterwards must not stay.
        if self.recording.read(|ledger| ledger.finalised)
            && let Err(object_store::Error::NotFound { .. }) = self.shared.store.head(&self.at(INDEX)).await
        {
            // Gone already, or left where nobody finds it.
            let _ = self.shared.store.delete(&at).await;
            return Err(Failure::Deleted);
        }
        Ok(())
    }

    /// Renews the store's copy of the track when it lacks much. Viewers at this node see the newest while it grows.
    async fn publish_growing(&self, published: usize) -> Result<usize, Failure> {
        let taken = self.recording.read(|ledger| ledger.pictures.len());
        if taken < published + (published / STALE_SHARE).max(1) {
            return Ok(published);
        }
        if self.publish(Growth::Running).await? && published == 0 {
            tell(self.recording, self.shared, Told::Thumbnails).await;
        }
        Ok(taken)
    }

    async fn publish_finished(&self) -> Result<(), Failure> {
        // The last rows of the track are there when nothing of the recording is missing any more.
        let mut progress = self.recording.progress();
        let is_over = progress.wait_for(|progress| progress.settled).await.is_ok();
        if is_over && self.publish(Growth::Finished).await? {
            tell(self.recording, self.shared, Told::Thumbnails).await;
        }
        Ok(())
    }

    /// Whether there is anything to publish.
    async fn publish(&self, growth: Growth) -> Result<bool, Failure> {
        let Some(text) = self.recording.read(|ledger| manifest::thumbnails(ledger, growth)) else {
            return Ok(false);
        };
        self.put(THUMBNAILS, text.into()).await?;
        Ok(true)
    }

    fn at(&self, object: &str) -> Path {
        store::object(&self.recording.key, &self.recording.name, object)
    }
}

/// Tries until there is something, not for ever.
async fn again<T, F: Future<Output = Option<T>>>(attempt: impl Fn() -> F) -> Option<T> {
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    for _ in 1..TRIES {
        if let Some(done) = attempt().await {
            return Some(done);
        }
        let pause = backoff.next(&mut rand::rng());
        tokio::time::sleep(pause).await;
    }
    attempt().await
}
