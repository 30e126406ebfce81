//! What the control plane tells about streams: the closed list of events, their ids and their JSON.
//!
//! Pure. Before this: whoever changes a stream (`lifecycle.rs` by its notices, the recorder). After this: `delivery.rs`, which
//! makes an event durable in the transaction of the change it tells of, then webhooks (`delivery/dispatch.rs`) and the
//! feed (`sse.rs`).
//!
//! An event says what happened, not how the stream is now: whoever needs the present state asks the API.

mod data;
mod filter;

use std::{fmt, str::FromStr, time::SystemTime};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::{Builder, Uuid};
use weir_shared::{
    hls::date,
    id::{ProjectId, StreamId, StreamKey},
};

use super::{
    lifecycle::{Millis, Phase},
    model::Stream,
    notice::Notice,
};

pub use data::*;
pub use filter::{BadFilter, Filter, FilterEntry};

/// Longest free text in an event (a reason, a message), in bytes. Longer ones are cut.
const TEXT_LIMIT: usize = 512;

/// An event's name: a UUID of version 7 (RFC 9562 section 5.7), so ids sort by the time they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(Uuid);

impl EventId {
    /// An id for `now`; `random` keeps those of one millisecond apart.
    pub fn new(now: SystemTime, random: [u8; 10]) -> Self {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Self(Builder::from_unix_timestamp_millis(ms, &random).into_uuid())
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// A text that is no event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event id is a UUID like 01935bd2-7c41-7000-8000-000000000000")]
pub struct BadEventId;

impl FromStr for EventId {
    type Err = BadEventId;
    fn from_str(text: &str) -> Result<Self, BadEventId> {
        // One spelling: the store compares text.
        let id = Uuid::try_parse(text).map_err(|_| BadEventId)?;
        let canonical = id.get_version_num() == 7 && id.as_hyphenated().to_string() == text;
        canonical.then_some(Self(id)).ok_or(BadEventId)
    }
}

/// The stream an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventStream {
    /// The stream's id, as in `/v1/projects/<project>/streams/<id>`.
    #[schema(value_type = String)]
    pub id: StreamId,
    /// The `<key>` of its playback addresses.
    #[schema(value_type = String)]
    pub stream_key: StreamKey,
}

/// One event, as webhooks and the feed carry it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Unique and sortable by time. The same on every delivery of the event: whoever must not act twice remembers it.
    #[schema(value_type = String, format = "uuid")]
    pub id: EventId,
    /// When it happened, RFC 3339 in UTC with milliseconds.
    #[schema(format = DateTime)]
    pub time: String,
    #[schema(value_type = String)]
    pub project: ProjectId,
    pub stream: EventStream,
    #[serde(flatten)]
    pub happened: Happened,
}

impl Event {
    /// An event of `now`; `random` as for [`EventId::new`].
    pub fn new(
        project: &ProjectId,
        stream: EventStream,
        happened: Happened,
        now: SystemTime,
        random: [u8; 10],
    ) -> Self {
        let mut time = String::with_capacity(24);
        date::push_date(&mut time, now);
        Self {
            id: EventId::new(now, random),
            time,
            project: project.clone(),
            stream,
            happened: happened.bounded(),
        }
    }

    pub fn kind(&self) -> Kind {
        self.happened.kind()
    }
}

macro_rules! kinds {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// What kind of thing happened. The closed list: labels of metrics, filters of webhooks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        pub enum Kind {
            $(#[serde(rename = $name)] $variant,)*
        }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        /// What happened, with what there is to know about it.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
        #[serde(tag = "type", content = "data")]
        pub enum Happened {
            $(#[serde(rename = $name)] $variant($variant),)*
        }

        impl Happened {
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$variant(_) => Kind::$variant,)*
                }
            }
        }
    };
}

kinds! {
    StreamCreated = "stream.created",
    StreamLive = "stream.live",
    StreamInterrupted = "stream.interrupted",
    StreamResumed = "stream.resumed",
    StreamEnded = "stream.ended",
    StreamDisabled = "stream.disabled",
    StreamHealthWarning = "stream.health_warning",
    BroadcastingStarted = "broadcasting.started",
    BroadcastingStopped = "broadcasting.stopped",
    BroadcastingFailed = "broadcasting.failed",
    RecordingStarted = "recording.started",
    RecordingCompleted = "recording.completed",
    RecordingFailed = "recording.failed",
}

impl Happened {
    /// What a notice of the life cycle says about a stream that was changed at `at`.
    pub fn noticed(notice: Notice, stream: &Stream, at: Millis) -> Self {
        let state = &stream.state;
        let backup = state.backup && !state.primary;
        match notice {
            Notice::Created => Self::StreamCreated(StreamCreated {
                name: stream.settings.name.clone(),
            }),
            Notice::Live => Self::StreamLive(StreamLive { backup }),
            Notice::Interrupted => Self::StreamInterrupted(StreamInterrupted {
                grace_ms: match state.phase {
                    Phase::Grace { until } => u64::try_from(until.saturating_sub(at)).unwrap_or(0),
                    _ => 0,
                },
            }),
            Notice::Resumed => Self::StreamResumed(StreamResumed { backup }),
            Notice::Ended => Self::StreamEnded(StreamEnded {
                restartable: state.accepts_publisher(),
            }),
            Notice::Disabled => Self::StreamDisabled(StreamDisabled { active: state.active }),
            Notice::HealthWarning(code) => Self::StreamHealthWarning(StreamHealthWarning {
                code,
                message: code.advice().to_owned(),
            }),
            Notice::BroadcastingStarted => Self::BroadcastingStarted(BroadcastingStarted {}),
            Notice::BroadcastingStopped => Self::BroadcastingStopped(BroadcastingStopped {}),
            Notice::BroadcastingFailed => Self::BroadcastingFailed(BroadcastingFailed {
                message: "the origin of this broadcast is gone".to_owned(),
            }),
        }
    }

    /// Free texts cut to their limit.
    fn bounded(mut self) -> Self {
        match &mut self {
            Self::StreamHealthWarning(StreamHealthWarning { message, .. })
            | Self::BroadcastingFailed(BroadcastingFailed { message })
            | Self::RecordingFailed(RecordingFailed { message, .. })
            | Self::StreamCreated(StreamCreated { name: message }) => {
                message.truncate(message.floor_char_boundary(TEXT_LIMIT));
            }
            _ => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
    }

    fn stream() -> EventStream {
        EventStream {
            id: "s1".parse().unwrap(),
            stream_key: "show".parse().unwrap(),
        }
    }

    fn project() -> ProjectId {
        "demo".parse().unwrap()
    }

    #[test]
    fn an_event_is_one_flat_object_with_its_type_and_data() {
        let live = Happened::StreamLive(StreamLive { backup: false });
        let event = Event::new(&project(), stream(), live, at(1_795_000_000_123), [7; 10]);
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "id": event.id.to_string(),
                "time": "2026-11-18T11:06:40.123Z",
                "project": "demo",
                "stream": {"id": "s1", "streamKey": "show"},
                "type": "stream.live",
                "data": {"backup": false},
            })
        );
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
    }

    #[test]
    fn ids_sort_by_time_and_differ_within_a_millisecond() {
        let early = EventId::new(at(1_795_000_000_000), [0xff; 10]);
        let late = EventId::new(at(1_795_000_000_001), [0; 10]);
        assert!(early < late && early.to_string() < late.to_string());
        assert_ne!(late, EventId::new(at(1_795_000_000_001), [1; 10]));
        assert_eq!(early.to_string().parse(), Ok(early));
        for bad in [
            "",
            "1",
            "67e55044-10b1-426f-9247-bb680e5fe0c8",
            &early.to_string().to_uppercase(),
        ] {
            assert_eq!(bad.parse::<EventId>(), Err(BadEventId), "{bad}");
        }
    }

    #[test]
    fn every_kind_is_spelt_the_same_everywhere() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            let only = Filter::from_text(kind.as_str());
            assert!(Kind::ALL.iter().all(|other| only.wants(*other) == (other == kind)));
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let failed = Happened::BroadcastingFailed(BroadcastingFailed {
            message: "ü".repeat(1000),
        });
        match Event::new(&project(), stream(), failed, at(0), [0; 10]).happened {
            Happened::BroadcastingFailed(BroadcastingFailed { message }) => assert_eq!(message, "ü".repeat(256)),
            other => panic!("{other:?}"),
        }
    }
}
