//! Every way a call over SRT ends: what the log says and what the metric counts.

use super::{reject::Reject, session::Over};
use crate::ingest::{Refusal, admission::Revoked, ts::TsError};

/// Why a call ended. Its text is for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The encoder said goodbye.
    #[error("the encoder ended its publish")]
    Closed,
    /// The encoder crashed or the network broke.
    #[error("nothing came from the encoder any more")]
    Idle,
    #[error("publish refused: {0}")]
    Refused(Refusal),
    /// The handshake asks for what is not served, or makes no sense.
    #[error("handshake refused: {0}")]
    Rejected(Reject),
    /// The encoder's settings need changing.
    #[error("media not supported: {0}")]
    Media(TsError),
    /// The publish is admitted no longer.
    #[error("the publish was ended: {0}")]
    Revoked(Revoked),
    /// It was the oldest of those that were not let in yet when there were too many of them.
    #[error("made room for another caller")]
    Evicted,
    /// The call goes on, but nothing to broadcast came for the silence limit.
    #[error("the encoder fell silent")]
    Silent,
    /// A takeover, or an operator's wish.
    #[error("the publish was stopped")]
    Stopped,
    /// The stream has this port no longer.
    #[error("the port was closed")]
    PortClosed,
    #[error("shutting down")]
    ShuttingDown,
    /// Our fault: the stream's pipeline is gone.
    #[error("the stream's pipeline ended")]
    PipelineGone,
}

impl End {
    /// Label value and log word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Idle => "idle",
            Self::Refused(_) => "refused",
            Self::Rejected(_) => "rejected",
            Self::Media(_) => "media",
            Self::Revoked(_) => "revoked",
            Self::Evicted => "evicted",
            Self::Silent => "silent",
            Self::Stopped => "stopped",
            Self::PortClosed => "port_closed",
            Self::ShuttingDown => "shutting_down",
            Self::PipelineGone => "pipeline_gone",
        }
    }

    /// The code for a caller that is not let in; `None`: it was, or gets no answer.
    pub(super) fn reject(&self) -> Option<Reject> {
        match self {
            Self::Refused(refusal) => Some((*refusal).into()),
            Self::Rejected(reject) => Some(*reject),
            Self::ShuttingDown => Some(Reject::Down),
            _ => None,
        }
    }

    /// Whether an operator should look: anything but an ordinary goodbye.
    pub const fn is_fault(&self) -> bool {
        !matches!(
            self,
            Self::Closed | Self::Stopped | Self::Revoked(_) | Self::ShuttingDown | Self::PortClosed
        )
    }
}

impl From<Over> for End {
    fn from(over: Over) -> Self {
        match over {
            Over::Closed => Self::Closed,
            Over::Idle => Self::Idle,
        }
    }
}
