//! What the API and the node can do to streams. Each call is one unit of work in the store, told to the node only after
//! it was committed.
//!
//! Before this: `api/…` (people and programs), [`News`](super::node::News) of the node. After this: `store.rs`,
//! `node.rs`, `notice.rs`.

mod broadcast;
mod follow;
mod owned;
mod recover;
mod streams;

use std::sync::Arc;

use dashmap::DashMap;
use weir_shared::id::{InvalidName, ProjectId, StreamId, StreamKey};

use super::{
    lifecycle::{Action, IllegalMove, Step},
    metrics::ControlMetrics,
    model::{Limits, Scope, Stream},
    node::{Node, StreamPolicy},
    notice::{Notice, Outbox},
    secret,
    store::{Millis, Store, StoreError, now},
    viewers::Viewers,
};
use owned::Owned;

pub use streams::{Created, Idempotency, NewStream, Patch};

/// How often a change is tried again when somebody else changed the stream at the same time.
const ATTEMPTS: u32 = 5;

/// Why a call did nothing. Each one is the caller's to mend, except those of the store.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("there is no such project")]
    NoProject,
    #[error("there is no such stream in this project")]
    NoStream,
    #[error("there is no such plan")]
    NoPlan,
    #[error(transparent)]
    IllegalMove(#[from] IllegalMove),
    /// The field whose value another one has already.
    #[error("another stream has this {0}")]
    Taken(&'static str),
    #[error("the stream has changed: it is at version {current} now")]
    Changed { current: i64 },
    #[error("the project's plan allows {limit} for {field}")]
    OverPlan { field: &'static str, limit: u64 },
    #[error("this origin has room for {limit} streams, and has them: remove some, or raise control.max_known_streams")]
    Full { limit: usize },
    #[error("the Idempotency-Key was used for another request")]
    IdempotencyReused,
    /// Made-up names are always well-formed: this is a defect of ours.
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What becomes of a stream's playback secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Renewal {
    /// A new one signs from now on; what the present one signed stays valid until the next rotation.
    pub rotate: bool,
    /// Nothing but the newest is valid.
    pub revoke_previous: bool,
}

/// Which versions of a stream a caller means to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// Whatever is there.
    Any,
    /// None of them: what the caller named can't be a version.
    OneOf(Vec<i64>),
}

impl IfMatch {
    fn holds_for(&self, version: i64) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(versions) => versions.contains(&version),
        }
    }
}

/// The control plane of one node.
pub struct Control {
    pub store: Store,
    node: Arc<dyn Node>,
    outbox: Arc<dyn Outbox>,
    /// This node's name in leases.
    name: String,
    pub metrics: ControlMetrics,
    /// As the edges tell.
    pub viewers: Viewers,
    /// Streams that are live here.
    owned: DashMap<StreamKey, Owned>,
    /// What projects may have, as it was read last.
    limits: DashMap<ProjectId, Limits>,
}

impl Control {
    /// `name` is unique in the fleet and the same after a restart.
    pub fn new(
        store: Store,
        node: Arc<dyn Node>,
        outbox: Arc<dyn Outbox>,
        metrics: ControlMetrics,
        name: &str,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            node,
            outbox,
            metrics,
            viewers: Viewers::default(),
            name: name.to_owned(),
            owned: DashMap::new(),
            limits: DashMap::new(),
        })
    }

    pub fn node(&self) -> &dyn Node {
        self.node.as_ref()
    }

    /// The first API key of a fresh database, with every scope: made, and told, this once.
    pub async fn first_key(&self) -> Result<Option<String>, StoreError> {
        if self.store.has_keys().await? {
            return Ok(None);
        }
        let (secret, new) = secret::api_key(None, "first key", vec![Scope::Admin], now());
        let mut tx = self.store.begin().await?;
        tx.insert_key(&new).await?;
        tx.commit().await?;
        Ok(Some(secret))
    }

    async fn limits(&self, project: &ProjectId) -> Result<Limits, Refused> {
        let limits = self.store.limits(project).await?.ok_or(Refused::NoProject)?;
        Ok(self.newest(project, &limits))
    }

    /// Of these limits and those that were read by others meanwhile, the later ones.
    fn newest(&self, project: &ProjectId, limits: &Limits) -> Limits {
        let mut newest = self.limits.entry(project.clone()).or_insert_with(|| limits.clone());
        if newest.changes < limits.changes {
            *newest = limits.clone();
        }
        newest.clone()
    }

    /// The node lets in what the stream's settings and the newest limits allow. `limits` were read together with the
    /// stream: a plan may have changed since, and its change gone past this stream already.
    fn apply(&self, stream: &Stream, limits: &Limits) {
        let limits = self.newest(&stream.project, limits);
        self.node.apply(StreamPolicy::of(stream, &limits));
    }

    /// Reads a stream, lets `step` decide, writes what came of it together with its notices. A change that changes
    /// nothing writes nothing.
    async fn change(
        &self,
        project: &ProjectId,
        id: &StreamId,
        if_match: IfMatch,
        mut step: impl FnMut(&mut Stream, &Limits, Millis) -> Result<Consequences, Refused> + Send,
    ) -> Result<Stream, Refused> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut tx = self.store.begin().await?;
            let limits = tx.limits(project).await?.ok_or(Refused::NoProject)?;
            let before = tx.stream(project, id).await?.ok_or(Refused::NoStream)?;
            if !if_match.holds_for(before.version) {
                return Err(Refused::Changed {
                    current: before.version,
                });
            }
            let at = now();
            let mut stream = before.clone();
            let consequences = step(&mut stream, &limits, at)?;
            if stream == before && consequences.notices.is_empty() {
                self.act(&stream, &consequences.actions);
                return Ok(stream);
            }
            match tx.update_stream(&mut stream, at).await {
                // Read again: the step has to be judged against what is there now.
                Err(StoreError::Conflict | StoreError::Busy) if attempt < ATTEMPTS => continue,
                other => other?,
            }
            for notice in &consequences.notices {
                self.outbox.record(&mut tx, *notice, &stream, at).await?;
            }
            tx.commit().await?;
            self.apply(&stream, &limits);
            self.act(&stream, &consequences.actions);
            if let Some(mut owned) = self.owned.get_mut(&stream.key) {
                owned.follow(&stream);
            }
            return Ok(stream);
        }
    }

    fn act(&self, stream: &Stream, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Kick => self.node.kick(&stream.key),
                Action::EndPlaylist => self.node.end(&stream.key),
                Action::Hide => self.node.hide(&stream.key),
                Action::Show => self.node.show(&stream.key),
                Action::ClearDvr => self.node.clear_dvr(&stream.key),
            }
        }
    }
}

/// What a change brings with it.
#[derive(Debug, Default)]
struct Consequences {
    actions: Vec<Action>,
    notices: Vec<Notice>,
}

impl Consequences {
    /// The state goes into the stream, the rest is handed on.
    fn of(step: Step, stream: &mut Stream) -> Self {
        stream.state = step.state;
        Self {
            actions: step.actions,
            notices: step.notices,
        }
    }

    fn add(&mut self, other: Self) {
        self.actions.extend(other.actions);
        self.notices.extend(other.notices);
    }
}
