//! Init sections: `ftyp` + `moov` with no media (RFC 8216bis section 3.1.2).

use bytes::Bytes;
use weir_shared::media::time::Timescale;

use super::{TRACK_ID, boxes::Writer};
use crate::{
    codec::{
        CodecConfig, Picture,
        aac::AacConfig,
        opus::{self, OpusConfig},
    },
    package::frame::TrackKind,
};

/// The identity transformation of `mvhd` and `tkhd`.
const MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];
/// "und": the language code for undetermined, packed (14496-12 section 8.4.2).
const UNDETERMINED: u16 = 0x55c4;
/// Longest AudioSpecificConfig carried, in bytes: keeps descriptor sizes below 128.
const ASC_LIMIT: usize = 64;

/// The init section of one track.
pub fn init_section(config: &CodecConfig, scale: Timescale) -> Bytes {
    let mut w = Writer::with_capacity(1024);
    w.boxed(b"ftyp", |w| {
        w.bytes(b"iso6");
        w.u32(0);
        w.bytes(b"iso6cmfcmp41");
    });
    w.boxed(b"moov", |w| {
        w.full(b"mvhd", 0, 0, |w| {
            w.zeros(8); // created, changed
            w.u32(scale.get());
            w.u32(0); // duration: unknown
            w.u32(0x1_0000); // rate 1.0
            w.u16(0x100); // volume 1.0
            w.zeros(10);
            MATRIX.into_iter().for_each(|value| w.u32(value));
            w.zeros(24);
            w.u32(TRACK_ID + 1);
        });
        track(w, config, scale);
        w.boxed(b"mvex", |w| {
            w.full(b"trex", 0, 0, |w| {
                w.u32(TRACK_ID);
                w.u32(1); // sample description
                w.zeros(12);
            });
        });
    });
    w.into_bytes()
}

fn track(w: &mut Writer, config: &CodecConfig, scale: Timescale) {
    w.boxed(b"trak", |w| {
        track_header(w, config);
        w.boxed(b"mdia", |w| {
            w.full(b"mdhd", 0, 0, |w| {
                w.zeros(8);
                w.u32(scale.get());
                w.u32(0);
                w.u16(UNDETERMINED);
                w.u16(0);
            });
            let (handler, name) = match config.track() {
                TrackKind::Video => (b"vide", b"video\0"),
                TrackKind::Audio => (b"soun", b"audio\0"),
            };
            w.full(b"hdlr", 0, 0, |w| {
                w.u32(0);
                w.bytes(handler);
                w.zeros(12);
                w.bytes(name);
            });
            w.boxed(b"minf", |w| media_information(w, config));
        });
    });
}

fn track_header(w: &mut Writer, config: &CodecConfig) {
    let (width, height, volume) = match config.picture() {
        Some(picture) => {
            let (wide, high) = picture.sample_aspect;
            // Presentation size: pixels times their aspect, 16.16 fixed point.
            let width = u64::from(picture.width) * u64::from(wide.max(1)) * 65_536 / u64::from(high.max(1));
            let fallback = u32::from(picture.width) << 16;
            (
                u32::try_from(width).unwrap_or(fallback),
                u32::from(picture.height) << 16,
                0,
            )
        }
        None => (0, 0, 0x100),
    };
    w.full(b"tkhd", 0, 7, |w| {
        w.zeros(8);
        w.u32(TRACK_ID);
        w.zeros(16); // reserved, duration, reserved
        w.zeros(4); // layer, alternate group
        w.u16(volume);
        w.u16(0);
        MATRIX.into_iter().for_each(|value| w.u32(value));
        w.u32(width);
        w.u32(height);
    });
}

fn media_information(w: &mut Writer, config: &CodecConfig) {
    match config.track() {
        TrackKind::Video => w.full(b"vmhd", 0, 1, |w| w.zeros(8)),
        TrackKind::Audio => w.full(b"smhd", 0, 0, |w| w.zeros(4)),
    }
    w.boxed(b"dinf", |w| {
        w.full(b"dref", 0, 0, |w| {
            w.u32(1);
            w.full(b"url ", 0, 1, |_| ());
        });
    });
    w.boxed(b"stbl", |w| {
        w.full(b"stsd", 0, 0, |w| {
            w.u32(1);
            sample_entry(w, config);
        });
        w.full(b"stts", 0, 0, |w| w.u32(0));
        w.full(b"stsc", 0, 0, |w| w.u32(0));
        w.full(b"stsz", 0, 0, |w| w.zeros(8));
        w.full(b"stco", 0, 0, |w| w.u32(0));
    });
}

fn sample_entry(w: &mut Writer, config: &CodecConfig) {
    let picture = config.picture();
    match (config, picture) {
        (CodecConfig::Avc(c), Some(picture)) => visual(w, (b"avc1", b"avcC"), &c.record, picture),
        (CodecConfig::Hevc(c), Some(picture)) => visual(w, (b"hvc1", b"hvcC"), &c.record, picture),
        (CodecConfig::Av1(c), Some(picture)) => visual(w, (b"av01", b"av1C"), &c.record, picture),
        (CodecConfig::Aac(c), _) => mp4a(w, c),
        (CodecConfig::Opus(c), _) => opus(w, c),
        // Video always has a picture.
        (_, None) => {}
    }
}

/// 14496-12 section 12.1.3; `avc1` and `hvc1` of 14496-15 (sections 5.4.2 and 8.4.1), `av01` of the AV1 binding
/// (section 2.2) differ in their names and in the box of the record.
fn visual(w: &mut Writer, (entry, record_box): (&[u8; 4], &[u8; 4]), record: &[u8], picture: Picture) {
    w.boxed(entry, |w| {
        w.zeros(6);
        w.u16(1); // data reference
        w.zeros(16);
        w.u16(picture.width);
        w.u16(picture.height);
        w.u32(0x48_0000); // 72 dpi
        w.u32(0x48_0000);
        w.u32(0);
        w.u16(1); // frames per sample
        w.zeros(32); // compressor name
        w.u16(24); // depth
        w.u16(0xffff);
        w.boxed(record_box, |w| w.bytes(record));
        let (wide, high) = picture.sample_aspect;
        if wide != high && wide > 0 && high > 0 {
            w.boxed(b"pasp", |w| {
                w.u32(u32::from(wide));
                w.u32(u32::from(high));
            });
        }
    });
}

/// Encapsulation of Opus in ISO Base Media File Format, section 4.3. There is no edit list: encoders put the pre-skip
/// before the time they mean (the first packets come earlier than the picture they belong to), and who joins in the
/// middle has nothing to skip.
fn opus(w: &mut Writer, config: &OpusConfig) {
    w.boxed(b"Opus", |w| {
        audio_fields(w, config.channels, opus::SAMPLE_RATE);
        w.boxed(b"dOps", |w| w.bytes(&config.dops()));
    });
}

/// The common fields of an audio sample entry (14496-12 section 12.2.3).
fn audio_fields(w: &mut Writer, channels: u8, sample_rate: u32) {
    w.zeros(6);
    w.u16(1); // data reference
    w.zeros(8);
    w.u16(u16::from(channels));
    w.u16(16); // bits per sample
    w.zeros(4);
    // 16.16; rates that do not fit are told by the codec's own configuration alone.
    w.u32(u16::try_from(sample_rate).map_or(0, |rate| u32::from(rate) << 16));
}

/// 14496-14 section 5.6 with the descriptors of 14496-1 section 7.2.6.
fn mp4a(w: &mut Writer, aac: &AacConfig) {
    let asc = aac.asc.get(..ASC_LIMIT).unwrap_or(&aac.asc);
    w.boxed(b"mp4a", |w| {
        audio_fields(w, aac.channels, aac.sample_rate);
        w.full(b"esds", 0, 0, |w| {
            let decoder_config = 13 + 5 + asc.len();
            descriptor(w, 3, 3 + 5 + decoder_config + 5 + 1);
            w.u16(0); // ES id
            w.u8(0);
            descriptor(w, 4, decoder_config);
            w.u8(0x40); // MPEG-4 audio
            w.u8(0x15); // audio stream
            w.zeros(3); // decoder buffer
            w.zeros(8); // peak and average bit rate: not said
            descriptor(w, 5, asc.len());
            w.bytes(asc);
            descriptor(w, 6, 1);
            w.u8(2);
        });
    });
}

/// A descriptor's tag and size, the size in its four-byte form.
fn descriptor(w: &mut Writer, tag: u8, size: usize) {
    w.u8(tag);
    w.bytes(&[0x80, 0x80, 0x80, (size & 0x7f) as u8]);
}
