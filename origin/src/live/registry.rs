//! Stream keys → live streams. The door that publishers come through and the place where readers look.
//!
//! Before this: `ingest/rtmp/server.rs` (publishers). Beside it: `live/pipeline.rs`. After this: `deliver/route.rs`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dashmap::{DashMap, Entry};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;
use weir_shared::id::{Epoch, StreamKey};

use super::{
    cushion::Cushion,
    feed::Feed,
    health::Health,
    lane::Settings,
    master::{Flavour, Master},
    memory::{Memory, Tiers},
    orders::Orders,
    packager::{MAIN, Packager},
    pipeline::{self, Continuity, FOREVER, Parts, Pipeline, Stopped},
    seats::{Claim, SEATS_MAX, Seats, Taken},
    shared::SharedParts,
    slate::{self, Slates},
    status::{Board, STATUS_QUEUE, Status, StatusChange},
};
use crate::{
    dvr::budget::Budget,
    ingest::{
        Admitted, Door, Publication, Refusal, Slot, Tally,
        catalog::{Catalog, Timers},
        redacted,
    },
    metrics::Metrics,
    package::resilience::Resilience,
};

/// Frames a publisher may be ahead of its pipeline. When full, the session stops reading: the encoder feels it.
const EVENT_QUEUE: usize = 256;

/// Sequence numbers left free when a publisher is replaced before its pipeline has said its last word.
const TAKEOVER_MARGIN: u64 = 8;

/// What the registry was configured with.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Streams that exist.
    pub catalog: Arc<Catalog>,
    /// Streams held at once, ended ones that linger included.
    pub max_streams: usize,
    /// How long an ended stream stays readable.
    pub linger: Duration,
    pub continuity: Continuity,
    /// The operator's picture for long gaps.
    pub slate: Option<slate::Settings>,
}

impl Policy {
    /// What the stream's plan allows, else what the file says.
    fn continuity_of(&self, key: &StreamKey) -> Continuity {
        let timers = self.catalog.get(key).and_then(|policy| policy.timers);
        match timers {
            Some(Timers { grace, idle }) => Continuity {
                grace: if self.continuity.grace < FOREVER {
                    grace
                } else {
                    FOREVER
                },
                idle,
                ..self.continuity
            },
            None => self.continuity,
        }
    }
}

/// Why a stream can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// No such stream is configured.
    Unknown,
    /// The stream exists and nobody is pushing it.
    Offline,
}

/// One life of a stream: from its first publisher's arrival until its successor's or the end of its lingering.
#[derive(Debug, Clone)]
pub struct Live {
    pub epoch: Epoch,
    pub master: watch::Receiver<Arc<Master>>,
    /// What its pipeline knows about its health.
    pub health: Arc<Health>,
    /// What its ingest is doing.
    pub status: watch::Receiver<Status>,
    stop: CancellationToken,
    next_msn: Arc<AtomicU64>,
    /// Part bytes of this life that both flavours have.
    shared: Arc<SharedParts>,
    budget: Arc<Budget>,
    seats: Arc<Seats>,
    orders: Arc<Orders>,
    joins: mpsc::Sender<Feed>,
}

impl Live {
    /// Whether viewers are, or are about to be, shown playlists: it was not hidden.
    pub fn is_shown(&self) -> bool {
        *self.orders.shown.borrow()
    }

    /// Whether its playlists have ended, while its publishers may go on.
    pub fn has_ended(&self) -> bool {
        let master = self.master.borrow();
        master
            .renditions
            .iter()
            .any(|rendition| rendition.feed.borrow().edge.ended)
    }
}

/// All streams of this origin.
pub struct Registry {
    streams: DashMap<StreamKey, Live>,
    policy: Policy,
    settings: Settings,
    tiers: Tiers,
    metrics: Arc<Metrics>,
    slates: Option<Arc<Slates>>,
    changes: broadcast::Sender<StatusChange>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Registry {
    pub fn new(
        policy: Policy,
        settings: Settings,
        tiers: Tiers,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let slate = policy.slate.clone();
        let slates = slate.map(|slate| Arc::new(Slates::new(slate, metrics.clone())));
        Arc::new(Self {
            streams: DashMap::new(),
            slates,
            policy,
            settings,
            tiers,
            metrics,
            changes: broadcast::Sender::new(STATUS_QUEUE),
            tasks: TaskTracker::new(),
            shutdown,
        })
    }

    /// The current life of a stream.
    pub fn find(&self, key: &StreamKey) -> Result<Live, Missing> {
        match self.streams.get(key) {
            Some(live) => Ok(live.clone()),
            None if self.policy.catalog.knows(key) => Err(Missing::Offline),
            None => Err(Missing::Unknown),
        }
    }

    /// Every stream there is, for the admin page.
    pub fn list(&self) -> Vec<(StreamKey, Live)> {
        let mut all: Vec<_> = self
            .streams
            .iter()
            .map(|e| (e.key().clone(), e.value().clone()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Every change of a stream's ingest from now on. Who is slower than [`STATUS_QUEUE`] changes misses some and is told.
    pub fn watch_status(&self) -> broadcast::Receiver<StatusChange> {
        self.changes.subscribe()
    }

    /// Sends a stream's publishers away. They may come back.
    pub fn kick(&self, key: &StreamKey) {
        if let Some(live) = self.streams.get(key) {
            live.seats.send_away();
        }
    }

    /// Ends a stream's playlists, and its publishers' sessions with it.
    pub fn end(&self, key: &StreamKey) {
        if let Some(live) = self.streams.get(key) {
            live.orders.end.cancel();
        }
    }

    /// Ends a stream's playlists; its publishers go on.
    pub fn hide(&self, key: &StreamKey) {
        if let Some(live) = self.streams.get(key) {
            live.orders.shown.send_replace(false);
        }
    }

    /// Begins new playlists of a stream that was hidden.
    pub fn show(&self, key: &StreamKey) {
        if let Some(live) = self.streams.get(key) {
            live.orders
                .shown
                .send_if_modified(|shown| !std::mem::replace(shown, true));
        }
    }

    /// Cuts one slot's publishers: they publish elsewhere now. Was it the last one, the stream is gone without an end that
    /// players would see: they go on elsewhere.
    pub fn hand_over(&self, key: &StreamKey, slot: Slot) {
        if let Some(live) = self.streams.get(key)
            && !live.seats.send_slot_away(slot)
        {
            live.stop.cancel();
        }
    }

    /// Forgets all of a stream's past that its playlists need not list.
    pub fn clear_dvr(&self, key: &StreamKey) {
        if let Some(live) = self.streams.get(key) {
            live.orders.clear.notify_one();
        }
    }

    /// Waits until every pipeline has ended (after shutdown was asked for).
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Sequence numbers start from the wall clock, so that a restarted origin continues above what players have seen.
    fn first_msn(&self, now: SystemTime) -> u64 {
        let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let target_ms = self.settings.targets.segment.as_millis().max(1);
        u64::try_from(since_1970.as_millis() / target_ms).unwrap_or(0)
    }

    /// How this stream is packaged.
    fn settings_of(&self, key: &StreamKey) -> Settings {
        let mut settings = self.settings.clone();
        if let Some(dvr) = self.policy.catalog.get(key).and_then(|policy| policy.dvr) {
            settings.window = dvr;
            settings.dvr = true;
        }
        settings
    }

    /// Lets a publisher in to the stream's current life, or begins a new one.
    fn open(self: &Arc<Self>, admitted: &Admitted) -> Result<Publication, Refusal> {
        let key = admitted.key();
        let claim = Claim {
            variant: admitted.variant().unwrap_or(MAIN),
            slot: admitted.slot(),
            rank: admitted.proof().rank(),
            takeover: admitted.takeover(),
        };
        let full = self.streams.len() >= self.policy.max_streams;
        let entry = match self.streams.entry(key.clone()) {
            Entry::Vacant(_) if full => return Err(Refusal::Overloaded),
            entry => entry,
        };
        let old = match &entry {
            Entry::Vacant(_) => None,
            Entry::Occupied(old) => match sit_down(old.get(), claim) {
                Ok(publication) => return Ok(publication),
                Err(Taken::Busy) => return Err(Refusal::Busy),
                Err(Taken::Full) => return Err(Refusal::TooManyTracks),
                Err(Taken::Closed) => Some(old.get().clone()),
            },
        };
        let live = self.begin(key, old);
        entry.insert(live.clone());
        sit_down(&live, claim).map_err(|_| Refusal::Overloaded)
    }

    /// Begins a life of a stream, above the one before.
    fn begin(self: &Arc<Self>, key: &StreamKey, old: Option<Live>) -> Live {
        if let Some(old) = &old {
            old.stop.cancel();
        }
        let (joins, arrivals) = mpsc::channel(SEATS_MAX);
        let (newest, status) = watch::channel(Status::default());
        let (epoch, next_msn) = self.place_after(old.as_ref());
        let (master, readers) = watch::channel(Arc::new(Master::default()));
        let live = Live {
            epoch,
            master: readers,
            health: Arc::default(),
            status,
            stop: self.shutdown.child_token(),
            next_msn,
            shared: Arc::default(),
            budget: self.tiers.stream_budget(),
            seats: Arc::default(),
            orders: Arc::default(),
            joins,
        };
        let pipeline = Pipeline::new(Parts {
            continuity: self.policy.continuity_of(key),
            joins: arrivals,
            seats: live.seats.clone(),
            orders: live.orders.clone(),
            packager: self.packager(Flavour::Direct, key, &live, &master),
            cushion: self.cushion(key, &live, &master),
            board: Board {
                key: key.clone(),
                newest,
                changes: self.changes.clone(),
            },
            health: live.health.clone(),
            metrics: self.metrics.clone(),
        });
        self.tasks
            .spawn(self.clone().carry(key.clone(), live.clone(), pipeline));
        live
    }

    /// Runs a life of a stream to its end.
    async fn carry(self: Arc<Self>, key: StreamKey, mut live: Live, mut pipeline: Pipeline) {
        let stop = live.stop.clone();
        let held = loop {
            let span = tracing::info_span!("stream", key = %redacted(&key), epoch = %live.epoch);
            match pipeline.run(stop.clone()).instrument(span).await {
                Stopped::Over(held) => break held,
                Stopped::Again(paused) => pipeline = self.begin_again(&key, &mut live, paused),
            }
        };
        // `held` keeps the last snapshots readable; a successor or a shutdown ends that at once.
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(self.policy.linger) => {}
        }
        self.streams.remove_if(&key, |_, newest| newest.epoch == live.epoch);
        drop(held);
    }

    /// New playlists for the publishers of a life whose playlists have ended, in its place.
    fn begin_again(&self, key: &StreamKey, live: &mut Live, paused: Pipeline) -> Pipeline {
        let ended = live.epoch;
        let (epoch, next_msn) = self.place_after(Some(live));
        let (master, readers) = watch::channel(Arc::new(Master::default()));
        (live.epoch, live.next_msn, live.master) = (epoch, next_msn, readers);
        live.shared = Arc::default();
        let next = paused.again(
            self.packager(Flavour::Direct, key, live, &master),
            self.cushion(key, live, &master),
        );
        if let Some(mut newest) = self.streams.get_mut(key)
            && newest.epoch == ended
        {
            *newest = live.clone();
        }
        next
    }

    fn cushion(&self, key: &StreamKey, live: &Live, master: &watch::Sender<Arc<Master>>) -> Cushion {
        let now = pipeline::now();
        Cushion::new(
            Resilience::new(self.settings.cushion, now),
            self.packager(Flavour::Resilient, key, live, master),
            live.health.clone(),
            self.metrics.clone(),
            now,
        )
        .with_slates(self.slates.clone())
    }

    fn packager(
        &self,
        flavour: Flavour,
        key: &StreamKey,
        live: &Live,
        master: &watch::Sender<Arc<Master>>,
    ) -> Packager {
        Packager::new(
            flavour,
            self.settings_of(key),
            live.epoch,
            live.next_msn.clone(),
            master.clone(),
            live.health.clone(),
            self.metrics.clone(),
        )
        .sharing(live.shared.clone())
        .within(Memory::new(self.tiers.clone(), live.budget.clone()))
    }

    /// Names and numbers above those of the life before.
    fn place_after(&self, old: Option<&Live>) -> (Epoch, Arc<AtomicU64>) {
        let now = SystemTime::now();
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut epoch = Epoch(u64::try_from(millis).unwrap_or(u64::MAX));
        let mut first_msn = self.first_msn(now);
        if let Some(old) = old {
            epoch = epoch.max(Epoch(old.epoch.0.saturating_add(1)));
            let taken = old.next_msn.load(Ordering::Acquire);
            first_msn = first_msn.max(taken.saturating_add(TAKEOVER_MARGIN));
        }
        (epoch, Arc::new(AtomicU64::new(first_msn)))
    }
}

/// Gives a publisher a seat and its pipeline a feed.
fn sit_down(live: &Live, claim: Claim) -> Result<Publication, Taken> {
    let seat = live.seats.take(claim, live.stop.child_token())?;
    let (events, inbox) = mpsc::channel(EVENT_QUEUE);
    let tally = Arc::<Tally>::default();
    let (id, stop) = (seat.id, seat.stop.clone());
    let feed = Feed::new(seat, inbox, tally.clone(), pipeline::now());
    if live.joins.try_send(feed).is_err() {
        live.seats.leave(id);
        return Err(Taken::Full);
    }
    Ok(Publication { events, stop, tally })
}

/// The registry as the publishers' door. (A newtype: opening needs the registry's own `Arc` for the pipeline's task.)
pub struct RegistryDoor(pub Arc<Registry>);

impl Door for RegistryDoor {
    fn publish(&self, admitted: Admitted) -> Result<Publication, Refusal> {
        if self.0.shutdown.is_cancelled() {
            return Err(Refusal::ShuttingDown);
        }
        self.0.open(&admitted)
    }
}
