//! The one reader of a rendition's playlist at the origin: a task that keeps at most one blocking request open.
//!
//! Before this: `live/followers.rs`, which starts it. After this: `live/view.rs`, what viewers see.
//!
//! **The bytes come before the news:** the hinted part is asked for ahead, and a view is published only when the bytes
//! of every part it announces for the first time are in memory.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use rand::SeedableRng as _;
use tokio::{sync::watch, time::Instant};
use weir_shared::{
    hls::{
        delta, parse,
        playlist::MediaPlaylist,
        position::{PartIndex, Want},
        reload::{Reload, Skip},
    },
    retry::Backoff,
};

use super::view::View;
use crate::{
    cache::{Lifetime, Store},
    metrics::Metrics,
    upstream::Upstream,
};

/// Largest playlist, in bytes.
const PLAYLIST_LIMIT: usize = 8 << 20;
/// Time for an answer that is not held.
const PLAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between tries while the origin does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a stream that was live may be unknown to its origin before viewers are told so.
const RETURN_GRACE: Duration = Duration::from_secs(30);

/// What a follower has to say.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The newest view, if there ever was one.
    pub view: Option<Arc<View>>,
    /// Since when the origin has not answered.
    pub down_since: Option<Instant>,
    /// The origin says that there is no such rendition: its status and reason.
    pub absent: Option<(StatusCode, Bytes)>,
}

/// What a follower works with.
pub struct Follower {
    /// `/app/<key>/d/`
    pub directory: String,
    /// `<rendition>.m3u8`
    pub file: String,
    pub upstream: Arc<Upstream>,
    pub store: Arc<Store>,
    pub metrics: Arc<Metrics>,
    pub state: watch::Sender<State>,
}

/// Why a follower ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The playlist has ended: there will be no news.
    Ended,
    /// The origin knows no such rendition.
    Absent,
}

impl Follower {
    /// Follows until there is nothing more to follow.
    pub async fn run(&self) -> End {
        let mut rng = rand::rngs::SmallRng::from_rng(&mut rand::rng());
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let known = self.state.borrow().view.clone();
            match self.step(known.as_deref()).await {
                Ok(playlist) => {
                    backoff.reset();
                    self.prepare(known.as_deref(), &playlist).await;
                    let ended = playlist.ended;
                    let view = Arc::new(View::new(playlist, Instant::now()));
                    self.state.send_replace(State {
                        view: Some(view),
                        ..State::default()
                    });
                    if ended {
                        return End::Ended;
                    }
                }
                Err(Failure::Absent(..)) if self.may_return() => self.pause(&mut backoff, &mut rng).await,
                Err(Failure::Absent(status, reason)) => {
                    self.state.send_replace(State {
                        absent: Some((status, reason)),
                        ..State::default()
                    });
                    return End::Absent;
                }
                Err(Failure::Full) => {
                    // The update does not fit what is known: start over with the full playlist, at once.
                    self.metrics.merge_failures.inc();
                    self.state.send_modify(|s| s.view = None);
                }
                Err(Failure::Down) => self.pause(&mut backoff, &mut rng).await,
            }
        }
    }

    async fn pause(&self, backoff: &mut Backoff, rng: &mut rand::rngs::SmallRng) {
        self.state.send_if_modified(|s| {
            let fresh = s.down_since.is_none();
            s.down_since.get_or_insert_with(Instant::now);
            fresh
        });
        tokio::time::sleep(backoff.next(rng)).await;
    }

    /// A stream that was live a moment ago and is unknown now: its origin restarted and the encoder is on its way back.
    fn may_return(&self) -> bool {
        let state = self.state.borrow();
        let down = state.down_since.map_or(Duration::ZERO, |since| since.elapsed());
        (state.view.is_some() || state.down_since.is_some()) && down < RETURN_GRACE
    }

    /// One request: the full playlist, or the update after the one that is known.
    async fn step(&self, known: Option<&View>) -> Result<MediaPlaylist, Failure> {
        let reload = known.map_or(Reload::NOW, |view| Reload {
            want: Want::Part(view.edge.open, PartIndex(view.edge.open_parts)),
            skip: Skip::Yes,
        });
        let wait = known.map_or(PLAIN_TIMEOUT, |v| v.target_duration() * 3 + PLAIN_TIMEOUT);
        let query = reload.to_query();
        let mark = if query.is_empty() { "" } else { "?" };
        let path = format!("{}{}{mark}{query}", self.directory, self.file);
        let ask_ahead = known.and_then(|v| v.playlist.preload_hint.as_ref()).map(|hint| {
            let (store, part) = (self.store.clone(), format!("{}{}", self.directory, hint.uri));
            tokio::spawn(async move { store.get(&part, Lifetime::Immutable).await.is_ok() })
        });
        let answer = self
            .upstream
            .get(&path, Instant::now() + wait, PLAYLIST_LIMIT)
            .await
            .map_err(|_| Failure::Down)?;
        // The part's own task goes on; its outcome is looked at in `prepare`.
        drop(ask_ahead);
        match answer.status {
            StatusCode::OK => {}
            // A restarted origin counts from further ahead or, with its clock set back, from behind: look afresh.
            StatusCode::BAD_REQUEST if known.is_some() => return Err(Failure::Full),
            status if status.is_client_error() => return Err(Failure::Absent(status, answer.body)),
            _ => return Err(Failure::Down),
        }
        let text = std::str::from_utf8(&answer.body).map_err(|_| Failure::Down)?;
        let update = parse::parse(text).map_err(|error| {
            tracing::warn!(%error, "an origin's playlist could not be read");
            Failure::Down
        })?;
        match known {
            Some(view) if update.skipped_segments.is_some() => delta::merge(&view.playlist, update).map_err(|error| {
                tracing::info!(%error, "a delta update does not fit, fetching the full playlist");
                Failure::Full
            }),
            _ if update.skipped_segments.is_some() => Err(Failure::Down),
            _ => Ok(update),
        }
    }

    /// Gets the bytes of parts that `playlist` announces for the first time, and of a new init section.
    async fn prepare(&self, known: Option<&View>, playlist: &MediaPlaylist) {
        let Some(known) = known else { return };
        let from = known.edge.open;
        let first = playlist.first_listed();
        let mut wanted: Vec<&str> = Vec::new();
        for (msn, segment) in (first.0..).zip(&playlist.segments) {
            if msn < from.0 {
                continue;
            }
            let seen = if msn == from.0 {
                known.edge.open_parts as usize
            } else {
                0
            };
            wanted.extend(segment.parts.iter().skip(seen).map(|p| p.uri.as_str()));
            wanted.extend(segment.map_uri.as_deref());
        }
        wanted.dedup();
        // More than a few means that much was missed: those who want old parts fetch them themselves.
        let newest = wanted.len().saturating_sub(8);
        let fetches: Vec<_> = wanted
            .split_off(newest)
            .into_iter()
            .map(|uri| {
                let (store, path) = (self.store.clone(), format!("{}{uri}", self.directory));
                tokio::spawn(async move { store.get(&path, Lifetime::Immutable).await })
            })
            .collect();
        for fetch in fetches {
            if !matches!(fetch.await, Ok(Ok(_))) {
                tracing::warn!("a part was announced before its bytes could be had");
            }
        }
    }
}

enum Failure {
    /// The origin did not answer, or not sensibly.
    Down,
    /// Ask again for the full playlist.
    Full,
    Absent(StatusCode, Bytes),
}
