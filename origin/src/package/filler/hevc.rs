//! HEVC held pictures: a P picture whose coding tree blocks are all skipped shows the reference picture once more (ITU-T
//! H.265 section 7.3.8). Pure.
//!
//! As in `filler/avc.rs`, a held picture is a reference picture itself, and a key frame must follow.

use bytes::Bytes;

use super::{
    bits::{BitWriter, nal_unit},
    cabac::{Encoder, Probability},
    units::{nearest_order, units},
};
use crate::codec::hevc::{
    HevcConfig,
    coding::{self, Picture, Sequence, Slice},
};

/// NAL unit header of a trailing reference picture in the lowest layers: TRAIL_R.
const HELD_HEADER: [u8; 2] = [1 << 1, 1];
/// slice_type.
const P: u32 = 1;
/// Initial values of split_cu_flag beside deeper and beside equal blocks, of cu_skip_flag by skipped neighbours, and of
/// cu_transquant_bypass_flag, in P slices (tables 9-7, 9-8 and 9-9).
const SPLIT: [u8; 3] = [107, 139, 126];
const SKIP: [u8; 3] = [197, 185, 201];
const BYPASS: u8 = 154;
/// Bits of an entry point's distance.
const ENTRY_BITS: u32 = 16;

/// What the next held picture follows.
#[derive(Debug, Clone, Copy)]
struct Reference {
    /// Picture order counts: of the picture that is shown, and of the one that low bits are counted from.
    shown: i64,
    counted: i64,
}

/// Makes held pictures for one configuration.
#[derive(Debug)]
pub(super) struct HevcHold {
    sequence: Sequence,
    picture: Picture,
    length_size: u8,
    reference: Option<Reference>,
    /// Highest picture order count since the last refresh.
    newest: i64,
}

impl HevcHold {
    /// `None`: its pictures can't be held cheaply.
    pub(super) fn new(config: &HevcConfig) -> Option<Self> {
        let (sequence, picture) = config.coding()?;
        Some(Self {
            sequence,
            picture,
            length_size: config.nal_length_size,
            reference: None,
            newest: 0,
        })
    }

    /// A picture of the input was published.
    pub(super) fn shown(&mut self, data: &[u8], key: bool) {
        let mut slices = units(data, usize::from(self.length_size))
            .filter_map(|unit| coding::slice(&self.sequence, &self.picture, unit));
        let Some(slice) = slices.next() else {
            self.reference = None;
            return;
        };
        drop(slices);
        self.follow(slice, key);
    }

    /// A picture that shows the last one once more.
    pub(super) fn held(&mut self) -> Option<Bytes> {
        let reference = self.reference?;
        let order = self.newest + 1;
        let distance = u32::try_from(order - reference.shown)
            .ok()
            .filter(|distance| *distance < 1 << 14)?;
        let bytes = held_picture(&self.sequence, &self.picture, order, distance)?;
        self.newest = order;
        self.reference = Some(Reference {
            shown: order,
            counted: order,
        });
        Some(nal_unit(self.length_size, &HELD_HEADER, &bytes).into())
    }

    fn follow(&mut self, slice: Slice, key: bool) {
        if slice.picture_set != self.picture.id {
            // Another parameter set than the one that is known.
            self.reference = None;
            return;
        }
        let before = match (key || slice.refresh, self.reference) {
            (false, Some(reference)) => Some(reference),
            (true, _) => None,
            (false, None) => return,
        };
        let counted = before.map_or(0, |before| before.counted);
        let order = nearest_order(counted, slice.order, self.sequence.order_bits);
        let starts = before.is_none();
        let is_newest = starts || order > self.newest;
        self.newest = if starts { order } else { self.newest.max(order) };
        if slice.reference && slice.temporal_layer == 0 {
            self.reference = Some(Reference {
                shown: match before {
                    Some(before) if !is_newest => before.shown,
                    _ => order,
                },
                counted: order,
            });
        }
    }
}

/// The slice of a held picture, without its NAL unit header.
fn held_picture(sequence: &Sequence, picture: &Picture, order: i64, distance: u32) -> Option<Vec<u8>> {
    let substreams = Rows::new(sequence, picture).encode(picture.wavefronts);
    let mut bits = BitWriter::default();
    header(&mut bits, sequence, picture, order, distance);
    if picture.wavefronts {
        let entries = substreams.len().saturating_sub(1);
        bits.ue(u32::try_from(entries).ok()?);
        if entries > 0 {
            bits.ue(ENTRY_BITS - 1);
            for substream in substreams.iter().take(entries) {
                // Emulation prevention counts (section 7.4.7.1); no substream ends in zeros.
                let length = nal_unit(0, &[], substream).len().checked_sub(1)?;
                bits.put(
                    u32::try_from(length).ok().filter(|length| length >> ENTRY_BITS == 0)?,
                    ENTRY_BITS,
                );
            }
        }
    }
    if picture.header_extension {
        bits.ue(0);
    }
    bits.trail(); // byte_alignment
    let mut bytes = bits.into_bytes();
    substreams.iter().for_each(|substream| bytes.extend(substream));
    Some(bytes)
}

/// slice_segment_header (section 7.3.6.1) up to the entry points.
fn header(bits: &mut BitWriter, sequence: &Sequence, picture: &Picture, order: i64, distance: u32) {
    bits.put(1, 1); // first_slice_segment_in_pic_flag
    bits.ue(picture.id);
    bits.put(0, picture.extra_header_bits);
    bits.ue(P);
    if picture.output_flag {
        bits.put(1, 1);
    }
    bits.put(order.rem_euclid(1 << sequence.order_bits) as u32, sequence.order_bits);
    bits.put(0, 1); // short_term_ref_pic_set_sps_flag
    if sequence.reference_sets > 0 {
        bits.put(0, 1); // inter_ref_pic_set_prediction_flag
    }
    bits.ue(1); // one picture before this one, none after it
    bits.ue(0);
    bits.ue(distance - 1);
    bits.put(1, 1); // it is used
    if let Some(listed) = sequence.long_term_references {
        if listed > 0 {
            bits.ue(0);
        }
        bits.ue(0);
    }
    if sequence.temporal_vectors {
        bits.put(0, 1);
    }
    if sequence.adaptive_offset {
        bits.put(0, if sequence.has_chroma { 2 } else { 1 });
    }
    bits.put(1, 1); // num_ref_idx_active_override_flag
    bits.ue(0);
    if picture.cabac_init_flag {
        bits.put(0, 1);
    }
    if picture.weighted_prediction {
        // pred_weight_table: denominators, and that no weight differs from them.
        bits.ue(0);
        if sequence.has_chroma {
            bits.ue(0);
        }
        bits.put(0, if sequence.has_chroma { 2 } else { 1 });
    }
    bits.ue(4); // five_minus_max_num_merge_cand: one candidate
    bits.ue(0); // slice_qp_delta
    if picture.chroma_qp_offsets {
        bits.put(0b11, 2); // two zeros
    }
    if picture.deblocking_override {
        bits.put(0, 1);
    }
    if picture.filter_across_slices && !picture.deblocking_off {
        bits.put(0, 1);
    }
}

/// The coding tree blocks of a picture.
struct Rows<'a> {
    sequence: &'a Sequence,
    bypass: bool,
    qp: i32,
    /// By smallest blocks, in order of lines: how deep the block there lies, plus one; 0 where there is none yet.
    depths: Vec<u8>,
    wide: usize,
}

/// What adapts itself while blocks are encoded.
#[derive(Clone, Copy)]
struct Contexts {
    split: [Probability; 3],
    skip: [Probability; 3],
    bypass: Probability,
}

impl Contexts {
    fn new(qp: i32) -> Self {
        let of = |value: u8| {
            let (slope, offset) = (i32::from(value >> 4), i32::from(value & 15));
            Probability::new(slope * 5 - 45, (offset << 3) - 16, qp)
        };
        Self {
            split: SPLIT.map(of),
            skip: SKIP.map(of),
            bypass: of(BYPASS),
        }
    }
}

impl<'a> Rows<'a> {
    fn new(sequence: &'a Sequence, picture: &Picture) -> Self {
        let block = 1usize << sequence.smallest_block_bits;
        let wide = (sequence.width as usize).div_ceil(block);
        let high = (sequence.height as usize).div_ceil(block);
        Self {
            sequence,
            bypass: picture.bypass,
            qp: picture.initial_qp,
            depths: vec![0; wide * high],
            wide,
        }
    }

    /// Slice data (section 7.3.8.1): one run of bits, or one for each row.
    fn encode(mut self, wavefronts: bool) -> Vec<Vec<u8>> {
        let size = 1u32 << self.sequence.tree_block_bits;
        let (columns, rows) = (self.sequence.width.div_ceil(size), self.sequence.height.div_ceil(size));
        let mut runs = Vec::new();
        let mut contexts = Contexts::new(self.qp);
        let mut after_second = contexts;
        let mut encoder = Encoder::new(BitWriter::default());
        for row in 0..rows {
            if wavefronts && row > 0 {
                // Section 9.3.1: from the block above and to the right, if there is one.
                contexts = if columns > 1 {
                    after_second
                } else {
                    Contexts::new(self.qp)
                };
            }
            for column in 0..columns {
                self.tree(
                    &mut encoder,
                    &mut contexts,
                    (column * size, row * size),
                    self.sequence.tree_block_bits,
                );
                if column == 1 {
                    after_second = contexts;
                }
                let ends = row + 1 == rows && column + 1 == columns;
                encoder.terminate(ends);
                if ends || (wavefronts && column + 1 == columns) {
                    if !ends {
                        encoder.terminate(true); // end_of_subset_one_bit
                    }
                    let mut bits = std::mem::replace(&mut encoder, Encoder::new(BitWriter::default())).finish();
                    bits.align(0);
                    runs.push(bits.into_bytes());
                }
            }
        }
        runs
    }

    /// coding_quadtree (section 7.3.8.4): one skipped block, or as many as the picture's edge makes of it.
    fn tree(&mut self, encoder: &mut Encoder, contexts: &mut Contexts, (x, y): (u32, u32), bits: u32) {
        let size = 1u32 << bits;
        let depth = (self.sequence.tree_block_bits - bits) as u8;
        let inside = x + size <= self.sequence.width && y + size <= self.sequence.height;
        let can_split = bits > self.sequence.smallest_block_bits;
        if !inside && can_split {
            let half = size / 2;
            for (x, y) in [(x, y), (x + half, y), (x, y + half), (x + half, y + half)] {
                if x < self.sequence.width && y < self.sequence.height {
                    self.tree(encoder, contexts, (x, y), bits - 1);
                }
            }
            return;
        }
        let (left, above) = (
            self.depth(x.checked_sub(1), Some(y)),
            self.depth(Some(x), y.checked_sub(1)),
        );
        if can_split {
            let deeper = |neighbour: Option<u8>| usize::from(neighbour.is_some_and(|other| other > depth));
            if let Some(split) = contexts.split.get_mut(deeper(left) + deeper(above)) {
                encoder.encode(false, split);
            }
        }
        if self.bypass {
            encoder.encode(false, &mut contexts.bypass);
        }
        // All blocks that are there are skipped.
        let skipped = usize::from(left.is_some()) + usize::from(above.is_some());
        if let Some(skip) = contexts.skip.get_mut(skipped) {
            encoder.encode(true, skip);
        }
        self.mark((x, y), size, depth);
    }

    fn depth(&self, x: Option<u32>, y: Option<u32>) -> Option<u8> {
        let shift = self.sequence.smallest_block_bits;
        let place = (y? >> shift) as usize * self.wide + (x? >> shift) as usize;
        self.depths.get(place)?.checked_sub(1)
    }

    fn mark(&mut self, (x, y): (u32, u32), size: u32, depth: u8) {
        let shift = self.sequence.smallest_block_bits;
        for line in y >> shift..(y + size) >> shift {
            for column in x >> shift..(x + size) >> shift {
                if let Some(place) = self.depths.get_mut(line as usize * self.wide + column as usize) {
                    *place = depth + 1;
                }
            }
        }
    }
}
