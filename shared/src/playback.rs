//! Signed playback: who may watch, said in a signed address and, from then on, in a path segment.
//!
//! Pure: text, secrets, addresses and a `now` go in; what a viewer may do, or why not, comes out. Nothing here waits,
//! reads a clock or knows of sockets.
//!
//! | form | where it stands | signed with | file |
//! |---|---|---|---|
//! | policy | `?policy=…&signature=…` (43 characters) | HMAC-SHA256 over `<key>.<policy>` | [`ticket`] |
//! | OvenMediaEngine's policy | the same (27 characters) | HMAC-SHA1 over the whole address | [`ome`] |
//! | JWT | `?token=…` | HS256 or RS256, whichever is pinned | [`jwt`] |
//! | session ticket | `/app/<key>/~<ticket>/…` | HMAC-SHA256, made by an edge at the entrance | [`session`] |
//!
//! Before this on the data path: `weir sign` and the origin's API, which mint. After this: the edge's `auth.rs`, which
//! checks. All use these functions and nothing else.

pub mod jwt;
pub mod ome;
pub mod policy;
pub mod range;
pub mod session;
pub mod ticket;

use core::net::IpAddr;

/// Milliseconds since 1970.
pub type UnixMillis = u64;

/// Longest policy, signature or token that is looked at, in characters.
pub const TEXT_MAX: usize = 4096;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// The viewer as a trusted proxy tells it; without one, the same.
    pub real: IpAddr,
}

impl Caller {
    /// A viewer who is connected directly.
    pub const fn peer(peer: IpAddr) -> Self {
        Self { peer, real: peer }
    }
}

/// Why a ticket opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Invalid {
    #[error("the stream needs a ticket")]
    Missing,
    #[error("the ticket can't be read")]
    Malformed,
    #[error("the ticket was not signed for this stream")]
    Signature,
    #[error("the ticket was signed with an algorithm that is not accepted here")]
    Algorithm,
    #[error("the address is no longer valid")]
    Expired,
    #[error("the address is not valid yet")]
    NotYet,
    #[error("the ticket belongs to another address")]
    Address,
    #[error("the time to watch is over")]
    StreamExpired,
}

impl Invalid {
    pub const ALL: [Self; 8] = [
        Self::Missing,
        Self::Malformed,
        Self::Signature,
        Self::Algorithm,
        Self::Expired,
        Self::NotYet,
        Self::Address,
        Self::StreamExpired,
    ];

    /// A word for programs and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "ticket_missing",
            Self::Malformed => "ticket_malformed",
            Self::Signature => "ticket_invalid",
            Self::Algorithm => "ticket_algorithm",
            Self::Expired => "ticket_expired",
            Self::NotYet => "ticket_not_active",
            Self::Address => "ticket_address",
            Self::StreamExpired => "stream_expired",
        }
    }
}
