//! Recordings: start, stop, list, read, delete. The file itself is `download.rs`.

use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_shared::id::RecordingName;

use super::{
    ApiState,
    download::__path_download,
    download::download,
    extract::{Caller, OfStream, Query},
    page::{Page, PageQuery},
    problem::{Problem, ReadProblems, WriteProblems},
    view::timestamp,
};
use crate::{
    control::{
        lifecycle::Status,
        model::{Scope, Stream},
        recordings::{thumbnails_url, url},
        store::{RecordingRow, RecordingState, now},
    },
    record::store::Problem as StoreProblem,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(start_recording))
        .routes(routes!(stop_recording))
        .routes(routes!(list))
        .routes(routes!(get, delete))
        .routes(routes!(download))
}

/// A recording.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RecordingView {
    /// Its name: part of its address. Names of one stream sort by time.
    pub recording: String,
    pub stream_key: String,
    pub state: RecordingState,
    #[schema(format = DateTime)]
    pub started_at: String,
    /// Seconds recorded.
    pub duration: f64,
    /// Size of all renditions together.
    pub bytes: u64,
    /// Where it is watched.
    pub url: String,
    /// Where its thumbnails are listed: a WebVTT track of JPEG pictures. Null: it has none, or none yet.
    pub thumbnails_url: Option<String>,
    /// Why it failed.
    pub message: Option<String>,
    /// What is wrong with the store at the moment, while there is something to be stored.
    pub problem: Option<StoreProblem>,
}

impl RecordingView {
    fn of(api: &ApiState, row: &RecordingRow) -> Self {
        let growing = api.control.node().unfinished_recording(&row.key, &row.name);
        let stored = |n: i64| u64::try_from(n).unwrap_or(0);
        Self {
            recording: row.name.to_string(),
            stream_key: row.key.to_string(),
            state: row.state,
            started_at: timestamp(row.started_at),
            duration: growing.as_ref().map_or_else(
                || std::time::Duration::from_millis(stored(row.duration_ms)).as_secs_f64(),
                |r| r.duration.as_secs_f64(),
            ),
            bytes: growing.as_ref().map_or(stored(row.bytes), |r| r.bytes),
            url: url(&api.addresses, row),
            thumbnails_url: thumbnails_url(&api.addresses, row),
            message: row.message.clone(),
            problem: growing.and_then(|r| r.problem),
        }
    }
}

/// `/v1/projects/{project}/streams/{stream}/recordings/{recording}…`
#[derive(Debug, Clone)]
pub(super) struct OfRecording {
    pub stream: OfStream,
    pub name: RecordingName,
}

#[derive(Debug, Clone, Deserialize)]
struct RawRecording {
    recording: String,
}

const NO_RECORDING: &str = "there is no such recording of this stream";

impl<S: Send + Sync> FromRequestParts<S> for OfRecording {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let stream = OfStream::from_request_parts(parts, state).await?;
        let raw: Result<Path<RawRecording>, _> = Path::from_request_parts(parts, state).await;
        let name = raw.ok().and_then(|Path(raw)| raw.recording.parse().ok());
        Ok(Self {
            stream,
            name: name.ok_or_else(|| Problem::not_found(NO_RECORDING))?,
        })
    }
}

pub(super) async fn row(api: &ApiState, of: &OfRecording) -> Result<RecordingRow, Problem> {
    let found = api
        .control
        .store
        .recording(&of.stream.project, &of.stream.id, &of.name)
        .await?;
    found.ok_or_else(|| Problem::not_found(NO_RECORDING))
}

/// What is known of a recording of this node at once, before the store hears of it.
async fn fresh(api: &ApiState, stream: &Stream, name: RecordingName) -> Result<RecordingView, Problem> {
    let stored = api.control.store.recording(&stream.project, &stream.id, &name).await?;
    let at = now();
    let row = stored.unwrap_or_else(|| RecordingRow {
        key: stream.key.clone(),
        name,
        project: stream.project.clone(),
        stream_id: stream.id.clone(),
        state: RecordingState::Recording,
        started_at: at,
        changed_at: at,
        duration_ms: 0,
        bytes: 0,
        message: None,
        thumbnails: false,
    });
    Ok(RecordingView::of(api, &row))
}

pub(super) fn not_live_here(stream: &Stream) -> Problem {
    Problem::conflict(
        "illegal-state",
        format!(
            "nothing is pushed to this node: the stream is {}",
            stream.status().as_str()
        ),
    )
}

/// Live here and yet hidden, or not live here.
pub(super) fn nothing_to_record(stream: &Stream) -> Problem {
    match stream.status() == Status::Live && !stream.state.broadcasting {
        true => Problem::conflict(
            "illegal-state",
            "the stream is LIVE and its broadcast was stopped: go-live first".to_owned(),
        ),
        false => not_live_here(stream),
    }
}

/// Start recording
///
/// What is pushed from now on is recorded, together with the segment that is being made. If the stream is being recorded
/// already, that recording goes on. Answers 409 unless the stream is live on the node that is asked.
#[utoipa::path(
    post, path = "/v1/projects/{project}/streams/{stream}/start-recording", tag = "recording", operation_id = "startRecording",
    params(("project" = String, Path, description = "Project"), ("stream" = String, Path, description = "Stream id")),
    responses((status = 200, description = "The recording", body = RecordingView), WriteProblems),
)]
async fn start_recording(
    caller: Caller,
    of: OfStream,
    State(api): State<ApiState>,
) -> Result<Json<RecordingView>, Problem> {
    caller.may_in(&of.project, Scope::Vod)?;
    let stream = api.control.stream(&of.project, &of.id).await?;
    let name = api.control.node().start_recording(&stream.key);
    let name = name.ok_or_else(|| nothing_to_record(&stream))?;
    Ok(Json(fresh(&api, &stream, name).await?))
}

/// Stop recording
///
/// The push goes on. Answers 204 if nothing is being recorded on the node that is asked.
#[utoipa::path(
    post, path = "/v1/projects/{project}/streams/{stream}/stop-recording", tag = "recording", operation_id = "stopRecording",
    params(("project" = String, Path, description = "Project"), ("stream" = String, Path, description = "Stream id")),
    responses(
        (status = 200, description = "The recording; what is left of it is being stored", body = RecordingView),
        (status = 204, description = "There was none"),
        WriteProblems,
    ),
)]
async fn stop_recording(caller: Caller, of: OfStream, State(api): State<ApiState>) -> Result<Response, Problem> {
    caller.may_in(&of.project, Scope::Vod)?;
    let stream = api.control.stream(&of.project, &of.id).await?;
    match api.control.node().stop_recording(&stream.key) {
        Some(name) => Ok(Json(fresh(&api, &stream, name).await?).into_response()),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// List a stream's recordings
///
/// They outlive the stream: its id leads to them even when it was removed.
#[utoipa::path(
    get, path = "/v1/projects/{project}/streams/{stream}/recordings", tag = "recording", operation_id = "listRecordings",
    params(
        ("project" = String, Path, description = "Project"),
        ("stream" = String, Path, description = "Stream id"),
        PageQuery,
    ),
    responses((status = 200, description = "One page", body = Page<RecordingView>), ReadProblems),
)]
async fn list(
    caller: Caller,
    of: OfStream,
    State(api): State<ApiState>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<RecordingView>>, Problem> {
    caller.may_in(&of.project, Scope::Vod)?;
    let query = query.checked()?;
    let (rows, total) = api
        .control
        .store
        .list_recordings(&of.project, &of.id, query.skip, query.limit)
        .await?;
    if total == 0 {
        // A stream without recordings has an empty list; one that never was has none.
        api.control.stream(&of.project, &of.id).await?;
    }
    let items = rows.iter().map(|row| RecordingView::of(&api, row)).collect();
    Ok(Json(query.page(items, total)))
}

/// Read a recording
#[utoipa::path(
    get, path = "/v1/projects/{project}/streams/{stream}/recordings/{recording}", tag = "recording", operation_id = "getRecording",
    params(
        ("project" = String, Path, description = "Project"),
        ("stream" = String, Path, description = "Stream id"),
        ("recording" = String, Path, description = "Recording"),
    ),
    responses((status = 200, description = "The recording", body = RecordingView), ReadProblems),
)]
async fn get(caller: Caller, of: OfRecording, State(api): State<ApiState>) -> Result<Json<RecordingView>, Problem> {
    caller.may_in(&of.stream.project, Scope::Vod)?;
    let row = row(&api, &of).await?;
    Ok(Json(RecordingView::of(&api, &row)))
}

/// Delete a recording
///
/// Viewers are answered 404 from now on; what they have loaded already, they can play to its end. One that is still being
/// recorded has to be stopped first.
#[utoipa::path(
    delete, path = "/v1/projects/{project}/streams/{stream}/recordings/{recording}", tag = "recording", operation_id = "deleteRecording",
    params(
        ("project" = String, Path, description = "Project"),
        ("stream" = String, Path, description = "Stream id"),
        ("recording" = String, Path, description = "Recording"),
    ),
    responses((status = 204, description = "Gone"), WriteProblems),
)]
async fn delete(caller: Caller, of: OfRecording, State(api): State<ApiState>) -> Result<StatusCode, Problem> {
    caller.may_in(&of.stream.project, Scope::Vod)?;
    let row = row(&api, &of).await?;
    if row.state == RecordingState::Recording {
        return Err(Problem::conflict(
            "illegal-state",
            "it is still being recorded or stored: stop it, then delete it when it is completed".to_owned(),
        ));
    }
    let gone = RecordingRow {
        state: RecordingState::Deleting,
        changed_at: now(),
        ..row
    };
    let mut tx = api.control.store.begin().await?;
    tx.update_recording(&gone).await?;
    tx.commit().await?;
    // If the store does not answer now, it is asked again later.
    api.control.remove_deleted(&gone).await;
    Ok(StatusCode::NO_CONTENT)
}
