//! Signed playback: whether a stream needs it, its secret, and tickets for viewers.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{
    ToSchema,
    openapi::{
        KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat,
        schema::{AnyOfBuilder, SchemaType, Type},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_shared::{
    directory::PlaybackSecret,
    playback::{UnixMillis, policy::Policy, range::AddressRange, ticket},
};

use super::{
    ApiState,
    extract::{Caller, JsonBody, OfStream, OptionalJson},
    problem::{FieldError, Problem, ReadProblems, WriteProblems},
    view::{self, PlaybackUrls, timestamp},
};
use crate::control::{
    lifecycle::Millis,
    model::{Scope, Stream},
    number::{optional_whole, whole},
    service::Renewal,
    store::now,
};

/// Longest life of a ticket: a year, in seconds.
const TICKET_SECONDS_MAX: u32 = 31_536_000;
const TICKET_SECONDS_DEFAULT: u32 = 3600;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(mint))
        .routes(routes!(settings, change_settings))
}

/// What a viewer may do with the ticket.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct TicketOrder {
    /// Seconds in which the address opens the stream.
    #[serde(deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 31_536_000, default = 3600)]
    expires_in_sec: u32,
    /// The viewer's address, or a range of them: `203.0.113.7`, `203.0.113.0/24`, `2001:db8::1`.
    #[schema(schema_with = address_range)]
    allow_ip: Option<String>,
    /// Seconds after which a viewer who got in is cut off. Left out: never.
    #[serde(deserialize_with = "optional_whole")]
    #[schema(minimum = 1, maximum = 31_536_000)]
    stream_expire_sec: Option<u32>,
    /// Lets the viewer in while the stream is backstage.
    #[schema(default = false)]
    preview: bool,
}

impl Default for TicketOrder {
    fn default() -> Self {
        Self {
            expires_in_sec: TICKET_SECONDS_DEFAULT,
            allow_ip: None,
            stream_expire_sec: None,
            preview: false,
        }
    }
}

const BYTE: &str = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";

fn address_range() -> RefOr<Schema> {
    let v4 = format!("^({BYTE}\\.){{3}}{BYTE}(/(3[0-2]|[12]?[0-9]))?$");
    let v4 = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .pattern(Some(v4))
        .build();
    let v6 = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Ipv6)))
        .build();
    let range = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .pattern(Some(
            "^[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}/(12[0-8]|1[01][0-9]|[1-9]?[0-9])$",
        ))
        .build();
    let null = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null)).build();
    let any = AnyOfBuilder::new().item(v4).item(v6).item(range).item(null).build();
    RefOr::T(Schema::AnyOf(any))
}

impl TicketOrder {
    fn policy(&self, at: Millis) -> Result<Policy, Problem> {
        let mut wrong = Vec::new();
        let lives = |seconds: u32| (1..=TICKET_SECONDS_MAX).contains(&seconds);
        if !lives(self.expires_in_sec) {
            wrong.push(FieldError::new("expiresInSec", "1 to 31536000"));
        }
        if self.stream_expire_sec.is_some_and(|s| !lives(s)) {
            wrong.push(FieldError::new("streamExpireSec", "1 to 31536000"));
        }
        let allow_ip = self
            .allow_ip
            .as_ref()
            .map(|text| text.parse::<AddressRange>())
            .transpose();
        if allow_ip.is_err() {
            wrong.push(FieldError::new(
                "allowIp",
                "an IP address or a range like 203.0.113.0/24",
            ));
        }
        if !wrong.is_empty() {
            return Err(Problem::invalid(wrong));
        }
        let at = UnixMillis::try_from(at).unwrap_or_default();
        let after = |seconds: u32| at.saturating_add(UnixMillis::from(seconds) * 1000);
        Ok(Policy {
            stream_expire: self.stream_expire_sec.map(after),
            allow_ip: allow_ip.ok().flatten(),
            preview: self.preview,
            ..Policy::until(after(self.expires_in_sec))
        })
    }
}

/// A ticket. Whoever has it may watch: hand it over HTTPS.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TicketView {
    policy: String,
    signature: String,
    /// To be appended to any playback address of the stream.
    query: String,
    /// The stream's addresses with the ticket.
    playback_urls: PlaybackUrls,
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Mint a ticket for a viewer
#[utoipa::path(
    post, path = "/v1/projects/{project}/streams/{stream}/playback-ticket", tag = "playback", operation_id = "playbackTicket",
    params(("project" = String, Path, description = "Project"), ("stream" = String, Path, description = "Stream id")),
    request_body = Option<TicketOrder>,
    responses((status = 200, description = "The ticket", body = TicketView), WriteProblems),
)]
async fn mint(
    caller: Caller,
    of: OfStream,
    State(api): State<ApiState>,
    OptionalJson(order): OptionalJson<Option<TicketOrder>>,
) -> Result<Json<TicketView>, Problem> {
    caller.may_in(&of.project, Scope::StreamsWrite)?;
    let policy = order.unwrap_or_default().policy(now())?;
    let stream = api.control.stream(&of.project, &of.id).await?;
    let secret = PlaybackSecret::new(stream.credentials.playback_secret.clone());
    let ticket = ticket::mint(&stream.key, &secret, &policy).map_err(|error| {
        tracing::error!(%error, "a policy could not be written");
        Problem::internal()
    })?;
    let query = ticket.query();
    let mut urls = view::playback_urls(&stream, &api.addresses.current());
    let signed = |url: &mut String| {
        url.push('?');
        url.push_str(&query);
    };
    let optional = [
        &mut urls.llhls,
        &mut urls.llhls_direct,
        &mut urls.hls,
        &mut urls.dash,
        &mut urls.webrtc,
    ];
    optional.into_iter().flatten().for_each(signed);
    [&mut urls.player, &mut urls.thumbnail].into_iter().for_each(signed);
    Ok(Json(TicketView {
        expires_at: timestamp(Millis::try_from(policy.url_expire).unwrap_or(Millis::MAX)),
        policy: ticket.policy,
        signature: ticket.signature,
        query,
        playback_urls: urls,
    }))
}

/// Whether playback is signed, and with what.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SignedPlayback {
    enabled: bool,
    /// Key of the HMAC-SHA256 over `<streamKey>.<policy>`; for `weir sign` and your own minting.
    secret: String,
    /// The secret before the last rotation: what it signed is still valid.
    previous_secret: Option<String>,
}

impl SignedPlayback {
    fn of(stream: &Stream) -> Json<Self> {
        Json(Self {
            enabled: stream.settings.signed_playback,
            secret: stream.credentials.playback_secret.clone(),
            previous_secret: stream.credentials.previous_playback_secret.clone(),
        })
    }
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SignedPlaybackChange {
    enabled: bool,
    /// Make a new secret. What the present one signed stays valid until the next rotation.
    #[serde(default)]
    #[schema(default = false)]
    rotate_secret: bool,
    /// Only the newest secret counts from now on: tickets that others signed are worth nothing, and their viewers are cut.
    #[serde(default)]
    #[schema(default = false)]
    revoke_previous: bool,
}

/// Read the signed-playback settings
#[utoipa::path(
    get, path = "/v1/projects/{project}/streams/{stream}/signed-playback", tag = "playback", operation_id = "getSignedPlayback",
    params(("project" = String, Path, description = "Project"), ("stream" = String, Path, description = "Stream id")),
    responses((status = 200, description = "The settings", body = SignedPlayback), ReadProblems),
)]
async fn settings(caller: Caller, of: OfStream, State(api): State<ApiState>) -> Result<Json<SignedPlayback>, Problem> {
    caller.may_in(&of.project, Scope::StreamsWrite)?;
    let stream = api.control.stream(&of.project, &of.id).await?;
    Ok(SignedPlayback::of(&stream))
}

/// Change the signed-playback settings
#[utoipa::path(
    put, path = "/v1/projects/{project}/streams/{stream}/signed-playback", tag = "playback", operation_id = "putSignedPlayback",
    params(("project" = String, Path, description = "Project"), ("stream" = String, Path, description = "Stream id")),
    request_body = SignedPlaybackChange,
    responses((status = 200, description = "The settings as they are now", body = SignedPlayback), WriteProblems),
)]
async fn change_settings(
    caller: Caller,
    of: OfStream,
    State(api): State<ApiState>,
    body: JsonBody<SignedPlaybackChange>,
) -> Result<Json<SignedPlayback>, Problem> {
    caller.may_in(&of.project, Scope::StreamsWrite)?;
    let change = body.value;
    let renewal = Renewal {
        rotate: change.rotate_secret,
        revoke_previous: change.revoke_previous,
    };
    let stream = api
        .control
        .set_signed_playback(&of.project, &of.id, change.enabled, renewal)
        .await?;
    Ok(SignedPlayback::of(&stream))
}
