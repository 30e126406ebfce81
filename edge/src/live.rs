//! Live playlists: one follower per playlist in use reads the upstream's; every viewer waits on what it knows.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use weir_shared::{
    hls::{position::LiveEdge, reload::Skip},
    serve::respond::PlaylistLifetimes,
};

pub mod fit;
pub mod follower;
pub mod followers;
pub mod hold;
pub mod own;
pub mod roster;
pub mod texts;
pub mod view;

use texts::Texts;

/// A playlist at one moment, the fleet's own or somebody else's. It never changes after publication.
pub trait Moment: Send + Sync + 'static {
    fn edge(&self) -> &LiveEdge;

    /// EXT-X-TARGETDURATION.
    fn target_duration(&self) -> Duration;

    /// PART-TARGET, where there are parts.
    fn part_target(&self) -> Option<Duration>;

    /// How long others may keep it.
    fn lifetimes(&self) -> &PlaylistLifetimes;

    /// When its origin gave it.
    fn since(&self) -> Instant;

    fn texts(&self) -> &Texts;

    /// The playlist as text.
    fn write(&self) -> String;

    /// Its delta update (section 6.2.5.1); `None`: there is nothing to skip.
    fn write_delta(&self) -> Option<String>;

    /// The playlist's bytes. All viewers share them.
    fn text(&self, skip: Skip, compressed: bool) -> Bytes {
        self.texts().get(self, skip, compressed)
    }

    /// Makes the texts that viewers of the previous view asked for, so that those who wait for this one need not.
    fn render_like(&self, previous: &Self) {
        self.texts().make_like(self, previous.texts());
    }
}
