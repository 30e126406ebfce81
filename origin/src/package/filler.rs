//! Frames that show nothing new: a held picture and true silence, decodable with the init section that is in force. What
//! fills a gap in the input.
//!
//! Before this: `package/resilience.rs`, which decides when. After this: `package/segmenter.rs`, to which they are frames
//! like any other.
//!
//! | codec | the held picture, the silence | bytes |
//! |---|---|---|
//! | H.264 | P pictures of skipped macroblocks | some tens |
//! | AAC | frames without a single scale factor band | up to 25 |
//! | Opus | the coded silence of its CELT layer | 3 for each stream |
//!
//! The picture is held from the last one that was shown. Where a segment must begin with a key frame, it is the last key
//! frame once more. So it is all along for video that has no cheap held picture here.

mod aac;
mod avc;
mod bits;
mod cabac;
mod opus;

use bytes::Bytes;

use self::avc::AvcHold;
use crate::codec::CodecConfig;

/// A frame that fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filling {
    pub data: Bytes,
    /// Decoding can begin with it.
    pub key: bool,
}

/// What fills one track.
#[derive(Debug)]
pub enum Filler {
    Picture(Box<Picture>),
    Silence(Bytes),
}

impl Filler {
    pub fn new(config: &CodecConfig) -> Self {
        let hold = match config {
            CodecConfig::Aac(aac) => return Self::Silence(aac::silence(aac.channels)),
            CodecConfig::Opus(opus) => {
                return Self::Silence(opus::silence(opus, crate::codec::opus::USUAL_PACKET_SAMPLES));
            }
            CodecConfig::Avc(avc) => Some(Hold::Avc(AvcHold::new(avc))),
            CodecConfig::Hevc(_) | CodecConfig::Av1(_) => None,
        };
        Self::Picture(Box::new(Picture { hold, key: None }))
    }

    /// A frame of the input is published: what comes next follows it.
    pub fn shown(&mut self, data: &Bytes, key: bool) {
        if let Self::Picture(picture) = self {
            picture.shown(data, key);
        }
    }

    /// The next frame to fill with. `key`: decoding shall begin here. `None`: nothing to hold yet.
    pub fn next(&mut self, key: bool) -> Option<Filling> {
        match self {
            Self::Silence(data) => Some(Filling {
                data: data.clone(),
                key: true,
            }),
            Self::Picture(picture) => picture.next(key),
        }
    }
}

/// What holds a picture.
#[derive(Debug)]
pub struct Picture {
    hold: Option<Hold>,
    key: Option<Bytes>,
}

#[derive(Debug)]
enum Hold {
    Avc(AvcHold),
}

impl Picture {
    fn shown(&mut self, data: &Bytes, key: bool) {
        if key {
            self.key = Some(data.clone());
        }
        match &mut self.hold {
            Some(Hold::Avc(avc)) => avc.shown(data),
            None => {}
        }
    }

    fn next(&mut self, key: bool) -> Option<Filling> {
        let last_key = self.key.clone()?;
        let held = match &mut self.hold {
            Some(Hold::Avc(avc)) if !key => avc.held(),
            _ => None,
        };
        if let Some(data) = held {
            return Some(Filling { data, key: false });
        }
        self.shown(&last_key, true);
        Some(Filling {
            data: last_key,
            key: true,
        })
    }
}
