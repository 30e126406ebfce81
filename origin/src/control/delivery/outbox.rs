//! Writing an event down, and a delivery for everybody who wants it, inside the unit of work that makes it true.
//!
//! Before this: `lifecycle.rs` by its notices, or [`emit`] with any other event. After this: `queue.rs`.

use std::sync::Arc;

use sqlx::Row as _;

use super::{Metrics, fresh_id, queue::DeliveryState, system_time};
use crate::control::{
    events::{Event, EventStream, Filter, Happened},
    model::Stream,
    notice::{Later, Notice, Outbox},
    store::{Millis, StoreError, Tx},
};

/// Deliveries that may wait for one endpoint. Later ones are in its log as failed; they can be redelivered.
pub const PENDING_PER_ENDPOINT: i64 = 10_000;

/// Makes notices of the life cycle durable events.
#[derive(Debug, Clone)]
pub struct DurableOutbox {
    metrics: Arc<Metrics>,
}

impl DurableOutbox {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

impl Outbox for DurableOutbox {
    fn record<'a>(
        &'a self,
        tx: &'a mut Tx,
        notice: Notice,
        stream: &'a Stream,
        at: Millis,
    ) -> Later<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let about = EventStream {
                id: stream.id.clone(),
                stream_key: stream.key.clone(),
            };
            let happened = Happened::noticed(notice, stream, at);
            let event = Event::new(&stream.project, about, happened, system_time(at), rand::random());
            emit(tx, &event, at, &self.metrics).await
        })
    }
}

/// Writes the event and its deliveries. They exist once `tx` is committed, and not at all if it is not; whoever waits
/// for events (dispatchers, feeds) hears of it then, because the commit tells of the stream's change.
pub async fn emit(tx: &mut Tx, event: &Event, at: Millis, metrics: &Metrics) -> Result<(), StoreError> {
    let body = serde_json::to_string(event)?;
    // From here to the commit no other event gets a number: numbers appear in order.
    let seq: i64 = sqlx::query_scalar("UPDATE counters SET value = value + 1 WHERE name = 'events' RETURNING value")
        .fetch_one(tx.connection())
        .await?;
    sqlx::query("INSERT INTO events (seq, id, project, kind, created_at, body) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(seq)
        .bind(event.id.to_string())
        .bind(event.project.as_str().to_owned())
        .bind(event.kind().as_str())
        .bind(at)
        .bind(body)
        .execute(tx.connection())
        .await?;
    let endpoints = sqlx::query("SELECT id, filter FROM webhook_endpoints WHERE project = $1 AND active = 1")
        .bind(event.project.as_str().to_owned())
        .fetch_all(tx.connection())
        .await?;
    for row in endpoints {
        let (endpoint, filter): (String, String) = (row.try_get("id")?, row.try_get("filter")?);
        if Filter::from_text(&filter).wants(event.kind()) {
            enqueue(tx, &endpoint, seq, None, at, metrics).await?;
        }
    }
    tx.note_change(&event.stream.stream_key);
    metrics.events.with_label_values(&[event.kind().as_str()]).inc();
    Ok(())
}

/// One more delivery for an endpoint, due at once. Gives its id and whether it waits (or is over already, because too
/// many do).
pub(super) async fn enqueue(
    tx: &mut Tx,
    endpoint: &str,
    seq: i64,
    redelivery_of: Option<&str>,
    at: Millis,
    metrics: &Metrics,
) -> Result<(String, DeliveryState), StoreError> {
    let waiting: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM (SELECT 1 AS one FROM deliveries WHERE state = 'pending' AND endpoint = $1 LIMIT $2) AS w",
    )
    .bind(endpoint.to_owned())
    .bind(PENDING_PER_ENDPOINT)
    .fetch_one(tx.connection())
    .await?;
    let state = match waiting < PENDING_PER_ENDPOINT {
        true => DeliveryState::Pending,
        false => {
            metrics.given_up.with_label_values(&["queue_full"]).inc();
            DeliveryState::Failed
        }
    };
    let id = fresh_id(at);
    sqlx::query(
        "INSERT INTO deliveries (id, endpoint, event_seq, state, attempts, since, next_at, lease_until, redelivery_of, \
         created_at) VALUES ($1, $2, $3, $4, 0, $5, $5, 0, $6, $5)",
    )
    .bind(id.clone())
    .bind(endpoint.to_owned())
    .bind(seq)
    .bind(state.as_str())
    .bind(at)
    .bind(redelivery_of.map(str::to_owned))
    .execute(tx.connection())
    .await?;
    Ok((id, state))
}
