//! What this edge knows of streams: records of the fleet's directory ([`weir_shared::directory`]), kept fresh by one
//! long poll.
//!
//! Before this: `handle.rs`, with a stream's key. After this: `directory/client.rs` (any configured origin). Beside this:
//! `directory/follow.rs`, the long poll, and `upstream.rs`, which asks where a stream's media is.
//!
//! While no origin answers, what is known goes on being used: viewers of running streams notice nothing. Unknown keys are
//! remembered for a moment, so that made-up ones do not reach an origin each time.

mod client;
mod follow;

use std::{sync::Arc, time::Duration};

use moka::{future::Cache, policy::EvictionPolicy};
use tokio::{runtime::Handle, sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;
use weir_shared::{
    directory::{Page, StreamRecord, ViewersReport},
    id::StreamKey,
};

use crate::{config, metrics::Metrics};
use client::Client;

pub use client::BadAuthority;

/// Longest wait for a record that is not known yet.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Records asked for at once.
const MAX_FETCHES: usize = 256;
/// How long an unknown key stays unknown. A stream that is made meanwhile is heard of by the long poll.
const UNKNOWN_LIFE: Duration = Duration::from_secs(5);
/// Unknown keys remembered.
const UNKNOWN_ENTRIES: u64 = 10_000;
/// How long news is held against answers that were under way when it came: longer than [`FETCH_TIMEOUT`].
const NEWS_LIFE: Duration = Duration::from_secs(10);
/// News held.
const NEWS_ENTRIES: u64 = 20_000;

/// Why there is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRecord {
    #[error("there is no such stream")]
    Unknown,
    #[error("no origin answers questions about streams")]
    Unavailable,
    #[error("too many unknown streams are asked for at once")]
    Busy,
}

/// The records of this edge.
pub struct Directory {
    records: Cache<StreamKey, Arc<StreamRecord>>,
    unknown: Cache<StreamKey, ()>,
    /// What the long poll said lately; `None`: the stream is gone.
    news: Cache<StreamKey, Option<Arc<StreamRecord>>>,
    fetches: Semaphore,
    opens_unknown: bool,
    client: Client,
    metrics: Arc<Metrics>,
    /// Where origins are asked.
    threads: Handle,
}

impl Directory {
    /// Reads the certificate authority's file, if one is configured.
    pub fn new(config: &config::Directory, metrics: Arc<Metrics>) -> Result<Arc<Self>, BadAuthority> {
        Ok(Arc::new(Self {
            records: Cache::builder()
                .max_capacity(config.max_records)
                // A stream that begins has no history, and must not lose against an old one for that.
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            unknown: Cache::builder()
                .max_capacity(UNKNOWN_ENTRIES)
                .time_to_live(UNKNOWN_LIFE)
                .build(),
            news: Cache::builder()
                .max_capacity(NEWS_ENTRIES)
                .time_to_live(NEWS_LIFE)
                .build(),
            fetches: Semaphore::new(MAX_FETCHES),
            opens_unknown: config.unknown == config::Unknown::Open,
            client: Client::new(config)?,
            metrics,
            threads: Handle::current(),
        }))
    }

    /// Keeps what is known fresh until the stop.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow::run(&self) => {}
        }
    }

    /// Tells the origins how many watch here.
    pub async fn tell_viewers(&self, report: &ViewersReport) {
        let Ok(text) = serde_json::to_vec(report) else { return };
        self.client
            .tell_viewers(text.into(), Instant::now() + FETCH_TIMEOUT)
            .await;
    }

    /// What is known of a stream; asks for it if nothing is.
    pub async fn record(self: &Arc<Self>, key: &StreamKey) -> Result<Arc<StreamRecord>, NoRecord> {
        if let Some(known) = self.records.get(key).await {
            self.count("hit");
            return Ok(known);
        }
        if self.unknown.get(key).await.is_some() {
            self.count("negative");
            return Err(NoRecord::Unknown);
        }
        // A viewer who leaves cancels nothing: others may be waiting for the same record.
        let (directory, key) = (self.clone(), key.clone());
        let fetched = self.threads.spawn(async move { directory.fetch(&key).await });
        let found = fetched.await.unwrap_or(Err(NoRecord::Unavailable));
        self.count(match &found {
            Ok(_) => "fetched",
            Err(NoRecord::Unknown) => "unknown",
            Err(NoRecord::Unavailable) => "failed",
            Err(NoRecord::Busy) => "shed",
        });
        found
    }

    /// Whether streams that have no record are open to all.
    pub const fn opens_unknown(&self) -> bool {
        self.opens_unknown
    }

    /// What is known of a stream already.
    pub async fn known_record(&self, key: &StreamKey) -> Option<Arc<StreamRecord>> {
        self.records.get(key).await
    }

    async fn fetch(&self, key: &StreamKey) -> Result<Arc<StreamRecord>, NoRecord> {
        let fetched = self.records.try_get_with(key.clone(), self.ask(key)).await;
        let fetched = fetched.map_err(|why| *why)?;
        // The answer may have been under way when the long poll told of something newer.
        match self.news.get(key).await {
            Some(None) => {
                self.records.invalidate(key).await;
                Err(NoRecord::Unknown)
            }
            Some(Some(newer)) if newer.version > fetched.version => {
                self.records.insert(key.clone(), newer.clone()).await;
                Ok(newer)
            }
            _ => Ok(fetched),
        }
    }

    async fn ask(&self, key: &StreamKey) -> Result<Arc<StreamRecord>, NoRecord> {
        let Ok(_slot) = self.fetches.try_acquire() else {
            self.metrics.shed.with_label_values(&["directory"]).inc();
            return Err(NoRecord::Busy);
        };
        let page = self
            .client
            .ask_any(&format!("key={key}"), Instant::now() + FETCH_TIMEOUT)
            .await
            .map_err(|_| NoRecord::Unavailable)?;
        match page.records.into_iter().find(|record| record.key == *key) {
            Some(record) => Ok(Arc::new(record)),
            None => {
                self.unknown.insert(key.clone(), ()).await;
                Err(NoRecord::Unknown)
            }
        }
    }

    /// Takes over what a page says about streams that are known here.
    async fn apply(&self, page: Page) {
        for record in page.records {
            let (key, record) = (record.key.clone(), Arc::new(record));
            self.news.insert(key.clone(), Some(record.clone())).await;
            self.unknown.invalidate(&key).await;
            // Nobody asked for it here: whoever does gets it then.
            let known = self.records.get(&key).await;
            if known.is_some_and(|known| known.version <= record.version) {
                self.records.insert(key, record).await;
            }
        }
        for key in page.unknown {
            self.news.insert(key.clone(), None).await;
            self.records.invalidate(&key).await;
            self.unknown.insert(key, ()).await;
        }
    }

    fn known(&self) -> Vec<StreamKey> {
        self.records.iter().map(|(key, _)| (*key).clone()).collect()
    }

    fn count(&self, result: &'static str) {
        self.metrics.directory_lookups.with_label_values(&[result]).inc();
    }
}
