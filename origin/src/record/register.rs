//! Who is told what became of recordings: the control plane, by way of this trait.
//!
//! Before this: `upload.rs`, `studio.rs`. After this: `control/recordings.rs`. Being told twice must be the same as once: after
//! a crash it is told again.

use std::{future::Future, pin::Pin, time::Duration};

use weir_shared::id::{RecordingName, StreamKey};

/// What became of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Its first part is recorded.
    Started { at_ms: u64 },
    /// All of it is in the store.
    Completed { duration: Duration, bytes: u64 },
    /// It has thumbnails. Told before or after the end, or not at all.
    Thumbnails,
    /// It went wrong; what there is stays playable.
    Failed {
        duration: Duration,
        bytes: u64,
        /// For people.
        message: String,
    },
}

/// It could not be written down now; trying again may help.
#[derive(Debug, thiserror::Error)]
#[error("what became of a recording was not written down: {0}")]
pub struct NotTold(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// An answer that comes later, from behind a trait object.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

pub trait Register: Send + Sync + 'static {
    fn tell<'a>(
        &'a self,
        key: &'a StreamKey,
        recording: &'a RecordingName,
        told: Told,
    ) -> Later<'a, Result<(), NotTold>>;
}
