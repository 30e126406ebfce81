//! Deliveries in the database: what is due, whose turn it is, what became of it, and the log that shows it.
//!
//! Before this: `outbox.rs`. After this: `dispatch.rs`, which claims deliveries here and brings their outcome back.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{Row as _, any::AnyRow};
use utoipa::ToSchema;

use super::{Endpoint, EndpointId, Metrics, Outcome, endpoints::is_name, outbox};
use crate::control::{
    store::{Engine, Millis, Store, StoreError, Tx},
    webhook::{self, Verdict},
};

/// How long a claimed delivery is nobody else's: an attempt's timeout and room for the database to be slow. After a
/// crash it is tried again when this is over.
pub(super) const LEASE: Duration = Duration::from_secs(20);
/// Attempts that a delivery in the log shows, the newest.
const ATTEMPTS_SHOWN: i64 = 50;

/// Where a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Will be tried, or tried again.
    Pending,
    /// The endpoint answered with 2xx.
    Delivered,
    /// Not tried any more.
    Failed,
}

impl DeliveryState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    fn from_text(text: &str) -> Self {
        match text {
            "pending" => Self::Pending,
            "delivered" => Self::Delivered,
            _ => Self::Failed,
        }
    }
}

/// A delivery in the log of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub id: String,
    pub event_id: String,
    pub event_type: String,
    pub state: DeliveryState,
    pub created_at: Millis,
    /// While it is pending.
    pub next_at: Option<Millis>,
    pub redelivery_of: Option<String>,
    /// Oldest first; all of them, or the newest fifty.
    pub attempts: Vec<Attempt>,
}

/// One try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub number: i64,
    pub at: Millis,
    /// How long it took, in milliseconds.
    pub ms: i64,
    /// `None`: there was no answer; `error` says why.
    pub status: Option<i64>,
    pub error: Option<String>,
}

/// A delivery that is this process's to try now.
#[derive(Debug, Clone)]
pub(super) struct Claimed {
    pub(super) id: String,
    pub(super) endpoint: Endpoint,
    pub(super) event_type: String,
    pub(super) body: String,
    /// Tries that were made before.
    pub(super) attempts: i64,
    pub(super) since: Millis,
}

/// What became of a delivery after one more try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Delivered,
    /// Tried again at this time.
    Again(Millis),
    Failed,
}

/// The rule, pure: what an outcome at `now` means for a delivery that was tried `attempts` times before.
pub(super) fn after(outcome: &Outcome, since: Millis, attempts: i64, now: Millis, jitter: f64) -> After {
    let verdict = match &outcome.result {
        Ok(status) => webhook::verdict(*status),
        Err(_) => Verdict::Retry,
    };
    match verdict {
        Verdict::Delivered => After::Delivered,
        Verdict::GiveUp => After::Failed,
        Verdict::Retry => {
            let failures = u32::try_from(attempts.saturating_add(1)).unwrap_or(u32::MAX);
            webhook::next_attempt(since, failures, now, jitter).map_or(After::Failed, After::Again)
        }
    }
}

/// Endpoints that have something due, in no order.
pub(super) async fn endpoints_due(store: &Store, now: Millis) -> Result<Vec<Endpoint>, StoreError> {
    let rows = sqlx::query(
        "SELECT e.* FROM webhook_endpoints e WHERE e.active = 1 AND EXISTS (SELECT 1 FROM deliveries d \
         WHERE d.state = 'pending' AND d.endpoint = e.id AND d.next_at <= $1 AND d.lease_until <= $1)",
    )
    .bind(now)
    .fetch_all(store.reader())
    .await?;
    rows.iter().map(|row| Endpoint::from_row(row, store.vault())).collect()
}

/// Claims up to `limit` deliveries of an endpoint that are due, the longest waiting first.
pub(super) async fn claim(
    tx: &mut Tx,
    endpoint: &Endpoint,
    limit: usize,
    now: Millis,
) -> Result<Vec<Claimed>, StoreError> {
    let rows = sqlx::query(
        "SELECT d.id, d.attempts, d.since, v.kind, v.body FROM deliveries d JOIN events v ON v.seq = d.event_seq \
         WHERE d.state = 'pending' AND d.endpoint = $1 AND d.next_at <= $2 AND d.lease_until <= $2 \
         ORDER BY d.next_at, d.id LIMIT $3",
    )
    .bind(endpoint.id.as_str().to_owned())
    .bind(now)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(tx.connection())
    .await?;
    let lease = now.saturating_add(i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX));
    let mut claimed = Vec::with_capacity(rows.len());
    for row in rows {
        let id: String = row.try_get("id")?;
        // Another origin may have been faster.
        let mine = sqlx::query(
            "UPDATE deliveries SET lease_until = $1 WHERE id = $2 AND state = 'pending' AND lease_until <= $3",
        )
        .bind(lease)
        .bind(id.clone())
        .bind(now)
        .execute(tx.connection())
        .await?;
        if mine.rows_affected() == 1 {
            claimed.push(Claimed {
                id,
                endpoint: endpoint.clone(),
                event_type: row.try_get("kind")?,
                body: row.try_get("body")?,
                attempts: row.try_get("attempts")?,
                since: row.try_get("since")?,
            });
        }
    }
    Ok(claimed)
}

/// Writes down what became of a try, and what comes next.
pub(super) async fn finish(
    store: &Store,
    claimed: &Claimed,
    outcome: &Outcome,
    after: After,
    started: Millis,
) -> Result<(), StoreError> {
    let (state, next_at) = match after {
        After::Delivered => (DeliveryState::Delivered, started),
        After::Failed => (DeliveryState::Failed, started),
        After::Again(at) => (DeliveryState::Pending, at),
    };
    let number = claimed.attempts.saturating_add(1);
    let (status, error) = match &outcome.result {
        Ok(status) => (Some(i64::from(*status)), None),
        Err(failure) => (None, Some(failure.to_string())),
    };
    let mut tx = store.begin().await?;
    // Only from pending: a lease that ran out may have let another origin deliver it meanwhile.
    let written = sqlx::query(
        "UPDATE deliveries SET state = $1, attempts = $2, next_at = $3, lease_until = 0 \
         WHERE id = $4 AND state = 'pending' AND attempts = $5",
    )
    .bind(state.as_str())
    .bind(number)
    .bind(next_at)
    .bind(claimed.id.clone())
    .bind(claimed.attempts)
    .execute(tx.connection())
    .await?;
    if written.rows_affected() == 1 {
        sqlx::query(
            "INSERT INTO delivery_attempts (delivery, attempt, at, ms, status, error) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(claimed.id.clone())
        .bind(number)
        .bind(started)
        .bind(i64::try_from(outcome.took.as_millis()).unwrap_or(i64::MAX))
        .bind(status)
        .bind(error)
        .execute(tx.connection())
        .await?;
    }
    tx.commit().await
}

/// After a start on a database that is this node's alone: whatever was being tried is nobody's now.
pub(super) async fn reclaim(store: &Store) -> Result<(), StoreError> {
    if store.engine() == Engine::Sqlite {
        let mut tx = store.begin().await?;
        sqlx::query("UPDATE deliveries SET lease_until = 0 WHERE state = 'pending' AND lease_until > 0")
            .execute(tx.connection())
            .await?;
        tx.commit().await?;
    }
    Ok(())
}

/// How many deliveries wait.
pub(super) async fn count_pending(store: &Store) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar("SELECT COUNT(*) FROM deliveries WHERE state = 'pending'")
        .fetch_one(store.reader())
        .await?;
    Ok(count)
}

const LOG_COLUMNS: &str = "SELECT d.id, d.state, d.attempts, d.next_at, d.redelivery_of, d.created_at, v.id AS event_id, v.kind \
                           FROM deliveries d JOIN events v ON v.seq = d.event_seq WHERE d.endpoint = $1";

impl Delivery {
    /// A page of an endpoint's log, newest first, and how many there are in all.
    pub async fn list(
        store: &Store,
        endpoint: &EndpointId,
        skip: u32,
        limit: u32,
    ) -> Result<(Vec<Self>, u64), StoreError> {
        let total: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM deliveries WHERE endpoint = $1")
            .bind(endpoint.as_str().to_owned())
            .fetch_one(store.reader())
            .await?;
        let sql = format!("{LOG_COLUMNS} ORDER BY d.created_at DESC, d.id DESC LIMIT $2 OFFSET $3");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(endpoint.as_str().to_owned())
            .bind(i64::from(limit))
            .bind(i64::from(skip))
            .fetch_all(store.reader())
            .await?;
        let mut page = Vec::with_capacity(rows.len());
        for row in &rows {
            page.push(Self::from_row(store, row).await?);
        }
        Ok((page, u64::try_from(total).unwrap_or(0)))
    }

    /// One delivery of an endpoint.
    pub async fn get(store: &Store, endpoint: &EndpointId, id: &str) -> Result<Option<Self>, StoreError> {
        if !is_name(id) {
            return Ok(None);
        }
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{LOG_COLUMNS} AND d.id = $2")))
            .bind(endpoint.as_str().to_owned())
            .bind(id.to_owned())
            .fetch_optional(store.reader())
            .await?;
        match row {
            Some(row) => Self::from_row(store, &row).await.map(Some),
            None => Ok(None),
        }
    }

    /// Has the event of a delivery sent to its endpoint once more, as a delivery of its own. `None`: no such delivery.
    pub async fn redeliver(
        store: &Store,
        endpoint: &EndpointId,
        id: &str,
        at: Millis,
        metrics: &Metrics,
    ) -> Result<Option<(String, DeliveryState)>, StoreError> {
        if !is_name(id) {
            return Ok(None);
        }
        let mut tx = store.begin().await?;
        let seq: Option<i64> = sqlx::query_scalar("SELECT event_seq FROM deliveries WHERE endpoint = $1 AND id = $2")
            .bind(endpoint.as_str().to_owned())
            .bind(id.to_owned())
            .fetch_optional(tx.connection())
            .await?;
        let Some(seq) = seq else { return Ok(None) };
        let queued = outbox::enqueue(&mut tx, endpoint.as_str(), seq, Some(id), at, metrics).await?;
        tx.commit().await?;
        Ok(Some(queued))
    }

    async fn from_row(store: &Store, row: &AnyRow) -> Result<Self, StoreError> {
        let id: String = row.try_get("id")?;
        let state = DeliveryState::from_text(row.try_get::<String, _>("state")?.as_str());
        // Those that the row knows of: another one may have ended since it was read.
        let tried = sqlx::query(
            "SELECT attempt, at, ms, status, error FROM delivery_attempts WHERE delivery = $1 AND attempt <= $3 \
             ORDER BY attempt DESC LIMIT $2",
        )
        .bind(id.clone())
        .bind(ATTEMPTS_SHOWN)
        .bind(row.try_get::<i64, _>("attempts")?)
        .fetch_all(store.reader())
        .await?;
        let attempt = |row: &AnyRow| {
            Ok::<_, sqlx::Error>(Attempt {
                number: row.try_get("attempt")?,
                at: row.try_get("at")?,
                ms: row.try_get("ms")?,
                status: row.try_get("status")?,
                error: row.try_get("error")?,
            })
        };
        let next_at: i64 = row.try_get("next_at")?;
        Ok(Self {
            id,
            event_id: row.try_get::<String, _>("event_id")?,
            event_type: row.try_get("kind")?,
            state,
            created_at: row.try_get("created_at")?,
            next_at: (state == DeliveryState::Pending).then_some(next_at),
            redelivery_of: row.try_get("redelivery_of")?,
            attempts: tried.iter().rev().map(attempt).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Failure, *};

    fn outcome(result: Result<u16, Failure>) -> Outcome {
        Outcome {
            result,
            took: Duration::ZERO,
        }
    }

    #[test]
    fn an_outcome_decides_what_comes_next() {
        let day = 24 * 3_600_000;
        for (result, now, expected) in [
            (Ok(200), 0, After::Delivered),
            (Ok(410), 0, After::Failed),
            (Ok(301), 0, After::Again(5000)),
            (Err(Failure::Unreachable), 1000, After::Again(6000)),
            // A late success is one, a late failure the last.
            (Ok(204), day + 1, After::Delivered),
            (Ok(500), day, After::Failed),
            (Err(Failure::Timeout), day, After::Failed),
        ] {
            assert_eq!(
                after(&outcome(result.clone()), 0, 0, now, 1.0),
                expected,
                "{result:?} at {now}"
            );
        }
    }
}
