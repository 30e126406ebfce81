//! The event feed: a project's events as server-sent events, from wherever a reader left off.
//!
//! Before this: `delivery/kept.rs`, the events in the order in which they were committed. After this: a program or a
//! dashboard that reads along.
//!
//! A reader's place is a number in that order and nothing else. It pulls the next page from the database when it has
//! sent the last one, so a slow reader costs a page of memory, misses nothing and holds up nobody.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::response::sse::{Event as Message, KeepAlive, Sse};
use futures_util::{Stream, stream};
use prometheus::IntGauge;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast::error::RecvError, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use weir_shared::id::ProjectId;

use super::{
    delivery::{Kept, Metrics},
    events::EventId,
    store::{Store, StoreError},
};

/// Feeds open at once on one node. Later ones are told to come back.
pub const MAX_FEEDS: usize = 256;
/// Events read at once for one reader: what a slow one holds in memory.
const PAGE: u32 = 100;
/// How often a silent feed says that it is alive, so that nothing on the way closes it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After this a feed ends, and its reader comes back with a key that is checked anew.
const LONGEST_FEED: Duration = Duration::from_secs(15 * 60);
/// When a reader should come back, as it is told at the beginning.
const COME_BACK: Duration = Duration::from_secs(1);
/// How often events of other origins are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Pause after the database failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// All feeds of this node.
#[derive(Clone)]
pub struct Feeds {
    store: Store,
    /// The number of the newest event, of whatever project.
    newest: Arc<watch::Sender<i64>>,
    slots: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// Why there is no feed.
#[derive(Debug, thiserror::Error)]
pub enum NoFeed {
    #[error("{MAX_FEEDS} event feeds are open already")]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Feeds {
    /// Feeds that end with `stop`. They see news while [`Feeds::run`] runs.
    pub fn new(store: Store, metrics: Arc<Metrics>, stop: CancellationToken) -> Self {
        Self {
            store,
            newest: Arc::new(watch::channel(0).0),
            slots: Arc::new(Semaphore::new(MAX_FEEDS)),
            metrics,
            stop,
        }
    }

    /// Tells readers of news: at once of what this node commits, soon of what others do.
    pub async fn run(self) {
        let mut changes = self.store.changes();
        loop {
            match Kept::newest(&self.store).await {
                Ok(newest) => {
                    self.newest
                        .send_if_modified(|known| std::mem::replace(known, newest) != newest);
                }
                Err(error) => tracing::debug!(%error, "events can't be looked for"),
            }
            let look_at = Instant::now() + LOOK_EVERY;
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep_until(look_at) => {}
                told = changes.recv() => match told {
                    Ok(_) | Err(RecvError::Lagged(_)) => while changes.try_recv().is_ok() {},
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    /// A project's events after the one that was seen last; without one, from now on.
    pub async fn open(
        &self,
        project: &ProjectId,
        last_seen: Option<EventId>,
    ) -> Result<Sse<impl Stream<Item = Result<Message, Infallible>> + Send + use<>>, NoFeed> {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            self.metrics.feeds.with_label_values(&["shed"]).inc();
            return Err(NoFeed::TooMany);
        };
        let seq = match last_seen {
            Some(id) => Kept::position(&self.store, project.as_str(), id).await?,
            None => Kept::newest(&self.store).await?,
        };
        self.metrics.feeds.with_label_values(&["served"]).inc();
        self.metrics.feeds_open.inc();
        let reader = Reader {
            store: self.store.clone(),
            project: project.clone(),
            seq,
            page: VecDeque::new(),
            greeted: false,
            newest: self.newest.subscribe(),
            stop: self.stop.clone(),
            until: Instant::now() + LONGEST_FEED,
            _open: Open(self.metrics.feeds_open.clone()),
            _slot: slot,
        };
        let messages = stream::unfold(reader, async |mut reader| Some((Ok(reader.next().await?), reader)));
        Ok(Sse::new(messages).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
    }
}

/// Counts a feed as open until it is dropped.
struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One reader and its place.
struct Reader {
    store: Store,
    project: ProjectId,
    /// The last event that was read.
    seq: i64,
    page: VecDeque<Kept>,
    greeted: bool,
    newest: watch::Receiver<i64>,
    stop: CancellationToken,
    until: Instant,
    _open: Open,
    _slot: OwnedSemaphorePermit,
}

impl Reader {
    /// The next message; `None` ends the feed.
    async fn next(&mut self) -> Option<Message> {
        if !std::mem::replace(&mut self.greeted, true) {
            return Some(Message::default().retry(COME_BACK));
        }
        loop {
            if let Some(kept) = self.page.pop_front() {
                return Some(Message::default().id(kept.id).event(kept.kind).data(kept.body));
            }
            if self.stop.is_cancelled() || Instant::now() >= self.until {
                return None;
            }
            // News that come while the page is read are not missed: they change the watch again.
            self.newest.mark_unchanged();
            match Kept::after(&self.store, self.project.as_str(), self.seq, PAGE).await {
                Ok(page) if page.is_empty() => self.wait().await,
                Ok(page) => {
                    self.seq = page.last().map_or(self.seq, |last| last.seq);
                    self.page = page.into();
                }
                Err(error) => {
                    tracing::warn!(%error, "an event feed can't read on; trying again");
                    sleep(FAILURE_PAUSE).await;
                }
            }
        }
    }

    async fn wait(&mut self) {
        let left = self.until.saturating_duration_since(Instant::now());
        tokio::select! {
            () = self.stop.cancelled() => {}
            // The end of its time, or of the node, is looked at by the caller.
            _ = timeout(left, self.newest.changed()) => {}
        }
    }
}
