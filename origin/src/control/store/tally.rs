//! How many streams there are of each status, kept up to date with every write: lists of 100 000 streams say their total
//! without counting them.

use std::collections::BTreeMap;

use sqlx::AnyConnection;
use weir_shared::id::ProjectId;

use super::{StoreError, Tx};
use crate::control::{lifecycle::Status, model::Stream};

/// Rows that one project and status are spread over: PostgreSQL's writers wait only for others in the same slot.
const SLOTS: u64 = 16;

/// What a write does to the counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Move {
    Added,
    Removed,
    /// It had this status before.
    From(String),
}

/// What a unit of work will add to which count: (project, status, slot).
pub(super) type Tally = BTreeMap<(String, String, i64), i64>;

impl Tx {
    /// `stream` is as the write leaves it, or as it was when it is removed.
    pub(super) fn tally(&mut self, stream: &Stream, movement: Move) {
        let now = stream.status().as_str().to_owned();
        let changes = match movement {
            Move::Added => vec![(now, 1)],
            Move::Removed => vec![(now, -1)],
            Move::From(before) if before == now => return,
            Move::From(before) => vec![(before, -1), (now, 1)],
        };
        let slot = slot(stream.id.as_str());
        for (status, n) in changes {
            *self
                .tally
                .entry((stream.project.to_string(), status, slot))
                .or_default() += n;
        }
    }

    /// Before the commit. Everybody takes the rows in the same order, so nobody waits in a circle.
    pub(super) async fn write_tally(&mut self) -> Result<(), StoreError> {
        for ((project, status, slot), n) in std::mem::take(&mut self.tally) {
            if n == 0 {
                continue;
            }
            sqlx::query(
                "INSERT INTO stream_counts (project, status, slot, n) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (project, status, slot) DO UPDATE SET n = stream_counts.n + excluded.n",
            )
            .bind(project)
            .bind(status)
            .bind(slot)
            .bind(n)
            .execute(self.connection())
            .await?;
        }
        Ok(())
    }
}

/// The same for a stream's whole life.
fn slot(id: &str) -> i64 {
    let sum: u64 = id.bytes().map(u64::from).sum();
    i64::try_from(sum % SLOTS).unwrap_or(0)
}

pub(super) async fn count(
    connection: &mut AnyConnection,
    project: &ProjectId,
    status: Option<Status>,
) -> Result<u64, StoreError> {
    // PostgreSQL's SUM of BIGINT is NUMERIC, which has no common type with SQLite's.
    let sum: i64 = sqlx::query_scalar(
        "SELECT CAST(COALESCE(SUM(n), 0) AS BIGINT) FROM stream_counts WHERE project = $1 AND ($2 = '' OR status = $2)",
    )
    .bind(project.as_str().to_owned())
    .bind(status.map_or("", Status::as_str))
    .fetch_one(connection)
    .await?;
    Ok(u64::try_from(sum).unwrap_or(0))
}
