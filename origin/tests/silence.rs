//! A real decoder hears nothing in what fills a gap in the sound, whatever the layout. Without an `ffmpeg` it is left out and says so.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use weir_origin::{
    codec::{
        CodecConfig,
        aac::AacConfig,
        opus::{OpusConfig, USUAL_PACKET_SAMPLES},
    },
    package::{
        filler::Filler,
        fmp4,
        segmenter::{Draft, Sample},
    },
};
use weir_shared::media::time::{Ticks, Timescale};

const RATE: u32 = 48_000;
const FRAMES: usize = 100;
/// What a decoder may keep to itself at both ends, in frames.
const ENDS: usize = 4;

/// Decodes a file to 16-bit samples; `None` without ffmpeg.
fn decode(file: Vec<u8>) -> Option<(bool, Vec<u8>)> {
    let mut child = Command::new("ffmpeg")
        .args("-v error -xerror -err_detect explode -f mov -i pipe:0 -f s16le pipe:1".split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .inspect_err(|error| eprintln!("SKIPPED: nobody listened: {error}"))
        .ok()?;
    let mut input = child.stdin.take()?;
    let feeding = std::thread::spawn(move || input.write_all(&file));
    let output = child.wait_with_output().ok()?;
    let _ = feeding.join();
    Some((output.status.success(), output.stdout))
}

fn listen(config: &CodecConfig, channels: usize, frame: u32) {
    let scale = Timescale::new(RATE).unwrap();
    let mut filler = Filler::new(config);
    let samples: Vec<Sample> = (0..FRAMES)
        .map(|_| Sample {
            duration: Ticks(i64::from(frame)),
            composition_offset: Ticks::ZERO,
            sync: true,
            data: filler.next(false).expect("there is always silence").data,
        })
        .collect();
    let draft = Draft {
        tfdt: Ticks::ZERO,
        duration: Ticks(i64::from(frame) * FRAMES as i64),
        independent: true,
        samples,
    };
    let mut file = fmp4::init_section(config, scale).to_vec();
    file.extend_from_slice(&fmp4::part(1, &draft));
    let Some((decodes, sound)) = decode(file) else { return };
    let codec = config.codec_string();
    assert!(decodes, "{codec}, {channels} channels: it does not decode");
    let frames = sound.len() / (2 * channels * frame as usize);
    assert!(frames >= FRAMES - ENDS, "{codec}, {channels} channels: {frames} frames");
    assert!(
        sound.iter().all(|byte| *byte == 0),
        "{codec}, {channels} channels: a sound"
    );
}

#[test]
fn aac_in_every_layout() {
    for (number, channels) in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 8)] {
        // AudioSpecificConfig: AAC-LC, 48 kHz, a channel configuration.
        let config = AacConfig::parse(vec![0x11, 0x80 | number << 3].into()).unwrap();
        listen(&CodecConfig::Aac(config), channels, 1024);
    }
}

#[test]
fn opus_in_mono_stereo_and_surround() {
    for channels in [1, 2, 6, 8] {
        let config = OpusConfig::of_channels(channels).unwrap();
        listen(&CodecConfig::Opus(config), usize::from(channels), USUAL_PACKET_SAMPLES);
    }
}
