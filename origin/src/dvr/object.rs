//! A segment in the cold tier: read back for whoever asks, once for all who ask at a time, and removed when nobody can ask
//! any more.
//!
//! Before this: `cold.rs`, which has written it. After this: `deliver/media.rs` and `record/recorder.rs`, through
//! `package/window.rs`.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};
use object_store::{ObjectStoreExt as _, path::Path};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::{cold::ColdStore, metrics};
use crate::package::window::ColdMedia;

/// Longest time for one read, its turn included.
const PATIENCE: Duration = Duration::from_secs(10);

/// SHA-256 of a segment.
pub(super) type Sum = [u8; 32];

type Reading = BoxFuture<'static, Result<Bytes, io::ErrorKind>>;

/// A segment in the store, as long as a window or a reader has it.
#[derive(Debug)]
pub(super) struct Object {
    tier: Arc<ColdStore>,
    at: Path,
    /// Bytes.
    length: u64,
    sum: Sum,
    /// The read that is under way.
    reading: Mutex<Option<WeakShared<Reading>>>,
}

impl Object {
    pub(super) fn new(tier: Arc<ColdStore>, at: Path, length: u64, sum: Sum) -> Self {
        tier.metrics.cold_bytes.add(gauged(length));
        Self {
            tier,
            at,
            length,
            sum,
            reading: Mutex::new(None),
        }
    }

    fn start_reading(&self) -> Reading {
        let (tier, at, sum, length) = (self.tier.clone(), self.at.clone(), self.sum, self.length);
        async move {
            let read = async {
                let _turn = tier.reads.acquire().await.map_err(io::Error::other)?;
                let found = tier.store.get(&at).await.map_err(io::Error::other)?;
                // It may be larger than memory.
                if found.meta.size != length {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                let bytes = found.bytes().await.map_err(io::Error::other)?;
                whole(bytes, sum).await
            };
            let bytes = match tokio::time::timeout(PATIENCE, read).await {
                Ok(read) => read,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            let label = metrics::outcome(bytes.is_ok());
            tier.metrics.reads.with_label_values(&[label]).inc();
            bytes.map_err(|error| {
                tracing::warn!(%error, "a segment could not be read back from the cold tier");
                error.kind()
            })
        }
        .boxed()
    }

    fn join_reading(&self) -> Shared<Reading> {
        let mut reading = self.reading.lock();
        if let Some(under_way) = reading.as_ref().and_then(WeakShared::upgrade) {
            return under_way;
        }
        let fresh = self.start_reading().shared();
        *reading = fresh.downgrade();
        fresh
    }
}

/// A disk or a store may give back something else than it got.
async fn whole(bytes: Bytes, sum: Sum) -> io::Result<Bytes> {
    let checked = tokio::task::spawn_blocking(move || (sum_of(std::slice::from_ref(&bytes)) == sum).then_some(bytes));
    checked
        .await
        .map_err(io::Error::other)?
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

pub(super) fn sum_of(chunks: &[Bytes]) -> Sum {
    let mut sum = Sha256::new();
    for chunk in chunks {
        sum.update(chunk);
    }
    sum.finalize().into()
}

impl ColdMedia for Object {
    fn read(&self) -> BoxFuture<'static, io::Result<Bytes>> {
        self.join_reading().map(|read| read.map_err(io::Error::from)).boxed()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.tier.metrics.cold_bytes.sub(gauged(self.length));
        self.tier.forget(&self.sum);
        self.tier.remove(self.at.clone());
    }
}

fn gauged(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
