//! Who wants to be told: a project's webhook endpoints.
//!
//! Before this: `api_webhooks.rs`, which checks what it is given. After this: `outbox.rs` and `queue.rs`.

use std::fmt;

use sqlx::{Row as _, any::AnyRow};
use weir_shared::id::ProjectId;

use super::fresh_id;
use crate::control::{
    events::Filter,
    store::{Millis, Store, StoreError, Tx, Vault},
    webhook::Secret,
};

/// Endpoints that a project may have.
pub const ENDPOINTS_PER_PROJECT: i64 = 16;

/// An endpoint's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(String);

impl EndpointId {
    /// `None`: no endpoint can have this name.
    pub fn parse(text: &str) -> Option<Self> {
        is_name(text).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a text could be an id of ours: others are not looked for.
pub(super) fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    text.len() <= 64 && text.bytes().all(plain)
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A webhook endpoint as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub id: EndpointId,
    pub project: ProjectId,
    /// Checked by [`Destination::parse`](crate::control::guard::Destination::parse) when it was set, and again at
    /// each delivery.
    pub url: String,
    pub description: String,
    pub filter: Filter,
    pub secret: Secret,
    pub active: bool,
    pub created_at: Millis,
    pub updated_at: Millis,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a secret of the receiver's.
        f.debug_struct("Endpoint").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why an endpoint was not added.
#[derive(Debug, thiserror::Error)]
pub enum NotAdded {
    #[error("the project has {ENDPOINTS_PER_PROJECT} webhook endpoints, no more are possible")]
    TooMany,
    #[error("there is no such project")]
    NoProject,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Endpoint {
    /// An endpoint that is not kept yet, with a secret of its own.
    pub fn new(project: ProjectId, url: String, at: Millis) -> Self {
        Self {
            id: EndpointId(format!("whk_{}", fresh_id(at).replace('-', ""))),
            project,
            url,
            description: String::new(),
            filter: Filter::all(),
            secret: Secret::new(rand::random()),
            active: true,
            created_at: at,
            updated_at: at,
        }
    }

    pub async fn add(&self, store: &Store) -> Result<(), NotAdded> {
        let mut tx = store.begin().await?;
        // Two at once can't both see room: on SQLite there is one writer, on PostgreSQL the project's row is locked.
        let project = sqlx::query("UPDATE projects SET name = name WHERE id = $1")
            .bind(self.project.as_str().to_owned())
            .execute(tx.connection())
            .await
            .map_err(StoreError::from)?;
        if project.rows_affected() == 0 {
            return Err(NotAdded::NoProject);
        }
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM webhook_endpoints WHERE project = $1")
            .bind(self.project.as_str().to_owned())
            .fetch_one(tx.connection())
            .await
            .map_err(StoreError::from)?;
        if count >= ENDPOINTS_PER_PROJECT {
            return Err(NotAdded::TooMany);
        }
        self.insert(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    async fn insert(&self, tx: &mut Tx) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO webhook_endpoints (id, project, url, description, filter, secret, active, created_at, \
             updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(self.id.as_str().to_owned())
        .bind(self.project.as_str().to_owned())
        .bind(self.url.clone())
        .bind(self.description.clone())
        .bind(self.filter.to_text())
        .bind(tx.vault().shut(self.id.as_str(), self.secret.reveal().to_owned())?)
        .bind(i64::from(self.active))
        .bind(self.created_at)
        .bind(self.updated_at)
        .execute(tx.connection())
        .await?;
        Ok(())
    }

    /// Reads an endpoint, lets `change` change it and keeps what it made. `None`: no such endpoint.
    pub async fn update(
        store: &Store,
        project: &ProjectId,
        id: &EndpointId,
        at: Millis,
        change: impl FnOnce(&mut Self),
    ) -> Result<Option<Self>, StoreError> {
        let mut tx = store.begin().await?;
        // Written before it is read: two changes at once wait for one another.
        let touched = sqlx::query("UPDATE webhook_endpoints SET updated_at = $1 WHERE id = $2 AND project = $3")
            .bind(at)
            .bind(id.as_str().to_owned())
            .bind(project.as_str().to_owned())
            .execute(tx.connection())
            .await?;
        if touched.rows_affected() == 0 {
            return Ok(None);
        }
        let row = sqlx::query("SELECT * FROM webhook_endpoints WHERE id = $1")
            .bind(id.as_str().to_owned())
            .fetch_one(tx.connection())
            .await?;
        let mut endpoint = Self::from_row(&row, &tx.vault())?;
        change(&mut endpoint);
        sqlx::query(
            "UPDATE webhook_endpoints SET url = $1, description = $2, filter = $3, secret = $4, active = $5 \
             WHERE id = $6",
        )
        .bind(endpoint.url.clone())
        .bind(endpoint.description.clone())
        .bind(endpoint.filter.to_text())
        .bind(tx.vault().shut(id.as_str(), endpoint.secret.reveal().to_owned())?)
        .bind(i64::from(endpoint.active))
        .bind(id.as_str().to_owned())
        .execute(tx.connection())
        .await?;
        tx.commit().await?;
        Ok(Some(endpoint))
    }

    pub async fn get(store: &Store, project: &ProjectId, id: &EndpointId) -> Result<Option<Self>, StoreError> {
        let row = sqlx::query("SELECT * FROM webhook_endpoints WHERE id = $1 AND project = $2")
            .bind(id.as_str().to_owned())
            .bind(project.as_str().to_owned())
            .fetch_optional(store.reader())
            .await?;
        row.as_ref().map(|row| Self::from_row(row, store.vault())).transpose()
    }

    /// All of a project's, newest first.
    pub async fn list(store: &Store, project: &ProjectId) -> Result<Vec<Self>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM webhook_endpoints WHERE project = $1 ORDER BY created_at DESC, id DESC LIMIT $2",
        )
        .bind(project.as_str().to_owned())
        .bind(ENDPOINTS_PER_PROJECT)
        .fetch_all(store.reader())
        .await?;
        rows.iter().map(|row| Self::from_row(row, store.vault())).collect()
    }

    /// Removes an endpoint with its log and whatever waits for it. False: no such endpoint.
    pub async fn remove(store: &Store, project: &ProjectId, id: &EndpointId) -> Result<bool, StoreError> {
        let mut tx = store.begin().await?;
        let removed = sqlx::query("DELETE FROM webhook_endpoints WHERE id = $1 AND project = $2")
            .bind(id.as_str().to_owned())
            .bind(project.as_str().to_owned())
            .execute(tx.connection())
            .await?;
        tx.commit().await?;
        Ok(removed.rows_affected() > 0)
    }

    pub(super) fn from_row(row: &AnyRow, vault: &Vault) -> Result<Self, StoreError> {
        let id: String = row.try_get("id")?;
        let secret = vault.take_out(&id, row.try_get("secret")?)?;
        let project: String = row.try_get("project")?;
        Ok(Self {
            id: EndpointId(id),
            project: project.parse().map_err(unreadable)?,
            url: row.try_get("url")?,
            description: row.try_get("description")?,
            filter: Filter::from_text(&row.try_get::<String, _>("filter")?),
            secret: Secret::parse(&secret).map_err(unreadable)?,
            active: row.try_get::<i64, _>("active")? != 0,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

/// A row that this program did not write.
fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Database(sqlx::Error::Decode(Box::new(error)))
}
