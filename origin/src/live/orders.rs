//! What the operator may want of a running stream: set by `live/registry.rs`, heeded by `live/pipeline.rs`.

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// What the operator may want of a running stream.
#[derive(Debug)]
pub(super) struct Orders {
    /// End the playlists, and the publishers' sessions.
    pub end: CancellationToken,
    /// False: end the playlists while publishers go on. True again: begin new ones.
    pub shown: watch::Sender<bool>,
    /// Forget the past.
    pub clear: Notify,
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            end: CancellationToken::new(),
            shown: watch::channel(true).0,
            clear: Notify::new(),
        }
    }
}
