//! Streams in the store: one document per stream, found by id, key, status, age and words.

use sqlx::{Any, AnyConnection, Arguments as _, AssertSqlSafe, Row as _, any::AnyArguments};
use weir_shared::id::{ProjectId, StreamId, StreamKey};

use super::{
    Lease, Millis, Store, StoreError, Tx, Vault,
    tally::{self, Move},
};
use crate::control::{lifecycle::Status, model::Stream};

/// Which streams to list.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    pub skip: u32,
    pub limit: u32,
    /// A word in name, id, key or client user id; letters' case does not matter.
    pub q: Option<String>,
    pub status: Option<Status>,
    /// Created at or after.
    pub from: Option<Millis>,
    /// Created before.
    pub to: Option<Millis>,
}

#[derive(Debug, Clone)]
pub struct Page {
    pub items: Vec<Stream>,
    /// How many match, on all pages together.
    pub total: u64,
}

impl Store {
    /// One page, newest first.
    pub async fn list_streams(&self, project: &ProjectId, listing: &Listing) -> Result<Page, StoreError> {
        let mut connection = self.reader().acquire().await?;
        let mut filter = Filter::new(project, listing)?;
        let limit = filter.value(i64::from(listing.limit))?;
        let skip = filter.value(i64::from(listing.skip))?;
        // The inner query walks an index; documents are read for this page only.
        let page = format!(
            "SELECT s.doc, s.secrets FROM streams s JOIN (SELECT id FROM streams WHERE {} ORDER BY created_at DESC, id DESC \
             LIMIT {limit} OFFSET {skip}) page ON page.id = s.id ORDER BY s.created_at DESC, s.id DESC",
            filter.condition
        );
        let rows = sqlx::query_with(AssertSqlSafe(page), filter.values)
            .fetch_all(&mut *connection)
            .await?;
        let items = rows
            .iter()
            .map(|row| document(row, &self.vault))
            .collect::<Result<Vec<_>, _>>()?;
        let total = match items.len() as u64 {
            // The last page: what was skipped and what is here is all there is.
            found if found < u64::from(listing.limit) && (found > 0 || listing.skip == 0) => {
                u64::from(listing.skip) + found
            }
            _ => total(&mut connection, project, listing).await?,
        };
        Ok(Page { items, total })
    }

    pub async fn stream(&self, project: &ProjectId, id: &StreamId) -> Result<Option<Stream>, StoreError> {
        let mut connection = self.reader().acquire().await?;
        stream(&mut connection, &self.vault, project, id).await
    }

    /// By its public name, whatever its project: for publishers and edges.
    pub async fn stream_by_key(&self, key: &StreamKey) -> Result<Option<Stream>, StoreError> {
        let mut connection = self.reader().acquire().await?;
        stream_by_key(&mut connection, &self.vault, key).await
    }

    /// Those of these keys that streams have.
    pub async fn streams_by_keys(&self, keys: &[StreamKey]) -> Result<Vec<Stream>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<_> = (1..=keys.len()).map(|n| format!("${n}")).collect();
        let sql = format!(
            "SELECT doc, secrets FROM streams WHERE stream_key IN ({})",
            places.join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for key in keys {
            query = query.bind(key.as_str().to_owned());
        }
        let rows = query.fetch_all(self.reader()).await?;
        rows.iter().map(|row| document(row, &self.vault)).collect()
    }

    /// The next streams of all projects after an id, in order of ids: for walking through all of them.
    pub async fn streams_after(&self, after: Option<&StreamId>, limit: u32) -> Result<Vec<Stream>, StoreError> {
        let rows = sqlx::query("SELECT doc, secrets FROM streams WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after.map_or("", |id| id.as_str()).to_owned())
            .bind(i64::from(limit))
            .fetch_all(self.reader())
            .await?;
        rows.iter().map(|row| document(row, &self.vault)).collect()
    }

    /// The next streams of a project in the order of its lists, newest first, after one that was read: for walking
    /// through all of them.
    pub async fn project_streams_after(
        &self,
        project: &ProjectId,
        after: Option<&Stream>,
        limit: u32,
    ) -> Result<Vec<Stream>, StoreError> {
        let rows = sqlx::query(
            "SELECT doc, secrets FROM streams WHERE project = $1 AND (created_at, id) < ($2, $3) \
             ORDER BY created_at DESC, id DESC LIMIT $4",
        )
        .bind(project.as_str().to_owned())
        .bind(after.map_or(Millis::MAX, |stream| stream.created_at))
        .bind(after.map_or("", |stream| stream.id.as_str()).to_owned())
        .bind(i64::from(limit))
        .fetch_all(self.reader())
        .await?;
        rows.iter().map(|row| document(row, &self.vault)).collect()
    }

    /// Streams of one project, of every status.
    pub async fn count_streams(&self, project: &ProjectId) -> Result<u64, StoreError> {
        let mut connection = self.reader().acquire().await?;
        tally::count(&mut connection, project, None).await
    }
}

impl Tx {
    pub async fn stream(&mut self, project: &ProjectId, id: &StreamId) -> Result<Option<Stream>, StoreError> {
        let vault = self.vault();
        stream(self.connection(), &vault, project, id).await
    }

    pub async fn stream_by_key(&mut self, key: &StreamKey) -> Result<Option<Stream>, StoreError> {
        let vault = self.vault();
        stream_by_key(self.connection(), &vault, key).await
    }

    pub async fn count_streams(&mut self, project: &ProjectId) -> Result<u64, StoreError> {
        tally::count(self.connection(), project, None).await
    }

    /// Adds a stream. [`StoreError::Taken`] when its id or key exists.
    pub async fn insert_stream(&mut self, stream: &Stream) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO streams (id, project, stream_key, status, search, version, created_at, updated_at, doc, secrets) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(stream.id.as_str().to_owned())
        .bind(stream.project.as_str().to_owned())
        .bind(stream.key.as_str().to_owned())
        .bind(stream.status().as_str())
        .bind(stream.search_text())
        .bind(stream.version)
        .bind(stream.created_at)
        .bind(stream.updated_at)
        .bind(serde_json::to_string(stream)?)
        .bind(secrets(stream, &self.vault)?)
        .execute(self.connection())
        .await?;
        self.unmark_removed(&stream.key).await?;
        self.tally(stream, Move::Added);
        self.note_version(&stream.key, stream.version);
        Ok(())
    }

    /// Writes a stream that was read at `stream.version`, and gives it the next one.
    /// [`StoreError::Conflict`] when somebody else was faster.
    pub async fn update_stream(&mut self, stream: &mut Stream, at: Millis) -> Result<(), StoreError> {
        let read_at = stream.version;
        let before = self.status_at(&stream.id, read_at).await?;
        stream.version = read_at.saturating_add(1);
        stream.updated_at = at;
        let written = sqlx::query(
            "UPDATE streams SET stream_key = $1, status = $2, search = $3, version = $4, updated_at = $5, doc = $6, \
             secrets = $7 WHERE id = $8 AND version = $9",
        )
        .bind(stream.key.as_str().to_owned())
        .bind(stream.status().as_str())
        .bind(stream.search_text())
        .bind(stream.version)
        .bind(at)
        .bind(serde_json::to_string(stream)?)
        .bind(secrets(stream, &self.vault)?)
        .bind(stream.id.as_str().to_owned())
        .bind(read_at)
        .execute(self.connection())
        .await?;
        if written.rows_affected() == 0 {
            return Err(StoreError::Conflict);
        }
        self.tally(stream, Move::From(before));
        self.note_version(&stream.key, stream.version);
        Ok(())
    }

    /// The same for the origin that publishes the stream: writes nothing, and says [`StoreError::NotOwner`], unless the
    /// lease is still the newest.
    pub async fn update_owned_stream(
        &mut self,
        lease: &Lease,
        stream: &mut Stream,
        at: Millis,
    ) -> Result<(), StoreError> {
        self.confirm_lease(lease).await?;
        self.update_stream(stream, at).await
    }

    /// The status that a version was written with. [`StoreError::Conflict`] when that version is no more.
    async fn status_at(&mut self, id: &StreamId, version: i64) -> Result<String, StoreError> {
        sqlx::query_scalar("SELECT status FROM streams WHERE id = $1 AND version = $2")
            .bind(id.as_str().to_owned())
            .bind(version)
            .fetch_optional(self.connection())
            .await?
            .ok_or(StoreError::Conflict)
    }

    /// Removes a stream, as it was read, and its lease. [`StoreError::Conflict`] when somebody else was faster.
    pub async fn remove_stream(&mut self, stream: &Stream, at: Millis) -> Result<(), StoreError> {
        let removed = sqlx::query("DELETE FROM streams WHERE id = $1 AND version = $2")
            .bind(stream.id.as_str().to_owned())
            .bind(stream.version)
            .execute(self.connection())
            .await?;
        if removed.rows_affected() == 0 {
            return Err(StoreError::Conflict);
        }
        sqlx::query("DELETE FROM slot_leases WHERE stream_key = $1")
            .bind(stream.key.as_str().to_owned())
            .execute(self.connection())
            .await?;
        self.tally(stream, Move::Removed);
        self.mark_removed(&stream.key, at).await
    }
}

/// A WHERE clause made of fixed text; everything that came from outside is bound.
struct Filter {
    condition: String,
    values: AnyArguments,
    bound: usize,
}

impl Filter {
    fn new(project: &ProjectId, listing: &Listing) -> Result<Self, StoreError> {
        let mut filter = Self {
            condition: String::new(),
            values: AnyArguments::default(),
            bound: 0,
        };
        filter.and("project =", project.as_str().to_owned())?;
        if let Some(status) = listing.status {
            filter.and("status =", status.as_str().to_owned())?;
        }
        if let Some(from) = listing.from {
            filter.and("created_at >=", from)?;
        }
        if let Some(to) = listing.to {
            filter.and("created_at <", to)?;
        }
        if let Some(q) = &listing.q {
            filter.and("search LIKE", containing(q))?;
            filter.condition.push_str(" ESCAPE '!'");
        }
        Ok(filter)
    }

    fn and<T>(&mut self, test: &str, value: T) -> Result<(), StoreError>
    where
        T: for<'q> sqlx::Encode<'q, Any> + sqlx::Type<Any>,
    {
        let placeholder = self.value(value)?;
        if !self.condition.is_empty() {
            self.condition.push_str(" AND ");
        }
        self.condition.push_str(&format!("{test} {placeholder}"));
        Ok(())
    }

    fn value<T>(&mut self, value: T) -> Result<String, StoreError>
    where
        T: for<'q> sqlx::Encode<'q, Any> + sqlx::Type<Any>,
    {
        self.values
            .add(value)
            .map_err(|error| StoreError::Database(sqlx::Error::Encode(error)))?;
        self.bound += 1;
        Ok(format!("${}", self.bound))
    }
}

/// A LIKE pattern for texts that contain this one.
fn containing(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.to_lowercase().chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

async fn stream(
    connection: &mut AnyConnection,
    vault: &Vault,
    project: &ProjectId,
    id: &StreamId,
) -> Result<Option<Stream>, StoreError> {
    let row = sqlx::query("SELECT doc, secrets FROM streams WHERE id = $1 AND project = $2")
        .bind(id.as_str().to_owned())
        .bind(project.as_str().to_owned())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(|row| document(row, vault)).transpose()
}

/// How many streams match, on all pages together.
async fn total(connection: &mut AnyConnection, project: &ProjectId, listing: &Listing) -> Result<u64, StoreError> {
    if listing.q.is_none() && listing.from.is_none() && listing.to.is_none() {
        return tally::count(connection, project, listing.status).await;
    }
    let filter = Filter::new(project, listing)?;
    let count = format!("SELECT COUNT(*) FROM streams WHERE {}", filter.condition);
    let total: i64 = sqlx::query_scalar_with(AssertSqlSafe(count), filter.values)
        .fetch_one(connection)
        .await?;
    Ok(u64::try_from(total).unwrap_or(0))
}

async fn stream_by_key(
    connection: &mut AnyConnection,
    vault: &Vault,
    key: &StreamKey,
) -> Result<Option<Stream>, StoreError> {
    let row = sqlx::query("SELECT doc, secrets FROM streams WHERE stream_key = $1")
        .bind(key.as_str().to_owned())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(|row| document(row, vault)).transpose()
}

/// A stream from its columns `doc` and `secrets`.
pub(in crate::control) fn document(row: &sqlx::any::AnyRow, vault: &Vault) -> Result<Stream, StoreError> {
    let (text, secrets): (String, String) = (row.try_get("doc")?, row.try_get("secrets")?);
    let mut stream: Stream = serde_json::from_str(&text)?;
    if !secrets.is_empty() {
        stream.credentials = serde_json::from_str(&vault.take_out(stream.id.as_str(), secrets)?)?;
    }
    Ok(stream)
}

/// What goes into the column `secrets`.
fn secrets(stream: &Stream, vault: &Vault) -> Result<String, StoreError> {
    vault.shut(stream.id.as_str(), serde_json::to_string(&stream.credentials)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_for_is_text_and_no_pattern() {
        assert_eq!(containing("50%_Off!"), "%50!%!_off!!%");
    }
}
