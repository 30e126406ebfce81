//! How much at once, and how often: the limits an edge keeps so that those it has let in are served as if nobody else came.
//!
//! | limit | counts | refused with |
//! |---|---|---|
//! | `address_rate` | requests of one address (IPv6: one /64), before anything else is looked at | 429 |
//! | `ticket_rate` | requests with one viewer's ticket, from wherever | 429 |
//! | `address_in_progress` | requests of one address being held or answered | 429 |
//! | `address_unknown` | objects and streams that one address asks for and that nothing here vouches for: each is a question to an origin | 429 |
//! | `unknown` | the same of all addresses | 503 |
//! | `in_progress` | all requests being held or answered | 503 |
//! | `memory` | what this process takes: no further connection is let in | 503, or closed |
//!
//! All refusals say when to come back, and cost no request to an origin.
//!
//! Before this: `auth.rs`. After this: the rest of `handle.rs`, whose answer carries the [`Permit`] until its last byte.

mod rate;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Response;
use ipnet::IpNet;
use parking_lot::Mutex;
use prometheus::IntGauge;
use weir_shared::{
    playback::session::ViewerId,
    serve::{
        body::Body,
        door::{AddressBlock, is_within},
    },
};

use crate::{config, metrics::Metrics, refusal::Refusal};

use rate::Rate;

/// What was reached. The words are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    AddressRate,
    TicketRate,
    AddressInProgress,
    InProgress,
    AddressUnknown,
    Unknown,
}

/// A limit, and how long until there is room again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    pub limit: Limit,
    pub wait: Duration,
}

impl Limit {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AddressRate => "address_rate",
            Self::TicketRate => "ticket_rate",
            Self::AddressInProgress => "address_in_progress",
            Self::InProgress => "in_progress",
            Self::AddressUnknown => "address_unknown",
            Self::Unknown => "unknown",
        }
    }
}

/// The limits on requests of one edge.
#[derive(Debug)]
pub struct Limits {
    exempt: Vec<IpNet>,
    addresses: Rate<AddressBlock>,
    tickets: Rate<ViewerId>,
    address_guesses: Rate<AddressBlock>,
    all_guesses: Rate<()>,
    in_progress_limit: usize,
    address_in_progress_limit: usize,
    progress: Arc<Progress>,
    metrics: Arc<Metrics>,
}

/// What is being held or answered now. Entries leave with their permits, so there are as many as requests at most.
#[derive(Debug, Default)]
pub struct Progress {
    all: AtomicUsize,
    by_address: Mutex<HashMap<AddressBlock, usize>>,
}

impl Limits {
    /// `progress`: what is being answered goes on counting when limits change.
    pub fn new(config: &config::Limits, progress: Arc<Progress>, metrics: Arc<Metrics>) -> Self {
        Self {
            exempt: config.exempt.clone(),
            addresses: Rate::new(config.address_requests.into(), config.remembered),
            tickets: Rate::new(config.ticket_requests.into(), config.remembered),
            address_guesses: Rate::new(config.address_unknown.into(), config.remembered),
            all_guesses: Rate::new(config.unknown.into(), 1),
            in_progress_limit: config.in_progress,
            address_in_progress_limit: config.in_progress_per_address,
            progress,
            metrics,
        }
    }

    /// Before anything is looked at: is this address asking too often?
    pub fn knock(&self, address: IpAddr) -> Result<(), Refusal> {
        let Some(block) = self.counted(address) else {
            return Ok(());
        };
        self.addresses
            .take(&block)
            .map_err(|wait| self.shed(Limit::AddressRate, wait).into())
    }

    /// Before anything is held or fetched for a viewer who may have it. `ticket`: who it is, if that is known.
    pub fn enter(&self, address: IpAddr, ticket: Option<&ViewerId>) -> Result<Permit, Refusal> {
        if let Some(ticket) = ticket {
            self.tickets
                .take(ticket)
                .map_err(|wait| self.shed(Limit::TicketRate, wait))?;
        }
        self.permit(self.counted(address))
    }

    /// The same for an edge that has this one as its parent: it stands for many, and counts with all alone.
    pub fn enter_child(&self) -> Result<Permit, Refusal> {
        self.permit(None)
    }

    fn permit(&self, block: Option<AddressBlock>) -> Result<Permit, Refusal> {
        let limits = (self.in_progress_limit, self.address_in_progress_limit);
        Permit::new(&self.progress, block, limits).map_err(|limit| self.shed(limit, SOON).into())
    }

    /// Before an origin is asked for something because of one viewer's word that it exists. `in_directory`: its stream does.
    fn guess(&self, address: IpAddr, in_directory: bool) -> Result<(), Reached> {
        if let Some(block) = self.counted(address) {
            self.address_guesses
                .take(&block)
                .map_err(|wait| self.shed(Limit::AddressUnknown, wait))?;
        }
        // An edge that has just started asks for all of its streams, and nobody has made those up.
        if in_directory {
            return Ok(());
        }
        self.all_guesses
            .take(&())
            .map_err(|wait| self.shed(Limit::Unknown, wait))
    }

    /// Forgets addresses and viewers that have not asked for a while. To be called every second or so.
    pub fn tidy(&self) {
        self.addresses.forget_the_quiet();
        self.tickets.forget_the_quiet();
        self.address_guesses.forget_the_quiet();
        let remembered = self.addresses.remembered() + self.tickets.remembered() + self.address_guesses.remembered();
        let set = |gauge: &IntGauge, value| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.metrics.limiter_entries, remembered);
        set(&self.metrics.in_progress, self.progress.all.load(Ordering::Relaxed));
    }

    fn counted(&self, address: IpAddr) -> Option<AddressBlock> {
        (!is_within(&self.exempt, address)).then(|| AddressBlock::of(address))
    }

    fn shed(&self, limit: Limit, wait: Duration) -> Reached {
        self.metrics.shed.with_label_values(&[limit.as_str()]).inc();
        Reached { limit, wait }
    }
}

/// On whose word something is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Asker<'a> {
    /// A playlist's, or another edge's: taken for true.
    Trusted,
    /// A viewer's, who may have made it up.
    Viewer {
        limits: &'a Limits,
        address: IpAddr,
        /// The stream is not made up: the directory has it.
        in_directory: bool,
    },
}

impl Asker<'_> {
    /// Takes one question to an origin off what this one may cause.
    pub fn may_guess(&self) -> Result<(), Reached> {
        match *self {
            Self::Trusted => Ok(()),
            Self::Viewer {
                limits,
                address,
                in_directory,
            } => limits.guess(address, in_directory),
        }
    }
}

/// When room may be expected where it depends on others.
const SOON: Duration = Duration::from_secs(1);

/// One request being held or answered; leaves when dropped.
#[derive(Debug)]
pub struct Permit {
    progress: Arc<Progress>,
    block: Option<AddressBlock>,
}

impl Permit {
    fn new(progress: &Arc<Progress>, block: Option<AddressBlock>, limits: (usize, usize)) -> Result<Self, Limit> {
        let (all_limit, address_limit) = limits;
        // From here on dropping the permit gives back what it has taken.
        let mut permit = Self {
            progress: progress.clone(),
            block: None,
        };
        if progress.all.fetch_add(1, Ordering::Relaxed) >= all_limit {
            return Err(Limit::InProgress);
        }
        if let Some(block) = block {
            let mut by_address = progress.by_address.lock();
            let of_address = by_address.get(&block).copied().unwrap_or(0);
            if of_address >= address_limit {
                drop(by_address);
                return Err(Limit::AddressInProgress);
            }
            by_address.insert(block, of_address + 1);
            permit.block = Some(block);
        }
        Ok(permit)
    }

    /// Leaves with the answer's last byte.
    pub fn leave_with(self, answer: Response<Body>) -> Response<Body> {
        answer.map(|body| body.guarded(self))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.progress.all.fetch_sub(1, Ordering::Relaxed);
        let Some(block) = self.block else { return };
        let mut by_address = self.progress.by_address.lock();
        let left = by_address.get(&block).map_or(0, |n| n.saturating_sub(1));
        match left {
            0 => by_address.remove(&block),
            left => by_address.insert(block, left),
        };
    }
}
