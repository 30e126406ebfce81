//! From the journal to the object store, as often as it takes; in the end the playlists of the finished recording.
//!
//! Before this: `recording.rs`. After this: `store.rs`, `register.rs`.

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use bytes::Bytes;
use object_store::ObjectStoreExt as _;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use weir_shared::{
    hls::{
        address::INDEX,
        name::{MediaObject, ObjectName},
    },
    retry::Backoff,
};

use super::{
    collect::digest,
    ledger::{Line, Pending},
    manifest::{self, Growth, IFRAMES},
    recording::{Recording, Shared},
    register::Told,
    store, thumbnails,
};

/// Objects of one recording that are put at the same time.
const IN_FLIGHT: usize = 4;
/// Pauses between tries.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The store's copies of the playlists are renewed when they lack more than this share of the recording: one in …
pub(super) const STALE_SHARE: usize = 16;
/// How long the store may refuse a recording that is over before that is told. It is tried on.
const GIVE_UP_TELLING: Duration = Duration::from_secs(60);

/// What the file of checksums is called in a recording's folder.
pub const SUMMARY: &str = "recording.json";

/// How an object's journey ended.
enum Landed {
    Stored(ObjectName),
    /// Neither the journal nor the store has it.
    Lost(ObjectName),
}

/// Stores a recording until all of it is there and everybody was told, or until `stop`: the next process goes on.
pub async fn upload(recording: Arc<Recording>, shared: Arc<Shared>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = run_to_the_end(&recording, &shared) => {}
    }
}

async fn run_to_the_end(recording: &Arc<Recording>, shared: &Arc<Shared>) {
    tokio::join!(run(recording, shared), thumbnails::take(recording, shared));
    let spool = recording.spool();
    let removed = tokio::task::spawn_blocking(move || spool.remove()).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(%error, "a finished recording's journal was not removed; it is looked at again at the next start");
    }
}

async fn run(recording: &Arc<Recording>, shared: &Arc<Shared>) {
    let mut flights: JoinSet<Landed> = JoinSet::new();
    let mut flying: HashSet<ObjectName> = HashSet::new();
    let mut published = 0;
    // What is finished was told, and may have been deleted since.
    let mut told_start = recording.read(|ledger| ledger.finalised);
    loop {
        let room = IN_FLIGHT.saturating_sub(flying.len());
        for pending in recording.read(|ledger| ledger.pending(room, |name| flying.contains(name))) {
            flying.insert(pending.name.clone());
            flights.spawn(carry(recording.clone(), shared.clone(), pending));
        }
        let is_empty = recording.read(|ledger| ledger.renditions.values().all(|of| of.takes.is_empty()));
        if !told_start && !is_empty {
            told_start = true;
            let at_ms = recording.read(|ledger| ledger.started_ms);
            tell(recording, shared, Told::Started { at_ms }).await;
        }
        if flying.is_empty() && recording.read(|ledger| ledger.finished && ledger.is_settled()) {
            break;
        }
        published = publish_growing(recording, shared, published).await;
        tokio::select! {
            () = recording.news.notified() => {}
            Some(landed) = flights.join_next() => {
                // A flight that panicked is started again: its object is still pending.
                match landed {
                    Ok(landed) => land(recording, &mut flying, landed).await,
                    Err(error) => {
                        tracing::error!(%error, "storing an object broke off");
                        flying.clear();
                        flights.abort_all();
                    }
                }
            }
        }
    }
    finish(recording, shared).await;
}

async fn land(recording: &Recording, flying: &mut HashSet<ObjectName>, landed: Landed) {
    let (name, line) = match landed {
        Landed::Stored(name) => (name.clone(), stored(&name)),
        Landed::Lost(name) => (name.clone(), lost(&name)),
    };
    if let Some(line) = line {
        // If the disk does not take the line, the next process stores the object once more: nothing is lost.
        recording.note_or_remember(vec![line]).await;
    }
    flying.remove(&name);
    let spool = recording.spool();
    let forgotten = tokio::task::spawn_blocking(move || spool.forget(&name)).await;
    if let Ok(Err(error)) = forgotten {
        tracing::warn!(%error, "a stored object was not removed from the journal");
    }
}

/// Brings one object to the store, however long it takes.
async fn carry(recording: Arc<Recording>, shared: Arc<Shared>, pending: Pending) -> Landed {
    let at = store::object(&recording.key, &recording.name, &pending.name.to_string());
    let (spool, name) = (recording.spool(), pending.name.clone());
    let read = tokio::task::spawn_blocking(move || spool.read(&name)).await;
    let bytes = match read {
        Ok(Ok(bytes)) if digest(&bytes) == pending.sha256 => Bytes::from(bytes),
        Ok(Ok(_)) => {
            tracing::error!(object = %pending.name, "the journal's bytes are not what was recorded");
            return Landed::Lost(pending.name);
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            // Stored before a crash, and only the note of it was lost?
            let there = shared
                .store
                .head(&at)
                .await
                .is_ok_and(|there| there.size == pending.bytes);
            return match there {
                true => Landed::Stored(pending.name),
                false => Landed::Lost(pending.name),
            };
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the journal can't be read");
            return Landed::Lost(pending.name);
        }
        Err(_) => return Landed::Lost(pending.name),
    };
    put(&recording, &shared, &at, bytes).await;
    Landed::Stored(pending.name)
}

/// Puts until it is there.
async fn put(recording: &Recording, shared: &Shared, at: &object_store::path::Path, bytes: Bytes) {
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    let since = Instant::now();
    loop {
        let tried = {
            let Ok(_permit) = shared.puts.acquire().await else {
                return;
            };
            store::put(shared.store.as_ref(), at, bytes.clone(), &shared.metrics).await
        };
        let problem = match tried {
            Ok(()) => return recording.set_problem(None),
            Err(problem) => problem,
        };
        recording.set_problem(Some(problem));
        let is_over = recording.read(|ledger| ledger.finished);
        if is_over && since.elapsed() >= GIVE_UP_TELLING && recording.given_up_for_now() {
            let (duration, bytes) = recording.read(|ledger| (ledger.duration(), ledger.media_bytes()));
            let message = problem.message().to_owned();
            tell(
                recording,
                shared,
                Told::Failed {
                    duration,
                    bytes,
                    message,
                },
            )
            .await;
        }
        let pause = backoff.next(&mut rand::rng());
        tokio::time::sleep(pause).await;
    }
}

/// Renews the store's copies of a growing recording's playlists when they lack much. Viewers at this node see the newest
/// in any case; these are for the others, and for whoever opens the folder.
async fn publish_growing(recording: &Recording, shared: &Shared, published: usize) -> usize {
    let stored = recording.read(super::ledger::Ledger::stored_segments);
    if stored == 0 || stored < published + (published / STALE_SHARE).max(1) {
        return published;
    }
    for (name, text) in texts(recording, Growth::Running) {
        let at = store::object(&recording.key, &recording.name, &name);
        if let Err(problem) = store::put(shared.store.as_ref(), &at, text.into(), &shared.metrics).await {
            recording.set_problem(Some(problem));
            return published;
        }
    }
    stored
}

/// Every playlist, the multivariant one last: once it is there, all that it names is.
fn texts(recording: &Recording, growth: Growth) -> Vec<(String, String)> {
    recording.read(|ledger| {
        let mut texts = Vec::new();
        for name in ledger.renditions.keys() {
            texts.extend(manifest::media_playlist(ledger, name, growth).map(|text| (format!("{name}.m3u8"), text)));
            let pictures = manifest::iframe_playlist(ledger, name, growth);
            texts.extend(pictures.map(|text| (format!("{name}{IFRAMES}.m3u8"), text)));
        }
        if growth == Growth::Finished
            && let Ok(json) = serde_json::to_string(&manifest::summary(ledger))
        {
            texts.push((SUMMARY.to_owned(), json));
        }
        texts.extend(manifest::index(ledger, "", growth).map(|text| (INDEX.to_owned(), text)));
        texts
    })
}

/// The last steps: playlists with their end, the word to whoever wants to know.
async fn finish(recording: &Recording, shared: &Shared) {
    let (finalised, is_empty) = recording.read(|ledger| {
        let is_empty = ledger.renditions.values().all(|of| of.takes.is_empty());
        (ledger.finalised, is_empty)
    });
    if !finalised && !is_empty {
        for (name, text) in texts(recording, Growth::Finished) {
            let at = store::object(&recording.key, &recording.name, &name);
            put(recording, shared, &at, text.into()).await;
        }
        recording.note_or_remember(vec![Line::Finalised]).await;
    }
    if !is_empty {
        let (duration, bytes, failure) =
            recording.read(|ledger| (ledger.duration(), ledger.media_bytes(), ledger.failure.clone()));
        let told = match failure {
            None => Told::Completed { duration, bytes },
            Some(message) => Told::Failed {
                duration,
                bytes,
                message,
            },
        };
        let outcome = if matches!(told, Told::Completed { .. }) {
            "completed"
        } else {
            "failed"
        };
        shared.metrics.completed.with_label_values(&[outcome]).inc();
        tracing::info!(recording = %recording.name, seconds = duration.as_secs_f64(), bytes, outcome, "recording is finished");
        tell(recording, shared, told).await;
    }
}

/// Tells until it is written down.
pub(super) async fn tell(recording: &Recording, shared: &Shared, told: Told) {
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    while let Err(error) = shared
        .register
        .tell(&recording.key, &recording.name, told.clone())
        .await
    {
        tracing::warn!(%error, "trying again");
        let pause = backoff.next(&mut rand::rng());
        tokio::time::sleep(pause).await;
    }
}

fn stored(name: &ObjectName) -> Option<Line> {
    let ObjectName::Media {
        epoch,
        rendition,
        object,
    } = name
    else {
        return None;
    };
    let (rendition, epoch) = (rendition.clone(), epoch.0);
    match object {
        MediaObject::Segment(msn) => Some(Line::Stored {
            rendition,
            epoch,
            msn: msn.0,
        }),
        MediaObject::Init(index) => Some(Line::InitStored {
            rendition,
            epoch,
            index: *index,
        }),
        MediaObject::Part(_) => None,
    }
}

/// A lost init section counts as stored: whoever looks for it finds that it is not there, and nobody waits for it.
fn lost(name: &ObjectName) -> Option<Line> {
    match name {
        ObjectName::Media {
            epoch,
            rendition,
            object: MediaObject::Segment(msn),
        } => Some(Line::Lost {
            rendition: rendition.clone(),
            epoch: epoch.0,
            msn: msn.0,
        }),
        _ => stored(name),
    }
}
