//! Idempotency keys: a creating call that is sent twice creates once.

use sqlx::Row as _;
use weir_shared::id::{ProjectId, StreamId};

use super::{Millis, Store, StoreError, Tx};

/// How long a key is remembered: a day.
const REMEMBERED: Millis = 24 * 3_600_000;

/// What an idempotency key says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// Not seen before.
    New,
    /// The same request, answered with this stream.
    Same(StreamId),
    /// The key belongs to another request.
    Different,
}

impl Tx {
    /// Looks a key up. `request_hash` is the SHA-256 of the request's body.
    pub async fn replay(
        &mut self,
        project: &ProjectId,
        key: &str,
        request_hash: &str,
        now: Millis,
    ) -> Result<Replay, StoreError> {
        let row = sqlx::query(
            "SELECT request_hash, stream_id FROM idempotency_keys WHERE project = $1 AND key = $2 AND created_at > $3",
        )
        .bind(project.as_str().to_owned())
        .bind(key.to_owned())
        .bind(now.saturating_sub(REMEMBERED))
        .fetch_optional(self.connection())
        .await?;
        let Some(row) = row else { return Ok(Replay::New) };
        let (hash, stream): (String, String) = (row.try_get("request_hash")?, row.try_get("stream_id")?);
        match stream.parse() {
            Ok(stream) if hash == request_hash => Ok(Replay::Same(stream)),
            _ => Ok(Replay::Different),
        }
    }

    /// Remembers a key together with what it created. [`StoreError::Taken`]: the same request is being answered right
    /// now by somebody else.
    pub async fn remember(
        &mut self,
        project: &ProjectId,
        key: &str,
        request_hash: &str,
        stream: &StreamId,
        now: Millis,
    ) -> Result<(), StoreError> {
        let remembered = sqlx::query(
            "INSERT INTO idempotency_keys (project, key, request_hash, stream_id, created_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (project, key) DO UPDATE SET request_hash = excluded.request_hash, \
             stream_id = excluded.stream_id, created_at = excluded.created_at WHERE idempotency_keys.created_at <= $6",
        )
        .bind(project.as_str().to_owned())
        .bind(key.to_owned())
        .bind(request_hash.to_owned())
        .bind(stream.as_str().to_owned())
        .bind(now)
        .bind(now.saturating_sub(REMEMBERED))
        .execute(self.connection())
        .await?;
        match remembered.rows_affected() {
            0 => Err(StoreError::Taken),
            _ => Ok(()),
        }
    }
}

impl Store {
    /// Forgets keys that are older than a day; says how many.
    pub async fn forget_idempotency_keys(&self, now: Millis) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let forgotten = sqlx::query("DELETE FROM idempotency_keys WHERE created_at <= $1")
            .bind(now.saturating_sub(REMEMBERED))
            .execute(tx.connection())
            .await?
            .rows_affected();
        tx.commit().await?;
        Ok(forgotten)
    }
}
