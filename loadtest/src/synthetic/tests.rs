use super::*;
use crate::demo;

fn take(settings: &Synthetic, count: usize) -> Vec<Tag> {
    let mut source = settings.source();
    std::iter::from_fn(|| source.next_tag()).take(count).collect()
}

fn offset_ms(tag: &Tag) -> u32 {
    u32::from_be_bytes([0, tag.payload[2], tag.payload[3], tag.payload[4]])
}

#[test]
fn the_same_settings_give_the_same_bytes() {
    let settings = Synthetic::default();
    assert_eq!(take(&settings, 500), take(&settings, 500));
}

#[test]
fn every_frame_can_be_found_again_by_its_number() {
    let bytes: Vec<u8> = take(&Synthetic::default(), 300)
        .into_iter()
        .flat_map(|tag| tag.payload)
        .collect();
    let found = marks(&bytes);
    assert_eq!(found.len(), 300);
    for track in [Track::Video, Track::Audio] {
        let numbers = found.iter().filter(|mark| mark.track == track).map(|mark| mark.number);
        assert!(numbers.enumerate().all(|(n, number)| number == n as u64));
    }
}

#[test]
fn bitrate_key_frames_and_length_prefixes_are_as_asked() {
    let video = SyntheticVideo {
        fps: (25, 1),
        gop_seconds: 2.0,
        bitrate: 4_000_000,
        b_frames: false,
    };
    let tags = take(
        &Synthetic {
            video: Some(video),
            audio: None,
        },
        250,
    );
    let bytes: usize = tags.iter().map(|tag| tag.payload.len()).sum();
    assert!(
        (4_900_000..5_100_000).contains(&bytes),
        "{bytes} bytes in 10 s at 4 Mbit/s"
    );
    for (n, tag) in tags.iter().enumerate() {
        assert_eq!(tag.at_ms, n as u64 * 40);
        let key = n % 50 == 0;
        assert_eq!(tag.payload[0], if key { 0x17 } else { 0x27 });
        let nal = u32::from_be_bytes(*tag.payload[5..].first_chunk().unwrap()) as usize;
        assert_eq!(nal, tag.payload.len() - 9);
        assert_eq!(tag.payload[9] & 31, if key { 5 } else { 1 });
        assert!(!tag.payload[9..].contains(&0), "a zero could become a start code");
    }
}

#[test]
fn b_frames_are_shown_in_another_order_but_each_time_once() {
    for gop_seconds in [1.0, 0.9] {
        let video = SyntheticVideo {
            fps: (10, 1),
            gop_seconds,
            b_frames: true,
            ..SyntheticVideo::default()
        };
        let tags = take(
            &Synthetic {
                video: Some(video),
                audio: None,
            },
            90,
        );
        let mut shown: Vec<u64> = tags.iter().map(|tag| tag.at_ms + u64::from(offset_ms(tag))).collect();
        assert!(!shown.is_sorted());
        shown.sort_unstable();
        assert_eq!(shown, (1..=90).map(|n| n * 100).collect::<Vec<_>>());
    }
}

#[test]
fn times_do_not_drift_at_29_97_and_44_1() {
    let video = SyntheticVideo {
        fps: (30_000, 1001),
        ..SyntheticVideo::default()
    };
    let audio = SyntheticAudio {
        sample_rate: 44_100,
        ..SyntheticAudio::default()
    };
    let tags = take(
        &Synthetic {
            video: Some(video),
            audio: Some(audio),
        },
        10_000,
    );
    assert!(tags.is_sorted_by_key(|tag| tag.at_ms));
    let exact = |track, ms: f64| {
        let times = tags.iter().filter(|tag| tag.track == track).map(|tag| tag.at_ms);
        times
            .enumerate()
            .all(|(n, at)| (at as f64 - n as f64 * ms).abs() <= 0.5)
    };
    assert!(exact(Track::Video, 1001.0 / 30.0));
    assert!(exact(Track::Audio, 1_024_000.0 / 44_100.0));
}

#[test]
fn headers_agree_with_those_of_a_real_encoder() {
    let made_up = Synthetic::default().source().opening();
    let clip = demo::clip();
    // The encoder appends a backward-compatible SBR extension to the two bytes that matter.
    assert_eq!(made_up.audio_header.unwrap(), clip.audio_header().unwrap()[..4]);
    // Tag header, version, profile, compatibility, level, length size, number of SPS.
    assert_eq!(made_up.video_header.unwrap()[..11], clip.video_header().unwrap()[..11]);
}
