//! What the control plane knows: streams with their settings and credentials, projects, plans, API keys. Plain data.
//!
//! Before this: `store/…`, which keeps it. After this: `api/view.rs`, which shows it.

use serde::{Deserialize, Serialize};
use weir_shared::id::{PlanId, ProjectId, StreamId, StreamKey};

use super::lifecycle::{Millis, State, Status, Timers};

/// A stream, whole: what the store keeps as one document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stream {
    pub id: StreamId,
    pub project: ProjectId,
    pub key: StreamKey,
    pub state: State,
    pub settings: Settings,
    /// Kept apart from the document.
    #[serde(default, skip_serializing)]
    pub credentials: Credentials,
    /// When its seekable past was last thrown away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dvr_cleared: Option<Millis>,
    /// Goes up with every write: the entity tag.
    pub version: i64,
    pub created_at: Millis,
    pub updated_at: Millis,
}

impl Stream {
    pub fn status(&self) -> Status {
        self.state.status()
    }

    /// What `q` looks through, in lower case.
    pub fn search_text(&self) -> String {
        let user = self.settings.client_user_id.as_deref().unwrap_or_default();
        format!("{}\n{}\n{}\n{user}", self.settings.name, self.id, self.key).to_lowercase()
    }
}

/// What an application developer may set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    pub name: String,
    pub protocols: Vec<Protocol>,
    /// Renditions to transcode to, best first. Empty: the broadcaster's own picture only.
    pub qualities: Vec<Quality>,
    pub dvr_enabled: bool,
    /// Seconds of the past that stay seekable.
    pub dvr_duration: u32,
    pub vod_enabled: bool,
    pub record_type: RecordType,
    pub signed_playback: bool,
    pub pull: bool,
    /// What to pull, when `pull` is set.
    pub uri: Option<String>,
    pub client_user_id: Option<String>,
    pub metadata: serde_json::Map<String, serde_json::Value>,
    pub on_rotate: OnRotate,
    /// Whoever knows the key may push, without a password or a token.
    pub allow_key_only: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: String::new(),
            protocols: vec![Protocol::Llhls],
            qualities: Vec::new(),
            dvr_enabled: false,
            dvr_duration: DVR_SECONDS_DEFAULT,
            vod_enabled: false,
            record_type: RecordType::Origin,
            signed_playback: false,
            pull: false,
            uri: None,
            client_user_id: None,
            metadata: serde_json::Map::new(),
            on_rotate: OnRotate::Keep,
            allow_key_only: false,
        }
    }
}

/// Shortest and default DVR window, in seconds.
pub const DVR_SECONDS_MIN: u32 = 30;
pub const DVR_SECONDS_DEFAULT: u32 = 3600;
/// Longest DVR window that any plan may allow, in seconds.
pub const DVR_SECONDS_MAX: u32 = 86_400;
/// Longest name and client user id, in characters.
pub const NAME_CHARS: usize = 200;
/// Longest pull address, in characters.
pub const URI_CHARS: usize = 2048;
/// Largest metadata, in bytes of its JSON text.
pub const METADATA_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Llhls,
    Hls,
    Dash,
    Webrtc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum Quality {
    #[serde(rename = "1080p")]
    P1080,
    #[serde(rename = "720p")]
    P720,
    #[serde(rename = "480p")]
    P480,
    #[serde(rename = "360p")]
    P360,
    #[serde(rename = "240p")]
    P240,
}

/// What is recorded: the broadcaster's own picture, or the transcoded renditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RecordType {
    Origin,
    Transcoded,
}

/// What new push credentials mean for a publisher that is connected with the old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnRotate {
    /// It goes on; only new connects need the new ones.
    Keep,
    /// It is cut.
    Kick,
}

/// A stream's secrets. They are shown to API keys with `streams:write`, so they are kept as they are, encrypted.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// For `?t=<token>`.
    pub token: String,
    /// Open the backup slot, with the same user name.
    pub backup_password: String,
    pub backup_token: String,
    /// SRT: 10 to 79 characters.
    pub passphrase: String,
    /// Signs playback policies.
    pub playback_secret: String,
    /// The one before the last rotation: what it signed is still valid.
    #[serde(default)]
    pub previous_playback_secret: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// What a project may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Longest DVR window, in seconds.
    #[schema(minimum = 30, maximum = 86400)]
    #[serde(deserialize_with = "super::number::whole")]
    pub dvr_seconds: u32,
    /// Renditions a stream may be transcoded to.
    #[schema(minimum = 0, maximum = 5)]
    #[serde(deserialize_with = "super::number::whole")]
    pub qualities: u32,
    /// Streams a project may have.
    #[schema(minimum = 1, maximum = 1_000_000)]
    #[serde(deserialize_with = "super::number::whole")]
    pub streams: u32,
    /// Seconds that a publisher may send nothing before the stream ends.
    #[schema(minimum = 1, maximum = 3600)]
    #[serde(deserialize_with = "super::number::whole")]
    pub idle_timeout_seconds: u32,
    /// Seconds that a lost publisher is waited for.
    #[schema(minimum = 0, maximum = 300)]
    #[serde(deserialize_with = "super::number::whole")]
    pub grace_seconds: u32,
    /// How often what the project may have was changed: of two readings the later one counts.
    #[serde(skip)]
    pub changes: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            dvr_seconds: 14_400,
            qualities: 5,
            streams: 1_000_000,
            idle_timeout_seconds: 30,
            grace_seconds: 10,
            changes: 0,
        }
    }
}

impl Limits {
    pub fn timers(&self) -> Timers {
        Timers {
            grace: Millis::from(self.grace_seconds) * 1000,
            idle: Millis::from(self.idle_timeout_seconds) * 1000,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub id: PlanId,
    pub limits: Limits,
    pub created_at: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    pub id: ProjectId,
    pub plan: PlanId,
    pub name: String,
    pub created_at: Millis,
}

/// The project and plan that every database starts with.
pub const DEFAULT: &str = "default";

/// An API key as it is kept: without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: String,
    /// `None`: every project.
    pub project: Option<ProjectId>,
    pub name: String,
    /// First characters of the key.
    pub prefix: String,
    pub scopes: Vec<Scope>,
    pub created_at: Millis,
    pub revoked_at: Option<Millis>,
}

impl ApiKey {
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|held| held.covers(scope))
    }
}

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub enum Scope {
    #[serde(rename = "streams:read")]
    StreamsRead,
    #[serde(rename = "streams:write")]
    StreamsWrite,
    #[serde(rename = "broadcast:start")]
    BroadcastStart,
    #[serde(rename = "broadcast:stop")]
    BroadcastStop,
    #[serde(rename = "vod:*")]
    Vod,
    #[serde(rename = "webhooks:write")]
    WebhooksWrite,
    /// API keys, plans, projects; and all of the above.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    pub const ALL: [Self; 7] = [
        Self::StreamsRead,
        Self::StreamsWrite,
        Self::BroadcastStart,
        Self::BroadcastStop,
        Self::Vod,
        Self::WebhooksWrite,
        Self::Admin,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StreamsRead => "streams:read",
            Self::StreamsWrite => "streams:write",
            Self::BroadcastStart => "broadcast:start",
            Self::BroadcastStop => "broadcast:stop",
            Self::Vod => "vod:*",
            Self::WebhooksWrite => "webhooks:write",
            Self::Admin => "admin",
        }
    }

    /// Whoever holds this may do what `asked` names. Writing includes reading.
    pub fn covers(self, asked: Self) -> bool {
        self == asked || self == Self::Admin || (self == Self::StreamsWrite && asked == Self::StreamsRead)
    }
}

impl std::str::FromStr for Scope {
    type Err = UnknownScope;
    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no scope: expected streams:read, streams:write, broadcast:start, broadcast:stop, vod:*, webhooks:write or admin"
)]
pub struct UnknownScope(String);
