//! What a window is made of: segments, complete or open, and their parts.
//!
//! Before this: `package/fmp4` (bytes). After this: `package/window.rs`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use weir_shared::hls::position::{MediaSequence, PartNumber};

/// A complete segment. Its bytes are its parts' bytes in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    pub msn: MediaSequence,
    pub duration: Duration,
    /// Wall-clock time of the first sample.
    pub pdt: SystemTime,
    pub discontinuity: bool,
    /// Another publisher's media begins here. Live players need not know: its timeline goes on.
    pub new_publisher: bool,
    pub init_index: u32,
    /// It begins with an independent frame.
    pub independent: bool,
    pub first_part: PartNumber,
    /// Empty once the segment is cold.
    pub parts: Vec<PartEntry>,
    /// Where its bytes are, if not in memory.
    pub cold: Option<Cold>,
}

/// Media that was moved out of memory: whoever moved it knows how to read it again. When the last segment that holds it
/// is let go, it may be removed.
#[derive(Debug, Clone)]
pub struct Cold(Arc<dyn ColdMedia>);

/// A segment's bytes somewhere else.
pub trait ColdMedia: std::fmt::Debug + Send + Sync {
    /// Reads them all.
    fn read(&self) -> BoxFuture<'static, std::io::Result<Bytes>>;
}

impl Cold {
    pub fn new(media: Arc<impl ColdMedia + 'static>) -> Self {
        Self(media)
    }

    /// Reads the segment.
    pub fn read(&self) -> BoxFuture<'static, std::io::Result<Bytes>> {
        self.0.read()
    }
}

impl PartialEq for Cold {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A part in its segment.
#[derive(Debug, Clone, PartialEq)]
pub struct PartEntry {
    pub bytes: Bytes,
    /// Another window has the same bytes, in the same place of memory.
    pub shared: bool,
    pub duration: Duration,
    pub independent: bool,
}

/// The segment being made.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenSegment {
    pub msn: MediaSequence,
    pub pdt: SystemTime,
    pub discontinuity: bool,
    /// Another publisher's media begins here. Live players need not know: its timeline goes on.
    pub new_publisher: bool,
    pub init_index: u32,
    pub independent: bool,
    pub first_part: PartNumber,
    pub parts: Vec<PartEntry>,
}

/// What a segment starts from.
#[derive(Debug, Clone, Copy)]
pub struct SegmentStart {
    pub msn: MediaSequence,
    pub pdt: SystemTime,
    pub discontinuity: bool,
    /// Another publisher's media begins here. Live players need not know: its timeline goes on.
    pub new_publisher: bool,
    pub init_index: u32,
    /// It begins with an independent frame.
    pub independent: bool,
    pub first_part: PartNumber,
}

/// A part to add to the open segment.
#[derive(Debug, Clone)]
pub struct Part {
    pub number: PartNumber,
    pub bytes: Bytes,
    /// Another window has the same bytes, in the same place of memory.
    pub shared: bool,
    pub duration: Duration,
    pub independent: bool,
}

/// What parts weigh.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weight {
    /// Bytes.
    pub all: usize,
    /// Of them, those that are shared.
    pub shared: usize,
}

impl Weight {
    pub(super) fn of(parts: &[PartEntry]) -> Self {
        let mut weight = Self::default();
        for part in parts {
            weight.add(&part.bytes, part.shared);
        }
        weight
    }

    pub(super) fn add(&mut self, bytes: &Bytes, shared: bool) {
        self.all += bytes.len();
        self.shared += if shared { bytes.len() } else { 0 };
    }

    pub(super) fn remove(&mut self, other: Self) {
        self.all -= other.all;
        self.shared -= other.shared;
    }
}
