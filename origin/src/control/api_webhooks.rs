//! REST calls about webhook endpoints, their delivery log (`api_webhooks/log.rs`) and the event feed
//! (`api_webhooks/feed.rs`).
//!
//! Before this: `api/…`, which authenticates and refuses. After this: `delivery/endpoints.rs`, `delivery/queue.rs`,
//! `sse.rs`. An endpoint's secret is in the answer that makes it and nowhere else.

#![allow(unused_qualifications, reason = "utoipa's macros write names out in full")]

mod feed;
mod log;

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRef, FromRequestParts, Path, State},
};
use http::{StatusCode, request::Parts};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_shared::id::ProjectId;

use super::{
    api::{
        ApiState,
        extract::{Caller, InProject, JsonBody},
        problem::{FieldError, Problem, ReadProblems, WriteProblems},
        view::timestamp,
    },
    delivery::{Clock, Endpoint, EndpointId, Metrics, NotAdded},
    events::{Filter, FilterEntry},
    guard::{Destination, Guard, URL_LIMIT},
    model::Scope,
    service::Refused,
    sse::Feeds,
    webhook::Secret,
};

/// Longest description, in characters.
const DESCRIPTION_CHARS: usize = 200;
/// Entries of an endpoint's filter.
const FILTER_ENTRIES: usize = 32;

/// What these calls have at hand besides the API's own.
#[derive(Clone)]
pub struct WebhookState {
    pub api: ApiState,
    /// Which addresses an endpoint's URL may name.
    pub guard: Arc<Guard>,
    pub feeds: Feeds,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
}

impl FromRef<WebhookState> for ApiState {
    fn from_ref(state: &WebhookState) -> Self {
        state.api.clone()
    }
}

/// All calls of this module, to be merged with the API's own ([`calls`](super::api::calls)).
pub fn router(state: WebhookState) -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, patch, delete))
        .routes(routes!(rotate_secret))
        .merge(log::routes())
        .merge(feed::routes())
        .with_state(state)
}

/// The endpoint of an address.
pub(super) struct OfWebhook {
    pub(super) project: ProjectId,
    pub(super) id: EndpointId,
}

#[derive(Deserialize)]
struct WebhookPath {
    webhook: String,
}

impl FromRequestParts<WebhookState> for OfWebhook {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &WebhookState) -> Result<Self, Problem> {
        let InProject(project) = InProject::from_request_parts(parts, state).await?;
        let path: Result<Path<WebhookPath>, _> = Path::from_request_parts(parts, state).await;
        let id = path.ok().and_then(|Path(path)| EndpointId::parse(&path.webhook));
        Ok(Self {
            project,
            id: id.ok_or_else(no_webhook)?,
        })
    }
}

fn no_webhook() -> Problem {
    Problem::not_found("there is no such webhook endpoint in this project")
}

/// A webhook endpoint, without its secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Webhook)]
struct WebhookView {
    id: String,
    project: String,
    /// Where events are posted to.
    url: String,
    /// Which events are.
    events: Vec<FilterEntry>,
    description: String,
    /// While false, nothing is sent and nothing is queued.
    active: bool,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

impl From<&Endpoint> for WebhookView {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            id: endpoint.id.to_string(),
            project: endpoint.project.to_string(),
            url: endpoint.url.clone(),
            events: endpoint.filter.entries().to_vec(),
            description: endpoint.description.clone(),
            active: endpoint.active,
            created_at: timestamp(endpoint.created_at),
            updated_at: timestamp(endpoint.updated_at),
        }
    }
}

/// An endpoint with a secret that was just made. It is shown this once.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NewWebhookView {
    /// Deliveries are signed with it: `whsec_…`.
    secret: String,
    webhook: WebhookView,
}

impl From<&Endpoint> for NewWebhookView {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            secret: endpoint.secret.reveal().to_owned(),
            webhook: endpoint.into(),
        }
    }
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct WebhookList {
    items: Vec<WebhookView>,
}

/// An endpoint to make.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewWebhook {
    /// An http or https address on the public Internet, unless the operator allows others. Redirects are not followed.
    #[schema(max_length = 2048, pattern = "^https?://[!-~]+$")]
    url: String,
    /// Left out: all, those included that later versions add.
    #[schema(min_items = 1, max_items = 32)]
    events: Option<Vec<FilterEntry>>,
    #[schema(max_length = 200, pattern = "^[^\\u0000]*$")]
    description: Option<String>,
    #[schema(default = true)]
    active: Option<bool>,
}

/// What to change. Left out or null: as it is.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WebhookPatch {
    #[schema(max_length = 2048, pattern = "^https?://[!-~]+$")]
    url: Option<String>,
    #[schema(min_items = 1, max_items = 32)]
    events: Option<Vec<FilterEntry>>,
    #[schema(max_length = 200, pattern = "^[^\\u0000]*$")]
    description: Option<String>,
    active: Option<bool>,
}

impl WebhookPatch {
    /// All wrong fields at once.
    fn check(&self, guard: &Guard) -> Result<(), Problem> {
        let mut wrong = Vec::new();
        if let Some(Err(error)) = self.url.as_ref().map(|url| Destination::parse(url, guard)) {
            let told = error.to_string();
            wrong.push(FieldError::new("url", told.strip_prefix("expected ").unwrap_or(&told)));
        }
        if self
            .events
            .as_ref()
            .is_some_and(|events| !(1..=FILTER_ENTRIES).contains(&events.len()))
        {
            wrong.push(FieldError::new("events", "1 to 32 entries"));
        }
        let plain = |text: &String| text.chars().count() <= DESCRIPTION_CHARS && !text.contains('\0');
        if !self.description.as_ref().is_none_or(plain) {
            wrong.push(FieldError::new(
                "description",
                "at most 200 characters, none of them NUL",
            ));
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Problem::invalid(wrong)),
        }
    }

    fn apply(self, endpoint: &mut Endpoint) {
        if let Some(url) = self.url {
            endpoint.url = url;
        }
        if let Some(events) = self.events {
            endpoint.filter = Filter::new(events);
        }
        if let Some(description) = self.description {
            endpoint.description = description;
        }
        if let Some(active) = self.active {
            endpoint.active = active;
        }
    }
}

/// List the project's webhook endpoints, newest first
#[utoipa::path(
    get, path = "/v1/projects/{project}/webhooks", tag = "webhooks", operation_id = "listWebhooks",
    params(("project" = String, Path, description = "Project")),
    responses((status = 200, description = "All of them; a project has at most 16", body = WebhookList), ReadProblems),
)]
async fn list(
    caller: Caller,
    InProject(project): InProject,
    State(state): State<WebhookState>,
) -> Result<Json<WebhookList>, Problem> {
    caller.may_in(&project, Scope::WebhooksWrite)?;
    let store = &state.api.control.store;
    let endpoints = Endpoint::list(store, &project).await?;
    if endpoints.is_empty() && store.project(&project).await?.is_none() {
        return Err(Refused::NoProject.into());
    }
    Ok(Json(WebhookList {
        items: endpoints.iter().map(WebhookView::from).collect(),
    }))
}

/// Have events posted to an address
///
/// Every delivery is signed with the secret in the answer, which is shown this once.
#[utoipa::path(
    post, path = "/v1/projects/{project}/webhooks", tag = "webhooks", operation_id = "createWebhook",
    params(("project" = String, Path, description = "Project")),
    request_body = NewWebhook,
    responses((status = 201, description = "The endpoint and its secret", body = NewWebhookView), WriteProblems),
)]
async fn create(
    caller: Caller,
    InProject(project): InProject,
    State(state): State<WebhookState>,
    body: JsonBody<NewWebhook>,
) -> Result<(StatusCode, Json<NewWebhookView>), Problem> {
    caller.may_in(&project, Scope::WebhooksWrite)?;
    let NewWebhook {
        url,
        events,
        description,
        active,
    } = body.value;
    let mut endpoint = Endpoint::new(project, url.clone(), (state.clock)());
    let settings = WebhookPatch {
        url: Some(url),
        events,
        description,
        active,
    };
    settings.check(&state.guard)?;
    settings.apply(&mut endpoint);
    endpoint.add(&state.api.control.store).await?;
    Ok((StatusCode::CREATED, Json((&endpoint).into())))
}

/// Read a webhook endpoint
#[utoipa::path(
    get, path = "/v1/projects/{project}/webhooks/{webhook}", tag = "webhooks", operation_id = "getWebhook",
    params(("project" = String, Path, description = "Project"), ("webhook" = String, Path, description = "Endpoint id")),
    responses((status = 200, description = "The endpoint, without its secret", body = WebhookView), ReadProblems),
)]
async fn get(caller: Caller, of: OfWebhook, State(state): State<WebhookState>) -> Result<Json<WebhookView>, Problem> {
    caller.may_in(&of.project, Scope::WebhooksWrite)?;
    let found = Endpoint::get(&state.api.control.store, &of.project, &of.id).await?;
    let endpoint = found.ok_or_else(no_webhook)?;
    Ok(Json((&endpoint).into()))
}

/// Change a webhook endpoint
///
/// What waits to be delivered goes to the new address.
#[utoipa::path(
    patch, path = "/v1/projects/{project}/webhooks/{webhook}", tag = "webhooks", operation_id = "patchWebhook",
    params(("project" = String, Path, description = "Project"), ("webhook" = String, Path, description = "Endpoint id")),
    request_body = WebhookPatch,
    responses((status = 200, description = "The endpoint as it is now", body = WebhookView), WriteProblems),
)]
async fn patch(
    caller: Caller,
    of: OfWebhook,
    State(state): State<WebhookState>,
    body: JsonBody<WebhookPatch>,
) -> Result<Json<WebhookView>, Problem> {
    caller.may_in(&of.project, Scope::WebhooksWrite)?;
    body.value.check(&state.guard)?;
    let changed = update(&state, &of, |endpoint| body.value.apply(endpoint)).await?;
    Ok(Json((&changed).into()))
}

/// Give a webhook endpoint a new secret
///
/// Deliveries are signed with the new one from now on, those included that wait for another try.
#[utoipa::path(
    post, path = "/v1/projects/{project}/webhooks/{webhook}/rotate-secret", tag = "webhooks",
    operation_id = "rotateWebhookSecret",
    params(("project" = String, Path, description = "Project"), ("webhook" = String, Path, description = "Endpoint id")),
    responses((status = 200, description = "The endpoint and its new secret", body = NewWebhookView), WriteProblems),
)]
async fn rotate_secret(
    caller: Caller,
    of: OfWebhook,
    State(state): State<WebhookState>,
) -> Result<Json<NewWebhookView>, Problem> {
    caller.may_in(&of.project, Scope::WebhooksWrite)?;
    let changed = update(&state, &of, |endpoint| endpoint.secret = Secret::new(rand::random())).await?;
    Ok(Json((&changed).into()))
}

async fn update(state: &WebhookState, of: &OfWebhook, change: impl FnOnce(&mut Endpoint)) -> Result<Endpoint, Problem> {
    let (store, at) = (&state.api.control.store, (state.clock)());
    let changed = Endpoint::update(store, &of.project, &of.id, at, change).await?;
    changed.ok_or_else(no_webhook)
}

/// Remove a webhook endpoint
///
/// Its log goes with it, and what waits for it is not delivered.
#[utoipa::path(
    delete, path = "/v1/projects/{project}/webhooks/{webhook}", tag = "webhooks", operation_id = "deleteWebhook",
    params(("project" = String, Path, description = "Project"), ("webhook" = String, Path, description = "Endpoint id")),
    responses((status = 204, description = "Removed"), ReadProblems),
)]
async fn delete(caller: Caller, of: OfWebhook, State(state): State<WebhookState>) -> Result<StatusCode, Problem> {
    caller.may_in(&of.project, Scope::WebhooksWrite)?;
    match Endpoint::remove(&state.api.control.store, &of.project, &of.id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(no_webhook()),
    }
}

impl From<NotAdded> for Problem {
    fn from(error: NotAdded) -> Self {
        match error {
            NotAdded::TooMany => Self::conflict("too-many", error.to_string()),
            NotAdded::NoProject => Refused::NoProject.into(),
            NotAdded::Store(error) => error.into(),
        }
    }
}

const _: () = assert!(URL_LIMIT == 2048, "the schemas above say so");
