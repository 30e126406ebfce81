//! What a stream can be told: activate, disable, rotate, go live, stop.

use axum::{extract::State, response::Response};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState,
    extract::{Caller, OfStream, OptionalJson},
    problem::{Problem, WriteProblems},
    recordings::{not_live_here, nothing_to_record},
    streams::answer,
    view::StreamView,
};
use crate::control::{health::Health, lifecycle::Event, model::Scope};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(activate))
        .routes(routes!(disable))
        .routes(routes!(rotate_push))
        .routes(routes!(regenerate_token))
        .routes(routes!(clear_dvr))
        .routes(routes!(go_live))
        .routes(routes!(start_broadcasting))
        .routes(routes!(stop_broadcasting))
        .routes(routes!(health))
}

async fn command(api: &ApiState, caller: &Caller, of: &OfStream, event: Event) -> Result<Response, Problem> {
    let stream = api.control.command(&of.project, &of.id, event).await?;
    Ok(answer(api, caller, StatusCode::OK, &stream))
}

/// Let a DISABLED stream be pushed again
#[utoipa::path(
    post, path = "/v1/projects/{project}/streams/{stream}/activate", tag = "lifecycle", operation_id = "activateStream",
    params(("project" = String, Path, description = "Project"), ("stream" = String, Path, description = "Stream id")),
    responses((status = 200, description = "The stream, IDLE", body = StreamView), WriteProblems),
)]
async fn activate(caller: Caller, of: OfStream, State(api): State<ApiState>) -> Result<Response, Problem> {
    caller.may_in(&of.project, Scope::StreamsWrite)?;
    command(&api, &caller, &of, Event::Activate).await
}

/// End the broadcast, if any, and refuse pushes until the stream is activated
#[utoipa::path(
    post, path = "/v1/projects/{project}/streams/{stream}/disable", tag = "lifecycle", operation_id = "disableStream",
    params(("project" = String, Path, description = "Project"), ("stream" = String, Path, description = "Stream id")),
    responses((status = 200, description = "The stream, DISABLED", body = StreamView), WriteProblems),
)]
async fn disable(caller: Caller, of: OfStream, State(api): State<ApiState>) -> Result<Response, Problem> {
    caller.may_in(&of.project, Scope::StreamsWrite)?;
    command(&api, &caller, &of, Event::Disable).await
}

/// Make new user name and passwords for pushing
///
/// A publisher that is connected goes on, unless the stream has `onRotate: kick`.
#[utoipa::path(
    post, path = "/v1/projects/{project}/streams/{stream}/rotate-push", tag = "credentials", operation_id = "rotatePush",
    params(("project" = String, Path, description = "Project"), ("stream" = String, Path, description = "Stream id")),
    responses((status = 200, description = "The stream with its new credentials", body = StreamView), WriteProblems),
)]
async fn rotate_push(caller: Caller, of: OfStream, State(api): State<ApiState>) -> Result<Response, Problem> {
    caller.may_in(&of.project, Scope::StreamsWrite)?;
    let stream = api.control.rotate_push(&of.project, &of.id).await?;
    Ok(answer(&api, &caller, StatusCode::OK, &stream))
}

/// Make new tokens for `?t=<token>`
#[utoipa::path(
    post, path = "/v1/projects/{project}/streams/{stream}/regenerate-token", tag = "credentials", operation_id = "regenerateToken",
    params(("project" = String, Path, description = "Project"), ("stream" = String, Path, description = "Stream id")),
    responses((status = 200, description = "The stream with its new tokens", body = StreamView), WriteProblems),
)]
async fn regenerate_token(caller: Caller, of: OfStream, State(api): State<ApiState>) -> Result<Response, Problem> {
    caller.may_in(&of.project, Scope::StreamsWrite)?;
    let stream = api.control.regenerate_token(&of.project, &of.id).await?;
    Ok(answer(&api, &caller, StatusCode::OK, &stream))
}

/// Forget the seekable past; players at the live edge go on
#[utoipa::path(
    post, path = "/v1/projects/{project}/streams/{stream}/clear-dvr", tag = "lifecycle", operation_id = "clearDvr",
    params(("project" = String, Path, description = "Project"), ("stream" = String, Path, description = "Stream id")),
    responses((status = 200, description = "The stream", body = StreamView), WriteProblems),
)]
async fn clear_dvr(caller: Caller, of: OfStream, State(api): State<ApiState>) -> Result<Response, Problem> {
    caller.may_in(&of.project, Scope::StreamsWrite)?;
    let stream = api.control.clear_dvr(&of.project, &of.id).await?;
    Ok(answer(&api, &caller, StatusCode::OK, &stream))
}

/// What to start.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct GoLive {
    /// Show the stream to viewers.
    #[schema(default = true)]
    start_hls: bool,
    /// Record it, from now on. True is answered with 409 unless the stream is live on the node that is asked.
    #[schema(default = false)]
    start_recording: bool,
}

impl Default for GoLive {
    fn default() -> Self {
        Self {
            start_hls: true,
            start_recording: false,
        }
    }
}

/// Let viewers see a stream that is being pushed
///
/// Calling it again changes nothing.
#[utoipa::path(
    post, path = "/v1/projects/{project}/streams/{stream}/go-live", tag = "lifecycle", operation_id = "goLive",
    params(("project" = String, Path, description = "Project"), ("stream" = String, Path, description = "Stream id")),
    request_body = Option<GoLive>,
    responses(
        (status = 200, description = "The stream, broadcasting", body = StreamView),
        WriteProblems,
    ),
)]
async fn go_live(
    caller: Caller,
    of: OfStream,
    State(api): State<ApiState>,
    OptionalJson(wanted): OptionalJson<Option<GoLive>>,
) -> Result<Response, Problem> {
    caller.may_in(&of.project, Scope::BroadcastStart)?;
    let wanted = wanted.unwrap_or_default();
    if wanted.start_recording {
        caller.may_in(&of.project, Scope::Vod)?;
    }
    let stream = match wanted.start_hls {
        true => {
            api.control
                .command(&of.project, &of.id, Event::StartBroadcasting)
                .await?
        }
        false => api.control.stream(&of.project, &of.id).await?,
    };
    // What is recorded is what viewers can see: not the end of a broadcast that was stopped before.
    if wanted.start_recording {
        let started = api.control.node().start_recording(&stream.key);
        started.ok_or_else(|| nothing_to_record(&stream))?;
    }
    Ok(answer(&api, &caller, StatusCode::OK, &stream))
}

/// Let viewers see a stream that is being pushed
#[utoipa::path(
    post, path = "/v1/projects/{project}/streams/{stream}/start-broadcasting", tag = "lifecycle", operation_id = "startBroadcasting",
    params(("project" = String, Path, description = "Project"), ("stream" = String, Path, description = "Stream id")),
    responses((status = 200, description = "The stream, broadcasting", body = StreamView), WriteProblems),
)]
async fn start_broadcasting(caller: Caller, of: OfStream, State(api): State<ApiState>) -> Result<Response, Problem> {
    caller.may_in(&of.project, Scope::BroadcastStart)?;
    command(&api, &caller, &of, Event::StartBroadcasting).await
}

/// End the playlists; the push goes on unseen
#[utoipa::path(
    post, path = "/v1/projects/{project}/streams/{stream}/stop-broadcasting", tag = "lifecycle", operation_id = "stopBroadcasting",
    params(("project" = String, Path, description = "Project"), ("stream" = String, Path, description = "Stream id")),
    responses((status = 200, description = "The stream, not broadcasting", body = StreamView), WriteProblems),
)]
async fn stop_broadcasting(caller: Caller, of: OfStream, State(api): State<ApiState>) -> Result<Response, Problem> {
    caller.may_in(&of.project, Scope::BroadcastStop)?;
    command(&api, &caller, &of, Event::StopBroadcasting).await
}

/// How the push is doing
///
/// Answers 409 unless the stream is live on the node that is asked.
#[utoipa::path(
    get, path = "/v1/projects/{project}/streams/{stream}/health", tag = "streams", operation_id = "streamHealth",
    params(("project" = String, Path, description = "Project"), ("stream" = String, Path, description = "Stream id")),
    responses((status = 200, description = "What arrives", body = Health), WriteProblems),
)]
async fn health(caller: Caller, of: OfStream, State(api): State<ApiState>) -> Result<axum::Json<Health>, Problem> {
    caller.may_in(&of.project, Scope::StreamsRead)?;
    let stream = api.control.stream(&of.project, &of.id).await?;
    let health = api.control.node().health(&stream.key);
    health.map(axum::Json).ok_or_else(|| not_live_here(&stream))
}
