use super::*;
use crate::demo;

fn tag(kind: u8, ms: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(&(body.len() as u32).to_be_bytes()[1..]);
    bytes.extend(&ms.to_be_bytes()[1..]);
    bytes.extend([ms.to_be_bytes()[0], 0, 0, 0]);
    bytes.extend(body);
    bytes.extend((11 + body.len() as u32).to_be_bytes());
    bytes
}

const AVC_HEADER: [u8; 5] = [0x17, 0, 0, 0, 0];
const AAC_44100_STEREO: [u8; 4] = [0xAF, 0, 0x12, 0x10];

/// A clip of `pictures` at 29.97 (key frame every 10th) and `sounds` AAC frames at 44.1 kHz, each with its index.
fn clip_29_97(pictures: u32, sounds: u32) -> Clip {
    let mut file = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    file.extend(tag(9, 0, &AVC_HEADER));
    file.extend(tag(8, 0, &AAC_44100_STEREO));
    for i in 0..pictures {
        let first = if i % 10 == 0 { 0x17 } else { 0x27 };
        let ms = (f64::from(i) * 1001.0 / 30.0).round() as u32;
        file.extend(tag(9, 40 + ms, &[first, 1, 0, 0, 0, i as u8]));
    }
    for i in 0..sounds {
        let ms = (f64::from(i) * 1_024_000.0 / 44_100.0).round() as u32;
        file.extend(tag(8, 40 + ms, &[0xAF, 1, i as u8]));
    }
    Clip::from_flv(file.into()).unwrap()
}

fn play(mut source: ClipLoop, until_ms: u64) -> Vec<Tag> {
    let mut tags = Vec::new();
    while let Some(tag) = source.next_tag().filter(|tag| tag.at_ms < until_ms) {
        tags.push(tag);
    }
    tags
}

fn times(tags: &[Tag], track: Track) -> Vec<u64> {
    (tags.iter().filter(|tag| tag.track == track).map(|tag| tag.at_ms)).collect()
}

#[test]
fn the_demo_clip_is_a_loop_of_sixteen_seconds_without_a_joint() {
    let clip = demo::clip();
    assert_eq!(clip.loop_ms(), demo::LOOP_MS);
    assert_eq!(clip.video.as_ref().unwrap().frames.len(), 480);
    let audio = clip.audio.as_ref().unwrap();
    assert_eq!((audio.frames.len(), audio.offset_ms), (750, 0));
    let keys = clip
        .video
        .as_ref()
        .unwrap()
        .frames
        .iter()
        .filter(|frame| frame.key)
        .count();
    assert_eq!(keys, 16, "one key frame per second");
}

#[test]
fn three_turns_of_the_demo_clip_are_continuous_in_both_tracks() {
    let tags = play(ClipLoop::new(demo::clip(), 0, true), 3 * demo::LOOP_MS);
    assert!(tags.is_sorted_by_key(|tag| tag.at_ms));
    let exact = |n: usize, ms: f64| (n as f64 * ms).round() as u64;
    let video = times(&tags, Track::Video);
    assert_eq!(video, (0..3 * 480).map(|n| exact(n, 1000.0 / 30.0)).collect::<Vec<_>>());
    let audio = times(&tags, Track::Audio);
    assert_eq!(audio, (0..3 * 750).map(|n| exact(n, 1024.0 / 48.0)).collect::<Vec<_>>());
    // Turn 2 sends the same frames as turn 0, none left out or twice.
    let turn = |n: usize| tags[n * 1230..(n + 1) * 1230].iter().map(|tag| &tag.payload);
    assert!(turn(0).eq(turn(2)));
}

#[test]
fn a_loop_that_is_no_whole_number_of_audio_frames_stays_continuous_and_in_sync() {
    // 100 pictures = 3336.7 ms; 143 AAC frames = 3320 ms, the 144th would end beyond.
    let clip = Arc::new(clip_29_97(100, 143));
    assert_eq!(clip.loop_ms(), 3336);
    let clock = clip.audio.as_ref().unwrap().clock;
    let turns = 50;
    let tags = play(ClipLoop::new(Arc::clone(&clip), 0, true), turns * clip.loop_ms());
    for pair in times(&tags, Track::Video).windows(2) {
        assert!((32..=34).contains(&(pair[1] - pair[0])), "{pair:?}");
    }
    for (n, at) in times(&tags, Track::Audio).into_iter().enumerate() {
        assert_eq!(at, clock.frame_ms(n as u64));
    }
    for tag in tags.iter().filter(|tag| tag.track == Track::Audio) {
        let own = clock.frame_ms(u64::from(tag.payload[2])) as i64;
        let off = (tag.at_ms % clip.loop_ms()) as i64 - own;
        // Around the joint the neighbouring turn's first or last frame may be the nearest.
        let off = off.abs().min((off - clip.loop_ms() as i64).abs());
        assert!(off <= 35, "sound is {off} ms off the picture at {} ms", tag.at_ms);
    }
}

#[test]
fn joining_in_the_middle_begins_with_a_key_frame_and_at_zero() {
    let clip = demo::clip();
    let unix_ms = 1_795_000_000_123;
    let source = ClipLoop::new(Arc::clone(&clip), unix_ms, true);
    assert_eq!(source.start_ms(), 1_795_000_001_000);
    let tags = play(source, 2000);
    let first = tags.iter().find(|tag| tag.track == Track::Video).unwrap();
    assert_eq!((first.at_ms, first.payload[0]), (0, 0x17));
    let shown = clip
        .video
        .as_ref()
        .unwrap()
        .frames
        .iter()
        .find(|frame| frame.payload == first.payload);
    assert_eq!(
        shown.unwrap().at_ms,
        1_795_000_001_000 % demo::LOOP_MS,
        "the picture's clock is the wall clock"
    );
    assert!(times(&tags, Track::Audio)[0] < 22);
}

#[test]
fn once_means_once() {
    let clip = Arc::new(clip_29_97(100, 143));
    let tags = play(ClipLoop::new(clip, 0, false), u64::MAX);
    assert_eq!(times(&tags, Track::Video).len(), 100);
    assert!(tags.iter().all(|tag| tag.at_ms < 3336));
}

#[test]
fn a_clip_that_cannot_be_played_says_why() {
    let header = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    let with = |tags: &[Vec<u8>]| Clip::from_flv([vec![header.clone()], tags.to_vec()].concat().concat().into()).err();
    assert_eq!(with(&[]), Some(ClipError::NoFrames));
    let h263 = ClipError::Codec {
        track: Track::Video,
        id: 2,
    };
    assert_eq!(with(&[tag(9, 0, &[0x12, 0, 0])]), Some(h263));
    let mp3 = ClipError::Codec {
        track: Track::Audio,
        id: 2,
    };
    assert_eq!(with(&[tag(8, 0, &[0x2F, 0, 0])]), Some(mp3));
    let headless = ClipError::NoHeader { track: Track::Video };
    assert_eq!(with(&[tag(9, 0, &[0x17, 1, 0, 0, 0])]), Some(headless));
    let frame = |ms| tag(9, ms, &[0x17, 1, 0, 0, 0]);
    let back = ClipError::TimeGoesBack { at_ms: 10 };
    assert_eq!(with(&[tag(9, 0, &AVC_HEADER), frame(50), frame(10)]), Some(back));
    let bad_rate = [tag(8, 0, &[0xAF, 0, 0x17, 0x90]), tag(8, 0, &[0xAF, 1, 0])];
    assert_eq!(with(&bad_rate), Some(ClipError::AudioConfig));
}
