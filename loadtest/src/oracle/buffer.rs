//! A modelled playback buffer: when it would have run dry. Pure.

use std::time::Duration;

use crate::moment::Moment;

/// Shorter gaps are not stalls: no eye sees them.
const BLINK: Duration = Duration::from_millis(20);

/// Media that came and was not played yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Buffer {
    /// Before playback begins.
    waiting: Duration,
    /// When the buffer runs dry; `None` before playback begins.
    dry_at: Option<Moment>,
}

impl Buffer {
    /// A part of `duration` came at `at`; gives the stall that it ended. Playback begins once `enough` is buffered or
    /// the viewer has caught up (`live`).
    pub fn append(&mut self, duration: Duration, at: Moment, live: bool, enough: Duration) -> Option<Duration> {
        let Some(dry_at) = self.dry_at else {
            self.waiting += duration;
            if live || self.waiting >= enough {
                self.dry_at = Some(at.plus(self.waiting));
            }
            return None;
        };
        self.dry_at = Some(dry_at.max(at).plus(duration));
        let late = at.since(dry_at);
        (late >= BLINK).then_some(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(ms: u64) -> Moment {
        Moment(1_000_000_000 + ms * 1000)
    }

    #[test]
    fn a_buffer_absorbs_what_it_holds_and_no_more() {
        let mut buffer = Buffer::default();
        for _ in 0..3 {
            assert_eq!(buffer.append(ms(200), at(0), false, ms(600)), None);
        }
        // Dry at 600. The next part is 100 ms late by its own time and nobody sees it.
        assert_eq!(buffer.append(ms(200), at(300), true, ms(600)), None);
        // Dry at 800: 150 ms of standing picture.
        assert_eq!(buffer.append(ms(200), at(950), true, ms(600)), Some(ms(150)));
        // Playback went on at 950: dry at 1150.
        assert_eq!(buffer.append(ms(200), at(1150), true, ms(600)), None);
        assert_eq!(buffer.append(ms(200), at(1360), true, ms(600)), None, "a blink");
    }
}
