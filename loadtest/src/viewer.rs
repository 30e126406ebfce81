//! A player as a state machine. Pure: answers and `now` in, requests, events and the next timeout out.
//!
//! Before this: [`crate::fleet`], which owns the connections. After this: [`crate::oracle`], which judges the events.
//! A viewer joins as players do (multivariant playlist, media playlists, init sections, parts from PART-HOLD-BACK behind
//! the live end), then keeps one blocking reload per rendition open and gets each part in order.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use url::Url;
use weir_shared::hls::{
    multivariant::{self, Multivariant},
    parse::Problem,
    reload::Reload,
};

use crate::{
    address,
    listing::{self, Listing, Shelf, Unreadable},
    moment::Moment,
};

mod event;
mod track;

pub use event::{Answer, End, Event, Failure, MediaBody, Purpose, Received};
use track::Track;

/// Time for an answer that nobody may hold back.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Redirects followed before the multivariant playlist.
const MAX_REDIRECTS: u32 = 5;
/// Failures in a row after which a player shows an error and gives up.
const MAX_FAILURES: u32 = 6;
/// Pause before something that failed is asked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Events and requests waiting to be taken by the caller.
const MAX_WAITING: usize = 4096;

/// Whose request pattern a viewer follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Parts once the playlist announces them.
    HlsJs,
    /// The hinted part is asked for ahead, beside the blocking reload.
    Safari,
}

/// How one viewer behaves.
#[derive(Debug, Clone)]
pub struct Plan {
    pub entry: Url,
    pub pattern: Pattern,
    /// Ask for delta updates where they are offered.
    pub delta: bool,
    /// Mean time between changes of the variant.
    pub switch_every: Option<Duration>,
    /// Mean time between seeks into the past.
    pub seek_every: Option<Duration>,
    /// Makes choices repeatable.
    pub seed: u64,
}

impl Plan {
    pub fn new(entry: Url, pattern: Pattern) -> Self {
        Self {
            entry,
            pattern,
            delta: true,
            switch_every: None,
            seek_every: None,
            seed: 0,
        }
    }
}

/// Numbers a viewer's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub u32);

/// What the caller is to do.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "values live for a moment, and most are the large kind"
)]
pub enum Output {
    /// Send `GET path`; answer with [`Viewer::answer`] or [`Viewer::fail`].
    Send {
        id: RequestId,
        path: Arc<str>,
        purpose: Purpose,
    },
    /// The answer is not wanted any more.
    Cancel(RequestId),
    Event(Event),
}

/// A request under way.
#[derive(Debug)]
struct Asked {
    id: RequestId,
    path: Arc<str>,
    purpose: Purpose,
    sent: Moment,
    deadline: Moment,
}

/// One simulated player.
#[derive(Debug)]
pub struct Viewer {
    plan: Plan,
    rng: SmallRng,
    started: Moment,
    redirects: u32,
    tracks: Vec<Track>,
    /// Paths of the variants' media playlists; the first track is on one of them.
    variants: Vec<String>,
    variant: usize,
    asked: Vec<Asked>,
    out: VecDeque<Output>,
    next_id: u32,
    joined: bool,
    ended: bool,
    /// Failures of the multivariant playlist.
    failures: u32,
    retry_entry_at: Option<Moment>,
    switch_at: Option<Moment>,
    seek_at: Option<Moment>,
}

impl Viewer {
    /// A viewer who opens the page at `now`.
    pub fn new(plan: Plan, now: Moment) -> Self {
        let mut viewer = Self {
            rng: SmallRng::seed_from_u64(plan.seed),
            started: now,
            redirects: 0,
            tracks: Vec::new(),
            variants: Vec::new(),
            variant: 0,
            asked: Vec::with_capacity(4),
            out: VecDeque::with_capacity(8),
            next_id: 0,
            joined: false,
            ended: false,
            failures: 0,
            retry_entry_at: None,
            switch_at: None,
            seek_at: None,
            plan,
        };
        let entry = address::path_of(&viewer.plan.entry);
        viewer.send(entry.into(), Purpose::Multivariant, now, PATIENCE);
        viewer
    }

    /// The next thing to do; `None` until something arrives or the timeout passes.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Whether the viewer has gone: at the end of the stream, or after too many failures.
    pub fn is_over(&self) -> bool {
        self.ended && self.out.is_empty()
    }

    /// When [`Viewer::timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Moment> {
        if self.ended {
            return None;
        }
        let requests = self.asked.iter().map(|asked| asked.deadline);
        let tracks = self.tracks.iter().filter_map(Track::next_timeout);
        let own = [self.switch_at, self.seek_at, self.retry_entry_at];
        requests.chain(tracks).chain(own.into_iter().flatten()).min()
    }

    /// Lets what is due happen.
    pub fn timeout(&mut self, now: Moment) {
        if self.ended {
            return;
        }
        while let Some(late) = self.asked.iter().position(|asked| asked.deadline <= now) {
            let id = self.asked[late].id;
            self.out.push_back(Output::Cancel(id));
            self.fail(id, Failure::Silence, now);
        }
        if self.retry_entry_at.is_some_and(|at| at <= now) {
            self.retry_entry_at = None;
            let entry = address::path_of(&self.plan.entry);
            self.send(entry.into(), Purpose::Multivariant, now, PATIENCE);
        }
        if self.switch_at.is_some_and(|at| at <= now) {
            self.switch_at = self.some_time_after(now, self.plan.switch_every);
            self.choose_variant();
        }
        if self.seek_at.is_some_and(|at| at <= now) {
            self.seek_at = self.some_time_after(now, self.plan.seek_every);
            self.seek(now);
        }
        for track in 0..self.tracks.len() {
            self.step(track, now);
        }
    }

    /// A request was answered, whatever the status.
    pub fn answer(&mut self, id: RequestId, answer: &Answer<'_>, shelf: &mut Shelf, now: Moment) {
        let Some(asked) = self.take_asked(id) else { return };
        if let Some(headers) = answer.headers {
            self.event(Event::Answered {
                purpose: asked.purpose,
                path: asked.path.clone(),
                status: answer.status,
                headers,
            });
        }
        match asked.purpose {
            Purpose::Multivariant => self.on_multivariant(&asked, answer, shelf, now),
            Purpose::Playlist { track, reload } => self.on_playlist(track, reload, &asked, answer, shelf, now),
            Purpose::Init { track } => self.on_init(track, &asked, answer, now),
            Purpose::Part { track, hinted } => self.on_part(track, hinted, &asked, answer, now),
            Purpose::Segment { track, .. } => self.on_segment(track, &asked, answer, now),
        }
    }

    /// A request failed without an answer.
    pub fn fail(&mut self, id: RequestId, failure: Failure, now: Moment) {
        let Some(asked) = self.take_asked(id) else { return };
        let path = asked.path.clone();
        self.event(Event::Failed {
            purpose: asked.purpose,
            path,
            failure,
        });
        match asked.purpose {
            Purpose::Multivariant => self.entry_failed(End::NoEntry, now),
            Purpose::Playlist { track, .. } => self.playlist_failed(track, now),
            Purpose::Init { track } => {
                if let Some(track) = self.tracks.get_mut(track) {
                    track.init_failed();
                }
            }
            Purpose::Part { track, hinted } => self.part_failed(track, hinted, now),
            Purpose::Segment { track, .. } => self.rejoin(track, now),
        }
    }

    fn take_asked(&mut self, id: RequestId) -> Option<Asked> {
        let at = self.asked.iter().position(|asked| asked.id == id)?;
        Some(self.asked.swap_remove(at))
    }

    fn event(&mut self, event: Event) {
        if self.out.len() < MAX_WAITING {
            self.out.push_back(Output::Event(event));
        }
    }

    fn end(&mut self, end: End) {
        if !self.ended {
            self.ended = true;
            let open: Vec<_> = self.asked.drain(..).map(|asked| Output::Cancel(asked.id)).collect();
            self.out.extend(open);
            self.event(Event::Ended(end));
        }
    }

    fn send(&mut self, path: Arc<str>, purpose: Purpose, now: Moment, patience: Duration) -> RequestId {
        let id = RequestId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        self.asked.push(Asked {
            id,
            path: path.clone(),
            purpose,
            sent: now,
            deadline: now.plus(patience),
        });
        self.out.push_back(Output::Send { id, path, purpose });
        id
    }

    fn cancel(&mut self, id: RequestId) {
        if self.take_asked(id).is_some() {
            self.out.push_back(Output::Cancel(id));
        }
    }

    fn some_time_after(&mut self, now: Moment, mean: Option<Duration>) -> Option<Moment> {
        Some(now.plus(mean?.mul_f64(self.rng.random_range(0.5..1.5))))
    }

    fn on_multivariant(&mut self, asked: &Asked, answer: &Answer<'_>, shelf: &mut Shelf, now: Moment) {
        if let (300..=399, Some(location)) = (answer.status, answer.location) {
            self.redirects += 1;
            match address::join(&self.plan.entry, &asked.path, location) {
                Ok(path) if self.redirects <= MAX_REDIRECTS => {
                    self.send(path.into(), Purpose::Multivariant, now, PATIENCE);
                }
                Ok(_) => self.end(End::TooManyRedirects),
                Err(bad) => self.end(End::BadReference(bad)),
            }
            return;
        }
        if answer.status != 200 {
            self.refused(asked, answer);
            let refused_for_good = matches!(answer.status, 400..=428);
            if refused_for_good {
                return self.end(End::Refused { status: answer.status });
            }
            return self.entry_failed(End::Refused { status: answer.status }, now);
        }
        let unpacked;
        let body = if answer.gzip {
            unpacked = listing::unzip(answer.text).unwrap_or_default();
            &unpacked
        } else {
            answer.text
        };
        let text = String::from_utf8_lossy(body);
        match multivariant::parse(&text) {
            Ok(read) => {
                self.event(Event::Multivariant {
                    text: text.as_ref().into(),
                });
                self.choose_tracks(&asked.path, &read, now);
            }
            // The URL is that of a media playlist: watch that alone.
            Err(error) if matches!(error.problem, Problem::Media(_)) => {
                self.tracks = vec![Track::new(asked.path.to_string())];
                self.on_playlist(0, Reload::NOW, asked, answer, shelf, now);
            }
            Err(error) => {
                let path = asked.path.clone();
                self.event(Event::Unreadable {
                    purpose: asked.purpose,
                    path,
                    why: Unreadable::Parse(error),
                });
                self.entry_failed(End::NoPlaylist, now);
            }
        }
    }

    fn choose_tracks(&mut self, base: &str, read: &Multivariant, now: Moment) {
        let mut variants = Vec::new();
        for variant in &read.variants {
            match address::join(&self.plan.entry, base, &variant.uri) {
                Ok(path) => variants.push(path),
                Err(bad) => return self.end(End::BadReference(bad)),
            }
        }
        let Some(first) = variants.first() else {
            return self.end(End::NoPlaylist);
        };
        self.tracks = vec![Track::new(first.clone())];
        let group = read.variants.first().and_then(|v| v.audio_group.as_deref());
        let sound = read
            .media
            .iter()
            .find(|m| Some(m.group_id.as_str()) == group && m.uri.is_some());
        if let Some(uri) = sound.and_then(|m| m.uri.as_deref()) {
            match address::join(&self.plan.entry, base, uri) {
                Ok(path) if path != *first => self.tracks.push(Track::new(path)),
                Ok(_) => {}
                Err(bad) => return self.end(End::BadReference(bad)),
            }
        }
        self.variants = variants;
        self.event(Event::Tracks(self.tracks.len()));
        for track in 0..self.tracks.len() {
            self.step(track, now);
        }
    }

    fn entry_failed(&mut self, end: End, now: Moment) {
        self.failures += 1;
        if self.failures >= MAX_FAILURES {
            self.end(end);
        } else {
            self.retry_entry_at = Some(now.plus(RETRY_PAUSE));
        }
    }

    fn refused(&mut self, asked: &Asked, answer: &Answer<'_>) {
        self.event(Event::Refused {
            purpose: asked.purpose,
            path: asked.path.clone(),
            status: answer.status,
            held: answer.at.since(asked.sent),
        });
    }

    /// Another variant from the next segment on.
    fn choose_variant(&mut self) {
        if self.variants.len() > 1 {
            let step = self.rng.random_range(1..self.variants.len());
            self.variant = (self.variant + step) % self.variants.len();
            let path = self.variants.get(self.variant).cloned();
            if let Some(track) = self.tracks.first_mut() {
                track.switch_to = path.filter(|path| *path != track.path);
            }
        }
    }

    /// The moment everything needed for the first picture was there.
    fn check_joined(&mut self, now: Moment) {
        if !self.joined && self.tracks.iter().all(|track| track.has_played) {
            self.joined = true;
            self.event(Event::Joined {
                after: now.since(self.started),
            });
            self.switch_at = self.some_time_after(now, self.plan.switch_every);
            self.seek_at = self.some_time_after(now, self.plan.seek_every);
        }
    }
}

/// How long a server may hold a request, and a little more (rule BL-08).
fn held_patience(listing: &Listing) -> Duration {
    listing.target_duration() * 3 + Duration::from_secs(5)
}

#[cfg(test)]
mod tests;
