//! The one reader of a playlist upstream: a task that keeps at most one blocking request open.
//!
//! Before this: `live/roster.rs`, which starts it. After this: what viewers see. How the fleet's playlists are read is
//! known in `live/own.rs`, how those of others in `route/rendition.rs`.
//!
//! **The bytes come before the news:** the hinted part is asked for ahead, and a view is published only when the bytes
//! of every part it announces for the first time are in memory.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use rand::{SeedableRng as _, rngs::SmallRng};
use tokio::{sync::watch, time::Instant};
use weir_shared::{
    hls::{
        position::{PartIndex, Want},
        reload::{Reload, Skip},
    },
    retry::Backoff,
};

use super::{Moment, fit::Misfit};
use crate::{
    cache::{Kind, Store},
    metrics::Metrics,
    upstream::{Answer, Patience, Resource, Upstream},
};

/// Largest playlist, in bytes.
const PLAYLIST_LIMIT: usize = 8 << 20;
/// Time for an answer beyond what the origin may hold it back.
const PLAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between tries while the origin does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Pause between two looks at a playlist that is not far enough to be shown.
const YOUNG_PAUSE: Duration = Duration::from_millis(100);
/// An upstream that says nothing for so long while another could be asked is not waited for alone: so many parts, and
/// at least this.
const HEDGE_PARTS: u32 = 3;
const SHORTEST_HEDGE: Duration = Duration::from_millis(1200);
/// How long a stream that was live may be unknown to its origin before viewers are told so: its origin restarted and the
/// encoder is on its way back. Players give up for good on a 404.
const RETURN_GRACE: Duration = Duration::from_secs(30);
/// Delta updates that may fail one after another before only full playlists are asked for.
const MAX_MISFITS: u32 = 3;

/// What a follower has to say.
#[derive(Debug)]
pub struct State<M> {
    /// The newest view, if there ever was one.
    pub view: Option<Arc<M>>,
    /// Since when the origin has not answered.
    pub down_since: Option<Instant>,
    /// The origin says that there is no such rendition: its status and, if short, its JSON reason.
    pub absent: Option<(StatusCode, Option<Bytes>)>,
}

impl<M> Default for State<M> {
    fn default() -> Self {
        Self {
            view: None,
            down_since: None,
            absent: None,
        }
    }
}

/// A playlist upstream, and what its answers mean.
pub trait Source: Send + Sync + 'static {
    /// What viewers see of it.
    type View: Moment;
    /// An answer that could be read.
    type Playlist: Send;

    /// What is asked for.
    fn resource(&self, reload: Reload) -> Resource;

    /// `None`: it can't be read.
    fn read(&self, answer: Answer) -> Option<Self::Playlist>;

    /// Whether an upstream may hold requests, and whether it gives delta updates.
    fn offers(&self, known: &Self::View) -> Offers;

    /// The part that comes next.
    fn hint(&self, known: &Self::View) -> Option<Resource>;

    /// The answer to a request for what follows `known`: gives the full playlist.
    fn update(&self, known: &Self::View, update: Self::Playlist) -> Result<Self::Playlist, Misfit>;

    /// A full playlist after a gap, a misfit or at the very beginning. `down_for`: how long the upstream has given
    /// nothing believable.
    fn restart(
        &self,
        known: Option<&Self::View>,
        playlist: Self::Playlist,
        down_for: Option<Duration>,
    ) -> Result<Self::Playlist, Misfit>;

    /// Gets the bytes of what `playlist` announces for the first time; gives what viewers are shown then.
    fn view(&self, known: Option<&Self::View>, given: Given<Self::Playlist>)
    -> impl Future<Output = Self::View> + Send;
}

/// A playlist, and when its origin gave it.
#[derive(Debug, Clone)]
pub struct Given<P> {
    pub playlist: P,
    pub since: Instant,
}

/// EXT-X-SERVER-CONTROL, as far as it concerns a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offers {
    pub blocks: bool,
    pub skips: bool,
}

/// What a follower works with.
pub struct Follower<S: Source> {
    pub source: S,
    pub upstream: Arc<Upstream>,
    pub store: Arc<Store>,
    pub metrics: Arc<Metrics>,
    pub state: Arc<watch::Sender<State<S::View>>>,
    /// The playlist itself, where it has just been read.
    pub first: Option<Given<S::Playlist>>,
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
    /// What there is, is not far enough to be shown: look again soon.
    Young,
    /// It tells of a past that viewers have left behind: another origin may be about to catch up.
    Behind,
    Absent(StatusCode, Option<Bytes>),
}

impl From<Misfit> for Failure {
    fn from(misfit: Misfit) -> Self {
        match misfit {
            Misfit::NeedsFull => Self::Misfit,
            Misfit::WentBack => Self::Behind,
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

impl<S: Source> Follower<S> {
    /// Follows until there is nothing more to follow.
    pub async fn run(mut self) -> End {
        let mut rng = SmallRng::from_rng(&mut rand::rng());
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut course = Course::default();
        loop {
            let known = self.state.borrow().view.clone();
            let step = match self.first.take() {
                Some(first) => Ok(first),
                None => self.step(known.as_deref(), &course).await,
            };
            match step {
                Ok(given) => {
                    backoff.reset();
                    if !course.full {
                        course.misfits = 0;
                    }
                    course.full = false;
                    let view = Arc::new(self.source.view(known.as_deref(), given).await);
                    self.state.send_replace(State {
                        view: Some(view.clone()),
                        ..State::default()
                    });
                    if view.edge().ended {
                        return End::Ended;
                    }
                    if known.is_some_and(|known| known.edge() == view.edge()) {
                        // An origin that answers at once with nothing new must not be asked in a tight loop.
                        tokio::time::sleep(poll_pause(&*view)).await;
                    }
                }
                Err(Failure::Quiet) => {}
                Err(Failure::Young) => {
                    course.full = true;
                    tokio::time::sleep(YOUNG_PAUSE).await;
                }
                Err(Failure::Behind) => {
                    self.mark_down();
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
    async fn step(&self, known: Option<&S::View>, course: &Course) -> Result<Given<S::Playlist>, Failure> {
        let Some(view) = known.filter(|_| !course.full) else {
            let Given { playlist, since } = self.ask(Reload::NOW, Duration::ZERO, SHORTEST_HEDGE).await?;
            let down_for = self.state.borrow().down_since.map(|since| since.elapsed());
            let playlist = self.source.restart(known, playlist, down_for)?;
            return Ok(Given { playlist, since });
        };
        if let Some(part) = self.source.hint(view) {
            // Not waited for here: its bytes are looked for when the playlist announces it.
            let store = self.store.clone();
            tokio::spawn(async move { store.get_resource(&part, Kind::Listed).await.is_ok() });
        }
        let (offers, edge) = (self.source.offers(view), view.edge());
        let want = if !offers.blocks {
            Want::Now
        } else if view.part_target().is_some() {
            Want::Part(edge.open, PartIndex(edge.open_parts))
        } else {
            Want::Segment(edge.open)
        };
        let skip = offers.skips && course.misfits < MAX_MISFITS;
        let reload = Reload {
            want,
            skip: if skip { Skip::Yes } else { Skip::No },
        };
        let news = view.part_target().unwrap_or(view.target_duration());
        let hedge = (news * HEDGE_PARTS).max(SHORTEST_HEDGE);
        let update = self.ask(reload, view.target_duration() * 3, hedge).await?;
        Ok(Given {
            playlist: self.source.update(view, update.playlist)?,
            since: update.since,
        })
    }

    /// Asks for the playlist, which the origin may hold back for `held`, and reads it.
    async fn ask(&self, reload: Reload, held: Duration, hedge: Duration) -> Result<Given<S::Playlist>, Failure> {
        let asked = Instant::now();
        let patience = Patience {
            deadline: asked + held + PLAIN_TIMEOUT,
            hedge,
        };
        let resource = self.source.resource(reload);
        let answer = self.upstream.get(&resource, patience, PLAYLIST_LIMIT).await;
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
        let since = answer.since();
        let playlist = self.source.read(answer).ok_or(Failure::Down)?;
        Ok(Given { playlist, since })
    }
}

/// How long to wait before asking again an origin that does not hold requests: half a part or, where there are none,
/// half a target duration.
fn poll_pause(view: &impl Moment) -> Duration {
    let news = view.part_target().unwrap_or(view.target_duration());
    (news / 2).max(FIRST_PAUSE)
}
