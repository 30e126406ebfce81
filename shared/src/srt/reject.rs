//! Why a caller is turned away, in the codes of the protocol (draft-sharabayko-srt-01, table 7, and libsrt's
//! `access_control.h`). Pure. libsrt prints codes below 2000 in words and the others as numbers.
//!
//! After this: `srt/hello.rs`, which writes and reads the code.

/// A handshake's refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    #[error("the caller's parameters make no sense")]
    Rogue,
    #[error("the caller speaks a version before 1.3")]
    Version,
    #[error("the passphrase is wrong")]
    BadSecret,
    #[error("the stream wants a passphrase and none came, or the other way round")]
    Unsecure,
    #[error("file transfer is not served")]
    MessageApi,
    #[error("no congestion control but live")]
    Congestion,
    #[error("packet filters are not served")]
    Filter,
    #[error("bonding groups are not served")]
    Group,
    #[error("the stream id is not understood")]
    BadRequest,
    #[error("user name, password or token are wrong or missing")]
    Unauthorized,
    #[error("no capacity for more streams")]
    Overload,
    #[error("not allowed")]
    Forbidden,
    #[error("no stream of this key")]
    NotFound,
    #[error("streams are published here, not played")]
    BadMode,
    #[error("the stream has a publisher already")]
    Conflict,
    #[error("the admission webhook did not answer as it should")]
    Gateway,
    #[error("shutting down")]
    Down,
}

impl Reject {
    pub const ALL: &[Self] = &[
        Self::Rogue,
        Self::Version,
        Self::BadSecret,
        Self::Unsecure,
        Self::MessageApi,
        Self::Congestion,
        Self::Filter,
        Self::Group,
        Self::BadRequest,
        Self::Unauthorized,
        Self::Overload,
        Self::Forbidden,
        Self::NotFound,
        Self::BadMode,
        Self::Conflict,
        Self::Gateway,
        Self::Down,
    ];

    /// What a listener's code means, if it is one of ours.
    pub fn of_code(code: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|reject| reject.code() == code)
    }

    pub const fn code(self) -> u32 {
        match self {
            Self::Rogue => 1004,
            Self::Version => 1008,
            Self::BadSecret => 1010,
            Self::Unsecure => 1011,
            Self::MessageApi => 1012,
            Self::Congestion => 1013,
            Self::Filter => 1014,
            Self::Group => 1015,
            Self::BadRequest => 2400,
            Self::Unauthorized => 2401,
            Self::Overload => 2402,
            Self::Forbidden => 2403,
            Self::NotFound => 2404,
            Self::BadMode => 2405,
            Self::Conflict => 2409,
            Self::Gateway => 2502,
            Self::Down => 2503,
        }
    }

    /// Label value and log word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rogue => "rogue",
            Self::Version => "version",
            Self::BadSecret => "bad_secret",
            Self::Unsecure => "unsecure",
            Self::MessageApi => "message_api",
            Self::Congestion => "congestion",
            Self::Filter => "filter",
            Self::Group => "group",
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Overload => "overload",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::BadMode => "bad_mode",
            Self::Conflict => "conflict",
            Self::Gateway => "gateway",
            Self::Down => "down",
        }
    }
}
