//! What changed lately in the whole database, removals included: for the origins that share it.
//!
//! Before this: `fleet.rs`. Removals leave a mark for an hour, because a row that is gone tells nobody.

use sqlx::Row as _;
use weir_shared::id::StreamKey;

use super::{Millis, Store, StoreError, Tx};

/// The version of a stream that is no more.
pub const REMOVED: i64 = i64::MAX;

/// How long a removal is remembered.
const REMEMBERED: Millis = 3_600_000;

impl Store {
    /// Key, version and moment of the streams that changed at or after a moment, oldest change first; at most `limit`.
    pub async fn changed_since(&self, since: Millis, limit: u32) -> Result<Vec<(StreamKey, i64, Millis)>, StoreError> {
        let rows = sqlx::query(
            "SELECT stream_key, version, updated_at AS at FROM streams WHERE updated_at >= $1 \
             UNION ALL SELECT stream_key, $2 AS version, removed_at AS at FROM removed_streams WHERE removed_at >= $1 \
             ORDER BY at LIMIT $3",
        )
        .bind(since)
        .bind(REMOVED)
        .bind(i64::from(limit))
        .fetch_all(self.reader())
        .await?;
        let mut changed = Vec::with_capacity(rows.len());
        for row in &rows {
            let key: String = row.try_get("stream_key")?;
            // A name that this program could not have written is nobody's.
            if let Ok(key) = key.parse() {
                changed.push((key, row.try_get("version")?, row.try_get("at")?));
            }
        }
        Ok(changed)
    }

    /// Forgets removals that everybody has heard of; says how many.
    pub async fn forget_removals(&self, now: Millis) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let forgotten = sqlx::query("DELETE FROM removed_streams WHERE removed_at <= $1")
            .bind(now.saturating_sub(REMEMBERED))
            .execute(tx.connection())
            .await?
            .rows_affected();
        tx.commit().await?;
        Ok(forgotten)
    }
}

impl Tx {
    pub(super) async fn mark_removed(&mut self, key: &StreamKey, at: Millis) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO removed_streams (stream_key, removed_at) VALUES ($1, $2) \
             ON CONFLICT (stream_key) DO UPDATE SET removed_at = excluded.removed_at",
        )
        .bind(key.as_str().to_owned())
        .bind(at)
        .execute(self.connection())
        .await?;
        self.note_version(key, REMOVED);
        Ok(())
    }

    /// The key is in use again.
    pub(super) async fn unmark_removed(&mut self, key: &StreamKey) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM removed_streams WHERE stream_key = $1")
            .bind(key.as_str().to_owned())
            .execute(self.connection())
            .await?;
        Ok(())
    }
}
