//! One rendition of a viewer: its playlist loop, its next part, its hint.

use std::{sync::Arc, time::Duration};

use weir_shared::hls::{
    position::Want,
    reload::{Reload, Skip},
};

use super::{
    Answer, Asked, End, Event, MAX_FAILURES, PATIENCE, Pattern, Purpose, RETRY_PAUSE, Received, RequestId, Viewer,
    held_patience,
};
use crate::{
    address,
    listing::{Find, ListedPart, Listing, Position, Shelf},
    moment::Moment,
};

mod past;

use past::Past;

#[derive(Debug)]
pub(super) struct Track {
    /// Path and query of the media playlist.
    pub path: String,
    pub switch_to: Option<String>,
    pub has_played: bool,
    listing: Option<Arc<Listing>>,
    /// The next part to get; `None` until the first playlist.
    next: Option<Position>,
    /// The first position that was made after the viewer joined.
    live_from: Option<Position>,
    map: Option<Arc<str>>,
    reload: Option<RequestId>,
    part: Option<(RequestId, ListedPart)>,
    hint: Option<Hint>,
    /// A hint that was refused is not asked for twice.
    barred_hint: Option<String>,
    past: Option<Past>,
    /// Ask for a full playlist next.
    full: bool,
    failures: u32,
    part_failures: u32,
    playlist_at: Option<Moment>,
    part_at: Option<Moment>,
}

#[derive(Debug)]
struct Hint {
    uri: String,
    path: Arc<str>,
    /// The end of the playlist that gave it.
    end: Position,
    state: HintState,
}

#[derive(Debug)]
enum HintState {
    Asked(RequestId),
    Here(Received),
}

impl Track {
    pub(super) fn new(path: String) -> Self {
        Self {
            path,
            switch_to: None,
            has_played: false,
            listing: None,
            next: None,
            live_from: None,
            map: None,
            reload: None,
            part: None,
            hint: None,
            barred_hint: None,
            past: None,
            full: false,
            failures: 0,
            part_failures: 0,
            playlist_at: None,
            part_at: None,
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Moment> {
        let past = self.past.as_ref().filter(|past| !past.asked).map(|past| past.due);
        let times = [self.playlist_at, self.part_at, past];
        times.into_iter().flatten().min()
    }

    pub(super) fn init_failed(&mut self) {
        self.map = None;
    }

    /// Begins again at the live end of the playlist it has.
    fn join(&mut self) {
        self.past = None;
        self.next = self.listing.as_ref().and_then(|listing| listing.join());
        self.live_from = self.listing.as_ref().map(|listing| listing.end);
    }

    /// The request that keeps the playlist fresh.
    fn next_reload(&self, delta: bool) -> Reload {
        let Some(listing) = &self.listing else {
            // After a switch the new rendition is asked for at the old one's position.
            let want = self.next.map_or(Want::Now, |at| Want::Part(at.msn, at.part));
            return Reload { want, skip: Skip::No };
        };
        let control = listing.playlist.server_control;
        let want = match control.is_some_and(|c| c.can_block_reload) {
            false => Want::Now,
            true if listing.playlist.part_target.is_some() => Want::Part(listing.end.msn, listing.end.part),
            true => Want::Segment(listing.end.msn),
        };
        let skip = delta && !self.full && control.is_some_and(|c| c.can_skip_until.is_some());
        let skip = if skip { Skip::Yes } else { Skip::No };
        Reload { want, skip }
    }
}

impl Viewer {
    /// Issues whatever track `index` can ask for now.
    pub(super) fn step(&mut self, index: usize, now: Moment) {
        if self.ended {
            return;
        }
        self.step_playlist(index, now);
        self.step_past(index, now);
        self.step_part(index, now);
    }

    fn step_playlist(&mut self, index: usize, now: Moment) {
        let delta = self.plan.delta;
        let Some(track) = self.tracks.get_mut(index) else {
            return;
        };
        let over = track.listing.as_ref().is_some_and(|l| l.playlist.ended);
        if track.reload.is_some() || over || track.playlist_at.is_some_and(|at| at > now) {
            return;
        }
        track.playlist_at = None;
        let reload = track.next_reload(delta);
        let path = address::with_query(&track.path, &reload.to_query());
        let patience = match &track.listing {
            Some(listing) => held_patience(listing),
            None => PATIENCE,
        };
        let id = self.send(path.into(), Purpose::Playlist { track: index, reload }, now, patience);
        if let Some(track) = self.tracks.get_mut(index) {
            track.reload = Some(id);
        }
    }

    pub(super) fn on_playlist(
        &mut self,
        index: usize,
        reload: Reload,
        asked: &Asked,
        answer: &Answer<'_>,
        shelf: &mut Shelf,
        now: Moment,
    ) {
        if answer.status != 200 {
            self.refused(asked, answer);
            return self.playlist_failed(index, now);
        }
        let Some(track) = self.tracks.get_mut(index) else {
            return;
        };
        track.reload = None;
        // Without `_HLS_skip` a delta update is no answer, so there is nothing to merge into.
        let known = track.listing.as_ref().filter(|_| reload.skip == Skip::Yes);
        let read = shelf.read(answer.text, answer.gzip, known);
        let listing = match read {
            Ok(listing) => listing,
            Err(error) => {
                track.full = true;
                let (path, purpose) = (asked.path.clone(), asked.purpose);
                self.event(Event::Unreadable {
                    purpose,
                    path,
                    why: error,
                });
                return self.playlist_failed(index, now);
            }
        };
        let before = track.listing.replace(listing.clone());
        track.failures = 0;
        track.full = false;
        let part_target = listing.playlist.part_target.unwrap_or(listing.target_duration());
        let no_news = before.as_ref().is_some_and(|b| Arc::ptr_eq(b, &listing));
        let polled = !listing.playlist.server_control.is_some_and(|c| c.can_block_reload);
        if no_news || polled {
            // Nobody holds the request: ask again only when there can be news.
            track.playlist_at = Some(now.plus(part_target.max(Duration::from_millis(20)) / 2));
        }
        let first = before.is_none();
        // Further ahead than the next segment: the numbering began anew.
        let ahead = track.next.is_some_and(|at| at.msn > listing.end.msn.next());
        let gone = track.next.is_none_or(|at| listing.find(at) == Find::Gone);
        if ahead || (first && gone) {
            let fresh = !track.has_played;
            track.join();
            if track.next.is_none() {
                return self.end(End::NoParts);
            }
            if !fresh {
                self.event(Event::Rejoined { track: index });
            }
        }
        let path = asked.path.clone();
        self.event(Event::Playlist {
            track: index,
            path,
            reload,
            before,
            now: listing,
            headers: answer.headers,
            sent: asked.sent,
            at: now,
        });
        self.check_hint(index);
        self.step(index, now);
    }

    pub(super) fn playlist_failed(&mut self, index: usize, now: Moment) {
        let Some(track) = self.tracks.get_mut(index) else {
            return;
        };
        track.reload = None;
        track.failures += 1;
        track.playlist_at = Some(now.plus(RETRY_PAUSE));
        if track.listing.is_none() {
            track.next = None;
        }
        if track.failures >= MAX_FAILURES {
            self.end(End::PlaylistFailed);
        }
    }

    /// The hint must be what appears next (rule UP-06).
    fn check_hint(&mut self, index: usize) {
        let Some(track) = self.tracks.get_mut(index) else {
            return;
        };
        let (Some(hint), Some(listing)) = (&track.hint, &track.listing) else {
            return;
        };
        let verdict = match listing.find(hint.end) {
            Find::NotYet => return,
            Find::Listed(part) if *part.uri == *hint.uri => return,
            Find::Listed(_) => Some(hint.path.clone()),
            // Too long ago to tell.
            Find::Gone => None,
        };
        if let Some(Hint {
            state: HintState::Asked(id),
            ..
        }) = track.hint.take()
        {
            self.cancel(id);
        }
        if let Some(path) = verdict {
            self.event(Event::HintBroken { track: index, path });
        }
    }

    fn step_part(&mut self, index: usize, now: Moment) {
        loop {
            let safari = self.plan.pattern == Pattern::Safari;
            let Some(track) = self.tracks.get_mut(index) else {
                return;
            };
            if track.part.is_some() || track.past.is_some() || track.part_at.is_some_and(|at| at > now) {
                return;
            }
            track.part_at = None;
            let (Some(next), Some(listing)) = (track.next, track.listing.clone()) else {
                return;
            };
            let found = listing.find(next);
            let boundary = match &found {
                Find::Listed(part) => part.at.part.0 == 0,
                Find::NotYet => listing.end.part.0 == 0,
                Find::Gone => false,
            };
            if boundary && track.switch_to.is_some() {
                let at = if let Find::Listed(part) = &found {
                    part.at
                } else {
                    listing.end
                };
                return self.switch(index, at, now);
            }
            match found {
                Find::Listed(part) if part.gap => {
                    track.next = Some(part.at.next_part());
                    let part = part.clone();
                    self.event(Event::PassedOver { track: index, part });
                }
                Find::Listed(part) => {
                    let part = part.clone();
                    if track.hint.as_ref().is_some_and(|hint| *hint.uri == *part.uri) {
                        match track.hint.take_if(|hint| matches!(hint.state, HintState::Here(_))) {
                            Some(Hint {
                                path,
                                state: HintState::Here(received),
                                ..
                            }) => {
                                self.take_part(index, path, part, received);
                            }
                            _ => return,
                        }
                    } else {
                        return self.ask_part(index, part, now);
                    }
                }
                Find::NotYet if listing.playlist.ended => return self.end(End::Finished),
                Find::NotYet if safari => return self.ask_hint(index, &listing, now),
                Find::NotYet => return,
                Find::Gone => {
                    self.event(Event::FellBehind { track: index });
                    self.rejoin(index, now);
                    return;
                }
            }
        }
    }

    fn ask_part(&mut self, index: usize, part: ListedPart, now: Moment) {
        let Some(track) = self.tracks.get(index) else { return };
        let base = track.path.clone();
        if let Some(map) = part.map.clone().filter(|map| track.map.as_ref() != Some(map)) {
            match address::join(&self.plan.entry, &base, &map) {
                Ok(path) => self.send(path.into(), Purpose::Init { track: index }, now, PATIENCE),
                Err(bad) => return self.end(End::BadReference(bad)),
            };
            if let Some(track) = self.tracks.get_mut(index) {
                track.map = Some(map);
            }
        }
        match address::join(&self.plan.entry, &base, &part.uri) {
            Ok(path) => {
                let purpose = Purpose::Part {
                    track: index,
                    hinted: false,
                };
                let id = self.send(path.into(), purpose, now, PATIENCE);
                if let Some(track) = self.tracks.get_mut(index) {
                    track.part = Some((id, part));
                }
            }
            Err(bad) => self.end(End::BadReference(bad)),
        }
    }

    fn ask_hint(&mut self, index: usize, listing: &Listing, now: Moment) {
        let Some(track) = self.tracks.get(index) else { return };
        let Some(hint) = &listing.playlist.preload_hint else {
            return;
        };
        if track.hint.is_some() || track.barred_hint.as_ref() == Some(&hint.uri) {
            return;
        }
        let path: Arc<str> = match address::join(&self.plan.entry, &track.path, &hint.uri) {
            Ok(path) => path.into(),
            Err(bad) => return self.end(End::BadReference(bad)),
        };
        let purpose = Purpose::Part {
            track: index,
            hinted: true,
        };
        let id = self.send(path.clone(), purpose, now, held_patience(listing));
        if let Some(track) = self.tracks.get_mut(index) {
            let (uri, end) = (hint.uri.clone(), listing.end);
            let state = HintState::Asked(id);
            track.hint = Some(Hint { uri, path, end, state });
        }
    }

    pub(super) fn on_part(&mut self, index: usize, hinted: bool, asked: &Asked, answer: &Answer<'_>, now: Moment) {
        if answer.status != 200 && answer.status != 206 {
            self.refused(asked, answer);
            return self.part_failed(index, hinted, now);
        }
        let received = Received {
            body: answer.media,
            sent: asked.sent,
            first_byte: answer.first_byte,
            at: answer.at,
        };
        let Some(track) = self.tracks.get_mut(index) else {
            return;
        };
        if hinted {
            if let Some(hint) = track.hint.as_mut().filter(|hint| hint.path == asked.path) {
                hint.state = HintState::Here(received);
            }
        } else if let Some((_, part)) = track.part.take() {
            self.take_part(index, asked.path.clone(), part, received);
        }
        self.step(index, now);
    }

    fn take_part(&mut self, index: usize, path: Arc<str>, part: ListedPart, received: Received) {
        let Some(track) = self.tracks.get_mut(index) else {
            return;
        };
        let at = received.at;
        track.next = Some(part.at.next_part());
        track.part_failures = 0;
        track.has_played = true;
        let live = track.live_from.is_some_and(|from| part.at >= from);
        self.event(Event::Part {
            track: index,
            path,
            part,
            received,
            live,
        });
        self.check_joined(at);
    }

    pub(super) fn part_failed(&mut self, index: usize, hinted: bool, now: Moment) {
        let Some(track) = self.tracks.get_mut(index) else {
            return;
        };
        if hinted {
            track.barred_hint = track.hint.take().map(|hint| hint.uri);
            return self.step(index, now);
        }
        let Some((_, part)) = track.part.take() else { return };
        track.part_failures += 1;
        track.part_at = Some(now.plus(RETRY_PAUSE));
        if track.part_failures > 2 {
            track.part_failures = 0;
            track.next = Some(part.at.next_part());
            self.event(Event::PassedOver { track: index, part });
        }
    }

    pub(super) fn on_init(&mut self, index: usize, asked: &Asked, answer: &Answer<'_>, now: Moment) {
        if answer.status != 200 && answer.status != 206 {
            self.refused(asked, answer);
            if let Some(track) = self.tracks.get_mut(index) {
                track.init_failed();
            }
            return;
        }
        let (body, sent, first_byte) = (answer.media, asked.sent, answer.first_byte);
        let received = Received {
            body,
            sent,
            first_byte,
            at: now,
        };
        self.event(Event::Init {
            track: index,
            path: asked.path.clone(),
            received,
        });
    }

    /// Goes on in another rendition at `at`, the start of a segment.
    fn switch(&mut self, index: usize, at: Position, now: Moment) {
        let Some(track) = self.tracks.get_mut(index) else {
            return;
        };
        let Some(path) = track.switch_to.take() else { return };
        let old = std::mem::replace(track, Track::new(path));
        track.next = Some(at);
        track.live_from = old.live_from;
        track.has_played = old.has_played;
        self.drop_requests(old);
        self.event(Event::Switched { track: index });
        self.step(index, now);
    }

    fn drop_requests(&mut self, old: Track) {
        let hint = match old.hint.map(|hint| hint.state) {
            Some(HintState::Asked(id)) => Some(id),
            _ => None,
        };
        let part = old.part.map(|(id, _)| id);
        for id in [old.reload, part, hint].into_iter().flatten() {
            self.cancel(id);
        }
    }

    pub(super) fn rejoin(&mut self, index: usize, now: Moment) {
        let Some(track) = self.tracks.get_mut(index) else {
            return;
        };
        track.join();
        track.part_at = Some(now.plus(Duration::from_millis(1)));
        self.event(Event::Rejoined { track: index });
    }
}
