use proptest::prelude::*;

use super::*;

/// SVT-AV1, Main@2.1, 640x360, as sent over RTMP.
pub(crate) const SVT_360P: &[u8] = &[
    0x81, 0x01, 0x0c, 0x00, 0x0a, 0x0c, 0x02, 0x00, 0x00, 0x0d, 0x26, 0x27, 0xfb, 0x38, 0x05, 0xf0, 0x00, 0x80,
];
/// The start of its first temporal unit: sequence header and a key frame, cut to five bytes of payload.
const KEY_UNIT: &[u8] = &[
    0x0a, 0x0c, 0x02, 0x00, 0x00, 0x0d, 0x26, 0x27, 0xfb, 0x38, 0x95, 0xf2, 0x00, 0x80, 0x32, 0x05, 0x10, 0x00, 0x85,
    0x80, 0x80,
];

fn parse(record: &[u8]) -> Result<Av1Config, Av1Error> {
    Av1Config::parse(Bytes::copy_from_slice(record))
}

/// A record whose sequence header has these (value, bits) fields.
fn record(fields: &[(u32, usize)]) -> Vec<u8> {
    let text: String = fields.iter().map(|(value, bits)| format!("{value:0bits$b}")).collect();
    let payload: Vec<u8> = text
        .as_bytes()
        .chunks(8)
        .map(|byte| u8::from_str_radix(&format!("{:0<8}", String::from_utf8_lossy(byte)), 2).unwrap())
        .collect();
    let mut record = vec![0x81, 0, 0, 0, 0x0a, payload.len() as u8];
    record.extend(payload);
    record
}

/// A header up to the coding tools: one operating point of this level, 1920x1080, 60 frames per second.
fn head(profile: u32, level: u32) -> Vec<(u32, usize)> {
    let mut fields = vec![(profile, 3), (0, 1), (0, 1)];
    fields.extend([(1, 1), (1, 32), (60, 32), (1, 1), (1, 1)]); // timing: uvlc 0
    fields.extend([(1, 1), (9, 5), (1, 32), (9, 5), (9, 5)]); // decoder model
    fields.extend([(1, 1), (0, 5), (0, 12), (level, 5)]);
    if level > 7 {
        fields.push((1, 1));
    }
    fields.extend([(1, 1), (3, 10), (3, 10), (0, 1), (1, 1), (7, 4)]);
    fields.extend([(10, 4), (10, 4), (1919, 11), (1079, 11), (1, 1), (0, 7)]);
    fields.extend([
        (0, 3),
        (0, 4),
        (1, 1),
        (0, 2),
        (0, 1),
        (1, 1),
        (0, 1),
        (1, 1),
        (6, 3),
        (0, 3),
    ]);
    fields
}

#[test]
fn what_svt_av1_sends() {
    let config = parse(SVT_360P).unwrap();
    assert_eq!((config.width, config.height), (640, 360));
    assert_eq!(config.codec_string(), "av01.0.01M.08");
    assert_eq!((config.frame_duration, config.range()), (None, VideoRange::Sdr));
    assert_eq!(config.is_key(KEY_UNIT), Some(true));
}

#[test]
fn ten_bit_high_tier_tells_its_colours() {
    let mut fields = head(0, 13);
    fields.extend([(1, 1), (0, 1), (1, 1), (9, 8), (16, 8), (9, 8), (0, 1), (2, 2)]);
    let config = parse(&record(&fields)).unwrap();
    assert_eq!((config.width, config.height), (1920, 1080));
    assert_eq!(config.frame_duration, Some((1, 60)));
    assert_eq!(config.codec_string(), "av01.0.13H.10.0.112.09.16.09.0");
    assert_eq!(config.range(), VideoRange::Pq);
}

#[test]
fn profiles_imply_their_subsampling() {
    let string = |profile, color: &[(u32, usize)]| {
        let mut fields = head(profile, 4);
        fields.extend(color);
        parse(&record(&fields)).unwrap().codec_string()
    };
    assert_eq!(string(1, &[(0, 1), (0, 1), (0, 1)]), "av01.1.04M.08.0.000.02.02.02.0");
    let professional = [(1, 1), (1, 1), (0, 1), (0, 1), (0, 1), (1, 1), (0, 1)];
    assert_eq!(string(2, &professional), "av01.2.04M.12.0.100.02.02.02.0");
    let monochrome = [(0, 1), (1, 1), (0, 1), (1, 1)];
    assert_eq!(string(0, &monochrome), "av01.0.04M.08.1.110.02.02.02.1");
    let screen = [(0, 1), (1, 1), (1, 8), (13, 8), (0, 8)];
    assert_eq!(string(1, &screen), "av01.1.04M.08.0.000.01.13.00.1");
}

#[test]
fn a_still_picture_header_is_short() {
    let fields = [
        (0, 3),
        (1, 1),
        (1, 1),
        (5, 5),
        (7, 4),
        (6, 4),
        (199, 8),
        (99, 7),
        (0, 3),
        (0, 3),
        (0, 1),
        (0, 1),
        (0, 1),
        (0, 1),
        (0, 2),
    ];
    let config = parse(&record(&fields)).unwrap();
    assert_eq!((config.width, config.height, config.level), (200, 100, 5));
    assert_eq!(config.is_key(&[0x32, 0x01, 0x00]), Some(true));
}

#[test]
fn only_a_shown_key_frame_is_one() {
    let config = parse(SVT_360P).unwrap();
    let frame = |first: u8| config.is_key(&[0x12, 0x00, 0x32, 0x02, first, 0]);
    assert_eq!(frame(0b0001_0000), Some(true));
    assert_eq!(frame(0b0000_0000), Some(false), "not shown");
    assert_eq!(frame(0b0011_0000), Some(false), "inter frame");
    assert_eq!(frame(0b0101_0000), Some(false), "intra only");
    assert_eq!(frame(0b1000_0000), Some(false), "shows an existing frame");
    // A frame header on its own, behind an extension byte, without a size.
    assert_eq!(config.is_key(&[0x1c, 0x00, 0x10]), Some(true));
    // The first frame decides.
    assert_eq!(config.is_key(&[0x32, 1, 0x30, 0x32, 1, 0x10]), Some(false));
    assert_eq!(config.is_key(&[0x12, 0x00]), Some(false));
}

#[test]
fn units_that_do_not_add_up_are_malformed() {
    let config = parse(SVT_360P).unwrap();
    let lies = [
        &[0x32, 0x05, 0x10][..],
        &[0xb2, 0x01, 0x10],
        &[0x32],
        &[0x36],
        &[0x32, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x32, 0xff, 0xff, 0xff, 0xff, 0x7f],
    ];
    for lie in lies {
        assert_eq!(config.is_key(lie), None, "{lie:x?}");
    }
}

#[test]
fn lies_are_typed() {
    assert_eq!(parse(&[0x81, 0, 0]), Err(Av1Error::Truncated));
    assert_eq!(parse(&[0x01, 0, 0, 0]), Err(Av1Error::Version(1)));
    assert_eq!(parse(&[0x81, 0, 0, 0]), Err(Av1Error::NoSequenceHeader));
    assert_eq!(parse(&[0x81, 0, 0, 0, 0x0a, 99]), Err(Av1Error::NoSequenceHeader));
    assert_eq!(parse(&[0x81, 0, 0, 0, 0x0a, 1, 0]), Err(Av1Error::SequenceHeader));
    assert_eq!(parse(&[0; 5000]), Err(Av1Error::TooLong(5000)));
}

proptest! {
    #[test]
    fn no_record_panics(tail in prop::collection::vec(any::<u8>(), 0..60), unit in prop::collection::vec(any::<u8>(), 0..30)) {
        let record = [&[0x81, 0, 0, 0, 0x0a, tail.len() as u8], &tail[..]].concat();
        if let Ok(config) = parse(&record) {
            prop_assert!(config.width > 0 && config.height > 0);
            prop_assert!(config.codec_string().starts_with("av01."));
        }
        let _ = parse(SVT_360P).unwrap().is_key(&unit);
    }
}
