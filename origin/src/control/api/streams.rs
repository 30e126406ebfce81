//! Streams: create, list, read, change, remove.

use std::time::Instant;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, StatusCode,
    header::{ETAG, LOCATION},
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_shared::hls::date;

use super::{
    ApiState,
    body::StreamSettings,
    extract::{Caller, IdempotencyKey, InProject, JsonBody, OfStream, Query},
    page::{PAGE, Page, wrong_fields},
    problem::{FieldError, Problem, ReadProblems, WriteProblems},
    view::StreamView,
};
use crate::control::{
    lifecycle::{Event, Millis, Status},
    model::{Scope, Stream},
    service::{Idempotency, IfMatch, Refused},
    store::Listing,
};

/// Longest search text, in characters.
const Q_CHARS: usize = 200;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, patch, delete))
}

/// A stream as an answer, with its entity tag.
pub(super) fn answer(api: &ApiState, caller: &Caller, status: StatusCode, stream: &Stream) -> Response {
    let secrets = caller.0.allows(Scope::StreamsWrite);
    let viewers = api.control.viewers.of(&stream.key, Instant::now());
    let view = StreamView::of(stream, &api.addresses.current(), viewers, secrets).with_recording(api.control.node());
    let mut response = (status, Json(view)).into_response();
    if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", stream.version)) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// Create a stream
///
/// With an `Idempotency-Key` the same request may be sent again within a day: it creates one stream, and the repetition
/// is answered with that stream and the header `Idempotent-Replayed: true`.
#[utoipa::path(
    post, path = "/v1/projects/{project}/streams", tag = "streams", operation_id = "createStream",
    params(
        ("project" = String, Path, description = "Project"),
        ("Idempotency-Key" = Option<String>, Header, description = "Your own name for this request: 1 to 255 printable ASCII characters without spaces", min_length = 1, max_length = 255, pattern = "^[!-~]+$"),
    ),
    request_body = StreamSettings,
    responses((status = 201, description = "The new stream", body = StreamView), WriteProblems),
)]
async fn create(
    caller: Caller,
    InProject(project): InProject,
    State(api): State<ApiState>,
    IdempotencyKey(key): IdempotencyKey,
    body: JsonBody<StreamSettings>,
) -> Result<Response, Problem> {
    caller.may_in(&project, Scope::StreamsWrite)?;
    let idempotency = key.as_deref().map(|key| Idempotency {
        key,
        request_hash: &body.hash,
    });
    let created = api
        .control
        .create_stream(&project, body.value.create()?, idempotency)
        .await?;
    let stream = &created.stream;
    let mut response = answer(&api, &caller, StatusCode::CREATED, stream);
    let headers = response.headers_mut();
    let location = format!("/v1/projects/{project}/streams/{}", stream.id);
    if let Ok(location) = HeaderValue::try_from(location) {
        headers.insert(LOCATION, location);
    }
    if created.replayed {
        headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Streams to leave out at the start.
    #[param(minimum = 0, maximum = 10_000_000, default = 0)]
    skip: u32,
    /// Streams on a page.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: u32,
    /// Words in name, id, stream key or client user id.
    #[param(required = false, value_type = String, max_length = 200, pattern = "^[^\\u0000]*$")]
    q: Option<String>,
    #[param(required = false, value_type = Status)]
    status: Option<Status>,
    /// Created at this moment or later.
    #[param(required = false, value_type = String, format = DateTime)]
    from: Option<String>,
    /// Created before this moment.
    #[param(required = false, value_type = String, format = DateTime)]
    to: Option<String>,
}

impl Default for ListQuery {
    fn default() -> Self {
        Self {
            skip: 0,
            limit: PAGE,
            q: None,
            status: None,
            from: None,
            to: None,
        }
    }
}

impl ListQuery {
    fn listing(self) -> Result<Listing, Problem> {
        let mut wrong = wrong_fields(self.skip, self.limit);
        if self
            .q
            .as_ref()
            .is_some_and(|q| q.chars().count() > Q_CHARS || q.contains('\0'))
        {
            wrong.push(FieldError::new("q", "at most 200 characters, none of them NUL"));
        }
        let mut moment = |field: &str, text: Option<&String>| {
            let read = text.map(|text| millis(text));
            if read == Some(None) {
                wrong.push(FieldError::new(field, "a moment like 2026-11-21T08:40:00Z"));
            }
            read.flatten()
        };
        let (from, to) = (moment("from", self.from.as_ref()), moment("to", self.to.as_ref()));
        if !wrong.is_empty() {
            return Err(Problem::invalid(wrong));
        }
        Ok(Listing {
            skip: self.skip,
            limit: self.limit,
            q: self.q.filter(|q| !q.is_empty()),
            status: self.status,
            from,
            to,
        })
    }
}

/// RFC 3339 to milliseconds since 1970. A `+` that came unencoded was read as a space.
fn millis(text: &str) -> Option<Millis> {
    let time = date::date(&text.replace(' ', "+"))?;
    let ms = match time.duration_since(std::time::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).ok()?,
        Err(before) => -i64::try_from(before.duration().as_millis()).ok()?,
    };
    Some(ms)
}

/// List streams, newest first
#[utoipa::path(
    get, path = "/v1/projects/{project}/streams", tag = "streams", operation_id = "listStreams",
    params(("project" = String, Path, description = "Project"), ListQuery),
    responses((status = 200, description = "A page", body = Page<StreamView>), ReadProblems),
)]
async fn list(
    caller: Caller,
    InProject(project): InProject,
    State(api): State<ApiState>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<StreamView>>, Problem> {
    caller.may_in(&project, Scope::StreamsRead)?;
    let listing = query.listing()?;
    let page = api.control.store.list_streams(&project, &listing).await?;
    if page.total == 0 && api.control.store.project(&project).await?.is_none() {
        return Err(Refused::NoProject.into());
    }
    let secrets = caller.0.allows(Scope::StreamsWrite);
    let addresses = api.addresses.current();
    let viewers = |stream: &Stream| api.control.viewers.of(&stream.key, Instant::now());
    let view = |stream| StreamView::of(stream, &addresses, viewers(stream), secrets).with_recording(api.control.node());
    Ok(Json(Page {
        items: page.items.iter().map(view).collect(),
        total: page.total,
        skip: listing.skip,
        limit: listing.limit,
    }))
}

/// Read a stream
#[utoipa::path(
    get, path = "/v1/projects/{project}/streams/{stream}", tag = "streams", operation_id = "getStream",
    params(("project" = String, Path, description = "Project"), ("stream" = String, Path, description = "Stream id")),
    responses((status = 200, description = "The stream", body = StreamView), ReadProblems),
)]
async fn get(caller: Caller, of: OfStream, State(api): State<ApiState>) -> Result<Response, Problem> {
    caller.may_in(&of.project, Scope::StreamsRead)?;
    let stream = api.control.stream(&of.project, &of.id).await?;
    Ok(answer(&api, &caller, StatusCode::OK, &stream))
}

/// Change a stream
///
/// What is left out stays. With `If-Match` the change happens only to the version that was read; the new entity tag is
/// in the answer.
#[utoipa::path(
    patch, path = "/v1/projects/{project}/streams/{stream}", tag = "streams", operation_id = "patchStream",
    params(
        ("project" = String, Path, description = "Project"),
        ("stream" = String, Path, description = "Stream id"),
        ("If-Match" = Option<String>, Header, description = "Entity tag of the version to change, or several of them"),
    ),
    request_body = StreamSettings,
    responses(
        (status = 200, description = "The stream as it is now", body = StreamView),
        (status = 412, description = "The stream is at another version", body = Problem, content_type = "application/problem+json"),
        WriteProblems,
    ),
)]
async fn patch(
    caller: Caller,
    of: OfStream,
    State(api): State<ApiState>,
    if_match: IfMatch,
    body: JsonBody<StreamSettings>,
) -> Result<Response, Problem> {
    caller.may_in(&of.project, Scope::StreamsWrite)?;
    let change = body.value.patch()?;
    let stream = api.control.stream(&of.project, &of.id).await?;
    if change.stream_key.as_ref().is_some_and(|key| key != stream.key.as_str()) {
        return Err(Problem::conflict(
            "fixed",
            "a stream's key can't be changed: create another stream".to_owned(),
        ));
    }
    let stream = api
        .control
        .patch_stream(&of.project, &of.id, if_match, |stream| {
            change.patch_of(&stream.settings)
        })
        .await?;
    Ok(answer(&api, &caller, StatusCode::OK, &stream))
}

#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeleteQuery {
    /// Remove the stream altogether, instead of switching it off.
    #[param(default = false)]
    purge: bool,
}

/// Switch a stream off, or remove it
///
/// Without `purge` the stream becomes DISABLED and inactive, and can be brought back. Recordings stay playable either
/// way.
#[utoipa::path(
    delete, path = "/v1/projects/{project}/streams/{stream}", tag = "streams", operation_id = "deleteStream",
    params(
        ("project" = String, Path, description = "Project"),
        ("stream" = String, Path, description = "Stream id"),
        DeleteQuery,
    ),
    responses(
        (status = 200, description = "Switched off", body = StreamView),
        (status = 204, description = "Removed"),
        WriteProblems,
    ),
)]
async fn delete(
    caller: Caller,
    of: OfStream,
    State(api): State<ApiState>,
    Query(query): Query<DeleteQuery>,
) -> Result<Response, Problem> {
    caller.may_in(&of.project, Scope::StreamsWrite)?;
    if query.purge {
        api.control.purge_stream(&of.project, &of.id).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let stream = api.control.command(&of.project, &of.id, Event::Delete).await?;
    Ok(answer(&api, &caller, StatusCode::OK, &stream))
}
