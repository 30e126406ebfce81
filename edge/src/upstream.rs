//! Requests upstream: whom to ask, in which order, and what to make of what they say.
//!
//! Before this: `cache.rs` and `live/follower.rs`, which want something. After this: `upstream/client.rs`, one bounded
//! request. Beside this: `upstream/placement.rs` (the order) and `upstream/health.rs` (who is well).

mod budget;
mod client;
mod health;
pub mod jar;
mod placement;
pub mod threads;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use moka::future::Cache;
use parking_lot::Mutex;
use prometheus::IntGauge;
use rustls::RootCertStore;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};
use weir_shared::{
    directory::{Origins, StreamRecord},
    hls::{address::Address, outline::Span},
    id::StreamKey,
    serve::respond,
};

use crate::{directory::Directory, metrics::Metrics, route::Route};
use budget::Budget;
use client::{Ask, Client};
use health::Health;
use placement::{Candidates, order, trimmed};

/// Longest reason of an origin's refusal that is passed on, in bytes.
const REASON_LIMIT: usize = 1024;
/// Memory of all answers that are coming in.
const BUDGET: usize = 256 << 20;
/// Streams of which it is remembered who gave them last, and for how long.
const MAX_PLACES: u64 = 100_000;
const PLACE_LIFE: Duration = Duration::from_secs(600);

/// Why an origin's answer can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    #[error("no origin could be reached")]
    Unreachable,
    #[error("the origin did not answer in time")]
    Timeout,
    #[error("the origin's answer is larger than the limit for its kind")]
    TooLarge,
    #[error("the origin broke off its answer")]
    Broken,
    #[error("the origin answered something that was not asked for")]
    Unexpected,
}

/// An origin's whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Where it was found in the end.
    pub url: Uri,
    pub received: Instant,
}

impl Answer {
    /// When an origin gave this: caches on the way, a parent edge above all, say how long they had it (RFC 9111
    /// section 5.1).
    pub fn since(&self) -> Instant {
        let age = self
            .headers
            .get(header::AGE)
            .and_then(|age| age.to_str().ok()?.parse().ok());
        let age = Duration::from_secs(age.unwrap_or(0));
        // No more than a clock can tell.
        self.received.checked_sub(age).unwrap_or(self.received)
    }

    /// Why an origin said no, if it told so shortly and in JSON: fit to be passed on to a viewer.
    pub fn into_reason(self) -> Option<Bytes> {
        let told = self.headers.get(header::CONTENT_TYPE) == Some(&respond::JSON_TYPE);
        Some(self.body).filter(|body| told && body.len() <= REASON_LIMIT)
    }
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Resource {
    /// What it is kept under: one resource, one key.
    pub key: Arc<str>,
    pub via: Via,
}

/// Where it is to be had.
#[derive(Debug, Clone)]
pub enum Via {
    /// From the fleet, at the path that is the key.
    Fleet,
    /// From the upstream of a static route.
    Route {
        route: Arc<Route>,
        /// Path and query below the upstream's base.
        path: Arc<str>,
        span: Option<Span>,
    },
}

impl Resource {
    /// One of the fleet's own.
    pub fn own(path: &str) -> Self {
        Self {
            key: path.into(),
            via: Via::Fleet,
        }
    }
}

/// How long an answer may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub deadline: Instant,
    /// Without an answer for so long, the next one is asked as well.
    pub hedge: Duration,
}

/// Everybody upstream.
pub struct Upstream {
    client: Client,
    budget: Budget,
    parents: Vec<Arc<str>>,
    origins: Vec<Arc<str>>,
    /// Knows which origin has which stream; `None`: any may.
    directory: Option<Arc<Directory>>,
    /// What parents know this edge by.
    authorization: Option<HeaderValue>,
    health: Mutex<Health>,
    /// Who gave a stream last, and what the directory said then.
    places: Cache<StreamKey, Place>,
    metrics: Arc<Metrics>,
}

#[derive(Clone)]
struct Place {
    base: Arc<str>,
    recorded: Option<Origins>,
}

/// An order of asking, and what to remember of its outcome.
struct Plan {
    bases: VecDeque<Arc<str>>,
    stream: Option<(StreamKey, Option<Arc<StreamRecord>>)>,
}

impl Upstream {
    pub fn new(
        parents: &[String],
        origins: &[String],
        directory: Option<Arc<Directory>>,
        authorization: Option<HeaderValue>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, rustls::Error> {
        let budget = Budget::new(BUDGET);
        Ok(Self {
            client: Client::new(None, budget.clone())?,
            budget,
            parents: parents.iter().map(|base| trimmed(base)).collect(),
            origins: origins.iter().map(|base| trimmed(base)).collect(),
            directory,
            authorization,
            health: Mutex::new(Health::new(rand::random())),
            places: Cache::builder()
                .max_capacity(MAX_PLACES)
                .time_to_idle(PLACE_LIFE)
                .build(),
            metrics,
        })
    }

    /// Asks in the order of placement until there is an answer other than 404 or 5xx. Where there is none, the first of
    /// those is the answer; an error if there was none at all.
    pub async fn get(&self, resource: &Resource, patience: Patience, limit: usize) -> Result<Answer, UpstreamError> {
        let mut plan = self.plan(resource).await;
        let mut asked = JoinSet::new();
        let mut slow = Vec::new();
        let (mut refused, mut failure) = (None, UpstreamError::Unreachable);
        loop {
            if asked.is_empty() {
                let Some(base) = plan.bases.pop_front() else { break };
                self.ask(&mut asked, &base, resource, limit, patience.deadline);
                slow.push(base);
            }
            let hedge = Instant::now() + patience.hedge;
            let (base, result) = tokio::select! {
                Some(done) = asked.join_next() => match done {
                    Ok(done) => done,
                    // It was never cancelled, so it panicked: as good as no answer.
                    Err(_) => continue,
                },
                () = sleep_until(hedge), if !plan.bases.is_empty() => {
                    if let Some(base) = plan.bases.pop_front() {
                        self.metrics.hedges.inc();
                        self.ask(&mut asked, &base, resource, limit, patience.deadline);
                        slow.push(base);
                    }
                    continue;
                }
            };
            slow.retain(|other| *other != base);
            self.judge(&base, &result, &resource.via);
            match result {
                Ok(answer) if answer.status == StatusCode::NOT_FOUND || answer.status.is_server_error() => {
                    refused.get_or_insert(answer);
                }
                Ok(answer) => {
                    // Those that were asked earlier and said nothing yet.
                    slow.iter().for_each(|base| self.failed(base));
                    self.remember(plan.stream, &base).await;
                    return Ok(answer);
                }
                Err(error) => failure = error,
            }
        }
        refused.ok_or(failure)
    }

    fn ask(
        &self,
        asked: &mut JoinSet<(Arc<str>, Result<Answer, UpstreamError>)>,
        base: &Arc<str>,
        resource: &Resource,
        limit: usize,
        deadline: Instant,
    ) {
        let (path, span, route) = match &resource.via {
            Via::Fleet => (&resource.key, None, None),
            Via::Route { route, path, span } => (path, *span, Some(route)),
        };
        let url = format!("{base}{path}").parse::<Uri>();
        let trusting = route.and_then(|route| route.client.as_ref());
        let client = trusting.map_or(&self.client, |RouteClient(client)| client).clone();
        let jar = route.map(|route| route.jar.clone());
        let authorization = self
            .authorization
            .clone()
            .filter(|_| route.is_none() && self.parents.contains(base));
        let (base, in_flight) = (base.clone(), self.metrics.upstream_in_flight.clone());
        let counted = InFlight::new(in_flight);
        asked.spawn(async move {
            let _counted = counted;
            let result = match url {
                Err(_) => Err(UpstreamError::Unreachable),
                Ok(url) => {
                    let ask = Ask {
                        url,
                        span,
                        limit,
                        jar,
                        authorization,
                    };
                    let answer = timeout_at(deadline, client.get(ask)).await;
                    answer.unwrap_or(Err(UpstreamError::Timeout))
                }
            };
            (base, result)
        });
    }

    /// Counts an outcome and forms an opinion of who gave it.
    fn judge(&self, base: &Arc<str>, result: &Result<Answer, UpstreamError>, via: &Via) {
        self.metrics.upstream.with_label_values(&[outcome(result)]).inc();
        if let Via::Route { route, .. } = via {
            let labels = [&*route.name, outcome(result)];
            self.metrics.route_upstream.with_label_values(&labels).inc();
        }
        match result {
            // 503 is an answer: nothing new, or not now.
            Ok(answer) if answer.status.is_server_error() && answer.status != StatusCode::SERVICE_UNAVAILABLE => {
                self.failed(base);
            }
            // It is the answer that is wrong, not its giver's health.
            Ok(_) | Err(UpstreamError::TooLarge | UpstreamError::Unexpected) => {
                let mut health = self.health.lock();
                health.answered(base);
                let down = health.down(std::time::Instant::now());
                self.metrics.upstream_down.set(i64::try_from(down).unwrap_or(i64::MAX));
            }
            Err(_) => self.failed(base),
        }
    }

    fn failed(&self, base: &Arc<str>) {
        let now = std::time::Instant::now();
        let mut health = self.health.lock();
        if health.failed(base, now) {
            self.metrics.upstream_failures.inc();
            tracing::warn!(origin = %base, "an upstream failed, it is asked last for a while");
        }
        let down = health.down(now);
        self.metrics.upstream_down.set(i64::try_from(down).unwrap_or(i64::MAX));
    }

    async fn plan(&self, resource: &Resource) -> Plan {
        let now = std::time::Instant::now();
        if let Via::Route { route, .. } = &resource.via {
            let among = Candidates {
                parents: &[],
                record: None,
                origins: &route.upstreams,
                last: None,
            };
            let health = self.health.lock();
            return Plan {
                bases: order("", among, |base| health.is_well(base, now)).into(),
                stream: None,
            };
        }
        let path = resource.key.split('?').next().unwrap_or_default();
        let Some(Address { key, .. }) = Address::parse(path) else {
            return Plan {
                bases: VecDeque::new(),
                stream: None,
            };
        };
        let record = match &self.directory {
            Some(directory) => directory.known_record(&key).await,
            None => None,
        };
        let origins = record.as_ref().map(|record| &record.origins);
        let place = self.places.get(&key).await;
        // A stream that moved is not looked for where it was.
        let last = place.filter(|place| place.recorded.as_ref() == origins);
        let among = Candidates {
            parents: &self.parents,
            record: origins,
            origins: &self.origins,
            last: last.as_ref().map(|place| &place.base),
        };
        let bases = {
            let health = self.health.lock();
            order(key.as_str(), among, |base| health.is_well(base, now))
        };
        Plan {
            bases: bases.into(),
            stream: Some((key, record)),
        }
    }

    async fn remember(&self, stream: Option<(StreamKey, Option<Arc<StreamRecord>>)>, base: &Arc<str>) {
        let Some((key, record)) = stream.filter(|_| self.origins.len() + self.parents.len() > 1) else {
            return;
        };
        let recorded = record.map(|record| record.origins.clone());
        let known = self.places.get(&key).await;
        if known.is_some_and(|known| known.base == *base && known.recorded == recorded) {
            return;
        }
        let place = Place {
            base: base.clone(),
            recorded,
        };
        self.places.insert(key, place).await;
    }

    /// Connections that trust other authorities than those of browsers; `None`: the common ones do.
    pub(crate) fn client_trusting(&self, roots: RootCertStore) -> Result<RouteClient, rustls::Error> {
        Client::new(Some(roots), self.budget.clone()).map(RouteClient)
    }
}

/// A client of one route's.
#[derive(Clone)]
pub(crate) struct RouteClient(Client);

/// Counts a request as open until it is dropped.
struct InFlight(IntGauge);

impl InFlight {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn outcome(result: &Result<Answer, UpstreamError>) -> &'static str {
    match result {
        Ok(answer) if answer.status.is_success() => "ok",
        Ok(_) => "refused",
        Err(UpstreamError::Timeout) => "timeout",
        Err(_) => "failed",
    }
}
