//! What goes in and out of a viewer, as values.

use std::{sync::Arc, time::Duration};

use weir_shared::hls::{position::MediaSequence, reload::Reload};

use crate::{
    address::BadReference,
    headers::Headers,
    listing::{ListedPart, Listing, Unreadable},
    moment::Moment,
    stamp::HEAD_BYTES,
};

/// What a request is for. Tracks are numbered: 0 is the variant, 1 its separate sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Multivariant,
    Playlist { track: usize, reload: Reload },
    Init { track: usize },
    Part { track: usize, hinted: bool },
    Segment { track: usize, msn: MediaSequence },
}

impl Purpose {
    /// A closed set, fit for a label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Multivariant => "multivariant",
            Self::Playlist { .. } => "playlist",
            Self::Init { .. } => "init",
            Self::Part { .. } => "part",
            Self::Segment { .. } => "segment",
        }
    }

    /// The rendition it belongs to.
    pub const fn track(&self) -> Option<usize> {
        match self {
            Self::Multivariant => None,
            Self::Playlist { track, .. }
            | Self::Init { track }
            | Self::Part { track, .. }
            | Self::Segment { track, .. } => Some(*track),
        }
    }

    /// Whether the body is to be kept as text.
    pub const fn is_text(&self) -> bool {
        matches!(self, Self::Multivariant | Self::Playlist { .. })
    }
}

/// What is known of a media body whose bytes were thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaBody {
    pub bytes: u64,
    /// `None`: not among the bodies that are hashed.
    pub hash: Option<u64>,
    /// Its first bytes, zeros behind.
    pub head: [u8; HEAD_BYTES],
}

impl MediaBody {
    pub const EMPTY: Self = Self {
        bytes: 0,
        hash: None,
        head: [0; HEAD_BYTES],
    };
}

/// A whole answer. `text` is the body of a playlist, `media` describes any other.
#[derive(Debug, Clone)]
pub struct Answer<'a> {
    pub status: u16,
    pub location: Option<&'a str>,
    pub gzip: bool,
    /// Where they are judged.
    pub headers: Option<Headers>,
    pub text: &'a [u8],
    pub media: MediaBody,
    /// When its first byte came.
    pub first_byte: Moment,
    /// When its last byte came.
    pub at: Moment,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("no connection: {0}")]
    Connect(Arc<str>),
    #[error("the connection broke before the answer")]
    Reset,
    #[error("the body ended after {got} of {announced} bytes")]
    Truncated { got: u64, announced: u64 },
    #[error("what came is not HTTP: {0}")]
    Garbage(&'static str),
    #[error("the answer is longer than {0} bytes")]
    TooLong(u64),
    #[error("no answer in time")]
    Silence,
}

impl Failure {
    /// A closed set, fit for a label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Reset => "reset",
            Self::Truncated { .. } => "truncated",
            Self::Garbage(_) => "garbage",
            Self::TooLong(_) => "too_long",
            Self::Silence => "timeout",
        }
    }
}

/// A media body as it came.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    pub body: MediaBody,
    pub sent: Moment,
    pub first_byte: Moment,
    pub at: Moment,
}

/// Why a viewer is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    #[error("the stream ended")]
    Finished,
    #[error("the URL was answered with status {status}{}", remedy(*.status))]
    Refused { status: u16 },
    #[error("the URL gave no answer")]
    NoEntry,
    #[error("the URL gave no HLS playlist (is it the stream's .m3u8?)")]
    NoPlaylist,
    #[error("the playlist lists no parts: it is not low-latency HLS")]
    NoParts,
    #[error("more redirects than a player follows")]
    TooManyRedirects,
    #[error("a reference can't be followed: {0}")]
    BadReference(BadReference),
    #[error("a media playlist failed too often")]
    PlaylistFailed,
}

fn remedy(status: u16) -> &'static str {
    match status {
        401 | 403 => ": the ticket is missing or not accepted (see --ticket-secret)",
        404 => ": there is no such stream, or it is not live",
        429 | 503 => ": the server sheds load (look at its limits)",
        _ => "",
    }
}

/// What happened to a viewer, in order.
#[derive(Debug)]
pub enum Event {
    /// An answer whose headers are judged came; what it means follows.
    Answered {
        purpose: Purpose,
        path: Arc<str>,
        status: u16,
        headers: Headers,
    },
    Multivariant {
        text: Arc<str>,
    },
    /// How many renditions are followed.
    Tracks(usize),
    Joined {
        after: Duration,
    },
    Playlist {
        track: usize,
        path: Arc<str>,
        reload: Reload,
        before: Option<Arc<Listing>>,
        now: Arc<Listing>,
        /// Where they are judged.
        headers: Option<Headers>,
        sent: Moment,
        at: Moment,
    },
    Init {
        track: usize,
        path: Arc<str>,
        received: Received,
    },
    Part {
        track: usize,
        path: Arc<str>,
        part: ListedPart,
        received: Received,
        /// Awaited as it was made, not caught up with: its latency means something.
        live: bool,
    },
    Segment {
        track: usize,
        path: Arc<str>,
        msn: MediaSequence,
        duration: Duration,
        received: Received,
    },
    /// The playlist moved on without listing what it had hinted.
    HintBroken {
        track: usize,
        path: Arc<str>,
    },
    /// What is wanted next is not in the playlist any more; the viewer joins again.
    FellBehind {
        track: usize,
    },
    /// The position starts afresh: after a seek, or after falling behind.
    Rejoined {
        track: usize,
    },
    /// A part was given up after retries, or is a gap.
    PassedOver {
        track: usize,
        part: ListedPart,
    },
    Switched {
        track: usize,
    },
    Sought {
        track: usize,
    },
    Refused {
        purpose: Purpose,
        path: Arc<str>,
        status: u16,
        held: Duration,
    },
    Unreadable {
        purpose: Purpose,
        path: Arc<str>,
        why: Unreadable,
    },
    Failed {
        purpose: Purpose,
        path: Arc<str>,
        failure: Failure,
    },
    Ended(End),
}
