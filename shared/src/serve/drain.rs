//! Ending politely, in two steps: say so while everything still works, then stop accepting and let held requests be
//! answered.

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// One per node; clones share its state.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    announced: CancellationToken,
    started: CancellationToken,
    connections: TaskTracker,
}

impl Drain {
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on: readiness is off and every answer tells its client to go elsewhere (`Connection: close`, GOAWAY). New
    /// connections are still taken: who balances load needs a moment to notice.
    pub fn announce(&self) {
        self.announced.cancel();
    }

    /// From now on: no new connections, and existing ones close after the answers under way.
    pub fn start(&self) {
        self.announce();
        self.started.cancel();
        self.connections.close();
    }

    /// Whether draining has been announced: readiness is off.
    pub fn is_draining(&self) -> bool {
        self.announced.is_cancelled()
    }

    /// Resolves when draining is announced.
    pub async fn announced(&self) {
        self.announced.cancelled().await;
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
