//! API keys in the store: found by the hash of the key, never cached, so that a revoked one fails at the very next call.

use sqlx::Row as _;
use weir_shared::id::ProjectId;

use super::{Millis, Store, StoreError, Tx};
use crate::control::model::{ApiKey, Scope};

/// A key about to be kept.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub record: ApiKey,
    /// SHA-256 of the whole key, lower-case hexadecimal.
    pub hash: String,
}

const COLUMNS: &str = "SELECT id, project, name, prefix, scopes, created_at, revoked_at FROM api_keys";

impl Store {
    /// The key with this hash, revoked ones included.
    pub async fn key_by_hash(&self, hash: &str) -> Result<Option<ApiKey>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE hash = $1")))
            .bind(hash.to_owned())
            .fetch_optional(self.reader())
            .await?;
        row.as_ref().map(key).transpose()
    }

    /// Newest first, at most `limit`; with a project, only its own.
    pub async fn list_keys(&self, project: Option<&ProjectId>, limit: u32) -> Result<Vec<ApiKey>, StoreError> {
        let sql = format!("{COLUMNS} WHERE ($1 = '' OR project = $1) ORDER BY created_at DESC, id DESC LIMIT $2");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(project.map_or("", ProjectId::as_str).to_owned())
            .bind(i64::from(limit))
            .fetch_all(self.reader())
            .await?;
        rows.iter().map(key).collect()
    }

    /// Whether there was ever a key: a fresh database gets its first one printed.
    pub async fn has_keys(&self) -> Result<bool, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM (SELECT id FROM api_keys LIMIT 1) AS any_key")
            .fetch_one(self.reader())
            .await?;
        Ok(count > 0)
    }
}

impl Tx {
    pub async fn insert_key(&mut self, new: &NewKey) -> Result<(), StoreError> {
        let record = &new.record;
        sqlx::query(
            "INSERT INTO api_keys (id, project, name, hash, prefix, scopes, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(record.id.clone())
        .bind(record.project.as_ref().map(|p| p.as_str().to_owned()))
        .bind(record.name.clone())
        .bind(new.hash.clone())
        .bind(record.prefix.clone())
        .bind(record.scopes.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" "))
        .bind(record.created_at)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// False when the project has no such key. Revoking twice keeps the first moment.
    pub async fn revoke_key(&mut self, project: &ProjectId, id: &str, at: Millis) -> Result<bool, StoreError> {
        let revoked =
            sqlx::query("UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $1) WHERE id = $2 AND project = $3")
                .bind(at)
                .bind(id.to_owned())
                .bind(project.as_str().to_owned())
                .execute(self.connection())
                .await?;
        Ok(revoked.rows_affected() > 0)
    }

    /// The same for a key of any project, or of all: for the operator's command line.
    pub async fn revoke_any_key(&mut self, id: &str, at: Millis) -> Result<bool, StoreError> {
        let revoked = sqlx::query("UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $1) WHERE id = $2")
            .bind(at)
            .bind(id.to_owned())
            .execute(self.connection())
            .await?;
        Ok(revoked.rows_affected() > 0)
    }
}

fn key(row: &sqlx::any::AnyRow) -> Result<ApiKey, StoreError> {
    let project: Option<String> = row.try_get("project")?;
    let scopes: String = row.try_get("scopes")?;
    Ok(ApiKey {
        id: row.try_get("id")?,
        project: project.and_then(|name| name.parse().ok()),
        name: row.try_get("name")?,
        prefix: row.try_get("prefix")?,
        // A scope that a newer program granted means nothing to this one.
        scopes: scopes.split(' ').filter_map(|s| s.parse::<Scope>().ok()).collect(),
        created_at: row.try_get("created_at")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}
