//! An FLV clip (H.264 + AAC) as an endless, continuous source of tags.
//!
//! Before this: [`crate::flv`]. After this: [`crate::pace`].
//!
//! # How the loop stays continuous
//! * The **loop length** is the video's: its frames × their mean distance, rounded to a millisecond. The first frame of
//!   a turn follows the last of the turn before at the cadence, within the millisecond of rounding that RTMP's times have
//!   anyway.
//! * **Audio runs on a clock that never breaks**: audio frame *n* plays at *n* × (1024 ÷ sample rate), counted from the
//!   start. Which of the clip's frames it is follows from its position in the turn. Where the loop length is no whole
//!   number of audio frames, a frame is left out or repeated now and then at the joint, and sound and picture stay in
//!   sync within half a frame (12 ms), at the joint within one and a half, for ever.
//! * The demo clip's 16 s are a whole number of both (480 pictures, 750 AAC frames): nothing is left out there.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    flv::{FlvError, FlvReader, Kind},
    tag::{Metadata, Opening, Source, Tag, Track},
};

/// Largest clip that is accepted, in bytes: it is held in memory.
pub const MAX_CLIP_BYTES: usize = 512 << 20;
/// Most frames of a track: four hours at 60 per second.
pub const MAX_FRAMES: usize = 60 * 3600 * 4;

/// Why a clip cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClipError {
    #[error(transparent)]
    Flv(#[from] FlvError),
    #[error("the clip has {found} bytes, more than the {MAX_CLIP_BYTES} that are held in memory")]
    TooLarge { found: usize },
    #[error("the clip has more than {MAX_FRAMES} frames in a track")]
    TooManyFrames,
    #[error("the clip has neither an H.264 key frame nor an AAC frame")]
    NoFrames,
    #[error("the clip's {track:?} is not H.264 or AAC: FLV codec id {id}")]
    Codec { track: Track, id: u8 },
    #[error("the clip's {track:?} has frames but no sequence header before them")]
    NoHeader { track: Track },
    #[error("the clip's AAC configuration cannot be read")]
    AudioConfig,
    #[error("the clip's video goes back in time at {at_ms} ms")]
    TimeGoesBack { at_ms: u32 },
}

/// A parsed clip. Frames share the memory of the file's bytes.
#[derive(Debug, Clone)]
pub struct Clip {
    metadata: Metadata,
    video: Option<VideoTrack>,
    audio: Option<AudioTrack>,
    /// Never zero.
    loop_ms: u64,
}

#[derive(Debug, Clone)]
struct VideoTrack {
    header: Bytes,
    /// In decode order, the first is a key frame at 0 ms; never empty.
    frames: Vec<VideoFrame>,
}

#[derive(Debug, Clone)]
struct VideoFrame {
    at_ms: u64,
    key: bool,
    payload: Bytes,
}

#[derive(Debug, Clone)]
struct AudioTrack {
    header: Bytes,
    clock: AudioClock,
    /// Time of `frames[0]` relative to the first key frame, in milliseconds.
    offset_ms: i64,
    /// Never empty.
    frames: Vec<Bytes>,
}

/// The cadence of an audio track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AudioClock {
    pub(crate) frame_samples: u32,
    /// Hz; never zero.
    pub(crate) sample_rate: u32,
}

impl AudioClock {
    /// Start of frame `n` in milliseconds, rounded to the nearest.
    pub(crate) fn frame_ms(self, n: u64) -> u64 {
        let rate = u128::from(self.sample_rate);
        let samples_ms = u128::from(n) * u128::from(self.frame_samples) * 1000;
        ((samples_ms + rate / 2) / rate) as u64
    }

    /// The first frame that starts at or after `ms`.
    fn first_frame_at(self, ms: u64) -> u64 {
        let frame = u128::from(self.frame_samples) * 1000;
        (u128::from(ms) * u128::from(self.sample_rate)).div_ceil(frame) as u64
    }

    /// The frame whose start is nearest to `ms`, counted from the frame at 0 ms; negative before it.
    fn nearest_frame(self, ms: i64) -> i64 {
        let frame = i128::from(self.frame_samples) * 1000;
        let scaled = i128::from(ms) * i128::from(self.sample_rate);
        (scaled + frame / 2).div_euclid(frame) as i64
    }
}

impl Clip {
    /// Reads a whole FLV file. Video before the first key frame is left out.
    pub fn from_flv(file: Bytes) -> Result<Self, ClipError> {
        if file.len() > MAX_CLIP_BYTES {
            return Err(ClipError::TooLarge { found: file.len() });
        }
        let mut draft = Draft::default();
        for tag in FlvReader::new(file)? {
            let tag = tag?;
            match tag.kind {
                Kind::Video => draft.video(tag.timestamp_ms, tag.body)?,
                Kind::Audio => draft.audio(tag.timestamp_ms, tag.body)?,
                Kind::Script if draft.metadata.is_none() => draft.metadata = Some(Metadata::from_script_tag(tag.body)),
                Kind::Script | Kind::Other(_) => {}
            }
        }
        draft.finish()
    }

    /// Length of one turn in milliseconds; never zero.
    pub fn loop_ms(&self) -> u64 {
        self.loop_ms
    }

    /// The AVC sequence header as a tag body.
    pub fn video_header(&self) -> Option<&Bytes> {
        self.video.as_ref().map(|track| &track.header)
    }

    /// The AAC sequence header as a tag body.
    pub fn audio_header(&self) -> Option<&Bytes> {
        self.audio.as_ref().map(|track| &track.header)
    }
}

/// A clip while its tags are read.
#[derive(Default)]
struct Draft {
    metadata: Option<Metadata>,
    video_header: Option<Bytes>,
    audio_header: Option<Bytes>,
    /// (decode time in ms, key, body)
    video: Vec<(u32, bool, Bytes)>,
    first_audio_ms: Option<u32>,
    audio: Vec<Bytes>,
}

impl Draft {
    fn video(&mut self, at_ms: u32, body: Bytes) -> Result<(), ClipError> {
        const AVC: u8 = 7;
        let (track, Some(&[first, packet_type])) = (Track::Video, body.first_chunk::<2>()) else {
            return Ok(());
        };
        // An enhanced tag sets the highest bit; its packet type stands where the codec id does.
        if first & 0x8F != AVC {
            return Err(ClipError::Codec {
                track,
                id: first & 0x8F,
            });
        }
        let key = first >> 4 == 1;
        match packet_type {
            0 if self.video_header.is_none() => self.video_header = Some(body),
            1 if self.video_header.is_none() => return Err(ClipError::NoHeader { track }),
            1 if self.video.is_empty() && !key => {}
            1 if self.video.len() >= MAX_FRAMES => return Err(ClipError::TooManyFrames),
            1 if self.video.last().is_some_and(|&(last, ..)| at_ms < last) => {
                return Err(ClipError::TimeGoesBack { at_ms });
            }
            1 => self.video.push((at_ms, key, body)),
            _ => {} // a second header, or the end of the sequence
        }
        Ok(())
    }

    fn audio(&mut self, at_ms: u32, body: Bytes) -> Result<(), ClipError> {
        const AAC: u8 = 10;
        let (track, Some(&[first, packet_type])) = (Track::Audio, body.first_chunk::<2>()) else {
            return Ok(());
        };
        if first >> 4 != AAC {
            return Err(ClipError::Codec { track, id: first >> 4 });
        }
        match packet_type {
            0 if self.audio_header.is_none() => self.audio_header = Some(body),
            1 if self.audio_header.is_none() => return Err(ClipError::NoHeader { track }),
            1 if self.audio.len() >= MAX_FRAMES => return Err(ClipError::TooManyFrames),
            1 => {
                self.first_audio_ms.get_or_insert(at_ms);
                self.audio.push(body);
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Clip, ClipError> {
        let start_ms = self.video.first().map(|&(at, ..)| at);
        let video = self.video_header.zip(start_ms).map(|(header, start)| VideoTrack {
            header,
            frames: (self.video.into_iter())
                .map(|(at_ms, key, payload)| VideoFrame {
                    at_ms: u64::from(at_ms - start),
                    key,
                    payload,
                })
                .collect(),
        });
        let audio = match self.audio_header.zip(self.first_audio_ms) {
            Some((header, first_ms)) => Some(AudioTrack {
                clock: audio_clock(header.get(2..).unwrap_or_default()).ok_or(ClipError::AudioConfig)?,
                header,
                offset_ms: i64::from(first_ms) - i64::from(start_ms.unwrap_or(first_ms)),
                frames: self.audio,
            }),
            None => None,
        };
        let loop_ms = match (&video, &audio) {
            (Some(video), _) => video.length_ms(),
            (None, Some(audio)) => audio.clock.frame_ms(audio.frames.len() as u64),
            (None, None) => return Err(ClipError::NoFrames),
        };
        Ok(Clip {
            metadata: self.metadata.unwrap_or_else(|| Metadata::new(&[])),
            video,
            audio,
            loop_ms: loop_ms.max(1),
        })
    }
}

impl VideoTrack {
    /// Frames × their mean distance, to the nearest millisecond. A single frame is taken to last a second.
    fn length_ms(&self) -> u64 {
        let gaps = self.frames.len() as u64 - 1;
        let span = self.frames.last().map_or(0, |frame| frame.at_ms);
        match gaps {
            0 => 1000,
            _ => span + (span + gaps / 2) / gaps,
        }
    }
}

/// Reads sample rate and frame length from an AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1).
fn audio_clock(config: &[u8]) -> Option<AudioClock> {
    const RATES: [u32; 13] = [
        96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
    ];
    let &[a, b] = config.first_chunk::<2>()?;
    let object_type = a >> 3;
    let rate_index = usize::from((a & 7) << 1 | b >> 7);
    let short_frames = object_type == 2 && b & 0b100 != 0;
    Some(AudioClock {
        frame_samples: if short_frames { 960 } else { 1024 },
        sample_rate: *RATES.get(rate_index)?,
    })
}

/// A clip being played, once or for ever.
#[derive(Debug, Clone)]
pub struct ClipLoop {
    clip: Arc<Clip>,
    looped: bool,
    /// Where on the loop's timeline the publish begins: tag times count from here.
    start_ms: u64,
    /// Turn and index of the next video frame.
    turn: u64,
    index: usize,
    /// Number of the next audio frame since the loop's time 0.
    audio_frame: u64,
}

impl ClipLoop {
    /// Begins with the first key frame (without video: audio frame) at or after `from_ms` on the loop's timeline, which
    /// is at the clip's start at 0 ms and after every [`Clip::loop_ms`]. Unless `looped` it ends with that turn.
    pub fn new(clip: Arc<Clip>, from_ms: u64, looped: bool) -> Self {
        let (mut turn, within) = (from_ms / clip.loop_ms, from_ms % clip.loop_ms);
        let mut index = 0;
        let mut start_ms = from_ms;
        if let Some(video) = &clip.video {
            match (video.frames.iter()).position(|frame| frame.key && frame.at_ms >= within) {
                Some(found) => index = found,
                None => turn += 1, // frame 0 is a key frame
            }
            start_ms = turn * clip.loop_ms + video.frames[index].at_ms;
        }
        let audio_frame = (clip.audio.as_ref()).map_or(0, |audio| audio.clock.first_frame_at(start_ms));
        Self {
            clip,
            looped,
            start_ms,
            turn,
            index,
            audio_frame,
        }
    }

    /// Position of the publish's time 0 on the loop's timeline, in milliseconds.
    pub fn start_ms(&self) -> u64 {
        self.start_ms
    }

    fn end_ms(&self) -> u64 {
        if self.looped {
            return u64::MAX;
        }
        (self.start_ms / self.clip.loop_ms + 1) * self.clip.loop_ms
    }

    fn next_video_ms(&self) -> Option<u64> {
        let frame = self.clip.video.as_ref()?.frames.get(self.index)?;
        Some(self.turn * self.clip.loop_ms + frame.at_ms)
    }

    fn take_video(&mut self) -> Option<Bytes> {
        let frames = &self.clip.video.as_ref()?.frames;
        let payload = frames.get(self.index)?.payload.clone();
        self.index += 1;
        if self.index == frames.len() {
            (self.turn, self.index) = (self.turn + 1, 0);
        }
        Some(payload)
    }

    fn next_audio_ms(&self) -> Option<u64> {
        Some(self.clip.audio.as_ref()?.clock.frame_ms(self.audio_frame))
    }

    fn take_audio(&mut self, at_ms: u64) -> Option<Bytes> {
        let audio = self.clip.audio.as_ref()?;
        let within = (at_ms % self.clip.loop_ms) as i64 - audio.offset_ms;
        let index = (audio.clock.nearest_frame(within)).rem_euclid(audio.frames.len() as i64);
        self.audio_frame += 1;
        audio.frames.get(index as usize).cloned()
    }
}

impl Source for ClipLoop {
    fn opening(&self) -> Opening {
        Opening {
            metadata: self.clip.metadata.clone(),
            video_header: self.clip.video_header().cloned(),
            audio_header: self.clip.audio_header().cloned(),
        }
    }

    fn next_tag(&mut self) -> Option<Tag> {
        let end = self.end_ms();
        let video = self.next_video_ms().filter(|&at| at < end);
        let audio = self.next_audio_ms().filter(|&at| at < end);
        let (track, at, payload) = match (video, audio) {
            (Some(video), audio) if audio.is_none_or(|audio| video <= audio) => {
                (Track::Video, video, self.take_video()?)
            }
            (_, Some(audio)) => (Track::Audio, audio, self.take_audio(audio)?),
            (_, None) => return None,
        };
        Some(Tag {
            track,
            at_ms: at.saturating_sub(self.start_ms),
            payload,
        })
    }
}

#[cfg(test)]
mod tests;
