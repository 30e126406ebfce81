//! Made-up broadcasts: frames that look like H.264 and AAC from outside and carry their number inside.
//!
//! After this: [`crate::pace`]. Sequence headers are real (a server parses them); frames are length-prefixed NAL units
//! and raw AAC frames of the chosen sizes, filled with bytes that never look like a start code. No decoder is pleased
//! with them: use [`crate::demo`] where somebody watches. The same settings always give the same bytes.

use bytes::{BufMut, Bytes, BytesMut};
use rml_rtmp::rml_amf0::Amf0Value;

use crate::{
    clip::AudioClock,
    tag::{Metadata, Opening, Source, Tag, Track},
};

mod avc;
mod mark;

pub use mark::{Mark, marks};

/// What to make up. The default is 720p30 at 2 Mbit/s with a key frame per second, and 96 kbit/s of AAC.
#[derive(Debug, Clone, PartialEq)]
pub struct Synthetic {
    pub video: Option<SyntheticVideo>,
    pub audio: Option<SyntheticAudio>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SyntheticVideo {
    /// Frames per second as a fraction: (30, 1), (30000, 1001). Parts of zero count as one.
    pub fps: (u32, u32),
    /// Distance of key frames in seconds, rounded to whole frames, at least one.
    pub gop_seconds: f64,
    /// Bits per second over a GOP; a key frame is four times as large as another frame.
    pub bitrate: u32,
    /// Every second frame is a B-frame: decode and presentation order differ, composition offsets are 0 to 2 frames.
    pub b_frames: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyntheticAudio {
    /// Hz, one of AAC's rates; others count as 48000.
    pub sample_rate: u32,
    /// 1 or 2.
    pub channels: u8,
    /// Bits per second.
    pub bitrate: u32,
}

impl Default for Synthetic {
    fn default() -> Self {
        Self {
            video: Some(SyntheticVideo::default()),
            audio: Some(SyntheticAudio::default()),
        }
    }
}

impl Default for SyntheticVideo {
    fn default() -> Self {
        Self {
            fps: (30, 1),
            gop_seconds: 1.0,
            bitrate: 2_000_000,
            b_frames: false,
        }
    }
}

impl Default for SyntheticAudio {
    fn default() -> Self {
        Self {
            sample_rate: 48_000,
            channels: 2,
            bitrate: 96_000,
        }
    }
}

impl Synthetic {
    /// Width and height in pixels that the H.264 headers declare.
    pub const SIZE: (u32, u32) = (1280, 720);

    /// The endless broadcast from its first frame.
    pub fn source(&self) -> SyntheticSource {
        SyntheticSource {
            video: self.video.map(VideoPlan::new),
            audio: self.audio.map(AudioPlan::new),
            next_video: 0,
            next_audio: 0,
        }
    }
}

/// A synthetic broadcast being played.
#[derive(Debug, Clone)]
pub struct SyntheticSource {
    video: Option<VideoPlan>,
    audio: Option<AudioPlan>,
    next_video: u64,
    next_audio: u64,
}

#[derive(Debug, Clone, Copy)]
struct VideoPlan {
    settings: SyntheticVideo,
    fps: (u32, u32),
    gop: u64,
    key_bytes: usize,
    other_bytes: usize,
}

impl VideoPlan {
    fn new(settings: SyntheticVideo) -> Self {
        let fps = (settings.fps.0.max(1), settings.fps.1.max(1));
        let rate = f64::from(fps.0) / f64::from(fps.1);
        let gop = (settings.gop_seconds * rate).round().clamp(1.0, 1e6) as u64;
        let gop_bytes = f64::from(settings.bitrate) / 8.0 * gop as f64 / rate;
        let other_bytes = (gop_bytes / (gop + 3) as f64) as usize;
        Self {
            settings,
            fps,
            gop,
            key_bytes: other_bytes * 4,
            other_bytes,
        }
    }

    fn frame_ms(&self, n: u64) -> u64 {
        let (num, den) = (u128::from(self.fps.0), u128::from(self.fps.1));
        ((u128::from(n) * den * 1000 + num / 2) / num) as u64
    }

    /// Which frame in presentation order the `n`th in decode order is, plus the delay of one that B-frames cost.
    fn shown_as(&self, n: u64) -> u64 {
        let within = n % self.gop;
        if !self.settings.b_frames {
            return n;
        }
        match within {
            0 => n + 1,
            odd if odd % 2 == 1 && odd + 1 < self.gop => n + 2, // P, decoded before the B that it follows
            odd if odd % 2 == 1 => n + 1,                       // the last of an even GOP has no B
            _ => n,
        }
    }

    fn payload(&self, n: u64) -> Bytes {
        let within = n % self.gop;
        let key = within == 0;
        let b_frame = self.settings.b_frames && within != 0 && within.is_multiple_of(2);
        // NAL header and the first slice bits: first_mb_in_slice 0 and the slice type.
        let slice = match (key, b_frame) {
            (true, _) => [0x65, 0x88],
            (false, false) => [0x41, 0x9A],
            (false, true) => [0x01, 0x9E],
        };
        let offset_ms = self.frame_ms(self.shown_as(n)).saturating_sub(self.frame_ms(n));
        let body = mark::frame_bytes(Track::Video, n, if key { self.key_bytes } else { self.other_bytes });
        let mut out = BytesMut::with_capacity(body.len() + 11);
        out.put_u8(if key { 0x17 } else { 0x27 });
        out.put_u8(1);
        out.put_slice(&(offset_ms as u32).to_be_bytes()[1..]);
        out.put_u32(body.len() as u32 + 2);
        out.put_slice(&slice);
        out.put_slice(&body);
        out.freeze()
    }
}

#[derive(Debug, Clone, Copy)]
struct AudioPlan {
    settings: SyntheticAudio,
    clock: AudioClock,
    /// AudioSpecificConfig of AAC-LC.
    config: [u8; 2],
    frame_bytes: usize,
}

impl AudioPlan {
    fn new(settings: SyntheticAudio) -> Self {
        const AAC_LC: u16 = 2;
        let (rate_index, sample_rate) = match settings.sample_rate {
            44_100 => (4, 44_100),
            32_000 => (5, 32_000),
            24_000 => (6, 24_000),
            22_050 => (7, 22_050),
            16_000 => (8, 16_000),
            _ => (3, 48_000),
        };
        let channels = u16::from(settings.channels.clamp(1, 2));
        let clock = AudioClock {
            frame_samples: 1024,
            sample_rate,
        };
        Self {
            settings,
            clock,
            config: (AAC_LC << 11 | rate_index << 7 | channels << 3).to_be_bytes(),
            frame_bytes: (u64::from(settings.bitrate) / 8 * 1024 / u64::from(sample_rate)) as usize,
        }
    }

    fn payload(&self, n: u64) -> Bytes {
        const CHANNEL_PAIR: u8 = 0x21; // how ffmpeg's AAC frames begin
        let body = mark::frame_bytes(Track::Audio, n, self.frame_bytes);
        [&[0xAF, 1, CHANNEL_PAIR][..], &body].concat().into()
    }
}

impl Source for SyntheticSource {
    fn opening(&self) -> Opening {
        let mut facts = Vec::new();
        if let Some(video) = &self.video {
            facts.extend([
                ("width", f64::from(Synthetic::SIZE.0)),
                ("height", f64::from(Synthetic::SIZE.1)),
                ("framerate", f64::from(video.fps.0) / f64::from(video.fps.1)),
                ("videocodecid", 7.0),
                ("videodatarate", f64::from(video.settings.bitrate) / 1000.0),
            ]);
        }
        if let Some(audio) = &self.audio {
            facts.extend([
                ("audiocodecid", 10.0),
                ("audiosamplerate", f64::from(audio.clock.sample_rate)),
                ("audiochannels", f64::from(audio.settings.channels)),
                ("audiodatarate", f64::from(audio.settings.bitrate) / 1000.0),
            ]);
        }
        let facts: Vec<_> = facts
            .into_iter()
            .map(|(name, value)| (name, Amf0Value::Number(value)))
            .collect();
        Opening {
            metadata: Metadata::new(&facts),
            video_header: self.video.map(|plan| {
                let record = avc::decoder_configuration(Synthetic::SIZE, plan.fps, plan.settings.b_frames);
                [&[0x17, 0, 0, 0, 0][..], &record].concat().into()
            }),
            audio_header: self.audio.map(|plan| [&[0xAF, 0][..], &plan.config].concat().into()),
        }
    }

    fn next_tag(&mut self) -> Option<Tag> {
        let video_ms = self.video.map(|plan| plan.frame_ms(self.next_video));
        let audio_ms = self.audio.map(|plan| plan.clock.frame_ms(self.next_audio));
        match (self.video, self.audio) {
            (Some(plan), _) if audio_ms.is_none() || video_ms <= audio_ms => {
                self.next_video += 1;
                Some(Tag {
                    track: Track::Video,
                    at_ms: video_ms?,
                    payload: plan.payload(self.next_video - 1),
                })
            }
            (_, Some(plan)) => {
                self.next_audio += 1;
                Some(Tag {
                    track: Track::Audio,
                    at_ms: audio_ms?,
                    payload: plan.payload(self.next_audio - 1),
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
