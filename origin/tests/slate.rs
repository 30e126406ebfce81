//! A real ffmpeg encodes the operator's picture, and a real decoder shows it and what holds it. Without an `ffmpeg` that has
//! libx264, this is left out and says so.

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use bytes::Bytes;
use weir_origin::{
    codec::{CodecConfig, avc::AvcConfig},
    live::slate::{Settings, Slates},
    metrics::Metrics,
    package::{filler::Filler, slate::Slate},
};

/// How long an encoding may take in a test.
const PATIENCE: Duration = Duration::from_secs(30);
const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// Runs ffmpeg on files of a folder.
fn ffmpeg(folder: &Path, arguments: &str) -> Option<Vec<u8>> {
    let mut command = Command::new("ffmpeg");
    command.current_dir(folder).args(["-v", "error", "-nostdin", "-y"]);
    let output = command.args(arguments.split_whitespace()).output().ok()?;
    output.status.success().then_some(output.stdout)
}

/// What a broadcast of this form says of itself.
fn broadcast(folder: &Path, profile: &str) -> Option<AvcConfig> {
    let source = "-f lavfi -i testsrc2=size=322x178:rate=30 -frames:v 1";
    let codec = format!("-c:v libx264 -profile:v {profile} -pix_fmt yuv420p -f h264 pipe:1");
    let stream = ffmpeg(folder, &format!("{source} {codec}"))?;
    let anything = AvcConfig::parse(avcc(&stream)).ok()?;
    Some(anything)
}

/// The decoder configuration record of a stream's first parameter sets.
fn avcc(stream: &[u8]) -> Bytes {
    let codes: Vec<usize> = stream
        .windows(3)
        .enumerate()
        .filter(|(_, w)| *w == [0, 0, 1])
        .map(|(n, _)| n + 3)
        .collect();
    let mut sets = codes.iter().enumerate().map(|(n, from)| {
        let to = codes.get(n + 1).map_or(stream.len(), |next| next - 3);
        let unit = &stream[*from..to];
        let zeros = unit.iter().rev().take_while(|byte| **byte == 0).count();
        &unit[..unit.len() - zeros]
    });
    let sequence = sets.clone().find(|unit| unit[0] & 0x1f == 7).expect("a sequence set");
    let picture = sets.find(|unit| unit[0] & 0x1f == 8).expect("a picture set");
    let mut record = vec![1, sequence[1], sequence[2], sequence[3], 0xff, 0xe1];
    record.extend((sequence.len() as u16).to_be_bytes());
    record.extend_from_slice(sequence);
    record.push(1);
    record.extend((picture.len() as u16).to_be_bytes());
    record.extend_from_slice(picture);
    record.into()
}

/// A slate and what holds it, with start codes.
fn file(slate: &Slate, held: usize) -> Vec<u8> {
    let CodecConfig::Avc(config) = &*slate.config else {
        panic!("slates are H.264")
    };
    let mut file = Vec::new();
    for set in config.parameter_sets() {
        file.extend(START_CODE);
        file.extend_from_slice(set);
    }
    let mut filler = Filler::new(&slate.config);
    filler.shown(&slate.key, true);
    let mut samples = vec![slate.key.clone()];
    samples.extend((0..held).map(|_| {
        let filling = filler.next(false).expect("it can be held");
        assert!(
            !filling.key && filling.data.len() < 100,
            "cheaply: {} bytes",
            filling.data.len()
        );
        filling.data
    }));
    for sample in samples {
        let mut rest = &sample[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (unit, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            file.extend(START_CODE);
            file.extend_from_slice(unit);
            rest = after;
        }
    }
    file
}

#[tokio::test]
async fn a_picture_is_encoded_to_match_the_broadcast_and_can_be_held() {
    let folder = std::env::temp_dir().join(format!("weir-slate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let png = "-f lavfi -i color=c=red:size=400x400 -frames:v 1 slate.png";
    if ffmpeg(&folder, png).is_none() || broadcast(&folder, "high").is_none() {
        eprintln!("SKIPPED: no ffmpeg with libx264");
        return;
    }
    let metrics = Arc::new(Metrics::new(&prometheus::Registry::new()).unwrap());
    let slates = |file: &str| {
        let settings = Settings {
            file: folder.join(file),
            after: Duration::from_secs(5),
            ffmpeg: "ffmpeg".to_owned(),
        };
        Slates::new(settings, metrics.clone())
    };
    let made = slates("slate.png");
    for profile in ["baseline", "main", "high"] {
        let beside = broadcast(&folder, profile).unwrap();
        let config = CodecConfig::Avc(beside.clone());
        let mut coming = made.ask(&config).expect("H.264 has slates");
        let slate = tokio::time::timeout(PATIENCE, coming.wait_for(Option::is_some))
            .await
            .unwrap()
            .unwrap()
            .clone()
            .unwrap();
        let picture = slate.config.picture().unwrap();
        assert_eq!((picture.width, picture.height), (322, 178), "{profile}");
        assert_eq!(
            slate.config.codec_string()[..7],
            config.codec_string()[..7],
            "the same profile"
        );

        std::fs::write(folder.join("slate.h264"), file(&slate, 30)).unwrap();
        let shown = ffmpeg(&folder, "-err_detect explode -i slate.h264 -f framemd5 pipe:1").expect("it decodes");
        let shown = String::from_utf8(shown).unwrap();
        let sums: Vec<&str> = shown
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit(',').next())
            .collect();
        assert_eq!(sums.len(), 31, "{profile}");
        assert!(sums.iter().all(|sum| *sum == sums[0]), "{profile}: one picture is held");
    }
    // A file that is no picture costs nothing but the slate.
    std::fs::write(folder.join("text.png"), "no picture").unwrap();
    let none = slates("text.png");
    let mut never = none
        .ask(&CodecConfig::Avc(broadcast(&folder, "high").unwrap()))
        .unwrap();
    assert!(
        tokio::time::timeout(PATIENCE, never.wait_for(Option::is_some))
            .await
            .unwrap()
            .is_err(),
        "it is given up"
    );
    assert_eq!(metrics.slates.with_label_values(&["failed"]).get(), 1);
    let _ = std::fs::remove_dir_all(&folder);
}
