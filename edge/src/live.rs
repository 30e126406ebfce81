//! Live playlists: one follower per playlist in use reads the upstream's; every viewer waits on what it knows.

use std::time::Duration;

use weir_shared::hls::position::LiveEdge;

pub mod fit;
pub mod follower;
pub mod followers;
pub mod hold;
pub mod own;
pub mod roster;
pub mod view;

/// A playlist at one moment, as far as waiting is concerned.
pub trait Moment: Send + Sync + 'static {
    fn edge(&self) -> &LiveEdge;

    /// EXT-X-TARGETDURATION.
    fn target_duration(&self) -> Duration;

    /// PART-TARGET, where there are parts.
    fn part_target(&self) -> Option<Duration>;
}
