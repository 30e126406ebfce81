//! AV1: the `av1C` record (AV1 Codec ISO Media File Format Binding, section 2.3), its sequence header, and which
//! temporal units are key frames (AV1 Bitstream Specification, section 5). Pure.
//!
//! Own code because the available parsers add and subtract unchecked values of the peer's.
//!
//! Before this: `ingest/flv.rs`. After this: `package/fmp4`.

use bytes::Bytes;

pub mod headers;

use self::headers::Tools;
use super::{
    VideoRange,
    bits::{Bits, Ended},
    frame_duration, picture_size, video_range,
};

/// Longest record kept, in bytes: real ones have below 100.
const RECORD_MAX: usize = 4096;
/// OBU types (section 6.2.2).
const OBU_SEQUENCE_HEADER: u8 = 1;
const OBU_FRAME_HEADER: u8 = 3;
const OBU_FRAME: u8 = 6;
/// colour_primaries and the like: nothing is said.
const UNSPECIFIED: u8 = 2;

/// A parsed AV1 decoder configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Av1Config {
    /// The record as the encoder sent it: the payload of the `av1C` box.
    pub record: Bytes,
    /// 0 = Main, 1 = High, 2 = Professional.
    pub profile: u8,
    /// seq_level_idx_0: 8 is level 4.0.
    pub level: u8,
    /// True for the high tier.
    pub high_tier: bool,
    /// Largest picture of the sequence in pixels.
    pub width: u16,
    pub height: u16,
    /// From timing info, if every picture lasts equally long, as (numerator, denominator) of a second.
    pub frame_duration: Option<(u32, u32)>,
    pub color: Color,
    /// What frame headers depend on.
    pub tools: Tools,
    /// reduced_still_picture_header: every frame is a key frame and does not say so.
    still: bool,
}

/// What the sequence header says of its samples (section 5.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color {
    /// 8, 10 or 12.
    pub bit_depth: u8,
    pub monochrome: bool,
    /// Horizontal and vertical: (true, true) is 4:2:0.
    pub subsampling: (bool, bool),
    /// Where chroma samples are; 0 unknown.
    pub chroma_position: u8,
    pub primaries: u8,
    pub transfer: u8,
    pub matrix: u8,
    pub full_range: bool,
}

/// Why a record was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Av1Error {
    #[error("AV1 configuration ends too early")]
    Truncated,
    #[error("AV1 configuration of {0} bytes, at most {RECORD_MAX} are accepted")]
    TooLong(usize),
    #[error("AV1 configuration begins with {0:#04x}, only 0x81 is known")]
    Version(u8),
    #[error("AV1 configuration without a sequence header")]
    NoSequenceHeader,
    #[error("AV1 sequence header is broken")]
    SequenceHeader,
    #[error("picture of {0}x{1} pixels")]
    PictureSize(u32, u32),
}

impl From<Ended> for Av1Error {
    fn from(_: Ended) -> Self {
        Self::SequenceHeader
    }
}

impl Av1Config {
    /// Reads an `av1C` record.
    pub fn parse(record: Bytes) -> Result<Self, Av1Error> {
        if record.len() > RECORD_MAX {
            return Err(Av1Error::TooLong(record.len()));
        }
        let (&[version, _, _, _], units) = record.split_first_chunk().ok_or(Av1Error::Truncated)?;
        if version != 0x81 {
            return Err(Av1Error::Version(version));
        }
        let header = Units(units)
            .find_map(|unit| unit.ok().filter(|unit| unit.kind == OBU_SEQUENCE_HEADER))
            .ok_or(Av1Error::NoSequenceHeader)?;
        let header = SequenceHeader::parse(header.payload)?;
        let (width, height) = (header.width, header.height);
        let (width, height) = picture_size(width, height).ok_or(Av1Error::PictureSize(width, height))?;
        Ok(Self {
            profile: header.profile,
            level: header.operation.level,
            high_tier: header.operation.high_tier,
            width,
            height,
            frame_duration: header.operation.frame_duration,
            color: header.color,
            tools: header.tools,
            still: header.still,
            record,
        })
    }

    /// `av01.0.04M.08`, with the colour fields where they are not the defaults (section 5 of the binding).
    pub fn codec_string(&self) -> String {
        let color = &self.color;
        let tier = if self.high_tier { 'H' } else { 'M' };
        let mut text = format!("av01.{}.{:02}{tier}.{:02}", self.profile, self.level, color.bit_depth);
        let ordinary = |value: u8| matches!(value, 1 | UNSPECIFIED);
        let plain = !color.monochrome
            && color.subsampling == (true, true)
            && !color.full_range
            && [color.primaries, color.transfer, color.matrix]
                .into_iter()
                .all(ordinary);
        if !plain {
            let (x, y) = color.subsampling;
            let position = if x && y { color.chroma_position } else { 0 };
            text.push_str(&format!(
                ".{}.{}{}{position}.{:02}.{:02}.{:02}.{}",
                u8::from(color.monochrome),
                u8::from(x),
                u8::from(y),
                color.primaries,
                color.transfer,
                color.matrix,
                u8::from(color.full_range)
            ));
        }
        text
    }

    pub const fn range(&self) -> VideoRange {
        video_range(self.color.transfer)
    }

    /// Whether a temporal unit begins with a shown key frame. `None`: its units do not add up.
    pub fn is_key(&self, temporal_unit: &[u8]) -> Option<bool> {
        let mut key = None;
        for unit in Units(temporal_unit) {
            let unit = unit.ok()?;
            if matches!(unit.kind, OBU_FRAME_HEADER | OBU_FRAME) && key.is_none() {
                key = Some(self.still || is_shown_key_frame(unit.payload));
            }
        }
        Some(key.unwrap_or(false))
    }
}

/// uncompressed_header (section 5.9.2): show_existing_frame, frame_type, show_frame.
fn is_shown_key_frame(header: &[u8]) -> bool {
    const KEY_FRAME: u8 = 0;
    header
        .first()
        .is_some_and(|first| first >> 7 == 0 && first >> 5 & 3 == KEY_FRAME && first >> 4 & 1 == 1)
}

/// One open bitstream unit.
struct Unit<'a> {
    kind: u8,
    payload: &'a [u8],
}

/// Splits a run of units (section 5.3). Ends after the first error.
struct Units<'a>(&'a [u8]);

impl<'a> Units<'a> {
    fn read(&mut self) -> Result<Unit<'a>, Ended> {
        let (&header, mut rest) = self.0.split_first().ok_or(Ended)?;
        if header & 0x80 != 0 {
            return Err(Ended);
        }
        if header & 0x04 != 0 {
            rest = rest.get(1..).ok_or(Ended)?; // temporal and spatial layer
        }
        // Without a size it reaches to the end.
        let size = if header & 0x02 != 0 {
            leb128(&mut rest)?
        } else {
            rest.len()
        };
        let (payload, rest) = rest.split_at_checked(size).ok_or(Ended)?;
        self.0 = rest;
        Ok(Unit {
            kind: header >> 3 & 0x0f,
            payload,
        })
    }
}

impl<'a> Iterator for Units<'a> {
    type Item = Result<Unit<'a>, Ended>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let unit = self.read();
        if unit.is_err() {
            self.0 = &[];
        }
        Some(unit)
    }
}

/// Section 4.10.5: seven bits per byte, the lowest first, at most 32 bits of value.
fn leb128(rest: &mut &[u8]) -> Result<usize, Ended> {
    let mut value: u64 = 0;
    for place in 0..8 {
        let (&byte, tail) = rest.split_first().ok_or(Ended)?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return u32::try_from(value).map(|value| value as usize).map_err(|_| Ended);
        }
    }
    Err(Ended)
}

/// sequence_header_obu (section 5.5.1), as far as its colours.
struct SequenceHeader {
    profile: u8,
    operation: Operation,
    width: u32,
    height: u32,
    color: Color,
    tools: Tools,
    still: bool,
}

/// The first operating point, which is that of the whole stream, and the rhythm.
#[derive(Default)]
struct Operation {
    level: u8,
    high_tier: bool,
    frame_duration: Option<(u32, u32)>,
    /// Frame headers tell of a decoder model.
    has_model: bool,
}

impl SequenceHeader {
    fn parse(payload: &[u8]) -> Result<Self, Ended> {
        let mut bits = Bits::new(payload);
        let profile = bits.byte(3)?;
        bits.skip(1);
        let still = bits.flag()?;
        let operation = if still {
            Operation {
                level: bits.byte(5)?,
                ..Operation::default()
            }
        } else {
            operating_points(&mut bits)?
        };
        let (width_bits, height_bits) = (bits.take(4)? + 1, bits.take(4)? + 1);
        let width = bits.take(width_bits)? + 1;
        let height = bits.take(height_bits)? + 1;
        let has_frame_ids = !still && bits.flag()?;
        if has_frame_ids {
            bits.skip(4 + 3); // their lengths
        }
        let tools = Tools {
            is_elaborate: still || has_frame_ids || operation.has_model,
            ..coding_tools(&mut bits, still)?
        };
        Ok(Self {
            tools,
            profile,
            operation,
            width,
            height,
            color: Color::parse(&mut bits, profile)?,
            still,
        })
    }
}

/// Timing, decoder model and all operating points.
fn operating_points(bits: &mut Bits<'_>) -> Result<Operation, Ended> {
    let (mut duration, mut delay_bits) = (None, None);
    if bits.flag()? {
        let (units, scale) = (bits.take(32)?, bits.take(32)?);
        if bits.flag()? {
            let ticks = bits.ue()?.saturating_add(1); // uvlc() has the form of ue(v)
            duration = units.checked_mul(ticks).and_then(|units| frame_duration(units, scale));
        }
        if bits.flag()? {
            delay_bits = Some(bits.take(5)? as usize + 1);
            bits.skip(32 + 5 + 5);
        }
    }
    let delays_shown = bits.flag()?;
    let count = bits.take(5)? + 1;
    let mut first = None;
    for _ in 0..count {
        bits.skip(12);
        let level = bits.byte(5)?;
        let high_tier = level > 7 && bits.flag()?;
        if let Some(delay_bits) = delay_bits
            && bits.flag()?
        {
            bits.skip(2 * delay_bits + 1);
        }
        if delays_shown && bits.flag()? {
            bits.skip(4);
        }
        first = first.or(Some((level, high_tier)));
    }
    let (level, high_tier) = first.ok_or(Ended)?;
    Ok(Operation {
        level,
        high_tier,
        frame_duration: duration,
        has_model: delay_bits.is_some(),
    })
}

/// From use_128x128_superblock to enable_restoration.
fn coding_tools(bits: &mut Bits<'_>, still: bool) -> Result<Tools, Ended> {
    let mut tools = Tools::default();
    bits.skip(3); // superblock size, filter intra, intra edge filter
    if !still {
        bits.skip(4); // compounds, warped motion, dual filter
        let order_hints = bits.flag()?;
        if order_hints {
            bits.skip(2); // joint compound, reference frame vectors
        }
        // seq_choose_screen_content_tools, else seq_force_screen_content_tools; then the same for integer vectors.
        tools.screen_content = Tools::choice(bits)?;
        if tools.screen_content > 0 {
            tools.integer_vectors = Tools::choice(bits)?;
        }
        if order_hints {
            tools.order_hint_bits = bits.byte(3)? + 1;
        }
    }
    bits.skip(3); // superres, cdef, restoration
    Ok(tools)
}

impl Color {
    /// color_config (section 5.5.2).
    fn parse(bits: &mut Bits<'_>, profile: u8) -> Result<Self, Ended> {
        const BT_709: u8 = 1;
        const SRGB: u8 = 13;
        const IDENTITY: u8 = 0;
        let high = bits.flag()?;
        let bit_depth = match (profile, high) {
            (2, true) if bits.flag()? => 12,
            (_, true) => 10,
            (_, false) => 8,
        };
        let monochrome = profile != 1 && bits.flag()?;
        let [primaries, transfer, matrix] = if bits.flag()? {
            [bits.byte(8)?, bits.byte(8)?, bits.byte(8)?]
        } else {
            [UNSPECIFIED; 3]
        };
        let mut color = Self {
            bit_depth,
            monochrome,
            subsampling: (true, true),
            chroma_position: 0,
            primaries,
            transfer,
            matrix,
            full_range: false,
        };
        if !monochrome && [primaries, transfer, matrix] == [BT_709, SRGB, IDENTITY] {
            (color.full_range, color.subsampling) = (true, (false, false));
            return Ok(color);
        }
        color.full_range = bits.flag()?;
        if monochrome {
            return Ok(color);
        }
        color.subsampling = match (profile, bit_depth) {
            (0, _) => (true, true),
            (1, _) => (false, false),
            (_, 12) => {
                let wide = bits.flag()?;
                (wide, wide && bits.flag()?)
            }
            _ => (true, false),
        };
        if color.subsampling == (true, true) {
            color.chroma_position = bits.byte(2)?;
        }
        Ok(color)
    }
}

#[cfg(test)]
pub(crate) mod tests;
