//! What of the parameter sets slice headers and slice data depend on (ITU-T H.265 sections 7.3.2.2, 7.3.2.3 and 7.3.6.1), and
//! the order of pictures as slice headers tell it. Pure.
//!
//! Before this: `codec/hevc.rs` (the record). After this: `package/filler/hevc.rs`.

use super::{
    HevcConfig, HevcError, NAL_PPS, NAL_RANDOM_ACCESS, NAL_SPS, ParameterSets,
    sps::{self, payload},
};
use crate::codec::bits::Bits;

/// Instantaneous decoder refresh: picture order begins at zero.
const IDR: std::ops::RangeInclusive<u8> = 19..=20;
/// Nearest and furthest distance of block sizes in powers of two (section 7.4.3.2.1).
const BLOCK_BITS: std::ops::RangeInclusive<u32> = 3..=6;

/// From the sequence parameter set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    /// In luma samples, uncropped.
    pub width: u32,
    pub height: u32,
    pub has_chroma: bool,
    /// Bits of slice_pic_order_cnt_lsb.
    pub order_bits: u32,
    /// Sizes of the smallest coding block and of the coding tree block, in powers of two.
    pub smallest_block_bits: u32,
    pub tree_block_bits: u32,
    pub adaptive_offset: bool,
    /// How many short-term reference picture sets it lists.
    pub reference_sets: u32,
    /// lt_idx_sps is told where this is above zero; `None`: there are no long-term reference pictures.
    pub long_term_references: Option<u32>,
    pub temporal_vectors: bool,
}

/// From the picture parameter set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    pub id: u32,
    pub output_flag: bool,
    pub extra_header_bits: u32,
    pub cabac_init_flag: bool,
    pub initial_qp: i32,
    pub chroma_qp_offsets: bool,
    pub weighted_prediction: bool,
    pub bypass: bool,
    /// Each row of tree blocks is a run of bits of its own.
    pub wavefronts: bool,
    pub filter_across_slices: bool,
    pub deblocking_override: bool,
    pub deblocking_off: bool,
    pub header_extension: bool,
}

/// What a slice header says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    pub picture_set: u32,
    /// Begins a new order of pictures.
    pub refresh: bool,
    /// Other pictures of its temporal layer may refer to it.
    pub reference: bool,
    pub temporal_layer: u8,
    /// slice_pic_order_cnt_lsb.
    pub order: u32,
}

impl HevcConfig {
    /// Its parameter sets, as far as held pictures need them. `None`: they use tools that those don't know.
    pub fn coding(&self) -> Option<(Sequence, Picture)> {
        let (_, arrays) = self.record.split_first_chunk::<23>()?;
        let count = *self.record.get(22)?;
        let (mut sequence, mut picture) = (None, None);
        for (kind, unit) in ParameterSets::units(arrays, count).filter_map(Result::ok) {
            match kind {
                NAL_SPS => sequence = sequence.or_else(|| Sequence::parse(unit).ok()),
                NAL_PPS => picture = picture.or_else(|| Picture::parse(unit).ok().flatten()),
                _ => {}
            }
        }
        sequence.zip(picture)
    }
}

impl Sequence {
    pub(super) fn parse(unit: &[u8]) -> Result<Self, HevcError> {
        let payload = payload(unit)?;
        let mut bits = Bits::new(&payload);
        bits.skip(4);
        let beside_first = bits.take(3)? as usize;
        bits.skip(1);
        sps::profile_tier_level(&mut bits, beside_first)?;
        bits.ue()?; // id
        let chroma = bits.ue()?;
        if chroma == 3 && bits.flag()? {
            return Err(HevcError::Sps); // separate planes
        }
        let (width, height) = (bits.ue()?, bits.ue()?);
        if bits.flag()? {
            sps::pass_codes(&mut bits, 4)?;
        }
        sps::pass_codes(&mut bits, 2)?; // bit depths
        let order_bits = bits.ue()?.saturating_add(4);
        let told = if bits.flag()? { beside_first + 1 } else { 1 };
        sps::pass_codes(&mut bits, 3 * told)?;
        let smallest_block_bits = bits.ue()?.saturating_add(3);
        let tree_block_bits = smallest_block_bits.saturating_add(bits.ue()?);
        let plausible = BLOCK_BITS.contains(&smallest_block_bits) && BLOCK_BITS.contains(&tree_block_bits);
        if !plausible || order_bits > 16 || width > 1 << 14 || height > 1 << 14 {
            return Err(HevcError::Sps);
        }
        sps::pass_codes(&mut bits, 4)?; // transform blocks
        if bits.flag()? && bits.flag()? {
            sps::scaling_lists(&mut bits)?;
        }
        bits.skip(1); // asymmetric partitions
        let adaptive_offset = bits.flag()?;
        if bits.flag()? {
            bits.skip(8);
            sps::pass_codes(&mut bits, 2)?;
            bits.skip(1);
        }
        let reference_sets = sps::reference_sets(&mut bits)?;
        let mut long_term_references = None;
        if bits.flag()? {
            let count = sps::bounded(bits.ue()?, sps::LONG_TERM_MAX)?;
            bits.skip(count as usize * (order_bits as usize + 1));
            long_term_references = Some(count);
        }
        Ok(Self {
            width,
            height,
            has_chroma: chroma != 0,
            order_bits,
            smallest_block_bits,
            tree_block_bits,
            adaptive_offset,
            reference_sets,
            long_term_references,
            temporal_vectors: bits.flag()?,
        })
    }
}

impl Picture {
    /// `None`: it has tiles, or extensions that slice headers depend on.
    pub(super) fn parse(unit: &[u8]) -> Result<Option<Self>, HevcError> {
        let payload = payload(unit)?;
        let mut bits = Bits::new(&payload);
        let id = bits.ue()?;
        bits.ue()?; // sequence parameter set
        bits.skip(1); // dependent slices: held pictures have none
        let output_flag = bits.flag()?;
        let extra_header_bits = bits.take(3)?;
        bits.skip(1); // sign hiding
        let cabac_init_flag = bits.flag()?;
        sps::pass_codes(&mut bits, 2)?; // reference pictures
        let initial_qp = 26 + signed(bits.ue()?);
        bits.skip(2); // constrained intra prediction, transform skip
        if bits.flag()? {
            bits.ue()?; // depth of quantiser changes
        }
        sps::pass_codes(&mut bits, 2)?; // chroma offsets
        let chroma_qp_offsets = bits.flag()?;
        let weighted_prediction = bits.flag()?;
        bits.skip(1); // the same in both directions
        let bypass = bits.flag()?;
        let tiles = bits.flag()?;
        let wavefronts = bits.flag()?;
        if tiles {
            return Ok(None);
        }
        let filter_across_slices = bits.flag()?;
        let (mut deblocking_override, mut deblocking_off) = (false, false);
        if bits.flag()? {
            deblocking_override = bits.flag()?;
            deblocking_off = bits.flag()?;
            if !deblocking_off {
                sps::pass_codes(&mut bits, 2)?;
            }
        }
        if bits.flag()? {
            sps::scaling_lists(&mut bits)?;
        }
        bits.skip(1); // lists_modification: of no consequence with one reference picture
        bits.ue()?; // merge level
        let header_extension = bits.flag()?;
        let extensions = bits.flag()?;
        Ok((!extensions).then_some(Self {
            id,
            output_flag,
            extra_header_bits,
            cabac_init_flag,
            initial_qp,
            chroma_qp_offsets,
            weighted_prediction,
            bypass,
            wavefronts,
            filter_across_slices,
            deblocking_override,
            deblocking_off,
            header_extension,
        }))
    }
}

/// Reads the beginning of a picture's first slice; `None` for every other NAL unit.
pub fn slice(sequence: &Sequence, picture: &Picture, unit: &[u8]) -> Option<Slice> {
    let &[first, second, ..] = unit else { return None };
    let kind = first >> 1 & 0x3f;
    if kind >= 32 || (10..=15).contains(&kind) {
        return None;
    }
    let payload = payload(unit.get(..64).unwrap_or(unit)).ok()?;
    let mut bits = Bits::new(&payload);
    if !bits.flag().ok()? {
        return None;
    }
    if NAL_RANDOM_ACCESS.contains(&kind) {
        bits.skip(1);
    }
    let picture_set = bits.ue().ok()?;
    bits.skip(picture.extra_header_bits as usize);
    bits.ue().ok()?; // slice type
    if picture.output_flag {
        bits.skip(1);
    }
    let refresh = IDR.contains(&kind);
    Some(Slice {
        picture_set,
        refresh,
        // Below 16, odd types are references (table 7-1).
        reference: kind >= 16 || kind % 2 == 1,
        temporal_layer: (second & 7).saturating_sub(1),
        order: if refresh {
            0
        } else {
            bits.take(sequence.order_bits).ok()?
        },
    })
}

/// `se(v)` from its `ue(v)` (section 9.2.2).
fn signed(code: u32) -> i32 {
    let half = i32::try_from(code.div_ceil(2)).unwrap_or(0);
    if code % 2 == 1 { half } else { -half }
}
