//! One publisher of a stream, as its pipeline holds it: what it sends, and what it has said about that.
//!
//! Before this: `ingest` (the session at the other end of the channel). After this: `live/pipeline.rs`.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::Arc,
    sync::atomic::Ordering,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    health::Meter,
    seats::Seat,
    standby::{Held, Standby},
};
use crate::{
    codec::CodecConfig,
    ingest::{Announced, Event, Tally},
    package::frame::{Frame, TrackId, TrackKind},
};

/// A publisher that was let in.
#[derive(Debug)]
pub(super) struct Feed {
    pub seat: Seat,
    events: mpsc::Receiver<Event>,
    pub announced: Announced,
    /// The newest configuration of each of its tracks; as many as `ingest/flv.rs` lets through.
    pub configs: BTreeMap<TrackId, Arc<CodecConfig>>,
    pub standby: Standby,
    /// What its input is like.
    pub meter: Meter,
    /// When its last frame came; until then, when it joined.
    pub heard: Instant,
    /// Media has come, and came lately.
    sends: bool,
}

impl Feed {
    pub(super) fn new(seat: Seat, events: mpsc::Receiver<Event>, tally: Arc<Tally>, now: Instant) -> Self {
        Self {
            seat,
            events,
            announced: Announced::default(),
            configs: BTreeMap::new(),
            standby: Standby::default(),
            meter: Meter::new(tally, now),
            heard: now,
            sends: false,
        }
    }

    /// Later words add to earlier ones: some encoders announce in pieces.
    pub(super) fn announce(&mut self, new: Announced) {
        let old = self.announced;
        self.announced = Announced {
            has_video: new.has_video.or(old.has_video),
            has_audio: new.has_audio.or(old.has_audio),
            frame_rate: new.frame_rate.or(old.frame_rate),
            video_bitrate: new.video_bitrate.or(old.video_bitrate),
            audio_bitrate: new.audio_bitrate.or(old.audio_bitrate),
            audio_languages: new.audio_languages.over(old.audio_languages),
        };
    }

    /// A frame as the standby keeps it.
    pub(super) fn held(&self, frame: Frame, arrived: Instant) -> Held {
        let starts = match frame.track.kind {
            TrackKind::Video => frame.key,
            TrackKind::Audio => !self.has_video(),
        };
        Held { frame, arrived, starts }
    }

    /// Whether this frame shows that the feed still delivers: where there should be a picture, sound alone does not.
    pub(super) fn delivers_with(&self, frame: &Frame) -> bool {
        frame.track.kind == TrackKind::Video || !self.has_video()
    }

    pub(super) fn sends(&self) -> bool {
        self.sends
    }

    /// When it will have been silent for `after`; `None` once that is known.
    pub(super) fn silent_at(&self, after: Duration) -> Option<Instant> {
        self.seat.sends.load(Ordering::Relaxed).then(|| self.heard + after)
    }

    pub(super) fn set_sends(&mut self, sends: bool) {
        self.sends = sends;
        self.seat.sends.store(sends, Ordering::Relaxed);
    }

    fn has_video(&self) -> bool {
        let configured = self.configs.keys().any(|track| track.kind == TrackKind::Video);
        configured || self.announced.has_video == Some(true)
    }
}

/// The next event of any feed: its index, and `None` when its session is gone. Never ready without feeds. `first` is asked
/// first: when it is another one each time, no feed can keep the others waiting.
pub(super) async fn next_event(feeds: &mut [Feed], first: usize) -> (usize, Option<Event>) {
    poll_fn(|context| {
        let count = feeds.len();
        for turn in 0..count {
            let index = (first + turn) % count;
            let Some(feed) = feeds.get_mut(index) else { continue };
            if let Poll::Ready(event) = feed.events.poll_recv(context) {
                return Poll::Ready((index, event));
            }
        }
        Poll::Pending
    })
    .await
}
