//! The one reader of a rendition's playlist at the origin: a task that keeps at most one blocking request open.
//!
//! Before this: `live/followers.rs`, which starts it. After this: `live/view.rs`, what viewers see. What an answer of the
//! origin means is decided in `live/fit.rs`.
//!
//! **The bytes come before the news:** the hinted part is asked for ahead, and a view is published only when the bytes
//! of every part it announces for the first time are in memory.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use rand::{SeedableRng as _, rngs::SmallRng};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use weir_shared::{
    hls::{
        parse,
        playlist::MediaPlaylist,
        position::{PartIndex, PartNumber, Want},
        reload::{Reload, Skip},
    },
    retry::Backoff,
};

use super::{
    fit::{self, Misfit},
    view::{PartBytes, View, part_number},
};
use crate::{
    cache::{Absent, Entry, Kind, Store},
    metrics::Metrics,
    upstream::Upstream,
};

/// Largest playlist, in bytes.
const PLAYLIST_LIMIT: usize = 8 << 20;
/// Time for an answer beyond what the origin may hold it back.
const PLAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between tries while the origin does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Pause between two looks at a new life that has no complete segment yet.
const YOUNG_PAUSE: Duration = Duration::from_millis(100);
/// How long a stream that was live may be unknown to its origin before viewers are told so: its origin restarted and the
/// encoder is on its way back. Players give up for good on a 404.
const RETURN_GRACE: Duration = Duration::from_secs(30);
/// Parts whose bytes one update waits for. More than a few means that much was missed: who wants old parts fetches them.
const MAX_ANNOUNCED: usize = 32;
/// Delta updates that may fail one after another before only full playlists are asked for.
const MAX_MISFITS: u32 = 3;

/// What a follower has to say.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The newest view, if there ever was one.
    pub view: Option<Arc<View>>,
    /// Since when the origin has not answered.
    pub down_since: Option<Instant>,
    /// The origin says that there is no such rendition: its status and, if short, its JSON reason.
    pub absent: Option<(StatusCode, Option<Bytes>)>,
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

/// Why a request to the origin brought no news.
enum Failure {
    /// The origin did not answer, or not sensibly.
    Down,
    /// The origin held the request for as long as it may: there is no news.
    Quiet,
    /// The update does not fit what is known: ask for the full playlist.
    Misfit,
    /// A new life is not far enough to be shown: look again soon.
    Young,
    Absent(StatusCode, Option<Bytes>),
}

impl From<Misfit> for Failure {
    fn from(misfit: Misfit) -> Self {
        match misfit {
            Misfit::NeedsFull => Self::Misfit,
            Misfit::WentBack => Self::Down,
            Misfit::TooYoung => Self::Young,
        }
    }
}

/// How the next request is made.
#[derive(Default)]
struct Course {
    /// Ask for the full playlist at once instead of waiting for an update.
    full: bool,
    /// Updates in a row that did not fit.
    misfits: u32,
}

impl Follower {
    /// Follows until there is nothing more to follow.
    pub async fn run(&self) -> End {
        let mut rng = SmallRng::from_rng(&mut rand::rng());
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut course = Course::default();
        loop {
            let known = self.state.borrow().view.clone();
            match self.step(known.as_deref(), &course).await {
                Ok(playlist) => {
                    backoff.reset();
                    if !course.full {
                        course.misfits = 0;
                    }
                    course.full = false;
                    let view = self.publish(known.as_deref(), playlist).await;
                    if view.edge.ended {
                        return End::Ended;
                    }
                    if known.is_some_and(|known| known.edge == view.edge) {
                        // An origin that answers at once with nothing new must not be asked in a tight loop.
                        tokio::time::sleep(poll_pause(&view)).await;
                    }
                }
                Err(Failure::Quiet) => {}
                Err(Failure::Young) => {
                    course.full = true;
                    tokio::time::sleep(YOUNG_PAUSE).await;
                }
                Err(Failure::Misfit) => {
                    self.metrics.merge_failures.inc();
                    course.full = true;
                    course.misfits = course.misfits.saturating_add(1);
                    if course.misfits > 1 {
                        tokio::time::sleep(backoff.next(&mut rng)).await;
                    }
                }
                Err(Failure::Absent(status, reason)) if !self.may_return() => {
                    self.state.send_replace(State {
                        absent: Some((status, reason)),
                        ..State::default()
                    });
                    return End::Absent;
                }
                Err(Failure::Down | Failure::Absent(..)) => {
                    self.mark_down();
                    // Whatever was missed meanwhile: the full playlist tells.
                    course.full = true;
                    tokio::time::sleep(backoff.next(&mut rng)).await;
                }
            }
        }
    }

    fn mark_down(&self) {
        self.state.send_if_modified(|s| {
            let fresh = s.down_since.is_none();
            s.down_since.get_or_insert_with(Instant::now);
            fresh
        });
    }

    /// Whether a stream that is unknown now was live a moment ago.
    fn may_return(&self) -> bool {
        let state = self.state.borrow();
        let down = state.down_since.map_or(Duration::ZERO, |since| since.elapsed());
        (state.view.is_some() || state.down_since.is_some()) && down < RETURN_GRACE
    }

    /// One request: the full playlist, or the update after the one that is known. Gives the newest full playlist.
    async fn step(&self, known: Option<&View>, course: &Course) -> Result<MediaPlaylist, Failure> {
        let Some(view) = known.filter(|_| !course.full) else {
            let playlist = self.ask(Reload::NOW, Duration::ZERO).await?;
            let down_for = self.state.borrow().down_since.map(|since| since.elapsed());
            return Ok(fit::restart(known, playlist, down_for)?);
        };
        if let Some(hint) = &view.playlist.preload_hint {
            // Not waited for here: its bytes are looked for when the playlist announces it.
            let (store, part) = (self.store.clone(), format!("{}{}", self.directory, hint.uri));
            tokio::spawn(async move { store.get(&part, Kind::Listed).await.is_ok() });
        }
        let control = view.playlist.server_control;
        let skip = control.is_some_and(|c| c.can_skip_until.is_some()) && course.misfits < MAX_MISFITS;
        let want = if !control.is_some_and(|c| c.can_block_reload) {
            Want::Now
        } else if view.playlist.part_target.is_some() {
            Want::Part(view.edge.open, PartIndex(view.edge.open_parts))
        } else {
            Want::Segment(view.edge.open)
        };
        let reload = Reload {
            want,
            skip: if skip { Skip::Yes } else { Skip::No },
        };
        let update = self.ask(reload, view.target_duration() * 3).await?;
        Ok(fit::update(&view.playlist, update)?)
    }

    /// Asks for the playlist, which the origin may hold back for `held`, and reads it.
    async fn ask(&self, reload: Reload, held: Duration) -> Result<MediaPlaylist, Failure> {
        let query = reload.to_query();
        let mark = if query.is_empty() { "" } else { "?" };
        let path = format!("{}{}{mark}{query}", self.directory, self.file);
        let asked = Instant::now();
        let answer = self
            .upstream
            .get(&path, asked + held + PLAIN_TIMEOUT, PLAYLIST_LIMIT)
            .await;
        let answer = answer.map_err(|_| Failure::Down)?;
        match answer.status {
            StatusCode::OK => {}
            // A restarted origin counts from further ahead or, with its clock set back, from behind: look afresh.
            StatusCode::BAD_REQUEST if reload != Reload::NOW => return Err(Failure::Misfit),
            StatusCode::SERVICE_UNAVAILABLE if !held.is_zero() && asked.elapsed() > held / 2 => {
                return Err(Failure::Quiet);
            }
            status if status.is_client_error() => return Err(Failure::Absent(status, answer.into_reason())),
            _ => return Err(Failure::Down),
        }
        let text = std::str::from_utf8(&answer.body).map_err(|_| Failure::Down)?;
        parse::parse(text).map_err(|error| {
            tracing::warn!(%error, "an origin's playlist could not be read");
            Failure::Down
        })
    }

    /// Gets the bytes of what `playlist` announces for the first time, then tells everybody.
    async fn publish(&self, known: Option<&View>, playlist: MediaPlaylist) -> Arc<View> {
        let received = Instant::now();
        let mut view = View::new(playlist, received, PartBytes::default());
        if let Some(known) = known {
            let same_life = view.epoch == known.epoch;
            let mut parts = if same_life {
                known.parts().clone()
            } else {
                PartBytes::default()
            };
            let first_new = if same_life { known.edge.next_part } else { PartNumber(0) };
            for (number, entry) in self.announced(known, &view.playlist, first_new).await {
                parts.insert(number, entry);
            }
            view = View::new(view.playlist, received, parts);
            view.render_like(known);
        }
        let view = Arc::new(view);
        self.state.send_replace(State {
            view: Some(view.clone()),
            ..State::default()
        });
        view
    }

    /// The bytes of the parts from number `first_new` on, once they (and a new init section) are in memory. Those that
    /// can't be had within a target duration are left to whoever asks for them.
    async fn announced(
        &self,
        known: &View,
        playlist: &MediaPlaylist,
        first_new: PartNumber,
    ) -> Vec<(PartNumber, Arc<Entry>)> {
        let listed = playlist.segments.iter().flat_map(|s| &s.parts);
        let mut parts: Vec<(PartNumber, &str)> = listed
            .filter_map(|part| Some((part_number(&part.uri)?, part.uri.as_str())))
            .filter(|(number, _)| *number >= first_new)
            .collect();
        parts.drain(..parts.len().saturating_sub(MAX_ANNOUNCED));
        let fetch = |uri: &str| {
            let (store, path) = (self.store.clone(), format!("{}{uri}", self.directory));
            tokio::spawn(async move { store.get(&path, Kind::Listed).await })
        };
        let map = |playlist: &MediaPlaylist| playlist.segments.last().and_then(|s| s.map_uri.clone());
        let new_map = map(playlist).filter(|uri| map(&known.playlist).as_ref() != Some(uri));
        let init = new_map.as_deref().map(fetch);
        let fetches: Vec<_> = parts.into_iter().map(|(number, uri)| (number, fetch(uri))).collect();

        let deadline = Instant::now() + known.target_duration();
        let mut bytes = Vec::with_capacity(fetches.len());
        for (number, fetch) in fetches {
            match timeout_at(deadline, fetch).await {
                Ok(Ok(Ok(entry))) => bytes.push((number, entry)),
                Ok(Ok(Err(Absent::Ending))) => {}
                _ => tracing::warn!("a part is announced before its bytes could be had"),
            }
        }
        if let Some(init) = init
            && !matches!(timeout_at(deadline, init).await, Ok(Ok(Ok(_))))
        {
            tracing::warn!("an init section is announced before its bytes could be had");
        }
        bytes
    }
}

/// How long to wait before asking again an origin that does not hold requests: half a part or, where there are none,
/// half a target duration.
fn poll_pause(view: &View) -> Duration {
    let news = view.playlist.part_target.unwrap_or(view.target_duration());
    (news / 2).max(FIRST_PAUSE)
}
