//! How many watch each stream on this edge, and telling the origins.
//!
//! Before this: `handle.rs`, for each playlist request. After this: `viewers/audience.rs` (who counts as one), and the
//! directory's origins, whose APIs show the sum over all edges.

pub mod audience;

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use dashmap::DashMap;
use http::{HeaderMap, header::USER_AGENT};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_shared::{
    directory::{MAX_REPORTED_STREAMS, ViewersReport},
    hls::position::Want,
    id::{RenditionName, StreamKey},
    playback::session::ViewerId,
    serve::{Peer, door::AddressBlock},
};

use crate::{directory::Directory, metrics::Metrics};

use audience::{Audience, Track, Who};

/// How often counts are brought up to date and told.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Streams counted at once; viewers of further ones are not.
const MAX_STREAMS: usize = MAX_REPORTED_STREAMS;

/// The audiences of this edge.
#[derive(Debug)]
pub struct Viewers {
    streams: DashMap<StreamKey, Audience>,
    /// Tells this edge's reports from others': new at each start.
    node: String,
    begun: Instant,
    metrics: Arc<Metrics>,
}

/// A playlist request whose answer is waited for.
pub struct Watching<'a> {
    viewers: &'a Viewers,
    key: &'a StreamKey,
    waits_for: Option<Track>,
}

impl Viewers {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            streams: DashMap::new(),
            node: format!("{:016x}", rand::random::<u64>()),
            begun: Instant::now(),
            metrics,
        }
    }

    /// Counts the viewer of this request; the result is kept until it is answered.
    pub fn see<'a>(
        &'a self,
        key: &'a StreamKey,
        rendition: &RenditionName,
        want: Want,
        named: Option<ViewerId>,
        from: (Peer, &HeaderMap),
    ) -> Watching<'a> {
        let who = who(want, named, from);
        // Rendition names of ours say which are sound alone.
        let track = match rendition.as_str().starts_with("audio") {
            true => Track::Sound,
            false => Track::Picture,
        };
        let known = self.streams.contains_key(key) || self.streams.len() < MAX_STREAMS;
        if known {
            let mut audience = self.streams.entry(key.clone()).or_default();
            audience.see(who, track, self.begun.elapsed());
        }
        Watching {
            viewers: self,
            key,
            waits_for: (known && matches!(who, Who::Waiting(_))).then_some(track),
        }
    }

    /// Viewers of one stream now.
    pub fn of(&self, key: &StreamKey) -> usize {
        self.streams.get(key).map_or(0, |audience| audience.count())
    }

    /// Brings the counts up to date, and says what they are.
    fn report(&self) -> ViewersReport {
        let now = self.begun.elapsed();
        self.streams.retain(|_, audience| {
            audience.tidy(now);
            !audience.is_gone()
        });
        let counts = self.streams.iter();
        let streams: Vec<_> = counts
            .map(|entry| (entry.key().clone(), u32::try_from(entry.count()).unwrap_or(u32::MAX)))
            .take(MAX_REPORTED_STREAMS)
            .collect();
        let all: u64 = streams.iter().map(|(_, count)| u64::from(*count)).sum();
        self.metrics.viewers.set(i64::try_from(all).unwrap_or(i64::MAX));
        ViewersReport {
            node: self.node.clone(),
            streams,
        }
    }

    /// Counts and tells until the stop. `directory`: the one in use at the time.
    pub async fn run(self: Arc<Self>, directory: impl Fn() -> Option<Arc<Directory>>, stop: CancellationToken) {
        loop {
            let is_over = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            let mut report = self.report();
            if is_over {
                report.streams.clear();
            }
            if let Some(directory) = directory() {
                directory.tell_viewers(&report).await;
            }
            if is_over {
                return;
            }
        }
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        if let Some(track) = self.waits_for
            && let Some(mut audience) = self.viewers.streams.get_mut(self.key)
        {
            audience.leave(track);
        }
    }
}

fn who(want: Want, named: Option<ViewerId>, (peer, headers): (Peer, &HeaderMap)) -> Who {
    if let Some(ViewerId(id)) = named {
        return Who::Named(id);
    }
    let mut hasher = DefaultHasher::new();
    if let Some(session) = session_id(headers) {
        session.hash(&mut hasher);
        return Who::Named(hasher.finish());
    }
    AddressBlock::of(peer.addr.ip()).hash(&mut hasher);
    headers.get(USER_AGENT).map(|value| value.as_bytes()).hash(&mut hasher);
    match want {
        Want::Now => Who::Asking(hasher.finish()),
        Want::Segment(_) | Want::Part(..) => Who::Waiting(hasher.finish()),
    }
}

/// The session id a player gives of its own accord (CTA-5004): `sid="…"` in the header `CMCD-Session`.
fn session_id(headers: &HeaderMap) -> Option<&str> {
    let fields = headers.get("cmcd-session")?.to_str().ok()?;
    let sid = fields
        .split(',')
        .find_map(|field| field.trim().strip_prefix("sid=\""))?;
    let sid = sid.strip_suffix('"')?;
    (1..=64).contains(&sid.len()).then_some(sid)
}
