//! The call that opens an event feed.

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::HeaderMap;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::WebhookState;
use crate::control::{
    api::{
        extract::{Caller, InProject, Query},
        problem::{FieldError, Problem, ReadProblems},
    },
    events::{Event, EventId},
    model::Scope,
    service::Refused,
    sse::NoFeed,
};

pub(super) fn routes() -> OpenApiRouter<WebhookState> {
    OpenApiRouter::new().routes(routes!(feed))
}

#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct FeedQuery {
    /// As the header `Last-Event-ID`, for clients that can't send it. The header counts if there are both.
    #[param(value_type = Option<String>, format = "uuid")]
    last_event_id: Option<String>,
}

/// Follow the project's events as they happen
///
/// Server-sent events: `id` is the event's id, `event` its type, `data` its JSON, the same that webhooks get. A client
/// that reconnects with `Last-Event-ID` misses nothing of the last seven days; without it the feed begins now. The feed
/// sends a comment every 15 seconds and ends after 15 minutes: reconnect then.
#[utoipa::path(
    get, path = "/v1/projects/{project}/events", tag = "events", operation_id = "followEvents",
    params(
        ("project" = String, Path, description = "Project"),
        ("Last-Event-ID" = Option<String>, Header, description = "The last event that was seen"),
        FeedQuery,
    ),
    responses(
        (status = 200, description = "Events, until the connection ends", body = Event, content_type = "text/event-stream"),
        ReadProblems,
    ),
)]
async fn feed(
    caller: Caller,
    InProject(project): InProject,
    State(state): State<WebhookState>,
    Query(query): Query<FeedQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may_in(&project, Scope::StreamsRead)?;
    let header = headers
        .get("last-event-id")
        .map(|value| value.to_str().unwrap_or("?").to_owned());
    let last_seen = match header.or(query.last_event_id).filter(|id| !id.is_empty()) {
        Some(id) => Some(id.parse::<EventId>().map_err(|_| {
            Problem::invalid(vec![FieldError::new(
                "Last-Event-ID",
                "the id of an event of this feed",
            )])
        })?),
        None => None,
    };
    if state.api.control.store.project(&project).await?.is_none() {
        return Err(Refused::NoProject.into());
    }
    match state.feeds.open(&project, last_seen).await {
        Ok(feed) => Ok(feed.into_response()),
        Err(full @ NoFeed::TooMany) => {
            let mut problem = Problem::unavailable();
            problem.title = "Too many event feeds are open".to_owned();
            problem.detail = full.to_string();
            Err(problem)
        }
        Err(NoFeed::Store(error)) => Err(error.into()),
    }
}
