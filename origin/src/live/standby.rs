//! What a feed that is not shown has sent lately, so that a switch to it leaves out as little as possible. Pure.
//!
//! As long as the active feed delivers, this holds one group of pictures; once that is silent, everything from the first
//! key frame after its last word. Bounded in frames and bytes; when full, the oldest group goes.
//!
//! Before this: `live/feed.rs`. After this: `live/splice.rs`, `live/packager.rs`.

use std::{collections::VecDeque, time::Instant};

use super::splice::Arrival;
use crate::package::frame::{Frame, TrackKind};

/// Frames held at most: 30 s of 60 fps video with two audio tracks.
pub const FRAMES_MAX: usize = 4096;
/// Bytes held at most.
pub const BYTES_MAX: usize = 32 << 20;

/// A frame and when it came.
#[derive(Debug, Clone)]
pub struct Held {
    pub frame: Frame,
    pub arrived: Instant,
    /// Decoding can begin here.
    pub starts: bool,
}

impl Held {
    pub fn arrival(&self) -> Arrival {
        Arrival {
            dts: self.frame.dts,
            arrived: self.arrived,
        }
    }
}

#[derive(Debug, Default)]
pub struct Standby {
    frames: VecDeque<Held>,
    bytes: usize,
}

impl Standby {
    /// Takes a frame. `shown`: when the last frame of the active feed came; older groups than the one that was being sent
    /// then are of no use.
    pub fn push(&mut self, held: Held, shown: Option<Instant>) {
        self.bytes += held.frame.data.len();
        self.frames.push_back(held);
        let current = self.frames.iter().rposition(|held| {
            held.starts && held.frame.track.kind == TrackKind::Video && shown.is_some_and(|shown| held.arrived <= shown)
        });
        if let Some(current) = current.filter(|current| *current > 0) {
            self.begin_at(current);
        }
        while self.frames.len() > FRAMES_MAX || self.bytes > BYTES_MAX {
            self.drop_group();
        }
    }

    /// What it holds, oldest first.
    pub fn frames(&self) -> impl Iterator<Item = &Held> {
        self.frames.iter()
    }

    /// Gives everything away, oldest first.
    pub fn take(&mut self) -> VecDeque<Held> {
        self.bytes = 0;
        std::mem::take(&mut self.frames)
    }

    /// Drops what comes before this key frame. Sound that came earlier and is heard with it stays: encoders send it ahead.
    fn begin_at(&mut self, key: usize) {
        let Some(begin) = self.frames.get(key).map(|held| held.frame.dts) else {
            return;
        };
        let rest = self.frames.split_off(key);
        self.frames
            .retain(|held| held.frame.track.kind == TrackKind::Audio && held.frame.dts >= begin);
        self.frames.extend(rest);
        self.bytes = self.frames.iter().map(|held| held.frame.data.len()).sum();
    }

    fn drop_group(&mut self) {
        self.pop();
        while self.frames.front().is_some_and(|held| !held.starts) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(held) = self.frames.pop_front() {
            self.bytes = self.bytes.saturating_sub(held.frame.data.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use weir_shared::media::time::MediaTime;

    use super::*;
    use crate::package::frame::TrackId;

    fn frame(n: u64, start: Instant, bytes: usize) -> Held {
        Held {
            frame: Frame {
                track: TrackId::VIDEO,
                dts: MediaTime::from_millis(n as i64 * 100),
                composition_offset: MediaTime::ZERO,
                key: n.is_multiple_of(10),
                data: Bytes::from(vec![0; bytes]),
            },
            arrived: start + Duration::from_millis(n * 100),
            starts: n.is_multiple_of(10),
        }
    }

    #[test]
    fn one_group_is_held_while_the_other_feed_delivers_and_all_once_it_is_silent() {
        let start = Instant::now();
        let mut standby = Standby::default();
        for n in 0..25 {
            let held = frame(n, start, 10);
            let shown = held.arrived;
            standby.push(held, Some(shown));
        }
        assert_eq!(standby.frames.len(), 5);
        let silent = start + Duration::from_millis(2400);
        for n in 25..55 {
            standby.push(frame(n, start, 10), Some(silent));
        }
        let held = standby.take();
        assert_eq!((held.len(), standby.bytes), (35, 0));
        assert!(held.front().is_some_and(|held| held.starts));
    }

    #[test]
    fn sound_that_was_sent_ahead_of_its_picture_is_kept() {
        let start = Instant::now();
        let mut standby = Standby::default();
        for n in 0..25 {
            let mut sound = frame(n + 3, start, 10);
            (sound.frame.track, sound.starts) = (TrackId::AUDIO, false);
            let picture = frame(n, start, 10);
            sound.arrived = picture.arrived;
            standby.push(sound, Some(start + Duration::from_millis(n * 100)));
            standby.push(picture, Some(start + Duration::from_millis(n * 100)));
        }
        let held = standby.take();
        let sound: Vec<i64> = held
            .iter()
            .filter(|held| held.frame.track == TrackId::AUDIO)
            .map(|held| held.frame.dts.as_millis())
            .collect();
        assert_eq!(sound, (20..28).map(|n| n * 100).collect::<Vec<_>>());
        assert_eq!(held.len(), 8 + 5);
    }

    #[test]
    fn the_oldest_group_goes_when_it_is_full() {
        let start = Instant::now();
        let mut standby = Standby::default();
        for n in 0..100 {
            standby.push(frame(n, start, 1 << 20), None);
            assert!(standby.bytes <= BYTES_MAX);
        }
        assert_eq!(standby.frames.front().map(|held| held.starts), Some(true));
        for n in 0..10_000 {
            standby.push(frame(n * 10 + 1, start, 1), None);
            assert!(standby.frames.len() <= FRAMES_MAX);
        }
    }
}
