//! What must hold of everything a viewer gets. Pure: events in, a tally and named violations out.
//!
//! Before this: [`crate::viewer`]. After this: [`crate::tally`] and [`crate::report`]. One [`Oracle`] per viewer;
//! [`Common`] is what the viewers of a thread know together: the first copy of each object, whose ticket is whose.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use weir_shared::hls::{
    position::Want,
    reload::{Reload, Skip},
};

use crate::{
    listing::{Find, ListedPart, Listing, Position},
    moment::Moment,
    rule::{Rule, Violation},
    stamp,
    tally::Tally,
    viewer::{End, Event, Failure, Purpose, Received},
};

mod answer;
mod arrivals;
mod body;
mod buffer;
mod ledger;
mod update;

use arrivals::Arrivals;
use body::{bytes, foreign_tickets, identity, unreadable};
pub use buffer::Buffer;
pub use ledger::Ledger;

/// How far the server's clock may be ahead of ours before a part counts as sent too early.
const CLOCK_SLACK: Duration = Duration::from_millis(50);
/// Target durations without news after which a rendition stands still.
const STILL_TARGET_DURATIONS: u32 = 2;
/// Pairs of playlists whose comparison is remembered.
const MAX_JUDGED: usize = 4096;
/// Versions of playlists remembered.
const MAX_VERSIONS: usize = 100_000;
/// Tickets remembered.
const MAX_TICKETS: usize = 1_000_000;

/// What the viewers of one thread know together.
#[derive(Debug, Default)]
pub struct Common {
    pub ledger: Ledger,
    arrivals: Arrivals,
    /// Comparisons made: listings before and after, by id.
    judged: HashMap<(u64, u64), ()>,
    /// Whose ticket.
    tickets: HashMap<String, u64>,
    /// The latest news from any rendition.
    last_news: Moment,
    /// Versions of playlists met, by name and content.
    versions: HashSet<u64>,
    versions_forgotten: u64,
}

impl Common {
    /// Distinct objects met: media by name, playlists by name and content.
    pub fn unique_objects(&self) -> u64 {
        self.ledger.unique + self.versions.len() as u64 + self.versions_forgotten
    }

    fn version(&mut self, path: &str, listing: u64) {
        if self.versions.len() >= MAX_VERSIONS {
            self.versions_forgotten += self.versions.len() as u64;
            self.versions.clear();
        }
        self.versions
            .insert(stamp::stream_tag(&ledger::plain(path)) ^ listing.rotate_left(17));
    }

    /// Somebody had news at `at`.
    pub fn hear(&mut self, at: Moment) {
        self.last_news = self.last_news.max(at);
    }
}

/// One viewer's judge.
#[derive(Debug)]
pub struct Oracle {
    viewer: u64,
    tracks: Vec<Followed>,
}

/// What is known of a rendition one viewer follows.
#[derive(Debug, Default)]
struct Followed {
    last: Option<(Position, Option<u64>)>,
    buffer: Buffer,
    part_target: Duration,
    target_duration: Duration,
    /// When the playlist last had something new.
    news_at: Option<Moment>,
    still_told: bool,
    ended: bool,
}

impl Oracle {
    /// `viewer` tells viewers of one thread apart.
    pub fn new(viewer: u64) -> Self {
        Self { viewer, tracks: vec![] }
    }

    /// Judges one event.
    pub fn take(&mut self, event: &Event, common: &mut Common, tally: &mut Tally, now: Moment) {
        match event {
            Event::Answered {
                purpose,
                path,
                status,
                headers,
            } => {
                let followed = purpose.track().and_then(|track| self.tracks.get(track));
                let shown = answer::Shown {
                    purpose: *purpose,
                    path,
                    status: *status,
                    headers,
                    target_duration: followed.map_or(Duration::ZERO, |followed| followed.target_duration),
                };
                answer::judge(&shown, tally);
            }
            Event::Multivariant { text } => self.tickets_in(text, common, tally),
            Event::Tracks(count) => self.tracks.resize_with((*count).min(16), Followed::default),
            Event::Joined { after } => {
                tally.counts.joined += 1;
                tally.join.record(*after);
            }
            Event::Playlist {
                track,
                path,
                reload,
                before,
                now: listing,
                headers,
                sent,
                at,
            } => {
                tally.counts.playlists += 1;
                let name = ledger::plain(path);
                tally.violations_from(common.arrivals.hear(&name, before.as_deref(), listing, *sent, *at));
                if let (Some(headers), Want::Now) = (headers, reload.want) {
                    tally.violations_from(common.arrivals.stale(&name, listing, headers, *sent));
                }
                self.playlist(*track, path, *reload, before.as_ref(), listing, common, tally, *at);
            }
            Event::Init { path, received, .. } => {
                tally.fetch.record(received.at.since(received.sent));
                bytes(path, received, common, tally);
            }
            Event::Part {
                track,
                path,
                part,
                received,
                live,
            } => {
                self.part(*track, path, part, received, *live, common, tally);
            }
            Event::Segment { path, received, .. } => {
                tally.counts.segments += 1;
                tally.fetch.record(received.at.since(received.sent));
                bytes(path, received, common, tally);
            }
            Event::HintBroken { path, .. } => {
                let detail = format!("{} was hinted and is not what came", ledger::plain(path));
                tally.violation(Violation::new(Rule::HintKept, detail));
            }
            Event::FellBehind { .. } => tally.counts.fell_behind += 1,
            Event::Rejoined { track } | Event::Sought { track } => {
                if let Event::Sought { track: 0 } = event {
                    tally.counts.seeks += 1;
                }
                if let Some(followed) = self.tracks.get_mut(*track) {
                    followed.last = None;
                    followed.buffer = Buffer::default();
                }
            }
            Event::PassedOver { track, part } => {
                if let Some(followed) = self.tracks.get_mut(*track) {
                    followed.last = Some((part.at, None));
                }
            }
            Event::Switched { track } => {
                tally.counts.switches += 1;
                if let Some(followed) = self.tracks.get_mut(*track) {
                    followed.last = followed.last.map(|(at, _)| (at, None));
                    followed.news_at = None;
                }
            }
            Event::Refused {
                purpose,
                path,
                status,
                held,
            } => {
                self.refused(*purpose, path, *status, *held, common, tally, now);
            }
            Event::Unreadable { path, why, .. } => unreadable(path, why, tally),
            Event::Failed { purpose, path, failure } => self.failed(*purpose, path, failure, common, tally, now),
            Event::Ended(End::Finished) => {}
            Event::Ended(end) => {
                tally.counts.gave_up += 1;
                tally.end(end.to_string());
            }
        }
    }

    /// The run is over, or the viewer leaves: what stands still now is told.
    pub fn finish(&mut self, common: &Common, tally: &mut Tally, now: Moment) {
        for track in 0..self.tracks.len() {
            self.check_still(track, "at the end", common, tally, now);
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of one event, and where the verdict goes"
    )]
    fn playlist(
        &mut self,
        track: usize,
        path: &str,
        reload: Reload,
        before: Option<&Arc<Listing>>,
        listing: &Arc<Listing>,
        common: &mut Common,
        tally: &mut Tally,
        at: Moment,
    ) {
        // Thousands of viewers meet the same pair of playlists: it is judged once.
        common.version(path, listing.id);
        let pair = (before.map_or(0, |b| b.id), listing.id);
        if common.judged.len() >= MAX_JUDGED {
            common.judged.clear();
        }
        if common.judged.insert(pair, ()).is_none() {
            if before.is_none_or(|b| b.id != listing.id) {
                listing.faults.iter().cloned().for_each(|fault| tally.violation(fault));
                update::reports(listing)
                    .into_iter()
                    .for_each(|fault| tally.violation(fault));
                foreign_tickets(path, listing, tally);
            }
            if let Some(before) = before {
                update::faults(before, listing, reload.skip == Skip::Yes)
                    .into_iter()
                    .for_each(|fault| tally.violation(fault));
            }
        }
        if let Some(wanted) = update::wanted(reload)
            && !listing.playlist.ended
            && listing.find(wanted) == Find::NotYet
        {
            let (msn, part, end) = (wanted.msn, wanted.part, listing.end);
            let detail = format!(
                "asked for {msn}/{part}, got a playlist that ends before {}/{}",
                end.msn, end.part
            );
            tally.violation(Violation::new(Rule::BlockedEarly, detail));
        }
        if track >= self.tracks.len() {
            self.tracks.resize_with(track.min(15) + 1, Followed::default);
        }
        let news = before.is_none_or(|b| b.end != listing.end);
        if news {
            self.check_still(track, path, common, tally, at);
            common.hear(at);
        }
        let Some(followed) = self.tracks.get_mut(track) else {
            return;
        };
        if news {
            followed.news_at = Some(at);
            followed.still_told = false;
        }
        followed.ended = listing.playlist.ended;
        followed.part_target = listing.playlist.part_target.unwrap_or_default();
        followed.target_duration = listing.target_duration();
    }

    /// A rendition that had no news for long while others had (rule VW-08).
    fn check_still(&mut self, track: usize, what: &str, common: &Common, tally: &mut Tally, now: Moment) {
        let Some(followed) = self.tracks.get_mut(track) else {
            return;
        };
        let Some(news_at) = followed.news_at.filter(|_| !followed.still_told && !followed.ended) else {
            return;
        };
        let limit = followed.target_duration * STILL_TARGET_DURATIONS;
        let others_go_on = common.last_news.since(news_at) > limit;
        if !limit.is_zero() && now.since(news_at) > limit && others_go_on {
            followed.still_told = true;
            let detail = format!("{}: no news for {:?}", ledger::plain(what), now.since(news_at));
            tally.violation(Violation::new(Rule::RenditionStalls, detail));
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of one event, and where the verdict goes"
    )]
    fn part(
        &mut self,
        track: usize,
        path: &str,
        part: &ListedPart,
        received: &Received,
        live: bool,
        common: &mut Common,
        tally: &mut Tally,
    ) {
        tally.counts.parts += 1;
        bytes(path, received, common, tally);
        let stamp = stamp::read(&received.body.head);
        if let Some(stamp) = stamp {
            identity(path, &stamp, tally);
            // Inclusive of what the network buffers: a part can't be on its way before it is complete.
            if stamp.completed > received.first_byte.plus(CLOCK_SLACK) {
                let early = stamp.completed.since(received.first_byte);
                let detail = format!("{} came {early:?} before it was complete", ledger::plain(path));
                tally.violation(Violation::new(Rule::EarlyBytes, detail));
            }
        }
        let Some(followed) = self.tracks.get_mut(track) else {
            return;
        };
        let number = stamp.and_then(|s| s.identity).map(|i| i.part);
        followed.check_order(part.at, number, path, tally);
        followed.last = Some((part.at, number));
        let stall = followed
            .buffer
            .append(part.duration, received.at, live, followed.part_target * 3);
        if let Some(stall) = stall {
            tally.counts.stalls += 1;
            tally.counts.stall_micros += crate::moment::micros(stall);
        }
        if live {
            tally.counts.live_parts += 1;
            if let Some(complete) = stamp.map(|s| s.completed).or(part.ends_at) {
                let latency = received.at.since(complete);
                tally.latency.record(latency);
                if latency > part.duration {
                    tally.counts.late_parts += 1;
                }
            }
        } else {
            tally.fetch.record(received.at.since(received.sent));
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of one event, and where the verdict goes"
    )]
    fn refused(
        &mut self,
        purpose: Purpose,
        path: &str,
        status: u16,
        held: Duration,
        common: &Common,
        tally: &mut Tally,
        now: Moment,
    ) {
        tally.counts.refused += 1;
        tally.error(format!("{} {status}", purpose.as_str()));
        // Refusals that a policy or a limit explains break no rule.
        if matches!(status, 401 | 403 | 429) {
            return;
        }
        let plain = ledger::plain(path);
        let detail = format!("{plain}: status {status} after {held:?}");
        let rule = match purpose {
            Purpose::Multivariant => return,
            Purpose::Playlist { track, .. } => {
                self.check_still(track, path, common, tally, now);
                match status {
                    503 => return,
                    _ => Rule::PastAnswered,
                }
            }
            Purpose::Part { hinted: true, .. } if status == 503 => return,
            Purpose::Part { hinted: true, .. } => Rule::HintAnswered,
            Purpose::Part { hinted: false, .. } => Rule::ListedPart,
            Purpose::Init { .. } | Purpose::Segment { .. } => Rule::ListedSegment,
        };
        tally.violation(Violation::new(rule, detail));
    }

    fn failed(
        &mut self,
        purpose: Purpose,
        path: &str,
        failure: &Failure,
        common: &Common,
        tally: &mut Tally,
        now: Moment,
    ) {
        tally.counts.failed += 1;
        tally.error(format!("{} {}", purpose.as_str(), failure.as_str()));
        if let Purpose::Playlist { track, .. } = purpose {
            self.check_still(track, path, common, tally, now);
        }
        let rule = match failure {
            Failure::Connect(_) | Failure::Reset => return,
            Failure::Truncated { .. } => Rule::WholeBody,
            Failure::Silence if matches!(purpose, Purpose::Playlist { .. }) => Rule::HeldTooLong,
            Failure::Garbage(_) | Failure::TooLong(_) | Failure::Silence => Rule::Answered,
        };
        tally.violation(Violation::new(rule, format!("{}: {failure}", ledger::plain(path))));
    }

    /// Tickets in a multivariant playlist belong to the viewer who got it.
    fn tickets_in(&self, text: &str, common: &mut Common, tally: &mut Tally) {
        for ticket in text.split(['/', '\n', '"']).filter(|step| step.starts_with('~')) {
            if common.tickets.len() >= MAX_TICKETS {
                common.tickets.clear();
            }
            let owner = common.tickets.entry(ticket.to_owned()).or_insert(self.viewer);
            if *owner != self.viewer {
                let detail = format!("viewer {} got a ticket that viewer {owner} has", self.viewer);
                return tally.violation(Violation::new(Rule::ForeignTicket, detail));
            }
        }
    }
}

impl Followed {
    fn check_order(&self, at: Position, number: Option<u64>, path: &str, tally: &mut Tally) {
        let Some((last, last_number)) = self.last else { return };
        let name = ledger::plain(path);
        let mut broken = |rule, text: String| tally.violation(Violation::new(rule, format!("{name} {text}")));
        if at == last {
            return broken(Rule::PartOnce, "came twice".into());
        }
        if at < last {
            return broken(
                Rule::PositionBack,
                format!("is {}/{} after {}/{}", at.msn, at.part, last.msn, last.part),
            );
        }
        if at != last.next_part() && at != last.next_segment() {
            return broken(
                Rule::NoGap,
                format!("is {}/{} after {}/{}", at.msn, at.part, last.msn, last.part),
            );
        }
        if let (Some(number), Some(before)) = (number, last_number)
            && number != before + 1
        {
            let rule = if number > before {
                Rule::NoGap
            } else {
                Rule::PositionBack
            };
            broken(rule, format!("holds part {number} after part {before}"));
        }
    }
}

#[cfg(test)]
mod tests;
