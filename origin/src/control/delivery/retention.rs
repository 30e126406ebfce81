//! What is forgotten when: old events, and logs beyond their length.
//!
//! Before this: `dispatch.rs`, which calls it now and then. What still waits to be delivered is never removed.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use crate::control::{
    store::{Millis, Store, StoreError},
    webhook,
};

/// Rows removed in one unit of work: other writers wait for it.
const BATCH: i64 = 1000;
/// Units of work per visit.
const BATCHES: usize = 50;

/// How much is kept.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long events and their deliveries are kept.
    pub age: Duration,
    /// Events kept, of all projects together.
    pub events: i64,
    /// Finished deliveries kept in one endpoint's log.
    pub deliveries_per_endpoint: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(7 * 24 * 3600),
            events: 1_000_000,
            deliveries_per_endpoint: 1000,
        }
    }
}

const NOT_WAITED_FOR: &str =
    "NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event_seq = events.seq AND d.state = 'pending')";

/// Brings everything within its limits, a bounded piece at a time.
pub(super) async fn tidy(store: &Store, limits: &Limits, now: Millis) -> Result<(), StoreError> {
    let before = now.saturating_sub(millis(limits.age));
    let by_age = format!(
        "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE created_at < $1 AND {NOT_WAITED_FOR} LIMIT $2)"
    );
    remove(store, &by_age, before).await?;

    let newest: i64 = sqlx::query_scalar("SELECT value FROM counters WHERE name = 'events'")
        .fetch_one(store.reader())
        .await?;
    let by_number = format!(
        "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE seq <= $1 AND {NOT_WAITED_FOR} LIMIT $2)"
    );
    remove(store, &by_number, newest.saturating_sub(limits.events)).await?;

    trim_logs(store, limits.deliveries_per_endpoint).await?;
    give_up_on_inactive(store, now).await
}

async fn remove(store: &Store, sql: &str, bound: i64) -> Result<(), StoreError> {
    for _ in 0..BATCHES {
        let mut tx = store.begin().await?;
        let removed = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .bind(bound)
            .bind(BATCH)
            .execute(tx.connection())
            .await?;
        tx.commit().await?;
        if removed.rows_affected() < BATCH.unsigned_abs() {
            break;
        }
    }
    Ok(())
}

async fn trim_logs(store: &Store, keep: i64) -> Result<(), StoreError> {
    let long: Vec<String> = sqlx::query_scalar(
        "SELECT endpoint FROM deliveries WHERE state <> 'pending' GROUP BY endpoint HAVING COUNT(*) > $1",
    )
    .bind(keep)
    .fetch_all(store.reader())
    .await?;
    for endpoint in long {
        let mut tx = store.begin().await?;
        sqlx::query(
            "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE endpoint = $1 AND state <> 'pending' \
             ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3)",
        )
        .bind(endpoint)
        .bind(BATCH.saturating_mul(10))
        .bind(keep)
        .execute(tx.connection())
        .await?;
        tx.commit().await?;
    }
    Ok(())
}

/// What waits for an endpoint that is switched off is not tried, so nothing else ends it.
async fn give_up_on_inactive(store: &Store, now: Millis) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query(
        "UPDATE deliveries SET state = 'failed' WHERE state = 'pending' AND since < $1 \
         AND endpoint IN (SELECT id FROM webhook_endpoints WHERE active = 0)",
    )
    .bind(now.saturating_sub(millis(webhook::RETRY_FOR)))
    .execute(tx.connection())
    .await?;
    tx.commit().await
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
