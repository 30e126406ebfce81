//! Recordings in the store: one row each, which outlives its stream.

use sqlx::{Row as _, any::AnyRow};
use weir_shared::id::{ProjectId, RecordingName, StreamId, StreamKey};

use super::{Millis, Store, StoreError, Tx};
use crate::control::model::Stream;

/// How far a recording has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RecordingState {
    /// Being made, or not wholly stored yet.
    Recording,
    Completed,
    /// It went wrong; what there is can be played.
    Failed,
    /// Not there any more for viewers; its objects are being removed.
    Deleting,
}

impl RecordingState {
    const ALL: [Self; 4] = [Self::Recording, Self::Completed, Self::Failed, Self::Deleting];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }
}

/// A recording, as it is known to the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingRow {
    pub key: StreamKey,
    pub name: RecordingName,
    pub project: ProjectId,
    pub stream_id: StreamId,
    pub state: RecordingState,
    pub started_at: Millis,
    pub changed_at: Millis,
    pub duration_ms: i64,
    pub bytes: i64,
    /// Why it failed.
    pub message: Option<String>,
    /// It has a track of thumbnails.
    pub thumbnails: bool,
}

const COLUMNS: &str =
    "stream_key, name, project, stream_id, state, started_at, changed_at, duration_ms, bytes, message, thumbnails";

impl Store {
    /// A stream's recordings, the newest first, and how many there are. Those that are being deleted are not there.
    pub async fn list_recordings(
        &self,
        project: &ProjectId,
        stream: &StreamId,
        skip: u32,
        limit: u32,
    ) -> Result<(Vec<RecordingRow>, u64), StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM recordings WHERE project = $1 AND stream_id = $2 AND state <> 'deleting' \
             ORDER BY name DESC LIMIT $3 OFFSET $4"
        )))
        .bind(project.as_str().to_owned())
        .bind(stream.as_str().to_owned())
        .bind(i64::from(limit))
        .bind(i64::from(skip))
        .fetch_all(self.reader())
        .await?;
        let total: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM recordings WHERE project = $1 AND stream_id = $2 AND state <> 'deleting'",
        )
        .bind(project.as_str().to_owned())
        .bind(stream.as_str().to_owned())
        .fetch_one(self.reader())
        .await?;
        let items = rows.iter().map(recording).collect::<Result<_, _>>()?;
        Ok((items, u64::try_from(total).unwrap_or(0)))
    }

    pub async fn recording(
        &self,
        project: &ProjectId,
        stream: &StreamId,
        name: &RecordingName,
    ) -> Result<Option<RecordingRow>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM recordings WHERE project = $1 AND stream_id = $2 AND name = $3 \
             AND state <> 'deleting'"
        )))
        .bind(project.as_str().to_owned())
        .bind(stream.as_str().to_owned())
        .bind(name.as_str().to_owned())
        .fetch_optional(self.reader())
        .await?;
        row.as_ref().map(recording).transpose()
    }

    /// Recordings whose objects have still to be removed; at most `limit`.
    pub async fn recordings_to_delete(&self, limit: u32) -> Result<Vec<RecordingRow>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM recordings WHERE state = 'deleting' ORDER BY changed_at LIMIT $1"
        )))
        .bind(i64::from(limit))
        .fetch_all(self.reader())
        .await?;
        rows.iter().map(recording).collect()
    }
}

impl Tx {
    pub async fn recording_by_key(
        &mut self,
        key: &StreamKey,
        name: &RecordingName,
    ) -> Result<Option<RecordingRow>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM recordings WHERE stream_key = $1 AND name = $2"
        )))
        .bind(key.as_str().to_owned())
        .bind(name.as_str().to_owned())
        .fetch_optional(self.connection())
        .await?;
        row.as_ref().map(recording).transpose()
    }

    /// [`StoreError::Taken`] when it is there already.
    pub async fn insert_recording(&mut self, row: &RecordingRow, stream: &Stream) -> Result<(), StoreError> {
        let secret = self
            .vault()
            .shut(row.key.as_str(), stream.credentials.playback_secret.clone())?;
        sqlx::query(
            "INSERT INTO recordings (stream_key, name, project, stream_id, state, started_at, changed_at, duration_ms, \
             bytes, message, signed, playback_secret) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(row.key.as_str().to_owned())
        .bind(row.name.as_str().to_owned())
        .bind(row.project.as_str().to_owned())
        .bind(row.stream_id.as_str().to_owned())
        .bind(row.state.as_str())
        .bind(row.started_at)
        .bind(row.changed_at)
        .bind(row.duration_ms)
        .bind(row.bytes)
        .bind(row.message.clone())
        .bind(i64::from(stream.settings.signed_playback))
        .bind(secret)
        .execute(self.connection())
        .await?;
        self.note_change(&row.key);
        Ok(())
    }

    /// Writes state, figures and message.
    pub async fn update_recording(&mut self, row: &RecordingRow) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE recordings SET state = $3, changed_at = $4, duration_ms = $5, bytes = $6, message = $7, \
             thumbnails = $8 WHERE stream_key = $1 AND name = $2",
        )
        .bind(row.key.as_str().to_owned())
        .bind(row.name.as_str().to_owned())
        .bind(row.state.as_str())
        .bind(row.changed_at)
        .bind(row.duration_ms)
        .bind(row.bytes)
        .bind(row.message.clone())
        .bind(i64::from(row.thumbnails))
        .execute(self.connection())
        .await?;
        self.note_change(&row.key);
        Ok(())
    }

    pub async fn remove_recording(&mut self, key: &StreamKey, name: &RecordingName) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM recordings WHERE stream_key = $1 AND name = $2")
            .bind(key.as_str().to_owned())
            .bind(name.as_str().to_owned())
            .execute(self.connection())
            .await?;
        self.note_change(key);
        Ok(())
    }

    /// The stream is removed: its recordings stay, under the rules that hold now.
    pub async fn keep_recordings_of(&mut self, stream: &Stream, at: Millis) -> Result<(), StoreError> {
        let secret = self
            .vault()
            .shut(stream.key.as_str(), stream.credentials.playback_secret.clone())?;
        sqlx::query("UPDATE recordings SET signed = $2, playback_secret = $3, changed_at = $4 WHERE stream_key = $1")
            .bind(stream.key.as_str().to_owned())
            .bind(i64::from(stream.settings.signed_playback))
            .bind(secret)
            .bind(at)
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

fn recording(row: &AnyRow) -> Result<RecordingRow, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let state = text("state")?;
    let unreadable = || StoreError::Database(sqlx::Error::Decode("a recording's row makes no sense".into()));
    Ok(RecordingRow {
        key: text("stream_key")?.parse().map_err(|_| unreadable())?,
        name: text("name")?.parse().map_err(|_| unreadable())?,
        project: text("project")?.parse().map_err(|_| unreadable())?,
        stream_id: text("stream_id")?.parse().map_err(|_| unreadable())?,
        state: RecordingState::ALL
            .into_iter()
            .find(|known| known.as_str() == state)
            .ok_or_else(unreadable)?,
        started_at: row.try_get("started_at")?,
        changed_at: row.try_get("changed_at")?,
        duration_ms: row.try_get("duration_ms")?,
        bytes: row.try_get("bytes")?,
        message: row.try_get("message")?,
        thumbnails: row.try_get::<i64, _>("thumbnails")? != 0,
    })
}
