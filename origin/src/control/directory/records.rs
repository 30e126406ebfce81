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
    store::{Millis, Store, StoreError, Vault, document},
};

/// The records of those of the keys that streams have.
pub(super) async fn read(store: &Store, keys: &[StreamKey], now: Millis) -> Result<Vec<StreamRecord>, StoreError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let places: Vec<_> = (2..keys.len() + 2).map(|n| format!("${n}")).collect();
    let sql = format!(
        "SELECT s.doc, s.secrets, np.url AS primary_url, nb.url AS backup_url, \
         (SELECT MAX(r.name) FROM recordings r WHERE r.stream_key = s.stream_key AND r.state <> 'deleting') AS recording \
         FROM streams s \
         LEFT JOIN slot_leases p ON p.stream_key = s.stream_key AND p.slot = 'primary' AND p.expires_at > $1 \
         LEFT JOIN slot_leases b ON b.stream_key = s.stream_key AND b.slot = 'backup' AND b.expires_at > $1 \
         LEFT JOIN nodes np ON np.name = p.owner LEFT JOIN nodes nb ON nb.name = b.owner \
         WHERE s.stream_key IN ({})",
        places.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql)).bind(now);
    for key in keys {
        query = query.bind(key.as_str().to_owned());
    }
    let rows = query.fetch_all(store.reader()).await?;
    let mut records: Vec<StreamRecord> = rows
        .iter()
        .map(|row| record(row, store.vault()))
        .collect::<Result<_, _>>()?;
    let removed: Vec<&StreamKey> = keys
        .iter()
        .filter(|key| !records.iter().any(|record| record.key == **key))
        .collect();
    for key in removed {
        records.extend(of_removed(store, key).await?);
    }
    Ok(records)
}

/// The record of a stream that is gone and has recordings: they stay playable, under the rules that held at its end.
async fn of_removed(store: &Store, key: &StreamKey) -> Result<Option<StreamRecord>, StoreError> {
    let row = sqlx::query(
        "SELECT name, changed_at, signed, playback_secret FROM recordings WHERE stream_key = $1 \
         AND state <> 'deleting' ORDER BY name DESC LIMIT 1",
    )
    .bind(key.as_str().to_owned())
    .fetch_optional(store.reader())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let signed: i64 = row.try_get("signed")?;
    let secret = store.vault().take_out(key.as_str(), row.try_get("playback_secret")?)?;
    Ok(Some(StreamRecord {
        key: key.clone(),
        version: RecordVersion {
            changed_at: row.try_get("changed_at")?,
            number: 0,
        },
        status: Status::Disabled,
        active: false,
        backstage: false,
        origins: Origins::default(),
        signed_playback: signed != 0,
        playback_secrets: vec![PlaybackSecret::new(secret)],
        limits: Limits::default(),
        recording: Some(row.try_get("name")?),
    }))
}

fn record(row: &AnyRow, vault: &Vault) -> Result<StreamRecord, StoreError> {
    let owners = owners(row.try_get("primary_url")?, row.try_get("backup_url")?);
    Ok(StreamRecord {
        recording: row.try_get("recording")?,
        ..of(&document(row, vault)?, owners)
    })
}

/// Who has the media, from who owns which slot: often one origin has both.
fn owners(primary: Option<String>, backup: Option<String>) -> Origins {
    match (primary, backup) {
        (Some(primary), backup) => Origins {
            backup: backup.filter(|backup| *backup != primary),
            primary: Some(primary),
        },
        (None, only) => Origins {
            primary: only,
            backup: None,
        },
    }
}

/// What edges have to know of a stream whose media these origins have.
pub fn of(stream: &Stream, origins: Origins) -> StreamRecord {
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
        origins,
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
