//! H.264 held pictures: a P picture whose macroblocks are all skipped shows the reference picture once more (ITU-T H.264
//! section 7.3.4). It costs a slice header and, with arithmetic coding, some tens of bytes. Pure.
//!
//! A held picture is a reference picture itself, so that any number of them may follow one another whatever the stream's
//! counters wrap at. What the encoder sends after them must be a key frame.

use bytes::Bytes;
use h264_reader::{
    Context,
    nal::{
        Nal, NalHeader, RefNal,
        pps::{PicParamSetId, PicParameterSet},
        slice::{PicOrderCountLsb, SliceHeader},
        sps::{ChromaFormat, FrameMbsFlags, PicOrderCntType, SeqParameterSet},
    },
};

use super::{
    bits::{BitWriter, nal_unit},
    cabac::{Encoder, Probability},
};
use crate::codec::avc::{AvcConfig, is_idr};

/// Bytes of a slice that its header surely fits in.
const HEADER_MAX: usize = 256;
/// nal_unit_type of a slice that is not IDR, of the parameter sets.
const SLICE: u8 = 1;
const SPS: u8 = 7;
const PPS: u8 = 8;
/// The same with nal_ref_idc 2: as reference pictures usually have it.
const HELD_HEADER: u8 = 2 << 5 | SLICE;
/// slice_type: all slices of the picture are P.
const ALL_P: u32 = 5;
/// Slope and offset of `mb_skip_flag` in P slices beside skipped macroblocks: ctxIdx 11, cabac_init_idc 0 (table 9-13).
const SKIP_CONTEXT: (i32, i32) = (23, 33);
/// Macroblocks of a picture: above any level (table A-1).
const MACROBLOCKS_MAX: u32 = 139_264;

/// What the next held picture follows.
#[derive(Debug, Clone, Copy)]
struct Reference {
    frame_num: u32,
    /// Picture order count, for streams that send it.
    order: i64,
    pps: PicParamSetId,
}

/// Makes held pictures for one configuration.
pub(super) struct AvcHold {
    sets: Context,
    length_size: u8,
    reference: Option<Reference>,
    /// Highest picture order count since the last key frame.
    newest: i64,
}

impl std::fmt::Debug for AvcHold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AvcHold")
            .field("reference", &self.reference)
            .finish_non_exhaustive()
    }
}

impl AvcHold {
    pub(super) fn new(config: &AvcConfig) -> Self {
        let mut sets = Context::new();
        for set in config.parameter_sets() {
            read_set(&mut sets, set);
        }
        Self {
            sets,
            length_size: config.nal_length_size,
            reference: None,
            newest: 0,
        }
    }

    /// A picture of the input was published.
    pub(super) fn shown(&mut self, data: &[u8]) {
        let mut first_slice = None;
        for unit in units(data, usize::from(self.length_size)) {
            match unit.first().map(|header| header & 0x1f) {
                Some(SPS | PPS) => read_set(&mut self.sets, unit),
                Some(SLICE) => first_slice = first_slice.or(Some(unit)),
                Some(_) if unit.first().is_some_and(|header| is_idr(*header)) => {
                    first_slice = first_slice.or(Some(unit))
                }
                _ => {}
            }
        }
        if let Some(slice) = first_slice {
            self.follow(slice);
        }
    }

    /// A picture that shows the last one once more. `None`: this stream's pictures can't be held cheaply.
    pub(super) fn held(&mut self) -> Option<Bytes> {
        let last = self.reference?;
        let pps = self.sets.pps_by_id(last.pps)?;
        let sps = self.sets.sps_by_id(pps.seq_parameter_set_id)?;
        let next = Reference {
            frame_num: (last.frame_num + 1) % (1 << u32::from(sps.log2_max_frame_num())),
            // Counted in fields: pictures are two apart.
            order: self.newest + 2,
            pps: last.pps,
        };
        let bytes = held_picture(sps, pps, next)?;
        self.newest = next.order;
        self.reference = Some(next);
        Some(nal_unit(self.length_size, &[HELD_HEADER], &bytes).into())
    }

    fn follow(&mut self, slice: &[u8]) {
        let head = slice.get(..HEADER_MAX).unwrap_or(slice);
        let unit = RefNal::new(head, &[], head.len() == slice.len());
        let Some(header) = slice.first().and_then(|byte| NalHeader::new(*byte).ok()) else {
            return;
        };
        let Ok((read, sps, pps)) = SliceHeader::from_bits(&self.sets, &mut unit.rbsp_bits(), header, None) else {
            // Whatever this is, nothing is known of it: only a key frame can be held again.
            self.reference = None;
            return;
        };
        let order = match (&sps.pic_order_cnt, &read.pic_order_cnt_lsb) {
            (
                PicOrderCntType::TypeZero {
                    log2_max_pic_order_cnt_lsb_minus4,
                },
                Some(
                    PicOrderCountLsb::Frame(lsb)
                    | PicOrderCountLsb::FieldsAbsolute {
                        pic_order_cnt_lsb: lsb, ..
                    },
                ),
            ) => {
                let before = match (read.idr_pic_id, self.reference) {
                    (None, Some(reference)) => reference.order,
                    _ => 0,
                };
                nearest(before, *lsb, u32::from(*log2_max_pic_order_cnt_lsb_minus4) + 4)
            }
            _ => 0,
        };
        let first = read.idr_pic_id.is_some();
        self.newest = if first { order } else { self.newest.max(order) };
        if header.nal_ref_idc() > 0 {
            self.reference = (first || self.reference.is_some()).then_some(Reference {
                frame_num: u32::from(read.frame_num),
                order,
                pps: pps.pic_parameter_set_id,
            });
        }
    }
}

/// The picture order count with these low bits that is nearest to another one (section 8.2.1.1).
fn nearest(before: i64, lsb: u32, bits: u32) -> i64 {
    let modulus = 1i64 << bits.min(16);
    let candidate = before - before.rem_euclid(modulus) + i64::from(lsb);
    [candidate - modulus, candidate, candidate + modulus]
        .into_iter()
        .min_by_key(|order| (order - before).abs())
        .unwrap_or(candidate)
}

/// The slice of a held picture, without its NAL unit header.
fn held_picture(sps: &SeqParameterSet, pps: &PicParameterSet, picture: Reference) -> Option<Vec<u8>> {
    let macroblocks = (sps.pic_width_in_mbs_minus1.checked_add(1)?)
        .checked_mul(sps.pic_height_in_map_units_minus1.checked_add(1)?)
        .filter(|count| *count <= MACROBLOCKS_MAX)?;
    let simple = matches!(sps.frame_mbs_flags, FrameMbsFlags::Frames)
        && !sps.chroma_info.separate_colour_plane_flag
        && pps.slice_groups.is_none();
    if !simple {
        return None;
    }
    let mut bits = BitWriter::default();
    bits.ue(0); // first_mb_in_slice
    bits.ue(ALL_P);
    bits.ue(u32::from(pps.pic_parameter_set_id.id()));
    bits.put(picture.frame_num, u32::from(sps.log2_max_frame_num()));
    match sps.pic_order_cnt {
        PicOrderCntType::TypeZero {
            log2_max_pic_order_cnt_lsb_minus4,
        } => {
            let count = u32::from(log2_max_pic_order_cnt_lsb_minus4) + 4;
            bits.put(picture.order.rem_euclid(1 << count.min(16)) as u32, count);
            if pps.bottom_field_pic_order_in_frame_present_flag {
                bits.ue(0); // delta_pic_order_cnt_bottom
            }
        }
        PicOrderCntType::TypeOne { .. } => return None,
        PicOrderCntType::TypeTwo => {}
    }
    if pps.redundant_pic_cnt_present_flag {
        bits.ue(0);
    }
    bits.put(1, 1); // num_ref_idx_active_override_flag
    bits.ue(0); // one reference picture
    bits.put(0, 1); // ref_pic_list_modification_flag_l0
    if pps.weighted_pred_flag {
        // pred_weight_table: denominators, and that no weight differs from them.
        let has_chroma = sps.chroma_info.chroma_format != ChromaFormat::Monochrome;
        bits.ue(0);
        if has_chroma {
            bits.ue(0);
        }
        bits.put(0, if has_chroma { 2 } else { 1 });
    }
    bits.put(0, 1); // adaptive_ref_pic_marking_mode_flag
    if pps.entropy_coding_mode_flag {
        bits.ue(0); // cabac_init_idc
    }
    bits.ue(0); // slice_qp_delta
    if pps.deblocking_filter_control_present_flag {
        bits.ue(1); // disable_deblocking_filter_idc: nothing to filter
    }
    Some(skipped(bits, pps, macroblocks))
}

/// Slice data (section 7.3.4): all macroblocks skipped.
fn skipped(mut bits: BitWriter, pps: &PicParameterSet, macroblocks: u32) -> Vec<u8> {
    if !pps.entropy_coding_mode_flag {
        bits.ue(macroblocks); // mb_skip_run
        bits.trail();
        return bits.into_bytes();
    }
    bits.align(1); // cabac_alignment_one_bit
    let (slope, offset) = SKIP_CONTEXT;
    let mut skip = Probability::new(slope, offset, 26 + pps.pic_init_qp_minus26);
    let mut encoder = Encoder::new(bits);
    for place in 1..=macroblocks {
        encoder.encode(true, &mut skip);
        encoder.terminate(place == macroblocks);
    }
    // Its last bit is the stop bit of the slice.
    let mut bits = encoder.finish();
    bits.align(0);
    bits.into_bytes()
}

/// The NAL units of a frame; ends at the first length that leads beyond it.
fn units(data: &[u8], length_size: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (prefix, after) = rest.split_at_checked(length_size)?;
        let length = prefix
            .iter()
            .fold(0usize, |length, byte| length << 8 | usize::from(*byte));
        let (unit, after) = after.split_at_checked(length)?;
        rest = after;
        Some(unit)
    })
}

fn read_set(sets: &mut Context, unit: &[u8]) {
    let nal = RefNal::new(unit, &[], true);
    match unit.first().map(|header| header & 0x1f) {
        Some(SPS) => {
            if let Ok(sps) = SeqParameterSet::from_bits(nal.rbsp_bits()) {
                sets.put_seq_param_set(sps);
            }
        }
        Some(PPS) => {
            if let Ok(pps) = PicParameterSet::from_bits(sets, nal.rbsp_bits()) {
                sets.put_pic_param_set(pps);
            }
        }
        _ => {}
    }
}
