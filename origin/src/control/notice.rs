//! What happened to a stream, for those who want to be told: the words of the public events.
//!
//! Before this: `lifecycle.rs`. After this: an [`Outbox`], which writes the event down in the same unit of work as the
//! change itself, so that an acknowledged change is never without its event.

use std::{future::Future, pin::Pin};

use serde::{Deserialize, Serialize};

use super::{
    events::HealthWarning,
    model::Stream,
    store::{Millis, StoreError, Tx},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Notice {
    #[serde(rename = "stream.created")]
    Created,
    #[serde(rename = "stream.live")]
    Live,
    #[serde(rename = "stream.interrupted")]
    Interrupted,
    #[serde(rename = "stream.resumed")]
    Resumed,
    #[serde(rename = "stream.ended")]
    Ended,
    #[serde(rename = "stream.disabled")]
    Disabled,
    #[serde(rename = "stream.health_warning")]
    HealthWarning(HealthWarning),
    #[serde(rename = "broadcasting.started")]
    BroadcastingStarted,
    #[serde(rename = "broadcasting.stopped")]
    BroadcastingStopped,
    #[serde(rename = "broadcasting.failed")]
    BroadcastingFailed,
}

impl Notice {
    /// The event's public name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "stream.created",
            Self::Live => "stream.live",
            Self::Interrupted => "stream.interrupted",
            Self::Resumed => "stream.resumed",
            Self::Ended => "stream.ended",
            Self::Disabled => "stream.disabled",
            Self::HealthWarning(_) => "stream.health_warning",
            Self::BroadcastingStarted => "broadcasting.started",
            Self::BroadcastingStopped => "broadcasting.stopped",
            Self::BroadcastingFailed => "broadcasting.failed",
        }
    }
}

/// An answer that comes later, from behind a trait object.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where notices go. Called inside the unit of work that makes the change; it must do nothing but write to the store.
pub trait Outbox: Send + Sync + 'static {
    /// `stream` is as the change leaves it.
    fn record<'a>(
        &'a self,
        tx: &'a mut Tx,
        notice: Notice,
        stream: &'a Stream,
        at: Millis,
    ) -> Later<'a, Result<(), StoreError>>;
}

/// For a node that tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Outbox for Silent {
    fn record<'a>(&'a self, _: &'a mut Tx, _: Notice, _: &'a Stream, _: Millis) -> Later<'a, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}
