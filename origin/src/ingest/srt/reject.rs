//! What a caller is told for every refusal of admission. Pure.
//!
//! Before this: admission. After this: the handshake's answer.

pub use weir_shared::srt::reject::Reject;

use crate::ingest::Refusal;

impl From<Refusal> for Reject {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownApp | Refusal::BadName => Self::BadRequest,
            Refusal::UnknownStream => Self::NotFound,
            Refusal::WrongCredentials | Refusal::NoCredentials => Self::Unauthorized,
            Refusal::WrongPassphrase => Self::BadSecret,
            Refusal::NoPassphrase | Refusal::UnexpectedPassphrase => Self::Unsecure,
            Refusal::WrongPort | Refusal::Disabled | Refusal::WebhookDenied => Self::Forbidden,
            Refusal::Busy => Self::Conflict,
            Refusal::TooManyTracks | Refusal::Overloaded => Self::Overload,
            Refusal::WebhookFailed => Self::Gateway,
            Refusal::ShuttingDown => Self::Down,
        }
    }
}
