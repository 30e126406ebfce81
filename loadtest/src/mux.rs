//! FLV tags → an MPEG transport stream (ISO/IEC 13818-1): H.264 and AAC, one program. Pure.
//!
//! Before this: [`crate::publisher`]. After this: [`crate::srt::session`].

use crc::{CRC_32_MPEG_2, Crc};

use crate::tag::{Opening, Tag, Track};

/// Bytes of a transport packet.
pub const PACKET_BYTES: usize = 188;

const PAT_PID: u16 = 0;
const PMT_PID: u16 = 0x1000;
const VIDEO_PID: u16 = 0x100;
const AUDIO_PID: u16 = 0x101;
/// Stream types (table 2-34).
const AVC: u8 = 0x1b;
const AAC_ADTS: u8 = 0x0f;
/// Stream ids (table 2-22).
const VIDEO_STREAM: u8 = 0xe0;
const AUDIO_STREAM: u8 = 0xc0;
/// How far the stream's clock is behind its first frame: decoders get each frame so long before its time.
const LEAD_MS: u64 = 100;
/// Where the stream's times begin.
const FIRST_MS: u64 = 1000;
/// Tables come at least so often; key frames have them before them anyway.
const TABLES_EVERY_MS: u64 = 500;
/// Ticks of the stream's clock in a millisecond.
const TICKS: u64 = 90;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_MPEG_2);

/// A stream that has no place in ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unmuxable {
    #[error("neither picture nor sound")]
    Empty,
    #[error("the picture is not H.264 with its parameter sets")]
    Video,
    #[error("the sound is not AAC with its configuration")]
    Audio,
    #[error("a frame is damaged, or longer than its codec allows")]
    Frame,
}

/// Writes one program.
#[derive(Debug)]
pub struct Muxer {
    video: Option<Video>,
    audio: Option<Adts>,
    counters: [(u16, u8); 4],
    tables_at: Option<u64>,
}

#[derive(Debug)]
struct Video {
    /// SPS and PPS, behind start codes.
    parameter_sets: Vec<u8>,
    length_bytes: usize,
}

/// What AAC frames have in common (ISO/IEC 13818-7, section 6.2).
#[derive(Debug, Clone, Copy)]
struct Adts {
    profile: u8,
    rate_index: u8,
    channels: u8,
}

impl Muxer {
    pub fn new(opening: &Opening) -> Result<Self, Unmuxable> {
        let video = opening.video_header.as_deref().map(Video::parse).transpose()?;
        let audio = opening.audio_header.as_deref().map(Adts::parse).transpose()?;
        if video.is_none() && audio.is_none() {
            return Err(Unmuxable::Empty);
        }
        Ok(Self {
            video,
            audio,
            counters: [PAT_PID, PMT_PID, VIDEO_PID, AUDIO_PID].map(|pid| (pid, 0)),
            tables_at: None,
        })
    }

    /// Appends the transport packets of one tag.
    pub fn tag(&mut self, tag: &Tag, out: &mut Vec<u8>) -> Result<(), Unmuxable> {
        match tag.track {
            Track::Video => self.video_tag(tag, out),
            Track::Audio => self.audio_tag(tag, out),
        }
    }

    fn video_tag(&mut self, tag: &Tag, out: &mut Vec<u8>) -> Result<(), Unmuxable> {
        const ACCESS_UNIT_DELIMITER: &[u8] = &[0, 0, 0, 1, 9, 0xf0];
        let video = self.video.as_ref().ok_or(Unmuxable::Video)?;
        let Some((&[kind, 1, a, b, c], mut units)) = tag.payload.split_first_chunk() else {
            return Err(Unmuxable::Frame);
        };
        let is_key = kind >> 4 == 1;
        // 24 bits with a sign.
        let offset_ms = i32::from_be_bytes([a, b, c, 0]) >> 8;
        let mut unit_stream = ACCESS_UNIT_DELIMITER.to_vec();
        if is_key {
            unit_stream.extend_from_slice(&video.parameter_sets);
        }
        while !units.is_empty() {
            let (length, rest) = units.split_at_checked(video.length_bytes).ok_or(Unmuxable::Frame)?;
            let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            let (unit, rest) = rest.split_at_checked(length).ok_or(Unmuxable::Frame)?;
            push_unit(&mut unit_stream, unit);
            units = rest;
        }
        let decoded = tag.at_ms + FIRST_MS;
        let shown = decoded.saturating_add_signed(i64::from(offset_ms));
        self.tables(decoded, is_key, out);
        let mut pes = pes_header(VIDEO_STREAM, shown, decoded, unit_stream.len());
        pes.append(&mut unit_stream);
        self.packets(VIDEO_PID, &pes, Some(decoded - LEAD_MS), is_key, out);
        Ok(())
    }

    fn audio_tag(&mut self, tag: &Tag, out: &mut Vec<u8>) -> Result<(), Unmuxable> {
        let audio = self.audio.ok_or(Unmuxable::Audio)?;
        let Some((&[_, 1], frame)) = tag.payload.split_first_chunk() else {
            return Err(Unmuxable::Frame);
        };
        let shown = tag.at_ms + FIRST_MS;
        let header = audio.header(frame.len()).ok_or(Unmuxable::Frame)?;
        self.tables(shown, false, out);
        let mut pes = pes_header(AUDIO_STREAM, shown, shown, header.len() + frame.len());
        pes.extend(header);
        pes.extend(frame);
        let clock = self.video.is_none().then_some(shown - LEAD_MS);
        self.packets(AUDIO_PID, &pes, clock, false, out);
        Ok(())
    }

    fn tables(&mut self, at_ms: u64, wanted: bool, out: &mut Vec<u8>) {
        if !wanted && self.tables_at.is_some_and(|last| at_ms < last + TABLES_EVERY_MS) {
            return;
        }
        self.tables_at = Some(at_ms);
        // Program 1 is described at PMT_PID.
        let mut pat = vec![0, 1];
        pat.extend((0xe000 | PMT_PID).to_be_bytes());
        let clock = if self.video.is_some() { VIDEO_PID } else { AUDIO_PID };
        let mut pmt = (0xe000 | clock).to_be_bytes().to_vec();
        pmt.extend([0xf0, 0]);
        let tracks = [
            self.video.as_ref().map(|_| (AVC, VIDEO_PID)),
            self.audio.map(|_| (AAC_ADTS, AUDIO_PID)),
        ];
        for (stream_type, pid) in tracks.into_iter().flatten() {
            pmt.push(stream_type);
            pmt.extend((0xe000 | pid).to_be_bytes());
            pmt.extend([0xf0, 0]);
        }
        for (pid, table_id, content) in [(PAT_PID, 0, pat), (PMT_PID, 2, pmt)] {
            self.packets(pid, &section(table_id, &content), None, false, out);
        }
    }

    /// Cuts a PES packet or a section into transport packets, the first of them with the clock, in milliseconds.
    fn packets(&mut self, pid: u16, mut payload: &[u8], mut clock: Option<u64>, is_key: bool, out: &mut Vec<u8>) {
        let mut first = true;
        while !payload.is_empty() {
            let counter = self.counter(pid);
            let start = if first { 0x4000 } else { 0 };
            out.push(0x47);
            out.extend((start | pid).to_be_bytes());
            let mut adaptation = Vec::new();
            if let Some(ms) = clock.take() {
                adaptation.push(0x10 | if is_key { 0x40 } else { 0 });
                adaptation.extend(program_clock(ms));
            }
            let is_table = pid == PAT_PID || pid == PMT_PID;
            let room = PACKET_BYTES - 4 - if adaptation.is_empty() { 0 } else { adaptation.len() + 1 };
            if payload.len() >= room || is_table {
                out.push(if adaptation.is_empty() { 0x10 } else { 0x30 } | counter);
                if !adaptation.is_empty() {
                    out.push(adaptation.len() as u8);
                    out.append(&mut adaptation);
                }
                let (now, rest) = payload.split_at(room.min(payload.len()));
                out.extend_from_slice(now);
                // Sections are filled up behind their end.
                out.resize(out.len() + room - now.len(), 0xff);
                payload = rest;
            } else {
                // The last one is filled up in its adaptation field.
                out.push(0x30 | counter);
                let length = PACKET_BYTES - 5 - payload.len();
                out.push(length as u8);
                if length > 0 {
                    if adaptation.is_empty() {
                        adaptation.push(0);
                    }
                    adaptation.resize(length, 0xff);
                    out.append(&mut adaptation);
                }
                out.extend_from_slice(payload);
                payload = &[];
            }
            first = false;
        }
    }

    fn counter(&mut self, pid: u16) -> u8 {
        let Some((_, counter)) = self.counters.iter_mut().find(|(known, _)| *known == pid) else {
            return 0;
        };
        let now = *counter;
        *counter = (now + 1) & 15;
        now
    }
}

impl Video {
    /// The sequence header's tag body: an AVCDecoderConfigurationRecord behind five bytes.
    fn parse(header: &[u8]) -> Result<Self, Unmuxable> {
        let record = header.get(5..).filter(|_| header.first() == Some(&0x17));
        let parsed = record.and_then(|record| {
            let (fields, mut rest) = record.split_first_chunk::<6>()?;
            let mut parameter_sets = Vec::new();
            let sps_count = fields[5] & 0x1f;
            for n in 0..2 {
                let count = if n == 0 {
                    sps_count
                } else {
                    let (count, after) = rest.split_first()?;
                    rest = after;
                    *count
                };
                for _ in 0..count {
                    let (length, after) = rest.split_first_chunk::<2>()?;
                    let (unit, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
                    push_unit(&mut parameter_sets, unit);
                    rest = after;
                }
            }
            Some(Self {
                parameter_sets,
                length_bytes: usize::from(fields[4] & 3) + 1,
            })
        });
        parsed.ok_or(Unmuxable::Video)
    }
}

impl Adts {
    /// The sequence header's tag body: an AudioSpecificConfig behind two bytes.
    fn parse(header: &[u8]) -> Result<Self, Unmuxable> {
        let config = header
            .get(2..)
            .and_then(|config| config.first_chunk::<2>())
            .filter(|_| header.first().is_some_and(|kind| kind >> 4 == 10));
        let config = u16::from_be_bytes(*config.ok_or(Unmuxable::Audio)?);
        let object_type = (config >> 11) as u8;
        // ADTS has two bits for it, and no room for a rate of its own.
        let rate_index = (config >> 7) as u8 & 15;
        if !(1..=4).contains(&object_type) || rate_index > 12 {
            return Err(Unmuxable::Audio);
        }
        Ok(Self {
            profile: object_type - 1,
            rate_index,
            channels: (config >> 3) as u8 & 7,
        })
    }

    fn header(self, frame_bytes: usize) -> Option<[u8; 7]> {
        const HEADER_BYTES: usize = 7;
        let length = u16::try_from(frame_bytes + HEADER_BYTES)
            .ok()
            .filter(|length| *length < 1 << 13)?;
        Some([
            0xff,
            0xf1, // MPEG-4, no checksum
            self.profile << 6 | self.rate_index << 2 | self.channels >> 2,
            (self.channels & 3) << 6 | (length >> 11) as u8,
            (length >> 3) as u8,
            (length as u8 & 7) << 5 | 0x1f,
            0xfc,
        ])
    }
}

fn push_unit(stream: &mut Vec<u8>, unit: &[u8]) {
    stream.extend([0, 0, 0, 1]);
    stream.extend_from_slice(unit);
}

/// Section 2.4.3.6. Packets too long for their length field have none, which only video may.
fn pes_header(stream_id: u8, shown_ms: u64, decoded_ms: u64, payload_bytes: usize) -> Vec<u8> {
    let has_both = shown_ms != decoded_ms;
    let times = if has_both { 10 } else { 5 };
    let length = u16::try_from(3 + times + payload_bytes).unwrap_or(0);
    let mut header = vec![0, 0, 1, stream_id];
    header.extend(length.to_be_bytes());
    header.extend([0x80, if has_both { 0xc0 } else { 0x80 }, times as u8]);
    header.extend(timestamp(if has_both { 3 } else { 2 }, shown_ms));
    if has_both {
        header.extend(timestamp(1, decoded_ms));
    }
    header
}

/// 33 bits in three pieces, each behind a marker.
fn timestamp(mark: u8, ms: u64) -> [u8; 5] {
    let ticks = ms * TICKS;
    [
        mark << 4 | (ticks >> 29) as u8 & 0x0e | 1,
        (ticks >> 22) as u8,
        (ticks >> 14) as u8 | 1,
        (ticks >> 7) as u8,
        (ticks << 1) as u8 | 1,
    ]
}

/// Section 2.4.3.5: 33 bits, and the extension left at zero.
fn program_clock(ms: u64) -> [u8; 6] {
    let ticks = ms * TICKS;
    [
        (ticks >> 25) as u8,
        (ticks >> 17) as u8,
        (ticks >> 9) as u8,
        (ticks >> 1) as u8,
        (ticks << 7) as u8 | 0x7e,
        0,
    ]
}

/// A table of one section, behind its pointer (section 2.4.4).
fn section(table_id: u8, content: &[u8]) -> Vec<u8> {
    const AROUND_CONTENT: usize = 5 + 4;
    let length = (content.len() + AROUND_CONTENT) as u16;
    let mut section = vec![table_id];
    section.extend((0xb000 | length).to_be_bytes());
    section.extend([0, 1, 0xc1, 0, 0]); // program or stream 1, version 0, current, the only section
    section.extend_from_slice(content);
    let checksum = CRC.checksum(&section);
    section.extend(checksum.to_be_bytes());
    section.insert(0, 0);
    section
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        synthetic::{Synthetic, SyntheticVideo},
        tag::Source as _,
    };

    #[test]
    fn packets_are_whole_counted_and_begin_with_their_tables() {
        let synthetic = Synthetic {
            video: Some(SyntheticVideo {
                b_frames: true,
                ..SyntheticVideo::default()
            }),
            ..Synthetic::default()
        };
        let mut source = synthetic.source();
        let mut muxer = Muxer::new(&source.opening()).unwrap();
        let mut stream = Vec::new();
        for tag in std::iter::from_fn(|| source.next_tag()).take(200) {
            muxer.tag(&tag, &mut stream).unwrap();
            assert_eq!(stream.len() % PACKET_BYTES, 0);
        }
        let mut next = std::collections::HashMap::new();
        let mut pids = Vec::new();
        for packet in stream.chunks(PACKET_BYTES) {
            let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
            let counter = packet[3] & 15;
            let wanted = next.insert(pid, (counter + 1) & 15).unwrap_or(0);
            assert_eq!((packet[0], counter), (0x47, wanted), "pid {pid}");
            pids.push(pid);
        }
        assert_eq!(pids[..3], [PAT_PID, PMT_PID, VIDEO_PID]);
        assert!(pids.contains(&AUDIO_PID));
        let tables = pids.iter().filter(|pid| **pid == PAT_PID).count();
        assert!((4..20).contains(&tables), "{tables} in two and a half seconds");
    }

    #[test]
    fn times_stand_in_the_bits_that_the_standard_names() {
        // 1 s and 26.5 h: the second has wrapped.
        assert_eq!(timestamp(2, 1000), [0x21, 0x00, 0x05, 0xbf, 0x21]);
        let wrapped = (1_u64 << 33) / TICKS + 1;
        let ticks = (wrapped * TICKS) & ((1 << 33) - 1);
        assert_eq!(timestamp(2, wrapped)[0], 0x21);
        assert_eq!(u64::from(timestamp(2, wrapped)[4] >> 1), ticks & 0x7f);
        assert_eq!(program_clock(1000), [0, 0, 0xaf, 0xc8, 0x7e, 0]);
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let source = Synthetic::default().source();
        let opening = source.opening();
        let without = |change: &dyn Fn(&mut Opening)| {
            let mut opening = opening.clone();
            change(&mut opening);
            Muxer::new(&opening).map(drop)
        };
        assert_eq!(
            without(&|o| (o.video_header, o.audio_header) = (None, None)),
            Err(Unmuxable::Empty)
        );
        assert_eq!(
            without(&|o| o.video_header = Some([0x17, 0, 0][..].to_vec().into())),
            Err(Unmuxable::Video)
        );
        assert_eq!(
            without(&|o| o.audio_header = Some([0x2f, 0][..].to_vec().into())),
            Err(Unmuxable::Audio)
        );
        let mut muxer = Muxer::new(&opening).unwrap();
        for payload in [
            &[][..],
            &[0x17, 1, 0, 0, 0, 0, 0, 1],
            &[0x17, 1, 0, 0, 0, 0, 0, 0, 9, 1],
        ] {
            let tag = Tag {
                track: Track::Video,
                at_ms: 0,
                payload: payload.to_vec().into(),
            };
            assert_eq!(muxer.tag(&tag, &mut Vec::new()), Err(Unmuxable::Frame), "{payload:?}");
        }
    }
}
