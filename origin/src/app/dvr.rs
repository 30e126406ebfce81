//! Wiring of the past of live streams: memory for it, and the cold tier.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    dvr::{
        budget::Budget,
        cold::{ColdStore, Owner},
        metrics::Metrics,
    },
    live::memory::Tiers,
    record::store,
};

/// `node`: this node's name, which no other origin has.
pub(super) fn tiers(
    config: &Config,
    node: &str,
    prometheus: &prometheus::Registry,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<Tiers> {
    let metrics = Metrics::new(prometheus)?;
    let cold = match config.dvr.store.as_str() {
        "" => None,
        at => {
            let store = store::open_for_now(at, &config.dvr.options).context("dvr.store")?;
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let owner = Owner {
                node: node.to_owned(),
                life: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            };
            Some(ColdStore::start(store, &owner, metrics.clone(), tasks, stop))
        }
    };
    Ok(Tiers {
        settings: config.memory(),
        budget: Budget::new(config.dvr.memory.0),
        cold,
        metrics,
    })
}
