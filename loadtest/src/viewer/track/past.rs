//! Playing from the past: a seek gets some segments, then the track joins the live end again.

use std::time::Duration;

use rand::RngExt as _;
use weir_shared::hls::position::MediaSequence;

use super::{Asked, HintState};
use crate::{
    address,
    moment::Moment,
    viewer::{Answer, End, Event, PATIENCE, Purpose, Received, Viewer},
};

/// Segments a seek plays before it returns to the live end.
const SEEK_SEGMENTS: u32 = 4;
/// Segments a seek gets at once; each further one when one has been played.
const SEEK_AHEAD: u32 = 2;

/// Playing from the past.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) next: MediaSequence,
    pub(super) left: u32,
    pub(super) due: Moment,
    pub(super) asked: bool,
}

impl Viewer {
    /// All renditions jump to the same segment in the past, if the playlist reaches that far.
    pub(in crate::viewer) fn seek(&mut self, now: Moment) {
        let Some(listing) = self.tracks.first().and_then(|track| track.listing.clone()) else {
            return;
        };
        let (first, open) = (listing.playlist.media_sequence.0, listing.end.msn.0);
        let last = open.saturating_sub(u64::from(SEEK_SEGMENTS) + 1);
        if last <= first + 1 {
            return;
        }
        let to = MediaSequence(self.rng.random_range(first + 1..=last));
        for index in 0..self.tracks.len() {
            let Some(track) = self.tracks.get_mut(index) else {
                return;
            };
            let part = track.part.take().map(|(id, _)| id);
            let hint = match track.hint.take().map(|hint| hint.state) {
                Some(HintState::Asked(id)) => Some(id),
                _ => None,
            };
            let (next, left, due, asked) = (to, SEEK_SEGMENTS, now, false);
            track.past = Some(Past { next, left, due, asked });
            for id in [part, hint].into_iter().flatten() {
                self.cancel(id);
            }
            self.event(Event::Sought { track: index });
            self.step(index, now);
        }
    }

    pub(super) fn step_past(&mut self, index: usize, now: Moment) {
        let Some(track) = self.tracks.get_mut(index) else {
            return;
        };
        let (Some(past), Some(listing)) = (&mut track.past, &track.listing) else {
            return;
        };
        if past.asked || past.due > now {
            return;
        }
        if past.left == 0 {
            return self.rejoin(index, now);
        }
        let nth = past.next.0.checked_sub(listing.playlist.media_sequence.0);
        let segment = nth.and_then(|n| listing.playlist.segments.get(usize::try_from(n).ok()?));
        let Some(uri) = segment.and_then(|segment| segment.uri.as_deref()) else {
            return self.rejoin(index, now);
        };
        let msn = past.next;
        match address::join(&self.plan.entry, &track.path, uri) {
            Ok(path) => {
                past.asked = true;
                self.send(path.into(), Purpose::Segment { track: index, msn }, now, PATIENCE);
            }
            Err(bad) => self.end(End::BadReference(bad)),
        }
    }

    pub(in crate::viewer) fn on_segment(&mut self, index: usize, asked: &Asked, answer: &Answer<'_>, now: Moment) {
        if answer.status != 200 && answer.status != 206 {
            self.refused(asked, answer);
            return self.rejoin(index, now);
        }
        let Some(track) = self.tracks.get_mut(index) else {
            return;
        };
        let Some(past) = &mut track.past else { return };
        let duration = track.listing.as_ref().map_or(Duration::ZERO, |listing| {
            let nth = past.next.0.saturating_sub(listing.playlist.media_sequence.0);
            let segment = usize::try_from(nth).ok().and_then(|n| listing.playlist.segments.get(n));
            segment.map_or(listing.target_duration(), |segment| segment.duration)
        });
        let msn = past.next;
        let ahead = SEEK_SEGMENTS.saturating_sub(past.left) < SEEK_AHEAD;
        past.next = past.next.next();
        past.left = past.left.saturating_sub(1);
        past.asked = false;
        past.due = if ahead { now } else { now.plus(duration) };
        let (body, sent, first_byte) = (answer.media, asked.sent, answer.first_byte);
        let received = Received {
            body,
            sent,
            first_byte,
            at: now,
        };
        let path = asked.path.clone();
        self.event(Event::Segment {
            track: index,
            path,
            msn,
            duration,
            received,
        });
        self.step(index, now);
    }
}
