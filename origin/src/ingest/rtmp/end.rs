//! Every way an RTMP connection ends: what the log says, what the metric counts, what the encoder is told.

use std::borrow::Cow;

use super::{chunk::ChunkError, command::CommandError};
use crate::ingest::{
    Refusal,
    admission::{AUTH_FAILED, Revoked},
    flv::FlvError,
};

/// Why a connection ended. Its text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The encoder said goodbye.
    #[error("the encoder ended its publish")]
    Unpublished,
    /// Closed by the peer between two messages.
    #[error("the encoder closed the connection")]
    Closed,
    /// Closed by the peer inside a message: the encoder crashed or the network broke.
    #[error("the connection closed in the middle of a message")]
    CutOff,
    #[error("connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// Not RTMP, or RTMPE.
    #[error("handshake failed: {0}")]
    Handshake(#[from] rml_rtmp::handshake::HandshakeError),
    #[error("chunk stream broken: {0}")]
    Chunk(#[from] ChunkError),
    #[error("command not understood: {0}")]
    Command(#[from] CommandError),
    #[error("commands out of order: {0}")]
    OutOfOrder(&'static str),
    /// The encoder has to connect again and answer; what it is told stands inside.
    #[error("asked for a password")]
    Challenged(String),
    #[error("the password dialogue failed")]
    AuthFailed,
    #[error("RTMP playback is not served")]
    PlayRequested,
    #[error("publish refused: {0}")]
    Refused(Refusal),
    /// The encoder's settings need changing.
    #[error("media not supported: {0}")]
    Media(#[from] FlvError),
    /// The publish is admitted no longer.
    #[error("the publish was ended: {0}")]
    Revoked(Revoked),
    #[error("TLS handshake failed: {0}")]
    Tls(std::io::Error),
    #[error("no publish in time")]
    PublishTimeout,
    /// Its bytes before the publish trickle.
    #[error("too slow before the publish")]
    TooSlow,
    /// It was the oldest of those that had not published yet when there were too many of them.
    #[error("made room for another connection")]
    Evicted,
    /// Connected, but nothing to broadcast came for the silence limit.
    #[error("the encoder fell silent")]
    Silent,
    /// The peer does not take our replies.
    #[error("the encoder does not read")]
    WriteTimeout,
    /// A takeover, or an operator's wish.
    #[error("the publish was stopped")]
    Stopped,
    #[error("shutting down")]
    ShuttingDown,
    /// Our fault: the stream's pipeline is gone.
    #[error("the stream's pipeline ended")]
    PipelineGone,
    /// Our fault: a reply could not be written.
    #[error("reply could not be written: {0}")]
    Reply(#[from] rml_rtmp::chunk_io::ChunkSerializationError),
}

impl End {
    /// Label value and log word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unpublished => "unpublished",
            Self::Closed => "closed",
            Self::CutOff => "cut_off",
            Self::Io(_) => "io",
            Self::Handshake(_) => "handshake",
            Self::Chunk(_) => "chunk",
            Self::Command(_) => "command",
            Self::OutOfOrder(_) => "out_of_order",
            Self::Challenged(_) => "challenged",
            Self::AuthFailed => "auth_failed",
            Self::PlayRequested => "play_requested",
            Self::Refused(_) => "refused",
            Self::Media(_) => "media",
            Self::Revoked(_) => "revoked",
            Self::Tls(_) => "tls",
            Self::PublishTimeout => "publish_timeout",
            Self::TooSlow => "too_slow",
            Self::Evicted => "evicted",
            Self::Silent => "silent",
            Self::WriteTimeout => "write_timeout",
            Self::Stopped => "stopped",
            Self::ShuttingDown => "shutting_down",
            Self::PipelineGone => "pipeline_gone",
            Self::Reply(_) => "reply",
        }
    }

    /// The status the encoder is told on its stream, if the dialogue is far enough for one: (level, code).
    pub(super) const fn status(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Unpublished => Some(("status", "NetStream.Unpublish.Success")),
            Self::Refused(
                Refusal::BadName
                | Refusal::UnknownStream
                | Refusal::WrongCredentials
                | Refusal::NoCredentials
                | Refusal::Busy,
            ) => Some(("error", "NetStream.Publish.BadName")),
            Self::Refused(_)
            | Self::Media(_)
            | Self::Silent
            | Self::Stopped
            | Self::Revoked(_)
            | Self::ShuttingDown
            | Self::PipelineGone => Some(("error", "NetStream.Publish.Rejected")),
            Self::PlayRequested => Some(("error", "NetStream.Play.Failed")),
            _ => None,
        }
    }

    /// What the encoder is told on its stream. What a refusal says is less than what we know.
    pub(super) fn told(&self) -> Cow<'static, str> {
        match self {
            Self::Refused(refusal) => Cow::Borrowed(refusal.told()),
            other => Cow::Owned(other.to_string()),
        }
    }

    /// What the encoder is told when its `connect` is refused.
    pub(super) fn told_at_connect(&self) -> Cow<'static, str> {
        match self {
            Self::Challenged(description) => Cow::Owned(description.clone()),
            Self::AuthFailed => Cow::Borrowed(AUTH_FAILED),
            other => other.told(),
        }
    }

    /// Whether it may answer somebody's guess, and therefore comes slowly.
    pub(super) const fn is_slow(&self) -> bool {
        match self {
            Self::AuthFailed => true,
            Self::Refused(refusal) => refusal.is_guess(),
            _ => false,
        }
    }

    /// Whether an operator should look: anything but an ordinary goodbye.
    pub const fn is_fault(&self) -> bool {
        !matches!(
            self,
            Self::Unpublished
                | Self::Closed
                | Self::Challenged(_)
                | Self::Stopped
                | Self::Revoked(_)
                | Self::ShuttingDown
        )
    }
}
