//! Whose deliveries are tried when: a few at once per endpoint, so that one that is slow holds up nobody else.
//!
//! Before this: `queue.rs`, which knows what is due. After this: `post.rs`, once per try.
//!
//! One task claims and starts; each try is a task of its own that writes down what became of it. A try that is cut off (a
//! crash, a shutdown) leaves its claim behind, which runs out: the delivery is tried again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Clock, EndpointId, Failure, Metrics, Outcome, Poster, Retention,
    queue::{self, After, Claimed},
    retention,
};
use crate::control::{
    store::{Changed, Store, StoreError},
    webhook,
};

/// How often due deliveries are looked for when nothing calls for it: retries, and what other origins wrote down.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often old events and deliveries are removed.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// How much is done at once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Tries at once to all endpoints.
    pub in_flight: usize,
    /// Tries at once to one endpoint. One whose last try failed gets a single one.
    pub in_flight_per_endpoint: usize,
    pub retention: Retention,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            in_flight: 256,
            in_flight_per_endpoint: 4,
            retention: Retention::default(),
        }
    }
}

/// Delivers what is in the queue. Every origin of a fleet may run one on the same database.
pub struct Dispatcher {
    store: Store,
    poster: Poster,
    clock: Clock,
    metrics: Arc<Metrics>,
    settings: Settings,
    /// Tries under way, per endpoint.
    in_flight: HashMap<EndpointId, usize>,
    /// Endpoints whose last try failed.
    failing: HashSet<EndpointId>,
    running: JoinSet<(EndpointId, bool)>,
}

impl Dispatcher {
    pub fn new(store: Store, poster: Poster, clock: Clock, metrics: Arc<Metrics>, settings: Settings) -> Self {
        Self {
            store,
            poster,
            clock,
            metrics,
            settings,
            in_flight: HashMap::new(),
            failing: HashSet::new(),
            running: JoinSet::new(),
        }
    }

    /// Delivers until told to stop; then lets the tries under way end.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changes = self.store.changes();
        if let Err(error) = queue::reclaim(&self.store).await {
            tracing::warn!(%error, "deliveries of an earlier run wait for their claims to run out");
        }
        let mut tidy_at = Instant::now();
        loop {
            if Instant::now() >= tidy_at {
                tidy_at = Instant::now() + TIDY_EVERY;
                self.tidy().await;
            }
            if let Err(error) = self.start_due().await {
                tracing::warn!(%error, "due webhook deliveries can't be read; trying again");
            }
            let look_at = Instant::now() + LOOK_EVERY;
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep_until(look_at) => {}
                () = news(&mut changes) => {}
                Some(ended) = self.running.join_next() => self.ended(ended.ok()),
            }
            while let Some(ended) = self.running.try_join_next() {
                self.ended(ended.ok());
            }
        }
        while self.running.join_next().await.is_some() {}
    }

    /// Claims what is due as far as there is room, and starts it.
    async fn start_due(&mut self) -> Result<(), StoreError> {
        let now = (self.clock)();
        let mut room = self.settings.in_flight.saturating_sub(self.running.len());
        if room == 0 {
            return Ok(());
        }
        let mut due = queue::endpoints_due(&self.store, now).await?;
        due.retain(|endpoint| self.room_for(&endpoint.id) > 0);
        if due.is_empty() {
            return Ok(());
        }
        let mut tx = self.store.begin().await?;
        let mut claimed = Vec::new();
        for endpoint in &due {
            let limit = self.room_for(&endpoint.id).min(room);
            let some = queue::claim(&mut tx, endpoint, limit, now).await?;
            room = room.saturating_sub(some.len());
            claimed.extend(some);
            if room == 0 {
                break;
            }
        }
        tx.commit().await?;
        for delivery in claimed {
            self.start(delivery);
        }
        Ok(())
    }

    fn room_for(&self, endpoint: &EndpointId) -> usize {
        let most = match self.failing.contains(endpoint) {
            true => 1,
            false => self.settings.in_flight_per_endpoint,
        };
        most.saturating_sub(self.in_flight.get(endpoint).copied().unwrap_or(0))
    }

    fn start(&mut self, delivery: Claimed) {
        *self.in_flight.entry(delivery.endpoint.id.clone()).or_default() += 1;
        let attempt = Try {
            store: self.store.clone(),
            poster: self.poster.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        };
        self.running.spawn(async move {
            let delivered = attempt.make(&delivery).await;
            (delivery.endpoint.id, delivered)
        });
    }

    fn ended(&mut self, ended: Option<(EndpointId, bool)>) {
        let Some((endpoint, delivered)) = ended else {
            // A try that panicked does not say whose it was: begin to count anew.
            tracing::error!("a webhook delivery ended unexpectedly");
            self.in_flight.clear();
            return;
        };
        match delivered {
            true => self.failing.remove(&endpoint),
            false => self.failing.insert(endpoint.clone()),
        };
        if let Some(count) = self.in_flight.get_mut(&endpoint) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.in_flight.remove(&endpoint);
            }
        }
    }

    async fn tidy(&mut self) {
        let now = (self.clock)();
        if let Err(error) = retention::tidy(&self.store, &self.settings.retention, now).await {
            tracing::warn!(%error, "old events could not be removed; trying again in a minute");
        }
        match queue::count_pending(&self.store).await {
            Ok(pending) => self.metrics.pending.set(pending),
            Err(error) => tracing::warn!(%error, "waiting webhook deliveries can't be counted"),
        }
        // Nobody is remembered for ever: an endpoint may be gone, or well again.
        self.failing.retain(|endpoint| self.in_flight.contains_key(endpoint));
    }
}

/// One try.
struct Try {
    store: Store,
    poster: Poster,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Try {
    /// Sends, and writes down what became of it. True: delivered.
    async fn make(&self, delivery: &Claimed) -> bool {
        let started = (self.clock)();
        let body = Bytes::copy_from_slice(delivery.body.as_bytes());
        let secret = &delivery.endpoint.secret;
        let headers = webhook::sign(secret, &delivery.id, started.div_euclid(1000), &body);
        self.metrics.in_flight.inc();
        let outcome = self.poster.post(&delivery.endpoint.url, &headers, body).await;
        self.metrics.in_flight.dec();

        let now = (self.clock)();
        let after = queue::after(&outcome, delivery.since, delivery.attempts, now, rand::random());
        self.count(delivery, &outcome, after, now);
        if let Err(error) = queue::finish(&self.store, delivery, &outcome, after, started).await {
            // Its claim runs out, and it is tried again: twice is better than not at all.
            tracing::warn!(%error, event = delivery.event_type, "the outcome of a webhook delivery could not be kept");
        }
        after == After::Delivered
    }

    fn count(&self, delivery: &Claimed, outcome: &Outcome, after: After, now: i64) {
        let label = match &outcome.result {
            Ok(_) if after == After::Delivered => "delivered",
            Ok(_) => "refused",
            Err(failure) => failure.as_str(),
        };
        self.metrics.attempts.with_label_values(&[label]).inc();
        match after {
            After::Delivered => {
                let delay = now.saturating_sub(delivery.since).max(0);
                self.metrics.delay_seconds.observe(delay as f64 / 1000.0);
            }
            After::Failed => {
                let gone = outcome.result == Ok(410);
                self.metrics
                    .given_up
                    .with_label_values(&[if gone { "gone" } else { "expired" }])
                    .inc();
            }
            After::Again(_) => {}
        }
        if matches!(outcome.result, Err(Failure::Forbidden(_))) {
            tracing::warn!(endpoint = %delivery.endpoint.id, "a webhook leads to an address that is not called");
        }
    }
}

/// Resolves when something was committed, and takes all such news at once.
async fn news(changes: &mut broadcast::Receiver<Changed>) {
    match changes.recv().await {
        Ok(_) | Err(RecvError::Lagged(_)) => while changes.try_recv().is_ok() {},
        // The store is gone; the timer goes on until the stop.
        Err(RecvError::Closed) => std::future::pending().await,
    }
}
