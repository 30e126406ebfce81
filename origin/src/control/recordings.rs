//! What the control plane remembers and tells of recordings: a row each, and an event for each step, written in one unit
//! of work.
//!
//! Before this: `record/register.rs` (the recorder), `api/recordings.rs` (calls). After this: `store/recordings.rs`,
//! `delivery/outbox.rs`.

use std::{sync::Arc, time::Duration};

use weir_shared::{
    hls::address::{VodObject, vod_path},
    id::{RecordingName, StreamKey},
};

use super::{
    addresses::AddressBook,
    delivery::{self, emit, system_time},
    events::{self, Event, EventStream, Happened},
    service::Control,
    store::{Millis, RecordingRow, RecordingState, Store, StoreError, Tx, now},
};
use crate::record::register::{Later, NotTold, Register, Told};

/// How often a change is tried again when somebody else changed the stream at the same time.
const ATTEMPTS: u32 = 5;

/// Recordings whose objects are removed in one sweep.
const SWEEP: u32 = 100;
/// How often deletions that were not finished are gone on with.
pub const SWEEP_PERIOD: Duration = Duration::from_secs(60);

/// Remembers recordings and tells of them.
pub struct Recordings {
    store: Store,
    metrics: Arc<delivery::Metrics>,
    addresses: Arc<AddressBook>,
}

impl Recordings {
    pub fn new(store: Store, metrics: Arc<delivery::Metrics>, addresses: Arc<AddressBook>) -> Self {
        Self {
            store,
            metrics,
            addresses,
        }
    }

    async fn write(&self, key: &StreamKey, name: &RecordingName, told: &Told) -> Result<(), StoreError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.write_once(key, name, told).await {
                Err(StoreError::Conflict | StoreError::Busy | StoreError::Taken) if attempt < ATTEMPTS => {}
                other => return other,
            }
        }
    }

    async fn write_once(&self, key: &StreamKey, name: &RecordingName, told: &Told) -> Result<(), StoreError> {
        let at = now();
        let mut tx = self.store.begin().await?;
        let stream = tx.stream_by_key(key).await?;
        let row = match (tx.recording_by_key(key, name).await?, &stream) {
            (Some(row), _) => row,
            // Streams that the store does not know (`any_key`) are nobody's business.
            (None, None) => return Ok(()),
            (None, Some(stream)) => {
                // The others are of a recording that was deleted meanwhile.
                let Told::Started { at_ms } = told else { return Ok(()) };
                let started_at = Millis::try_from(*at_ms).unwrap_or(at);
                let row = RecordingRow {
                    key: key.clone(),
                    name: name.clone(),
                    project: stream.project.clone(),
                    stream_id: stream.id.clone(),
                    state: RecordingState::Recording,
                    started_at,
                    changed_at: at,
                    duration_ms: 0,
                    bytes: 0,
                    message: None,
                    thumbnails: false,
                };
                tx.insert_recording(&row, stream).await?;
                let started = events::RecordingStarted {
                    recording: name.to_string(),
                };
                self.announce(&mut tx, &row, Happened::RecordingStarted(started), at)
                    .await?;
                row
            }
        };
        if let Some((row, happened)) = self.next(row, told, at) {
            tx.update_recording(&row).await?;
            if let Some(happened) = happened {
                self.announce(&mut tx, &row, happened, at).await?;
            }
        }
        // Edges learn of the newest recording with the stream's record: that is a later one now.
        if let Some(mut stream) = stream {
            tx.update_stream(&mut stream, at).await?;
        }
        tx.commit().await
    }

    /// What is new. `None`: it was told already.
    fn next(&self, row: RecordingRow, told: &Told, at: Millis) -> Option<(RecordingRow, Option<Happened>)> {
        let (state, duration, bytes, message) = match told {
            Told::Started { .. } => return None,
            Told::Thumbnails if row.thumbnails => return None,
            Told::Thumbnails => {
                let row = RecordingRow {
                    thumbnails: true,
                    changed_at: at,
                    ..row
                };
                return Some((row, None));
            }
            Told::Completed { duration, bytes } => (RecordingState::Completed, duration, bytes, None),
            Told::Failed {
                duration,
                bytes,
                message,
            } => (RecordingState::Failed, duration, bytes, Some(message.clone())),
        };
        if row.state == state || matches!(row.state, RecordingState::Completed | RecordingState::Deleting) {
            return None;
        }
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let row = RecordingRow {
            state,
            changed_at: at,
            duration_ms: i64::try_from(duration_ms).unwrap_or(i64::MAX),
            bytes: i64::try_from(*bytes).unwrap_or(i64::MAX),
            message: message.clone(),
            ..row
        };
        let recording = row.name.to_string();
        let happened = match message {
            None => Happened::RecordingCompleted(events::RecordingCompleted {
                recording,
                duration_ms,
                bytes: *bytes,
                url: url(&self.addresses, &row),
            }),
            Some(message) => Happened::RecordingFailed(events::RecordingFailed {
                recording,
                duration_ms,
                bytes: *bytes,
                message,
            }),
        };
        Some((row, Some(happened)))
    }

    async fn announce(
        &self,
        tx: &mut Tx,
        row: &RecordingRow,
        happened: Happened,
        at: Millis,
    ) -> Result<(), StoreError> {
        let about = EventStream {
            id: row.stream_id.clone(),
            stream_key: row.key.clone(),
        };
        let event = Event::new(&row.project, about, happened, system_time(at), rand::random());
        emit(tx, &event, at, &self.metrics).await
    }
}

impl Control {
    /// Removes the objects of a recording that was deleted, then its row. What fails is tried again by the next sweep.
    pub async fn remove_deleted(&self, row: &RecordingRow) {
        let Some(shelf) = self.node().shelf() else { return };
        if let Err(error) = shelf.delete(&row.key, &row.name).await {
            tracing::warn!(%error, recording = %row.name, "a deleted recording's objects are not removed yet");
            return;
        }
        let removed = async {
            let mut tx = self.store.begin().await?;
            tx.remove_recording(&row.key, &row.name).await?;
            tx.commit().await
        };
        if let Err(error) = removed.await {
            tracing::warn!(%error, "a deleted recording's row is not removed yet");
        }
    }

    /// Goes on with deletions that were not finished.
    pub async fn sweep_deleted(&self) {
        match self.store.recordings_to_delete(SWEEP).await {
            Ok(rows) => {
                for row in rows {
                    self.remove_deleted(&row).await;
                }
            }
            Err(error) => tracing::warn!(%error, "deleted recordings can't be listed"),
        }
    }
}

/// Where a recording is watched.
pub fn url(addresses: &AddressBook, row: &RecordingRow) -> String {
    address(addresses, row, &VodObject::Index)
}

/// Where its thumbnails are listed, if it has any.
pub fn thumbnails_url(addresses: &AddressBook, row: &RecordingRow) -> Option<String> {
    row.thumbnails.then(|| address(addresses, row, &VodObject::Thumbnails))
}

fn address(addresses: &AddressBook, row: &RecordingRow, object: &VodObject) -> String {
    addresses.current().playback(&vod_path(&row.key, &row.name, object))
}

impl Register for Recordings {
    fn tell<'a>(
        &'a self,
        key: &'a StreamKey,
        recording: &'a RecordingName,
        told: Told,
    ) -> Later<'a, Result<(), NotTold>> {
        Box::pin(async move {
            let written = self.write(key, recording, &told).await;
            written.map_err(|error| NotTold(Box::new(error)))
        })
    }
}
