//! Records as edges know them, read from the store; and the table of the fleet's origins, which says where each one is.
//!
//! Before this: `directory.rs`. After this: `store/…`.

use sqlx::{AssertSqlSafe, Row as _, any::AnyRow};
use weir_shared::{
    directory::{Limits, Origins, PlaybackSecret, RecordVersion, Status, StreamRecord},
    id::StreamKey,
};

use crate::control::{
    lifecycle,
    model::Stream,
    store::{Millis, Store, StoreError},
};

/// The records of those of the keys that streams have.
pub(super) async fn read(store: &Store, keys: &[StreamKey], now: Millis) -> Result<Vec<StreamRecord>, StoreError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let places: Vec<_> = (2..keys.len() + 2).map(|n| format!("${n}")).collect();
    let sql = format!(
        "SELECT s.doc, n.url FROM streams s \
         LEFT JOIN leases l ON l.stream_key = s.stream_key AND l.expires_at > $1 \
         LEFT JOIN nodes n ON n.name = l.owner WHERE s.stream_key IN ({})",
        places.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql)).bind(now);
    for key in keys {
        query = query.bind(key.as_str().to_owned());
    }
    let rows = query.fetch_all(store.reader()).await?;
    rows.iter().map(record).collect()
}

fn record(row: &AnyRow) -> Result<StreamRecord, StoreError> {
    let doc: String = row.try_get("doc")?;
    let owner: Option<String> = row.try_get("url")?;
    Ok(of(&serde_json::from_str(&doc)?, owner))
}

/// What edges have to know of a stream whose broadcast belongs to the origin at `owner`.
pub fn of(stream: &Stream, owner: Option<String>) -> StreamRecord {
    let (state, settings) = (&stream.state, &stream.settings);
    StreamRecord {
        key: stream.key.clone(),
        version: RecordVersion {
            changed_at: stream.updated_at,
            number: stream.version,
        },
        status: match stream.status() {
            lifecycle::Status::Idle => Status::Idle,
            lifecycle::Status::Live => Status::Live,
            lifecycle::Status::Disabled => Status::Disabled,
        },
        active: state.active,
        backstage: stream.status() == lifecycle::Status::Live && !state.broadcasting,
        origins: Origins {
            primary: owner,
            backup: None,
        },
        signed_playback: settings.signed_playback,
        playback_secrets: std::iter::once(&stream.credentials.playback_secret)
            .chain(&stream.credentials.previous_playback_secret)
            .map(PlaybackSecret::new)
            .collect(),
        limits: Limits {
            dvr_seconds: if settings.dvr_enabled { settings.dvr_duration } else { 0 },
        },
        recording: None,
    }
}

/// Tells the fleet where this node's media is.
pub(super) async fn announce(store: &Store, name: &str, url: &str, now: Millis) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query(
        "INSERT INTO nodes (name, url, seen_at) VALUES ($1, $2, $3) \
         ON CONFLICT (name) DO UPDATE SET url = excluded.url, seen_at = excluded.seen_at",
    )
    .bind(name.to_owned())
    .bind(url.to_owned())
    .bind(now)
    .execute(tx.connection())
    .await?;
    tx.commit().await
}

/// Key and version of the streams that changed at or after a moment, oldest change first; at most `limit`.
pub(super) async fn changed_since(
    store: &Store,
    since: Millis,
    limit: u32,
) -> Result<Vec<(StreamKey, i64, Millis)>, StoreError> {
    let rows = sqlx::query(
        "SELECT stream_key, version, updated_at FROM streams WHERE updated_at >= $1 ORDER BY updated_at LIMIT $2",
    )
    .bind(since)
    .bind(i64::from(limit))
    .fetch_all(store.reader())
    .await?;
    let mut changed = Vec::with_capacity(rows.len());
    for row in &rows {
        let key: String = row.try_get("stream_key")?;
        // A name that this program could not have written is nobody's.
        if let Ok(key) = key.parse() {
            changed.push((key, row.try_get("version")?, row.try_get("updated_at")?));
        }
    }
    Ok(changed)
}
