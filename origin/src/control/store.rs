//! The control plane's memory: SQLite on one machine, PostgreSQL shared by many origins, the same queries on both.
//!
//! A write is acknowledged only when it survives `kill -9`: SQLite runs with a write-ahead log and `synchronous=FULL`
//! (every commit is on the disk before it returns), PostgreSQL with its own default, `synchronous_commit=on`.
//!
//! Before this: `api/…` and `control.rs`. Never on the media path.

mod idempotency;
mod keys;
mod leases;
mod migrate;
mod projects;
mod recordings;
mod removed;
mod streams;
mod tally;
mod vault;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::{
    Any, AnyConnection, AnyPool, Executor as _, Transaction,
    any::{AnyConnectOptions, AnyPoolOptions},
};
use tokio::sync::broadcast;
use weir_shared::id::{ProjectId, StreamKey};

pub use idempotency::Replay;
pub use keys::NewKey;
pub use leases::{Claim, Lease};
pub use recordings::{RecordingRow, RecordingState};
pub use removed::REMOVED;
pub(in crate::control) use streams::document;
pub use streams::{Listing, Page};
pub use vault::{BadKeyFile, Vault};

/// Connections that read at once.
const READERS: u32 = 4;
/// Longest wait for a free connection, and for SQLite's single writer. Later: 503, and the caller may try again.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Changes a follower may be behind before it has to look at the whole table again.
const CHANGE_BACKLOG: usize = 4096;

/// Databases in memory this process has opened: each has a name of its own.
static MEMORIES: AtomicU64 = AtomicU64::new(0);

/// Milliseconds since 1970, as every time in the store.
pub type Millis = i64;

/// The wall clock, in the store's unit.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

/// Which database this is. Queries are the same; only the set-up of a connection differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// Why the store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("database: expected sqlite:<file>, sqlite::memory: or postgres://…")]
    Address,
    #[error("the database's schema can't be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// Trying again soon helps.
    #[error("the database is busy")]
    Busy,
    /// Another stream, key, plan or project has this name.
    #[error("the name is taken")]
    Taken,
    /// Somebody else changed the row in between.
    #[error("the stream was changed by somebody else at the same time")]
    Conflict,
    /// The lease has passed to another origin, or ran out: this one must not write.
    #[error("another origin owns the stream")]
    NotOwner,
    /// A row that this program did not write.
    #[error("a stored document can't be read: {0}")]
    Document(#[from] serde_json::Error),
    #[error("a secret can't be taken out: database.key_file is not the key that it was shut away with")]
    Locked,
    #[error("database: {0}")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::Database(told) if told.is_unique_violation() => Self::Taken,
            // SQLITE_BUSY and SQLITE_LOCKED, with their extended codes; PostgreSQL's serialization failures and deadlocks.
            sqlx::Error::Database(told) => match told.code().as_deref() {
                Some("5" | "6" | "261" | "517" | "40001" | "40P01") => Self::Busy,
                _ => Self::Database(error),
            },
            _ => Self::Database(error),
        }
    }
}

/// What followers of the store are told: after a commit of this process, and when `fleet.rs` saw what another one did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// By a unit of work of this process.
    Here {
        key: StreamKey,
        /// What was written. `None`: something else about the stream.
        version: Option<i64>,
    },
    /// By another origin.
    Elsewhere { key: StreamKey },
    /// What the streams of a project may have, here or elsewhere. Nothing that viewers or edges see.
    Limits {
        project: ProjectId,
        /// How often it was changed.
        version: i64,
    },
    /// More than could be kept up with: whatever is known has to be read again.
    Missed,
}

/// Clones share the connections.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Engine,
    readers: AnyPool,
    /// SQLite has one writer at a time: waiting in our queue beats failing in its.
    writers: AnyPool,
    /// One idle connection that nobody is given: a database in memory goes with its last connection, and a pool closes
    /// the connection of whoever gave up waiting for an answer.
    _keeper: Option<AnyPool>,
    changes: broadcast::Sender<Changed>,
    vault: Vault,
}

/// A unit of work: all of it happens, or nothing. Dropped without [`Tx::commit`], nothing.
pub struct Tx {
    inner: Transaction<'static, Any>,
    /// Streams, each with the version that was written.
    changed: BTreeMap<StreamKey, Option<i64>>,
    /// Projects whose limits were changed, each with the change's number.
    limits_changed: BTreeMap<ProjectId, i64>,
    tally: tally::Tally,
    changes: broadcast::Sender<Changed>,
    vault: Vault,
}

impl Store {
    /// Opens the database, creates it if it is a file that is not there, and brings its schema up to date.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let engine = match url.split_once(':') {
            Some(("sqlite", _)) => Engine::Sqlite,
            Some(("postgres" | "postgresql", _)) => Engine::Postgres,
            _ => return Err(StoreError::Address),
        };
        let in_memory = engine == Engine::Sqlite && url.contains(":memory:");
        let created = match engine {
            // `:memory:` would be another database for each connection; under a name of this file system in memory it is
            // one for all of this store.
            Engine::Sqlite if in_memory => {
                let number = MEMORIES.fetch_add(1, Ordering::Relaxed);
                format!("sqlite:/weir-{number}?vfs=memdb&mode=rwc")
            }
            Engine::Sqlite if !url.contains('?') => format!("{url}?mode=rwc"),
            _ => url.to_owned(),
        };
        // The message of a bad address may hold its password.
        let options: AnyConnectOptions = created.parse().map_err(|_| StoreError::Address)?;
        let keeper = match in_memory {
            true => Some(pool(engine, in_memory, 1).connect_with(options.clone()).await?),
            false => None,
        };
        let writers = pool(engine, in_memory, if engine == Engine::Sqlite { 1 } else { READERS })
            .connect_with(options.clone())
            .await?;
        migrate::migrator().run(&writers).await?;
        let readers = match engine {
            // Nothing to win: a database in memory has no log to read beside its writer.
            Engine::Sqlite if in_memory => writers.clone(),
            Engine::Postgres => writers.clone(),
            Engine::Sqlite => pool(engine, in_memory, READERS).connect_with(options).await?,
        };
        let store = Self {
            engine,
            readers,
            writers,
            _keeper: keeper,
            changes: broadcast::channel(CHANGE_BACKLOG).0,
            vault: Vault::open(),
        };
        store.seed().await?;
        Ok(store)
    }

    /// Secrets are encrypted from now on.
    pub fn with_vault(self, vault: Vault) -> Self {
        Self { vault, ..self }
    }

    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// For queries that only read.
    pub fn reader(&self) -> &AnyPool {
        &self.readers
    }

    /// Starts a unit of work.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        // SQLite takes its write lock at once: a lock that is taken later can fail without having waited.
        let inner = match self.engine {
            Engine::Sqlite => self.writers.begin_with("BEGIN IMMEDIATE").await?,
            Engine::Postgres => self.writers.begin().await?,
        };
        Ok(Tx {
            inner,
            changed: BTreeMap::new(),
            limits_changed: BTreeMap::new(),
            tally: tally::Tally::new(),
            changes: self.changes.clone(),
            vault: self.vault.clone(),
        })
    }

    /// What changed. A receiver that lags reads the tables again.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    /// Tells followers of what another process did.
    pub fn tell(&self, changed: Changed) {
        // Nobody may be following.
        let _ = self.changes.send(changed);
    }

    /// Waits for connections in use, then closes them.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
    }
}

impl Tx {
    /// For a module's own queries inside this unit of work: `sqlx::query(…).execute(tx.connection())`.
    pub fn connection(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }

    pub fn vault(&self) -> Vault {
        self.vault.clone()
    }

    /// Followers hear of this stream once the work is committed.
    pub fn note_change(&mut self, key: &StreamKey) {
        self.changed.entry(key.clone()).or_default();
    }

    fn note_version(&mut self, key: &StreamKey, version: i64) {
        self.changed.insert(key.clone(), Some(version));
    }

    /// Makes it so. When this returns, the work survives a crash.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        self.write_tally().await?;
        self.inner.commit().await?;
        for (key, version) in self.changed {
            // Nobody may be following.
            let _ = self.changes.send(Changed::Here { key, version });
        }
        for (project, version) in self.limits_changed {
            let _ = self.changes.send(Changed::Limits { project, version });
        }
        Ok(())
    }
}

fn pool(engine: Engine, in_memory: bool, connections: u32) -> AnyPoolOptions {
    let pool = AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                if engine == Engine::Sqlite {
                    connection
                        .execute(
                            "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                             PRAGMA foreign_keys = ON; PRAGMA cache_size = -4096;",
                        )
                        .await?;
                }
                Ok(())
            })
        });
    match in_memory {
        // The database lives as long as a connection to it.
        true => pool.min_connections(1).idle_timeout(None).max_lifetime(None),
        false => pool,
    }
}

#[cfg(test)]
mod tests;
