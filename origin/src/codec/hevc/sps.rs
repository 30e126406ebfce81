//! The sequence parameter set (ITU-T H.265 sections 7.3.2.2 and E.2.1), as far as size, shape, rhythm and brightness
//! need it. Own code because the available parsers subtract unchecked values of the peer's.
//!
//! Used by `codec/hevc.rs`.

use h264_reader::rbsp;

use super::HevcError;
use crate::codec::{
    VideoRange,
    bits::{Bits, Ended},
    frame_duration, picture_size, video_range,
};

/// Longest set looked into, in bytes: real ones have below 200.
const SPS_MAX: usize = 4096;
/// Most short-term reference picture sets (section 7.4.3.2.1).
const REFERENCE_SETS_MAX: u32 = 64;
/// Most pictures in one reference set: the size of a decoder's picture buffer.
const REFERENCES_MAX: u32 = 16;
/// Most long-term reference pictures (section 7.4.3.2.1).
pub(super) const LONG_TERM_MAX: u32 = 32;

/// aspect_ratio_idc that says that the ratio itself follows.
const EXTENDED_ASPECT: u8 = 255;
/// Ratios by aspect_ratio_idc (table E.1); 0 is unspecified.
const ASPECTS: [(u16, u16); 17] = [
    (1, 1),
    (1, 1),
    (12, 11),
    (10, 11),
    (16, 11),
    (40, 33),
    (24, 11),
    (20, 11),
    (32, 11),
    (80, 33),
    (18, 11),
    (15, 11),
    (64, 33),
    (160, 99),
    (4, 3),
    (3, 2),
    (2, 1),
];

/// What a set says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sps {
    pub width: u16,
    pub height: u16,
    pub sample_aspect: (u16, u16),
    pub frame_duration: Option<(u32, u32)>,
    pub range: VideoRange,
}

/// What a decoder configuration record repeats of a set (14496-15 section 8.3.3.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// general_profile_space to general_level_idc.
    pub profile_tier_level: [u8; 12],
    /// 1..=7.
    pub sub_layers: u8,
    pub nested: bool,
    pub chroma: u8,
    pub luma_bits_minus8: u8,
    pub chroma_bits_minus8: u8,
}

/// Reads the same NAL unit for the record.
pub(super) fn shape(unit: &[u8]) -> Result<Shape, HevcError> {
    let payload = payload(unit)?;
    let mut bits = Bits::new(&payload);
    bits.skip(4); // video parameter set id
    let beside_first = bits.byte(3)?;
    let nested = bits.flag()?;
    let profile_tier_level = *payload.get(1..).and_then(<[u8]>::first_chunk).ok_or(HevcError::Sps)?;
    self::profile_tier_level(&mut bits, usize::from(beside_first))?;
    bits.ue()?; // id
    let chroma = bits.ue()?;
    if chroma == 3 {
        bits.skip(1); // separate planes
    }
    let cropped = {
        let _coded = (bits.ue()?, bits.ue()?);
        bits.flag()?
    };
    if cropped {
        for _ in 0..4 {
            bits.ue()?;
        }
    }
    let depths = (bits.ue()?, bits.ue()?);
    let bounded = |value: u32, max: u8| u8::try_from(value).ok().filter(|value| *value <= max);
    Ok(Shape {
        profile_tier_level,
        sub_layers: (beside_first + 1).min(7),
        nested,
        chroma: bounded(chroma, 3).ok_or(HevcError::Sps)?,
        luma_bits_minus8: bounded(depths.0, 7).ok_or(HevcError::Sps)?,
        chroma_bits_minus8: bounded(depths.1, 7).ok_or(HevcError::Sps)?,
    })
}

/// What stands behind the two header bytes of a NAL unit, without emulation prevention.
pub(super) fn payload(unit: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>, HevcError> {
    // The library strips one header byte; the other goes first.
    let after_first = match unit {
        [_, rest @ ..] if (2..=SPS_MAX).contains(&rest.len()) => rest,
        _ => return Err(HevcError::Sps),
    };
    rbsp::decode_nal(after_first).map_err(|_| HevcError::Sps)
}

/// Reads a whole NAL unit, its two header bytes included.
pub(super) fn parse(unit: &[u8]) -> Result<Sps, HevcError> {
    let payload = payload(unit)?;
    let mut bits = Bits::new(&payload);
    let (width, height, sub_layers) = size(&mut bits)?;
    let mut sps = Sps {
        width,
        height,
        sample_aspect: (1, 1),
        frame_duration: None,
        range: VideoRange::Sdr,
    };
    // The rest is welcome but not needed: a set that goes wrong there still names its picture.
    let _ = usability(&mut bits, sub_layers, &mut sps);
    Ok(sps)
}

/// From the start of the payload to the end of the conformance window: width, height, sub-layers beside the first.
fn size(bits: &mut Bits<'_>) -> Result<(u16, u16, usize), HevcError> {
    bits.skip(4); // video parameter set id
    let sub_layers = bits.take(3)? as usize;
    bits.skip(1);
    profile_tier_level(bits, sub_layers)?;
    bits.ue()?; // id
    let chroma = bits.ue()?;
    if chroma == 3 {
        bits.skip(1); // separate planes
    }
    let (coded_width, coded_height) = (bits.ue()?, bits.ue()?);
    let mut window = [0; 4];
    if bits.flag()? {
        for side in &mut window {
            *side = bits.ue()?;
        }
    }
    // Offsets count chroma samples (table 6-1).
    let wide = if matches!(chroma, 1 | 2) { 2 } else { 1 };
    let high = if chroma == 1 { 2 } else { 1 };
    let [left, right, top, bottom] = window;
    let width = shown(coded_width, wide, left, right);
    let height = shown(coded_height, high, top, bottom);
    let (width, height) = picture_size(width, height).ok_or(HevcError::PictureSize(width, height))?;
    Ok((width, height, sub_layers))
}

/// What is left of a side after cropping both its ends.
fn shown(coded: u32, unit: u64, one: u32, other: u32) -> u32 {
    let cut = unit * (u64::from(one) + u64::from(other));
    u32::try_from(u64::from(coded).saturating_sub(cut)).unwrap_or(0)
}

/// Section 7.3.3: passed over, the record tells the same.
pub(super) fn profile_tier_level(bits: &mut Bits<'_>, sub_layers: usize) -> Result<(), Ended> {
    bits.skip(88 + 8);
    let mut present = [(false, false); 8];
    for layer in present.iter_mut().take(sub_layers) {
        *layer = (bits.flag()?, bits.flag()?);
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers));
    }
    for (profile, level) in present {
        bits.skip(if profile { 88 } else { 0 });
        bits.skip(if level { 8 } else { 0 });
    }
    Ok(())
}

/// From the bit depths to the timing in the usability information.
fn usability(bits: &mut Bits<'_>, sub_layers: usize, sps: &mut Sps) -> Result<(), Ended> {
    pass_codes(bits, 2)?; // bit depths
    let order_count_bits = bits.ue()?.min(12) as usize + 4;
    let told = if bits.flag()? { sub_layers + 1 } else { 1 };
    pass_codes(bits, 3 * told)?; // buffering of each sub-layer
    pass_codes(bits, 6)?; // block sizes and depths
    if bits.flag()? && bits.flag()? {
        scaling_lists(bits)?;
    }
    bits.skip(2);
    if bits.flag()? {
        bits.skip(8); // PCM bit depths
        pass_codes(bits, 2)?;
        bits.skip(1);
    }
    reference_sets(bits)?;
    if bits.flag()? {
        let count = bounded(bits.ue()?, LONG_TERM_MAX)?;
        bits.skip(count as usize * (order_count_bits + 1));
    }
    bits.skip(2);
    if bits.flag()? {
        usability_information(bits, sps)?;
    }
    Ok(())
}

/// Passes over Exp-Golomb codes, signed or not.
pub(super) fn pass_codes(bits: &mut Bits<'_>, count: usize) -> Result<(), Ended> {
    for _ in 0..count {
        bits.ue()?;
    }
    Ok(())
}

pub(super) fn bounded(value: u32, most: u32) -> Result<u32, Ended> {
    if value <= most { Ok(value) } else { Err(Ended) }
}

/// Section 7.3.4.
pub(super) fn scaling_lists(bits: &mut Bits<'_>) -> Result<(), Ended> {
    for (matrices, coefficients) in [(6, 16), (6, 64), (6, 1 + 64), (2, 1 + 64)] {
        for _ in 0..matrices {
            let own = bits.flag()?;
            pass_codes(bits, if own { coefficients } else { 1 })?;
        }
    }
    Ok(())
}

/// Section 7.3.7, for every set of the sequence: how many there are. Each may be predicted from the one before it.
pub(super) fn reference_sets(bits: &mut Bits<'_>) -> Result<u32, Ended> {
    let count = bounded(bits.ue()?, REFERENCE_SETS_MAX)?;
    let mut pictures = 0;
    for index in 0..count {
        if index > 0 && bits.flag()? {
            bits.skip(1);
            bits.ue()?;
            let mut kept = 0;
            for _ in 0..=pictures {
                let used = bits.flag()?;
                if used || bits.flag()? {
                    kept += 1;
                }
            }
            pictures = kept;
        } else {
            let before = bounded(bits.ue()?, REFERENCES_MAX)?;
            let after = bounded(bits.ue()?, REFERENCES_MAX)?;
            pictures = before + after;
            for _ in 0..pictures {
                bits.ue()?;
                bits.skip(1);
            }
        }
    }
    Ok(count)
}

/// Section E.2.1, up to the timing.
fn usability_information(bits: &mut Bits<'_>, sps: &mut Sps) -> Result<(), Ended> {
    if bits.flag()? {
        sps.sample_aspect = match bits.byte(8)? {
            EXTENDED_ASPECT => (bits.take(16)? as u16, bits.take(16)? as u16),
            known => ASPECTS.get(usize::from(known)).copied().unwrap_or((1, 1)),
        };
    }
    if bits.flag()? {
        bits.skip(1); // overscan
    }
    if bits.flag()? {
        bits.skip(4); // video format, full range
        if bits.flag()? {
            bits.skip(8); // primaries
            sps.range = video_range(bits.byte(8)?);
            bits.skip(8); // matrix
        }
    }
    if bits.flag()? {
        pass_codes(bits, 2)?; // chroma location
    }
    bits.skip(1);
    let fields = bits.flag()?;
    bits.skip(1);
    if bits.flag()? {
        pass_codes(bits, 4)?; // default display window
    }
    if bits.flag()? {
        let (units, scale) = (bits.take(32)?, bits.take(32)?);
        // A tick is a picture: half a frame where pictures are fields.
        sps.frame_duration = units
            .checked_mul(if fields { 2 } else { 1 })
            .and_then(|units| frame_duration(units, scale));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A set from (value, bits) fields; bits 0 stands for an Exp-Golomb code.
    fn built(fields: &[(u32, usize)]) -> Vec<u8> {
        let mut text = String::new();
        for &(value, bits) in fields {
            match bits {
                0 => {
                    let code = format!("{:b}", value + 1);
                    text.push_str(&"0".repeat(code.len() - 1));
                    text.push_str(&code);
                }
                _ => text.push_str(&format!("{value:0bits$b}")),
            }
        }
        text.push('1');
        let bytes = text.as_bytes().chunks(8).map(|byte| {
            let byte = format!("{:0<8}", String::from_utf8_lossy(byte));
            u8::from_str_radix(&byte, 2).unwrap()
        });
        let mut unit = vec![0x42, 0x01];
        // Emulation prevention (section 7.4.2).
        let mut zeros = 0;
        for byte in bytes {
            if zeros == 2 && byte <= 3 {
                unit.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            unit.push(byte);
        }
        unit
    }

    /// Head of a 1920x1088 set with 8 lines cropped and two sub-layers that tell nothing of themselves.
    fn head() -> Vec<(u32, usize)> {
        let mut fields = vec![(0, 4), (1, 3), (1, 1)];
        fields.extend([(0x0160, 16); 6]); // profile, tier and level
        fields.extend([(0, 2), (0, 14)]); // sub-layer flags and padding
        fields.extend([
            (0, 0),
            (1, 0),
            (1920, 0),
            (1088, 0),
            (1, 1),
            (0, 0),
            (0, 0),
            (0, 0),
            (4, 0),
        ]);
        fields
    }

    #[test]
    fn everything_a_set_may_hold_is_passed_over() {
        let mut fields = head();
        fields.extend([(0, 0), (0, 0), (4, 0), (1, 1)]); // depths, order count, every sub-layer
        fields.extend([(4, 0); 6]);
        fields.extend([(0, 0), (3, 0), (0, 0), (3, 0), (1, 0), (1, 0)]);
        fields.extend([(1, 1), (1, 1)]); // scaling lists
        for (matrices, coefficients) in [(6, 16), (6, 64), (6, 65), (2, 65)] {
            for matrix in 0..matrices {
                fields.push((matrix % 2, 1));
                fields.extend(vec![(3, 0); if matrix % 2 == 1 { coefficients } else { 1 }]);
            }
        }
        fields.extend([(0, 2), (1, 1), (7, 4), (7, 4), (0, 0), (2, 0), (0, 1)]); // PCM
        fields.extend([(2, 0), (1, 0), (1, 0), (0, 0), (1, 1), (0, 0), (1, 1)]); // two reference sets,
        fields.extend([(1, 1), (0, 1), (0, 0), (1, 1), (0, 1), (0, 1), (0, 1), (1, 1)]); // the second predicted
        fields.extend([(1, 1), (2, 0), (5, 8), (1, 1), (6, 8), (0, 1)]); // long-term pictures
        fields.extend([(0, 2), (1, 1)]);
        fields.extend([(1, 1), (255, 8), (4, 16), (3, 16)]); // aspect
        fields.extend([(1, 1), (0, 1), (1, 1), (5, 3), (0, 1), (1, 1), (9, 8), (16, 8), (9, 8)]); // PQ
        fields.extend([(1, 1), (0, 0), (0, 0), (0, 3), (1, 1), (0, 0), (0, 0), (0, 0), (0, 0)]);
        fields.extend([(1, 1), (1, 32), (50, 32)]);
        let sps = parse(&built(&fields)).unwrap();
        assert_eq!((sps.width, sps.height, sps.sample_aspect), (1920, 1080, (4, 3)));
        assert_eq!((sps.frame_duration, sps.range), (Some((1, 50)), VideoRange::Pq));
    }

    #[test]
    fn a_set_that_breaks_off_after_its_size_still_has_one() {
        let sps = parse(&built(&head())).unwrap();
        assert_eq!((sps.width, sps.height, sps.frame_duration), (1920, 1080, None));
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let with = |width, height, crop| {
            let mut fields = head();
            fields.truncate(13);
            fields.extend([(width, 0), (height, 0), (1, 1), (0, 0), (crop, 0), (0, 0), (0, 0)]);
            parse(&built(&fields))
        };
        assert_eq!(with(1920, 1080, 960), Err(HevcError::PictureSize(0, 1080)));
        assert_eq!(with(1920, 1080, u32::MAX - 1), Err(HevcError::PictureSize(0, 1080)));
        assert_eq!(with(70_000, 1080, 0), Err(HevcError::PictureSize(70_000, 1080)));
        assert_eq!(parse(&[]), Err(HevcError::Sps));
        assert_eq!(parse(&[0x42]), Err(HevcError::Sps));
        assert_eq!(parse(&[0x42, 1, 0]), Err(HevcError::Sps));
        assert_eq!(parse(&[0x42, 1, 0, 0, 0, 0, 0, 0]), Err(HevcError::Sps));
    }
}
