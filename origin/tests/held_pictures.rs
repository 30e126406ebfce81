//! A real decoder shows what fills a gap: pictures of FFmpeg's encoders, held, decoded by FFmpeg. Without an `ffmpeg` that has
//! the encoder, a case is left out and says so.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use bytes::Bytes;
use weir_origin::{
    codec::{CodecConfig, av1::Av1Config, avc::AvcConfig, hevc::HevcConfig},
    package::filler::Filler,
};

/// Pictures before the gap, fewer than a group has.
const REAL: usize = 20;
const HELD: usize = 40;

/// An elementary stream as it is in a file.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    H264,
    Hevc,
    Obu,
}

impl Form {
    const fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::Hevc => "hevc",
            Self::Obu => "obu",
        }
    }
}

fn ffmpeg(args: &[&str], input: Vec<u8>) -> Option<Vec<u8>> {
    let mut child = Command::new("ffmpeg")
        .args(["-v", "error"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take()?;
    let feeding = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().ok()?;
    let _ = feeding.join();
    (output.status.success() && !output.stdout.is_empty()).then_some(output.stdout)
}

fn encode(form: Form, encoder: &[&str]) -> Option<Vec<u8>> {
    let delimiters = match form {
        Form::H264 => vec!["-bsf:v", "h264_metadata=aud=insert"],
        Form::Hevc => vec!["-bsf:v", "hevc_metadata=aud=insert"],
        Form::Obu => vec![],
    };
    let mut args = "-f lavfi -i testsrc2=size=322x178:rate=30 -frames:v 24 -pix_fmt yuv420p -g 60"
        .split(' ')
        .collect::<Vec<_>>();
    args.extend(encoder);
    args.extend(delimiters);
    args.extend(["-f", form.name(), "-"]);
    ffmpeg(&args, Vec::new())
}

/// One MD5 for each picture, in order of presentation.
fn pictures(form: Form, stream: Vec<u8>) -> Vec<String> {
    let shown = ffmpeg(
        &[
            "-f",
            form.name(),
            "-i",
            "-",
            "-fps_mode",
            "passthrough",
            "-f",
            "framemd5",
            "-",
        ],
        stream,
    )
    .expect("a decoder");
    let shown = String::from_utf8(shown).expect("text");
    let sums = shown.lines().filter(|line| !line.starts_with('#'));
    sums.filter_map(|line| line.rsplit(',').next())
        .map(|sum| sum.trim().to_owned())
        .collect()
}

/// NAL units of a byte stream.
fn units(stream: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> = (0..stream.len().saturating_sub(2))
        .filter(|at| stream[*at..].starts_with(&[0, 0, 1]))
        .collect();
    let ends = starts.iter().skip(1).copied().chain([stream.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| {
            let unit = &stream[start + 3..end];
            let zeros = unit.iter().rev().take_while(|byte| **byte == 0).count();
            &unit[..unit.len() - zeros]
        })
        .collect()
}

/// Frames as packaging gets them, and the configuration.
fn frames(form: Form, stream: &[u8]) -> (CodecConfig, Vec<Bytes>) {
    if form == Form::Obu {
        return temporal_units(stream);
    }
    let kind = |unit: &[u8]| match form {
        Form::H264 => unit[0] & 0x1f,
        _ => unit[0] >> 1 & 0x3f,
    };
    let (delimiter, sets) = if form == Form::H264 {
        (9, [7, 7, 8])
    } else {
        (35, [32, 33, 34])
    };
    let all = units(stream);
    let of = |wanted: u8| -> Vec<Bytes> {
        let found = all.iter().find(|unit| kind(unit) == wanted);
        found.map(|unit| Bytes::copy_from_slice(unit)).into_iter().collect()
    };
    let config = match form {
        Form::H264 => CodecConfig::Avc(AvcConfig::from_sets(&of(sets[1]), &of(sets[2])).expect("parameter sets")),
        _ => {
            CodecConfig::Hevc(HevcConfig::from_sets(&of(sets[0]), &of(sets[1]), &of(sets[2])).expect("parameter sets"))
        }
    };
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for unit in all {
        if kind(unit) == delimiter {
            frames.push(Vec::new());
            continue;
        }
        let frame = frames.last_mut().expect("a delimiter comes first");
        frame.extend((unit.len() as u32).to_be_bytes());
        frame.extend(unit);
    }
    (config, frames.into_iter().map(Bytes::from).collect())
}

fn temporal_units(stream: &[u8]) -> (CodecConfig, Vec<Bytes>) {
    let (mut rest, mut found, mut sequence) = (stream, Vec::<Vec<u8>>::new(), None);
    while let Some(header) = rest.first() {
        let (mut size, mut at) = (0usize, 1);
        loop {
            let byte = rest[at];
            size |= usize::from(byte & 0x7f) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (unit, after) = rest.split_at(at + size);
        match header >> 3 & 15 {
            2 => found.push(Vec::new()),
            kind => {
                if kind == 1 {
                    sequence = Some(unit.to_vec());
                }
                found.last_mut().expect("a delimiter comes first").extend(unit);
            }
        }
        rest = after;
    }
    let mut record = vec![0x81, 0, 0, 0];
    record.extend(sequence.expect("a sequence header"));
    let config = CodecConfig::Av1(Av1Config::parse(record.into()).expect("a record"));
    (config, found.into_iter().map(Bytes::from).collect())
}

/// The stream as it is in a file.
fn file(form: Form, config: &CodecConfig, frames: &[Bytes]) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, frame) in frames.iter().enumerate() {
        if form == Form::Obu {
            out.extend([0x12, 0]);
            out.extend(frame);
            continue;
        }
        if n == 0 && form == Form::H264 {
            out.extend([0, 0, 0, 1, 9, 0xf0]);
        }
        let mut rest = &frame[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (unit, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            out.extend([0, 0, 0, 1]);
            out.extend(unit);
            rest = after;
        }
    }
    assert!(config.picture().is_some());
    out
}

fn hold(form: Form, encoder: &[&str]) {
    let Some(stream) = encode(form, encoder) else {
        eprintln!("left out: no ffmpeg with {encoder:?}");
        return;
    };
    let (config, frames) = frames(form, &stream);
    let mut shown = frames[..REAL].to_vec();
    let mut filler = Filler::new(&config);
    for (n, frame) in shown.iter().enumerate() {
        filler.shown(frame, n == 0);
    }
    let before = pictures(form, file(form, &config, &shown));
    let mut bytes = 0;
    for n in 0..2 * HELD {
        let filling = filler.next(n == HELD).expect("there is something to hold");
        assert_eq!(filling.key, n == HELD, "{encoder:?}: frame {n}");
        if !filling.key {
            bytes += filling.data.len();
        }
        shown.push(filling.data);
    }
    let after = pictures(form, file(form, &config, &shown));
    assert_eq!(after.len(), before.len() + 2 * HELD, "{encoder:?}");
    assert_eq!(
        after[..before.len()],
        before,
        "{encoder:?}: nothing before the gap changes"
    );
    let held = &after[before.len()..][..HELD];
    assert_eq!(held, vec![held[0].clone(); HELD], "{encoder:?}: one picture is held");
    // Where the last picture stays in no slot of an AV1 decoder, the last one that does is held.
    let reach = if form == Form::Obu { 4 } else { 1 };
    assert!(
        before[before.len() - reach..].contains(&held[0]),
        "{encoder:?}: the last picture is held"
    );
    let again = &after[before.len() + HELD..];
    assert_eq!(again[0], before[0], "{encoder:?}: the key frame again");
    // AV1 holds the picture after it.
    assert_eq!(again[2..], vec![again[1].clone(); HELD - 2], "{encoder:?}");
    let mean = bytes / (2 * HELD);
    // What AV1 repeats besides is one picture of the input.
    let most = if form == Form::Obu {
        frames[1].len() / HELD + 5
    } else {
        80
    };
    assert!(mean <= most, "{encoder:?}: {mean} bytes a picture");
}

#[test]
fn h264_with_either_entropy_coder_weights_and_reordering() {
    for options in [
        "-c:v libx264 -preset ultrafast -profile:v baseline",
        "-c:v libx264 -preset ultrafast -tune zerolatency",
        "-c:v libx264 -preset medium -bf 0",
        "-c:v libx264 -preset medium -bf 2 -x264-params b-pyramid=none:b-adapt=0",
        "-c:v libx264 -preset medium -x264-params slices=4:b-pyramid=none",
    ] {
        hold(Form::H264, &options.split(' ').collect::<Vec<_>>());
    }
}

#[test]
fn hevc_with_and_without_wavefronts() {
    for options in [
        "-c:v libx265 -preset ultrafast -x265-params log-level=none:bframes=0:wpp=0",
        "-c:v libx265 -preset ultrafast -x265-params log-level=none:bframes=0:wpp=1",
        "-c:v libx265 -preset medium -x265-params log-level=none:bframes=0:ctu=16",
        "-c:v libx265 -preset medium -x265-params log-level=none:bframes=2:b-adapt=0:b-pyramid=0",
    ] {
        hold(Form::Hevc, &options.split(' ').collect::<Vec<_>>());
    }
}

#[test]
fn av1_by_showing_a_decoded_picture_again() {
    for options in [
        "-c:v libaom-av1 -cpu-used 8 -usage realtime -lag-in-frames 0",
        "-c:v libsvtav1 -preset 10 -svtav1-params pred-struct=1",
    ] {
        hold(Form::Obu, &options.split(' ').collect::<Vec<_>>());
    }
}
