//! Ending politely: stop accepting, let held requests be answered, then close.

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// One per node; clones share its state.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    started: CancellationToken,
    connections: TaskTracker,
}

impl Drain {
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on: no new connections, and existing ones close after the answers under way.
    pub fn start(&self) {
        self.started.cancel();
        self.connections.close();
    }

    /// Whether draining has begun: readiness is off.
    pub fn is_draining(&self) -> bool {
        self.started.is_cancelled()
    }

    /// Resolves when draining begins.
    pub async fn draining(&self) {
        self.started.cancelled().await;
    }

    /// Resolves when draining has begun and every connection is gone.
    pub async fn drained(&self) {
        self.started.cancelled().await;
        self.connections.wait().await;
    }

    /// Held by each connection.
    pub fn connection(&self) -> TaskTrackerToken {
        self.connections.token()
    }
}
