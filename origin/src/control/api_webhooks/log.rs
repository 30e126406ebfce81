//! Calls about the delivery log of a webhook endpoint: what was sent, what came back, and sending it again.

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{OfWebhook, WebhookState, no_webhook};
use crate::control::{
    api::{
        extract::{Caller, Query},
        page::{Page, PageQuery},
        problem::{Problem, ReadProblems, WriteProblems},
        view::timestamp,
    },
    delivery::{Attempt, Delivery, DeliveryState, Endpoint},
    model::Scope,
};

pub(super) fn routes() -> OpenApiRouter<WebhookState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(redeliver))
}

/// One event on its way to one endpoint.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Delivery)]
struct DeliveryView {
    /// The same on every try: the `Weir-Delivery` header.
    id: String,
    event_id: String,
    event_type: String,
    state: DeliveryState,
    #[schema(format = DateTime)]
    created_at: String,
    /// When it is tried next; null when it is not.
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
    /// The delivery that this one repeats, if somebody asked for it.
    redelivery_of: Option<String>,
    /// Oldest first; the newest fifty if there were more.
    attempts: Vec<AttemptView>,
}

/// One try.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeliveryAttempt)]
struct AttemptView {
    #[schema(minimum = 1)]
    number: i64,
    #[schema(format = DateTime)]
    at: String,
    /// Milliseconds until the answer, or until there was none.
    #[schema(minimum = 0)]
    duration_ms: i64,
    /// The answer's HTTP status; null: there was no answer.
    status: Option<i64>,
    /// Why there was no answer.
    error: Option<String>,
}

impl From<&Delivery> for DeliveryView {
    fn from(delivery: &Delivery) -> Self {
        Self {
            id: delivery.id.clone(),
            event_id: delivery.event_id.clone(),
            event_type: delivery.event_type.clone(),
            state: delivery.state,
            created_at: timestamp(delivery.created_at),
            next_attempt_at: delivery.next_at.map(timestamp),
            redelivery_of: delivery.redelivery_of.clone(),
            attempts: delivery.attempts.iter().map(AttemptView::from).collect(),
        }
    }
}

impl From<&Attempt> for AttemptView {
    fn from(attempt: &Attempt) -> Self {
        Self {
            number: attempt.number,
            at: timestamp(attempt.at),
            duration_ms: attempt.ms,
            status: attempt.status,
            error: attempt.error.clone(),
        }
    }
}

/// An endpoint of another project has no log here.
async fn owned(state: &WebhookState, of: &OfWebhook) -> Result<(), Problem> {
    let found = Endpoint::get(&state.api.control.store, &of.project, &of.id).await?;
    found.map(drop).ok_or_else(no_webhook)
}

fn no_delivery() -> Problem {
    Problem::not_found("there is no such delivery in this endpoint's log")
}

/// List an endpoint's deliveries, newest first
///
/// Finished ones are kept for seven days, and at most the newest 1000.
#[utoipa::path(
    get, path = "/v1/projects/{project}/webhooks/{webhook}/deliveries", tag = "webhooks", operation_id = "listDeliveries",
    params(
        ("project" = String, Path, description = "Project"),
        ("webhook" = String, Path, description = "Endpoint id"),
        PageQuery,
    ),
    responses((status = 200, description = "A page", body = Page<DeliveryView>), ReadProblems),
)]
async fn list(
    caller: Caller,
    of: OfWebhook,
    State(state): State<WebhookState>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<DeliveryView>>, Problem> {
    caller.may_in(&of.project, Scope::WebhooksWrite)?;
    let query = query.checked()?;
    owned(&state, &of).await?;
    let (page, total) = Delivery::list(&state.api.control.store, &of.id, query.skip, query.limit).await?;
    Ok(Json(query.page(page.iter().map(DeliveryView::from).collect(), total)))
}

#[derive(Deserialize)]
struct DeliveryPath {
    delivery: String,
}

/// Read a delivery
#[utoipa::path(
    get, path = "/v1/projects/{project}/webhooks/{webhook}/deliveries/{delivery}", tag = "webhooks",
    operation_id = "getDelivery",
    params(
        ("project" = String, Path, description = "Project"),
        ("webhook" = String, Path, description = "Endpoint id"),
        ("delivery" = String, Path, description = "Delivery id"),
    ),
    responses((status = 200, description = "The delivery with its tries", body = DeliveryView), ReadProblems),
)]
async fn get(
    caller: Caller,
    of: OfWebhook,
    Path(DeliveryPath { delivery }): Path<DeliveryPath>,
    State(state): State<WebhookState>,
) -> Result<Json<DeliveryView>, Problem> {
    caller.may_in(&of.project, Scope::WebhooksWrite)?;
    owned(&state, &of).await?;
    let found = Delivery::get(&state.api.control.store, &of.id, &delivery).await?;
    Ok(Json((&found.ok_or_else(no_delivery)?).into()))
}

/// Send the event of a delivery once more
///
/// As a delivery of its own, tried for a day as any other. The event and its id are the same.
#[utoipa::path(
    post, path = "/v1/projects/{project}/webhooks/{webhook}/deliveries/{delivery}/redeliver", tag = "webhooks",
    operation_id = "redeliver",
    params(
        ("project" = String, Path, description = "Project"),
        ("webhook" = String, Path, description = "Endpoint id"),
        ("delivery" = String, Path, description = "Delivery id"),
    ),
    responses((status = 202, description = "The new delivery", body = DeliveryView), WriteProblems),
)]
async fn redeliver(
    caller: Caller,
    of: OfWebhook,
    Path(DeliveryPath { delivery }): Path<DeliveryPath>,
    State(state): State<WebhookState>,
) -> Result<(StatusCode, Json<DeliveryView>), Problem> {
    caller.may_in(&of.project, Scope::WebhooksWrite)?;
    owned(&state, &of).await?;
    let (store, at) = (&state.api.control.store, (state.clock)());
    let queued = Delivery::redeliver(store, &of.id, &delivery, at, &state.metrics).await?;
    let (id, queued) = queued.ok_or_else(no_delivery)?;
    if queued == DeliveryState::Failed {
        return Err(Problem::conflict(
            "too-many",
            "too many deliveries wait for this endpoint already".to_owned(),
        ));
    }
    let new = Delivery::get(store, &of.id, &id).await?.ok_or_else(no_delivery)?;
    Ok((StatusCode::ACCEPTED, Json((&new).into())))
}
