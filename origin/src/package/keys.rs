//! When an encoder's next key frame is due. Most send them at even distances; then a segment's end can be told in time.
//!
//! Before and after this: `package/segmenter.rs`, which asks.

use weir_shared::media::time::MediaTime;

/// Equal distances in a row before the next one is foretold.
const TRUSTED_AFTER: u32 = 2;
/// The same once a foretold key frame did not come: this encoder changes its mind.
const TRUSTED_AFTER_SURPRISE: u32 = 16;

/// Distances between key frames.
#[derive(Debug, Default)]
pub struct KeyRhythm {
    last: Option<MediaTime>,
    distance: Option<MediaTime>,
    /// Distances equal to `distance`, in a row.
    equal: u32,
    /// A key frame came later than foretold.
    surprised: bool,
}

impl KeyRhythm {
    /// A key frame with this decode time; `frame`: from one frame to the next.
    pub fn key_at(&mut self, at: MediaTime, frame: MediaTime) {
        let distance = self.last.map(|last| at - last);
        self.last = Some(at);
        let Some(distance) = distance else { return };
        match self.distance {
            Some(usual) if near(distance, usual, frame) => self.equal = self.equal.saturating_add(1),
            usual => {
                // One that comes early (a new scene) takes nobody by surprise.
                self.surprised |= self.is_trusted() && usual.is_some_and(|usual| distance > usual);
                self.distance = Some(distance);
                self.equal = 1;
            }
        }
    }

    /// Whether a frame with the decode time `at` will be a key frame, as far as the past tells.
    pub fn is_due(&self, at: MediaTime, frame: MediaTime) -> bool {
        let (Some(last), Some(distance)) = (self.last, self.distance) else {
            return false;
        };
        self.is_trusted() && near(at - last, distance, frame)
    }

    fn is_trusted(&self) -> bool {
        let needed = if self.surprised {
            TRUSTED_AFTER_SURPRISE
        } else {
            TRUSTED_AFTER
        };
        self.equal >= needed
    }
}

/// Within half a frame of each other.
fn near(a: MediaTime, b: MediaTime, frame: MediaTime) -> bool {
    (a - b).as_nanos().abs() * 2 <= frame.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: MediaTime = MediaTime::from_nanos(33_333_333);

    fn ms(ms: i64) -> MediaTime {
        MediaTime::from_nanos(ms * 1_000_000)
    }

    fn rhythm(keys_ms: &[i64]) -> KeyRhythm {
        let mut rhythm = KeyRhythm::default();
        for at in keys_ms {
            rhythm.key_at(ms(*at), FRAME);
        }
        rhythm
    }

    #[test]
    fn two_equal_distances_foretell_the_third() {
        assert!(!rhythm(&[0, 1000]).is_due(ms(2000), FRAME));
        let even = rhythm(&[0, 1000, 2001]);
        assert!(even.is_due(ms(3000), FRAME));
        assert!(!even.is_due(ms(2967), FRAME));
        assert!(!even.is_due(ms(3034), FRAME));
    }

    #[test]
    fn a_scene_cut_starts_the_count_again() {
        let cut = rhythm(&[0, 1000, 2000, 2400]);
        assert!(!cut.is_due(ms(2800), FRAME));
        assert!(!cut.is_due(ms(3400), FRAME));
        let resumed = rhythm(&[0, 1000, 2000, 2400, 3400, 4400]);
        assert!(resumed.is_due(ms(5400), FRAME));
    }

    #[test]
    fn an_encoder_that_broke_its_word_is_trusted_late() {
        let mut keys = vec![0, 1000, 2000, 5000];
        keys.extend((1..=15).map(|n| 5000 + n * 1000));
        assert!(!rhythm(&keys).is_due(ms(21_000), FRAME));
        keys.push(21_000);
        assert!(rhythm(&keys).is_due(ms(22_000), FRAME));
    }
}
