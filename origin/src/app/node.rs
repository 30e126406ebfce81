//! The media side, as the control plane sees it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use dashmap::DashMap;
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_util::sync::CancellationToken;
use weir_shared::id::{Epoch, RecordingName, StreamKey};

use crate::{
    control::{
        events::HealthWarning,
        health::Health,
        lifecycle::{Event, Millis, Phase, Slot},
        metrics::ControlMetrics,
        model,
        node::{Happening, News, Node, Recording, StreamPolicy},
        service::Control,
    },
    ingest::{
        self,
        catalog::{self, Catalog, CatalogError, Credential, Secrets, TokenHash},
        redacted,
        secret::Secret,
    },
    live::{health::Warning, lifecycle::State, registry::Registry},
    record::{recording::Report, shelf::Shelf},
};

use super::recording::Recorder;

/// The catalog of who may push, and the registry of what is live.
pub(super) struct MediaNode {
    registry: Arc<Registry>,
    catalog: Arc<Catalog>,
    recorder: Recorder,
    metrics: ControlMetrics,
    /// Streams of the configuration file: its credentials and ports hold, whatever the database made up for them.
    configured: HashMap<StreamKey, Arc<catalog::StreamPolicy>>,
    /// The version of each stream's policy that was applied last.
    newest: DashMap<StreamKey, (Millis, i64)>,
}

impl MediaNode {
    pub(super) fn new(
        registry: Arc<Registry>,
        catalog: Arc<Catalog>,
        recorder: Recorder,
        metrics: ControlMetrics,
    ) -> Self {
        let configured = catalog.list().into_iter().map(|p| (p.key.clone(), p)).collect();
        Self {
            registry,
            catalog,
            recorder,
            metrics,
            configured,
            newest: DashMap::new(),
        }
    }

    fn count(&self) {
        let known = i64::try_from(self.catalog.len()).unwrap_or(i64::MAX);
        self.metrics.streams_known.set(known);
    }

    /// What admission has to know of what the control plane says. Passwords and tokens are not in it, only what they can
    /// be checked with.
    fn admission_policy(&self, policy: StreamPolicy) -> catalog::StreamPolicy {
        if let Some(configured) = self.configured.get(&policy.key) {
            // Nobody is there to activate it again after each broadcast: the file alone says whether it may be pushed.
            return catalog::StreamPolicy::clone(configured);
        }
        let secrets = |user: &str, password: &str, token: &str| Secrets {
            credential: Some(Credential::new(user, password, self.catalog.salts())),
            tokens: vec![TokenHash::of(token)],
        };
        let told = &policy.credentials;
        let dvr = Duration::from_secs(u64::from(policy.dvr_seconds));
        catalog::StreamPolicy {
            dvr: (!dvr.is_zero()).then_some(dvr),
            active: policy.accepts_publisher,
            // Off unless asked for: the key is part of every playback address, whoever watches knows it.
            allow_key_only: policy.allow_key_only,
            primary: secrets(&told.username, &told.password, &told.token),
            backup: secrets(&told.username, &told.backup_password, &told.backup_token),
            passphrase: Some(Secret::new(&told.passphrase)),
            on_rotate: match policy.on_rotate {
                model::OnRotate::Keep => catalog::OnRotate::Keep,
                model::OnRotate::Kick => catalog::OnRotate::Kick,
            },
            timers: Some(catalog::Timers {
                grace: Duration::from_secs(policy.limits.grace_seconds.into()),
                idle: Duration::from_secs(policy.limits.idle_timeout_seconds.into()),
            }),
            ..catalog::StreamPolicy::open(policy.key)
        }
    }
}

impl Node for MediaNode {
    fn full_for(&self, key: &StreamKey) -> Option<usize> {
        (!self.catalog.has_room_for(key)).then(|| self.catalog.most())
    }

    fn apply(&self, policy: StreamPolicy) {
        // Held until it is done: of two changes that arrive at once the later one stays.
        let mut newest = self.newest.entry(policy.key.clone()).or_default();
        if policy.version < *newest {
            return;
        }
        *newest = policy.version;
        self.recorder.studio.want(&policy.key, policy.recorded);
        let policy = self.admission_policy(policy);
        let key = policy.key.clone();
        // A change of what viewers see is none for admission: running publishes are not disturbed.
        if self.catalog.get(&key).is_some_and(|known| *known == policy) {
            return;
        }
        if let Err(error) = self.catalog.put(policy) {
            self.metrics.streams_left_out.inc();
            // Told once if there is no room for it: with 100 000 others, the count says the rest.
            match error {
                CatalogError::Full(_) if self.metrics.streams_left_out.get() > 1 => {}
                _ => tracing::error!(key = %redacted(&key), %error, "this node can't take the stream"),
            }
        }
        self.count();
    }

    fn remove(&self, key: &StreamKey) {
        self.recorder.studio.want(key, false);
        self.newest.remove(key);
        self.catalog.remove(key);
        self.count();
    }

    /// A stream of the configuration file is let in by the file, not by the database.
    fn kick(&self, key: &StreamKey) {
        if !self.configured.contains_key(key) {
            self.registry.kick(key);
        }
    }

    fn end(&self, key: &StreamKey) {
        self.registry.end(key);
    }

    fn hide(&self, key: &StreamKey) {
        self.registry.hide(key);
    }

    fn show(&self, key: &StreamKey) {
        self.registry.show(key);
    }

    fn hand_over(&self, key: &StreamKey, slot: Slot) {
        self.registry.hand_over(
            key,
            match slot {
                Slot::Primary => ingest::Slot::Primary,
                Slot::Backup => ingest::Slot::Backup,
            },
        );
    }

    fn carries(&self, key: &StreamKey) -> bool {
        self.registry
            .find(key)
            .is_ok_and(|live| live.status.borrow().state != State::Ended)
    }

    fn clear_dvr(&self, key: &StreamKey) {
        self.registry.clear_dvr(key);
    }

    fn health(&self, key: &StreamKey) -> Option<Health> {
        let told = self.registry.find(key).ok()?.health.report();
        let problem = self
            .recorder
            .studio
            .problem(key)
            .map(|problem| problem.message().to_owned());
        Some(super::health::health(told, problem))
    }

    fn start_recording(&self, key: &StreamKey) -> Option<RecordingName> {
        self.recorder.studio.start(key)
    }

    fn stop_recording(&self, key: &StreamKey) -> Option<RecordingName> {
        self.recorder.studio.stop(key)
    }

    fn recording(&self, key: &StreamKey) -> Option<Recording> {
        self.recorder.studio.current(key).map(recording)
    }

    fn unfinished_recording(&self, key: &StreamKey, name: &RecordingName) -> Option<Recording> {
        self.recorder.studio.unfinished(key, name).map(recording)
    }

    fn shelf(&self) -> Option<Arc<Shelf>> {
        Some(self.recorder.shelf.clone())
    }
}

fn recording(report: Report) -> Recording {
    Recording {
        name: report.name,
        duration: report.duration,
        bytes: report.bytes,
        problem: report.problem,
    }
}

/// Nobody calls the API for a stream of the configuration file: its next push activates it again.
async fn activate(control: &Control, key: &StreamKey) {
    let Ok(Some(stream)) = control.store.stream_by_key(key).await else {
        return;
    };
    if stream.state.phase == Phase::Disabled
        && let Err(error) = control.command(&stream.project, &stream.id, Event::Activate).await
    {
        tracing::warn!(key = %redacted(key), %error, "a configured stream could not be activated");
    }
}

/// How often is looked for what is wrong with an ingest: as often as the figures are renewed.
const LOOK_AT_HEALTH: Duration = Duration::from_secs(1);

/// Tells the control plane what begins to be wrong with an ingest, each kind once in a life of a stream, until `stop`.
pub(super) async fn warn(registry: Arc<Registry>, control: Arc<Control>, stop: CancellationToken) {
    let mut told: HashMap<StreamKey, (Epoch, BTreeSet<HealthWarning>)> = HashMap::new();
    let mut beat = tokio::time::interval(LOOK_AT_HEALTH);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = beat.tick() => {}
        }
        let live = registry.list();
        told.retain(|key, (epoch, _)| live.iter().any(|(k, live)| k == key && live.epoch == *epoch));
        for (key, live) in live {
            let (_, known) = told.entry(key.clone()).or_insert_with(|| (live.epoch, BTreeSet::new()));
            let report = live.health.report();
            let warnings = report.publishers.iter().flat_map(|publisher| &publisher.input.warnings);
            for warning in warnings.map(kind_of) {
                if !known.insert(warning) {
                    continue;
                }
                if let Err(error) = control.warn(&key, warning).await {
                    tracing::warn!(key = %redacted(&key), %error, "nobody could be told of a push that could be better");
                }
            }
        }
    }
}

/// The kinds that events tell of are fewer.
fn kind_of(warning: &Warning) -> HealthWarning {
    match warning {
        Warning::KeyFramesTooRare { .. } => HealthWarning::KeyFramesTooRare,
        Warning::FramesDropped { .. } | Warning::Undecrypted { .. } => HealthWarning::FramesDropped,
        Warning::NoAudio => HealthWarning::NoAudio,
        Warning::UnevenArrival { .. }
        | Warning::TooSlow { .. }
        | Warning::Gaps { .. }
        | Warning::TimestampsRepaired { .. }
        | Warning::PacketsLost { .. }
        | Warning::AcknowledgementsUnanswered { .. } => HealthWarning::Unsteady,
    }
}

/// Tells the control plane who came and who went, from the registry's status changes, until `stop`. `configured`: streams
/// of the configuration file.
pub(super) async fn report(
    registry: Arc<Registry>,
    control: Arc<Control>,
    configured: HashSet<StreamKey>,
    news: mpsc::Sender<News>,
    stop: CancellationToken,
) {
    let mut changes = registry.watch_status();
    let mut known: HashMap<StreamKey, (bool, bool)> = HashMap::new();
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => return,
            change = changes.recv() => change,
        };
        let seen: Vec<(StreamKey, State, bool, bool)> = match change {
            Ok(change) => vec![(change.key, change.state, change.live, change.backup_live)],
            Err(RecvError::Closed) => return,
            // Too many at once: look at everything there is.
            Err(RecvError::Lagged(_)) => {
                let all = registry.list().into_iter();
                all.map(|(key, live)| {
                    let status = *live.status.borrow();
                    (key, status.state, status.live, status.backup_live)
                })
                .collect()
            }
        };
        for (key, state, live, backup) in seen {
            let (was_live, was_backup) = known.get(&key).copied().unwrap_or_default();
            let mut happened = Vec::new();
            for (slot, was, is) in [(Slot::Primary, was_live, live), (Slot::Backup, was_backup, backup)] {
                match (was, is) {
                    (false, true) => happened.push(Happening::Connected(slot)),
                    (true, false) => happened.push(Happening::Left(slot)),
                    _ => {}
                }
            }
            if state == State::Ended {
                happened.push(Happening::Ended);
                known.remove(&key);
            } else {
                known.insert(key.clone(), (live, backup));
            }
            for what in happened {
                if matches!(what, Happening::Connected(_)) && configured.contains(&key) {
                    activate(&control, &key).await;
                }
                let key = key.clone();
                if news.send(News { key, what }).await.is_err() {
                    return;
                }
            }
        }
    }
}
