//! The border between the control plane and the node that carries the media: calls go out through [`Node`], news come
//! in as [`News`]. Neither side knows the other's insides, and no call waits: the media path is never held up.
//!
//! Before this: `control.rs`. After this: whatever `app.rs` wires in.

use std::{sync::Arc, time::Duration};

use weir_shared::id::{RecordingName, StreamKey};

use crate::record::{shelf::Shelf, store::Problem};

use super::{
    health::Health,
    lifecycle::{Event, Millis, Slot},
    model::{Credentials, Limits, OnRotate, Stream},
};

/// What a node must know to admit publishers and viewers of one stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamPolicy {
    pub key: StreamKey,
    /// Of two policies the later one: the moment of the stream's last change, and how many there were.
    pub version: (Millis, i64),
    /// Whether a publisher is let in: the stream is active and not DISABLED.
    pub accepts_publisher: bool,
    pub credentials: Credentials,
    /// What happens to a publisher whose credentials were rotated.
    pub on_rotate: OnRotate,
    /// Whoever knows the key may push.
    pub allow_key_only: bool,
    /// Backstage: viewers are refused until the broadcast starts.
    pub backstage: bool,
    pub broadcasting: bool,
    pub signed_playback: bool,
    /// Seconds of the past that stay seekable; 0: no DVR.
    pub dvr_seconds: u32,
    /// Every broadcast is recorded.
    pub recorded: bool,
    pub limits: Limits,
}

impl StreamPolicy {
    pub fn of(stream: &Stream, limits: &Limits) -> Self {
        let settings = &stream.settings;
        Self {
            key: stream.key.clone(),
            version: (stream.updated_at, stream.version),
            accepts_publisher: stream.state.accepts_publisher(),
            credentials: stream.credentials.clone(),
            on_rotate: settings.on_rotate,
            allow_key_only: settings.allow_key_only,
            backstage: stream.state.backstage,
            broadcasting: stream.state.broadcasting,
            signed_playback: settings.signed_playback,
            dvr_seconds: if settings.dvr_enabled { settings.dvr_duration } else { 0 },
            recorded: settings.vod_enabled,
            limits: limits.clone(),
        }
    }
}

/// What the control plane asks of the node. Every call returns at once; calls about unknown keys do nothing.
pub trait Node: Send + Sync + 'static {
    /// As many streams as this node can take, if it has them and this is none of them. `None`: there is room for it.
    fn full_for(&self, _: &StreamKey) -> Option<usize> {
        None
    }
    /// From now on this holds for the stream, unless a later policy came before.
    fn apply(&self, policy: StreamPolicy);
    /// The stream is gone for good.
    fn remove(&self, key: &StreamKey);
    /// Closes the stream's publishers with an error that they show.
    fn kick(&self, key: &StreamKey);
    /// Ends the stream's playlists, and its publishers' sessions.
    fn end(&self, key: &StreamKey);
    /// Ends the stream's playlists; its publishers go on.
    fn hide(&self, key: &StreamKey);
    /// Begins new playlists after [`Node::hide`].
    fn show(&self, key: &StreamKey);
    /// Another origin publishes this slot now: what of it is here is cut, without an end that players would see.
    fn hand_over(&self, key: &StreamKey, slot: Slot);
    /// Whether the stream's broadcast is in this node's hands, waiting for its publisher included.
    fn carries(&self, key: &StreamKey) -> bool;
    /// Forgets everything but the live edge.
    fn clear_dvr(&self, key: &StreamKey);
    /// `None`: not live on this node.
    fn health(&self, key: &StreamKey) -> Option<Health>;
    /// Records the stream from now on. The recording's name, also if it was under way; `None`: not live on this node.
    fn start_recording(&self, _: &StreamKey) -> Option<RecordingName> {
        None
    }
    /// Ends the recording. Its name; `None`: there is none on this node.
    fn stop_recording(&self, _: &StreamKey) -> Option<RecordingName> {
        None
    }
    /// The recording that is being made on this node.
    fn recording(&self, _: &StreamKey) -> Option<Recording> {
        None
    }
    /// A recording that is being made on this node, or that it has not wholly stored yet.
    fn unfinished_recording(&self, _: &StreamKey, _: &RecordingName) -> Option<Recording> {
        None
    }
    /// All recordings, as viewers find them. `None`: this node has no store.
    fn shelf(&self) -> Option<Arc<Shelf>> {
        None
    }
}

/// A recording that is being made.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    pub name: RecordingName,
    /// Recorded so far.
    pub duration: Duration,
    pub bytes: u64,
    /// What is wrong with it now.
    pub problem: Option<Problem>,
}

/// For an API without a node: every call does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

impl Node for Nowhere {
    fn apply(&self, _: StreamPolicy) {}
    fn remove(&self, _: &StreamKey) {}
    fn kick(&self, _: &StreamKey) {}
    fn end(&self, _: &StreamKey) {}
    fn hide(&self, _: &StreamKey) {}
    fn show(&self, _: &StreamKey) {}
    fn hand_over(&self, _: &StreamKey, _: Slot) {}
    fn carries(&self, _: &StreamKey) -> bool {
        false
    }
    fn clear_dvr(&self, _: &StreamKey) {}
    fn health(&self, _: &StreamKey) -> Option<Health> {
        None
    }
}

/// What the node tells the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    pub key: StreamKey,
    pub what: Happening,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    Connected(Slot),
    Left(Slot),
    /// The node gave the broadcast up: grace time over, input idle.
    Ended,
}

impl From<Happening> for Event {
    fn from(happening: Happening) -> Self {
        match happening {
            Happening::Connected(slot) => Self::Connected(slot),
            Happening::Left(slot) => Self::Left(slot),
            Happening::Ended => Self::Ended,
        }
    }
}
