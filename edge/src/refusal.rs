//! Every way the edge says no, and the one place that makes a response of it.
//!
//! Before this: `handle.rs`. After this: `weir_shared::serve::respond`.

use bytes::Bytes;
use http::{Response, StatusCode};
use weir_shared::{
    directory::Closed,
    hls::reload::BadDirective,
    playback::Invalid,
    serve::{body::Body, respond},
};

use crate::{
    admit::{Limit, Reached},
    cache::Absent,
    directory::NoRecord,
};

/// When a viewer may try again after a refusal that passes by itself.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Why a request gets no object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The viewer's fault: no such name, or not (yet, any more) there.
    NoSuchObject,
    /// The viewer's fault.
    BadDirective(BadDirective),
    /// The viewer's fault (section 6.2.5.2).
    TooFarAhead,
    /// The encoder's or the origin's fault: nothing new within three target durations.
    HeldTooLong,
    /// The origin's fault: it has not been heard of for too long.
    OriginUnreachable,
    /// The fault of a route's upstream: its playlist can't be read.
    UnreadableUpstream,
    /// The viewer's fault, or ours: a limit of `admit.rs`.
    Limited(Reached),
    /// Ours: a limit is reached.
    Busy,
    /// Ours: this edge is shutting down.
    Ending,
    /// The viewer's fault: no stream has this key.
    NoSuchStream,
    /// The viewer's fault: no ticket, or one that opens nothing.
    Unauthorised(Invalid),
    /// The viewer's fault: the site's own check says so, with 401 or 403.
    NotAllowed(StatusCode),
    /// The site's fault: its check has no answer.
    CheckUnavailable,
    /// Nobody's fault: the stream is not shown now.
    Closed(Closed),
    /// The fleet's fault: no origin tells what this stream is.
    DirectoryUnavailable,
    /// What the origin said no to: its status (4xx, 5xx) and its JSON reason, if it gave a short one.
    Origin { status: StatusCode, reason: Option<Bytes> },
}

impl From<Absent> for Refusal {
    fn from(absent: Absent) -> Self {
        match absent {
            Absent::Refused { status, reason } => Self::Origin { status, reason },
            Absent::Upstream(_) => Self::OriginUnreachable,
            Absent::Shed => Self::Busy,
            Absent::Limited(reached) => Self::Limited(reached),
            Absent::Ending => Self::Ending,
        }
    }
}

impl From<Reached> for Refusal {
    fn from(reached: Reached) -> Self {
        Self::Limited(reached)
    }
}

impl From<Invalid> for Refusal {
    fn from(why: Invalid) -> Self {
        Self::Unauthorised(why)
    }
}

impl From<NoRecord> for Refusal {
    fn from(why: NoRecord) -> Self {
        match why {
            NoRecord::Unknown => Self::NoSuchStream,
            NoRecord::Unavailable => Self::DirectoryUnavailable,
            NoRecord::Busy => Self::Busy,
        }
    }
}

impl Refusal {
    pub fn response(self) -> Response<Body> {
        use StatusCode as S;
        let passing =
            |code, message| respond::refusal_until(S::SERVICE_UNAVAILABLE, code, message, RETRY_AFTER_SECONDS);
        match self {
            Self::NoSuchObject => respond::refusal(S::NOT_FOUND, "not_found", "there is no such object"),
            Self::NoSuchStream => respond::refusal(S::NOT_FOUND, "unknown_stream", "there is no such stream"),
            Self::Unauthorised(why) => respond::refusal(S::UNAUTHORIZED, why.code(), &why.to_string()),
            Self::NotAllowed(status) => respond::refusal(status, "not_allowed", "the site lets you in no further"),
            Self::CheckUnavailable => passing("check_unavailable", "the site can't tell now who may watch"),
            Self::Closed(Closed::Disabled) => respond::refusal(
                S::FORBIDDEN,
                "stream_disabled",
                "the broadcast is over, or the stream was switched off",
            ),
            Self::Closed(Closed::Backstage) => respond::refusal(
                S::FORBIDDEN,
                "stream_backstage",
                "the stream is not open to viewers yet",
            ),
            Self::DirectoryUnavailable => passing("directory_unavailable", "no origin can tell what this stream is"),
            Self::BadDirective(why) => respond::refusal(S::BAD_REQUEST, "bad_directive", &why.to_string()),
            Self::TooFarAhead => respond::refusal(
                S::BAD_REQUEST,
                "too_far_ahead",
                "the requested position is further ahead than a request may wait for",
            ),
            Self::HeldTooLong => passing(
                "held_too_long",
                "nothing new came from the origin within three target durations",
            ),
            Self::OriginUnreachable => passing("origin_unreachable", "no origin answered in time"),
            Self::UnreadableUpstream => passing("unreadable_upstream", "the origin's playlist can't be read"),
            Self::Limited(Reached { limit, wait }) => {
                let (status, message) = match limit {
                    Limit::AddressRate => (S::TOO_MANY_REQUESTS, "too many requests from this address"),
                    Limit::TicketRate => (S::TOO_MANY_REQUESTS, "too many requests with this ticket"),
                    Limit::AddressInProgress => (S::TOO_MANY_REQUESTS, "too many requests at once from this address"),
                    Limit::InProgress => (S::SERVICE_UNAVAILABLE, "too many requests at once"),
                    Limit::AddressUnknown => (S::TOO_MANY_REQUESTS, "too many unknown names from this address"),
                    Limit::Unknown => (S::SERVICE_UNAVAILABLE, "too many unknown names are asked for"),
                };
                let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
                respond::refusal_until(status, limit.as_str(), message, seconds.max(RETRY_AFTER_SECONDS))
            }
            Self::Busy => passing("busy", "this edge is at one of its limits"),
            Self::Ending => passing("draining", "this edge is ending"),
            Self::Origin {
                status,
                reason: Some(reason),
            } => respond::passed_on(status, reason),
            Self::Origin { status, reason: None } if status.is_server_error() => {
                passing("origin_unavailable", "the origin can't answer this now")
            }
            Self::Origin { status, reason: None } => {
                respond::refusal(status, "refused_by_origin", "the origin refused this request")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::RETRY_AFTER;

    use super::*;

    #[test]
    fn what_passes_by_itself_says_when_to_come_back() {
        for (refusal, status) in [
            (Refusal::HeldTooLong, 503),
            (Refusal::OriginUnreachable, 503),
            (Refusal::UnreadableUpstream, 503),
            (Refusal::Busy, 503),
            (Refusal::Ending, 503),
            (Refusal::DirectoryUnavailable, 503),
            (Refusal::CheckUnavailable, 503),
            (
                Refusal::Origin {
                    status: StatusCode::BAD_GATEWAY,
                    reason: None,
                },
                503,
            ),
            (
                Refusal::Origin {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    reason: Some("{}".into()),
                },
                503,
            ),
        ] {
            let response = refusal.clone().response();
            assert_eq!(response.status(), status, "{refusal:?}");
            assert!(response.headers().contains_key(RETRY_AFTER), "{refusal:?}");
        }
    }

    #[test]
    fn a_viewers_fault_does_not_ask_for_a_retry() {
        for refusal in [
            Refusal::NoSuchObject,
            Refusal::NoSuchStream,
            Refusal::Unauthorised(Invalid::StreamExpired),
            Refusal::Closed(Closed::Backstage),
            Refusal::TooFarAhead,
            Refusal::BadDirective(BadDirective::Msn),
            Refusal::Origin {
                status: StatusCode::NOT_FOUND,
                reason: None,
            },
        ] {
            let response = refusal.clone().response();
            assert!(response.status().is_client_error(), "{refusal:?}");
            assert!(!response.headers().contains_key(RETRY_AFTER), "{refusal:?}");
        }
    }
}
