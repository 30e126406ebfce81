//! Events in the database, read in the order in which they were committed.
//!
//! Before this: `outbox.rs`, which writes them. After this: `sse.rs`.

use sqlx::{Row as _, any::AnyRow};

use crate::control::{
    events::EventId,
    store::{Store, StoreError},
};

/// An event as it is kept: number, id, type, JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub seq: i64,
    pub id: String,
    pub kind: String,
    pub body: String,
}

impl Kept {
    /// A project's events after a number, in order.
    pub async fn after(store: &Store, project: &str, seq: i64, limit: u32) -> Result<Vec<Self>, StoreError> {
        let rows =
            sqlx::query("SELECT seq, id, kind, body FROM events WHERE project = $1 AND seq > $2 ORDER BY seq LIMIT $3")
                .bind(project.to_owned())
                .bind(seq)
                .bind(i64::from(limit))
                .fetch_all(store.reader())
                .await?;
        let kept = |row: &AnyRow| {
            Ok(Self {
                seq: row.try_get("seq")?,
                id: row.try_get("id")?,
                kind: row.try_get("kind")?,
                body: row.try_get("body")?,
            })
        };
        rows.iter().map(kept).collect()
    }

    /// The number of the newest event of all projects.
    pub async fn newest(store: &Store) -> Result<i64, StoreError> {
        let value = sqlx::query_scalar("SELECT value FROM counters WHERE name = 'events'")
            .fetch_one(store.reader())
            .await?;
        Ok(value)
    }

    /// After which number a reader goes on that has last seen this id. An id that is forgotten already stands for its
    /// time: ids sort by it, so what is left after that time is read again rather than left out.
    pub async fn position(store: &Store, project: &str, last_seen: EventId) -> Result<i64, StoreError> {
        let exact: Option<i64> = sqlx::query_scalar("SELECT seq FROM events WHERE id = $2 AND project = $1")
            .bind(project.to_owned())
            .bind(last_seen.to_string())
            .fetch_optional(store.reader())
            .await?;
        if let Some(exact) = exact {
            return Ok(exact);
        }
        let next: Option<i64> = sqlx::query_scalar("SELECT MIN(seq) FROM events WHERE project = $1 AND id > $2")
            .bind(project.to_owned())
            .bind(last_seen.to_string())
            .fetch_one(store.reader())
            .await?;
        match next {
            Some(next) => Ok(next.saturating_sub(1)),
            None => Self::newest(store).await,
        }
    }
}
