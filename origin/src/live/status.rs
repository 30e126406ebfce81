//! What others are told of a stream's ingest: its state, which slots send, and why that changed.
//!
//! Before this: `live/pipeline.rs`, its only writer. After this: the control plane, by way of
//! [`Registry::watch_status`](super::registry::Registry::watch_status).

use std::time::SystemTime;

use tokio::sync::{broadcast, watch};
use weir_shared::id::StreamKey;

use super::lifecycle::State;

/// Changes that a listener may be behind; one that is slower misses some and is told so by its receiver.
pub const STATUS_QUEUE: usize = 1024;

/// A stream's ingest at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    /// The primary slot sends.
    pub live: bool,
    /// The backup slot sends.
    pub backup_live: bool,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            state: State::Idle,
            live: false,
            backup_live: false,
        }
    }
}

/// A stream's status has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusChange {
    pub key: StreamKey,
    pub state: State,
    /// The primary slot sends.
    pub live: bool,
    /// The backup slot sends.
    pub backup_live: bool,
    pub reason: Reason,
    pub at: SystemTime,
}

/// Why a status changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Media comes.
    Published,
    /// A publisher closed or lost its connection.
    PublisherLeft,
    /// A publisher is connected and sends nothing.
    FellSilent,
    /// Another publisher took its slot.
    TakenOver,
    /// Nobody came back in time.
    GraceOver,
    /// The operator ended the broadcast.
    ToldToEnd,
    ShuttingDown,
}

impl Reason {
    /// Word for logs, events and listings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::PublisherLeft => "publisher_left",
            Self::FellSilent => "fell_silent",
            Self::TakenOver => "taken_over",
            Self::GraceOver => "grace_over",
            Self::ToldToEnd => "told_to_end",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// Where a pipeline writes its status.
#[derive(Debug)]
pub(super) struct Board {
    pub key: StreamKey,
    pub newest: watch::Sender<Status>,
    pub changes: broadcast::Sender<StatusChange>,
}

impl Board {
    /// Tells everybody, if it is news.
    pub(super) fn post(&self, status: Status, reason: Reason) {
        let is_news = self.newest.send_if_modified(|newest| {
            let waits_longer = matches!((newest.state, status.state), (State::Grace { .. }, State::Grace { .. }));
            let same = newest.live == status.live && newest.backup_live == status.backup_live;
            let is_news = *newest != status && !(waits_longer && same);
            *newest = status;
            is_news
        });
        if !is_news {
            return;
        }
        tracing::info!(
            state = status.state.as_str(),
            live = status.live,
            backup_live = status.backup_live,
            reason = reason.as_str(),
            "status"
        );
        // Nobody may be listening.
        let _ = self.changes.send(StatusChange {
            key: self.key.clone(),
            state: status.state,
            live: status.live,
            backup_live: status.backup_live,
            reason,
            at: SystemTime::now(),
        });
    }
}
