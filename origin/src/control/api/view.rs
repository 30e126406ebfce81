//! What the API shows of a stream: the JSON of the public contract, nothing more.
//!
//! Before this: `model.rs`. Secrets are shown to API keys with `streams:write`; others see null in their place.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use utoipa::ToSchema;
use weir_shared::hls::date;

use crate::control::{
    addresses::Addresses,
    lifecycle::{Millis, Status},
    model::{OnRotate, Protocol, Quality, RecordType, Stream},
};

/// A stream.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Stream)]
pub struct StreamView {
    pub id: String,
    pub name: String,
    pub project: String,
    /// The stream's public name: part of push and playback addresses.
    pub stream_key: String,
    pub status: Status,
    pub protocols: Vec<Protocol>,
    /// Renditions to transcode to; empty: the broadcaster's own picture only.
    pub qualities: Vec<Quality>,
    pub dvr_enabled: bool,
    /// Seconds of the past that stay seekable.
    pub dvr_duration: u32,
    pub vod_enabled: bool,
    pub record_type: RecordType,
    /// Whether viewers need a signed address.
    pub signed_playback: bool,
    pub ingest: Ingest,
    pub playback_urls: PlaybackUrls,
    pub egress: Egress,
    /// Whether the primary publisher is connected.
    pub live: bool,
    /// Whether the backup publisher is connected.
    pub backup_live: bool,
    /// How many watch, on all edges, as they said in the last seconds.
    pub viewers: u64,
    /// Whether a recording is under way.
    pub recording: bool,
    /// Seconds recorded so far.
    pub recording_duration: f64,
    /// Whether publishers are let in at all.
    pub active: bool,
    /// Whether broadcasts start unseen, until `go-live`.
    pub backstage: bool,
    /// Whether a connected publisher is cut when its credentials are rotated.
    pub on_rotate: OnRotate,
    /// Whether whoever knows the key may push.
    pub allow_key_only: bool,
    pub pull: bool,
    pub uri: Option<String>,
    pub client_user_id: Option<String>,
    #[schema(value_type = Object)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    #[schema(format = DateTime)]
    pub created_at: String,
    #[schema(format = DateTime)]
    pub updated_at: String,
}

/// Where and with what to push. Null: this node has no such door, or the API key may not see it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ingest {
    pub rtmp_url: Option<String>,
    pub rtmps_url: Option<String>,
    pub srt_url: Option<String>,
    pub whip_url: Option<String>,
    pub rtmp_port: Option<u16>,
    pub srt_port: Option<u16>,
    pub username: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
    pub passphrase: Option<String>,
    pub backup: Backup,
}

/// The second publisher's way in.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    pub rtmp_url: Option<String>,
    pub rtmps_url: Option<String>,
    pub srt_url: Option<String>,
    /// What the encoder gives as stream key.
    pub stream_key: String,
    pub username: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
}

/// Where to watch. Null: the stream does not have this protocol.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlaybackUrls {
    pub llhls: Option<String>,
    pub llhls_direct: Option<String>,
    pub hls: Option<String>,
    pub dash: Option<String>,
    pub webrtc: Option<String>,
    pub player: String,
    pub thumbnail: String,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Egress {
    /// Whether viewers are shown the stream.
    pub broadcasting: bool,
    pub hls: EgressHls,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressHls {
    /// The playlist while the stream is broadcast, else null.
    pub playlist_url: Option<String>,
}

/// `2026-11-21T08:40:00.123Z`.
pub fn timestamp(at: Millis) -> String {
    let since = Duration::from_millis(u64::try_from(at).unwrap_or(0));
    let mut text = String::new();
    if !date::push_date(&mut text, UNIX_EPOCH + since) {
        text.push_str("9999-12-31T23:59:59.999Z");
    }
    text
}

impl StreamView {
    pub fn of(stream: &Stream, addresses: &Addresses, viewers: u64, with_secrets: bool) -> Self {
        let settings = &stream.settings;
        let state = &stream.state;
        let playback = playback_urls(stream, addresses);
        Self {
            id: stream.id.to_string(),
            name: settings.name.clone(),
            project: stream.project.to_string(),
            stream_key: stream.key.to_string(),
            status: stream.status(),
            protocols: settings.protocols.clone(),
            qualities: settings.qualities.clone(),
            dvr_enabled: settings.dvr_enabled,
            dvr_duration: settings.dvr_duration,
            vod_enabled: settings.vod_enabled,
            record_type: settings.record_type,
            signed_playback: settings.signed_playback,
            ingest: ingest(stream, addresses, with_secrets),
            egress: Egress {
                broadcasting: state.broadcasting,
                hls: EgressHls {
                    playlist_url: playback.llhls.clone().filter(|_| state.broadcasting),
                },
            },
            playback_urls: playback,
            live: state.primary,
            backup_live: state.backup,
            viewers,
            recording: false,
            recording_duration: 0.0,
            active: state.active,
            backstage: state.backstage,
            on_rotate: settings.on_rotate,
            allow_key_only: settings.allow_key_only,
            pull: settings.pull,
            uri: settings.uri.clone(),
            client_user_id: settings.client_user_id.clone(),
            metadata: settings.metadata.clone(),
            created_at: timestamp(stream.created_at),
            updated_at: timestamp(stream.updated_at),
        }
    }
}

fn ingest(stream: &Stream, at: &Addresses, with_secrets: bool) -> Ingest {
    let held = &stream.credentials;
    let secret = |text: &String| with_secrets.then(|| text.clone());
    let key = stream.key.as_str();
    let backup_key = format!("{key}/backup");
    // The passphrase is part of an SRT address.
    let srt = |key: &str| {
        let passphrase = secret(&held.passphrase)?;
        at.srt(key, &passphrase)
    };
    Ingest {
        rtmp_url: at.rtmp_url(),
        rtmps_url: at.rtmps_url(),
        srt_url: srt(key),
        whip_url: at.whip(key),
        rtmp_port: at.rtmp_port,
        srt_port: at.srt_port,
        username: secret(&held.username),
        password: secret(&held.password),
        token: secret(&held.token),
        passphrase: secret(&held.passphrase),
        backup: Backup {
            rtmp_url: at.rtmp_url(),
            rtmps_url: at.rtmps_url(),
            srt_url: srt(&backup_key.replace('/', "%2F")),
            stream_key: backup_key,
            username: secret(&held.username),
            password: secret(&held.backup_password),
            token: secret(&held.backup_token),
        },
    }
}

/// Every address at which a stream is watched.
pub fn playback_urls(stream: &Stream, at: &Addresses) -> PlaybackUrls {
    let key = stream.key.as_str();
    let when = |protocol: Protocol, path: &str| {
        stream
            .settings
            .protocols
            .contains(&protocol)
            .then(|| at.playback(&format!("/app/{key}{path}")))
    };
    PlaybackUrls {
        llhls: when(Protocol::Llhls, "/index.m3u8"),
        llhls_direct: when(Protocol::Llhls, "/d/llhls.m3u8"),
        hls: when(Protocol::Hls, "/ts:hls.m3u8"),
        dash: when(Protocol::Dash, "/manifest.mpd"),
        webrtc: when(Protocol::Webrtc, ""),
        player: at.playback(&format!("/play/{key}")),
        thumbnail: at.playback(&format!("/app/{key}/thumbnail.jpg")),
    }
}
