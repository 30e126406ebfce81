//! What a frame header does to the decoder's picture slots (AV1 Bitstream Specification, section 5.9.2). Pure.
//!
//! Before this: `codec/av1.rs` (units). After this: `package/filler/av1.rs`.

use super::{Bits, Ended, OBU_FRAME, OBU_FRAME_HEADER, OBU_SEQUENCE_HEADER, SequenceHeader, Units};

/// The value of a sequence-wide tool flag that leaves it to each frame.
const EACH_FRAME: u8 = 2;
const KEY: u8 = 0;
const INTRA_ONLY: u8 = 2;
const SWITCH: u8 = 3;

/// What of the sequence header frame headers depend on (section 5.5.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tools {
    /// seq_force_screen_content_tools and seq_force_integer_mv.
    pub(super) screen_content: u8,
    pub(super) integer_vectors: u8,
    pub(super) order_hint_bits: u8,
    /// Frame headers carry numbers or times that are not read here.
    pub(super) is_elaborate: bool,
}

impl Tools {
    /// From the lowest flags: whether each frame chooses, else what is forced.
    pub(super) fn choice(bits: &mut Bits<'_>) -> Result<u8, Ended> {
        if bits.flag()? { Ok(EACH_FRAME) } else { bits.byte(1) }
    }
}

/// What one frame header does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// A picture is decoded into the slots whose bits are set.
    Decodes { shown: bool, key: bool, slots: u8 },
    /// The picture of a slot is shown.
    Shows { slot: u8 },
}

/// The frame headers of a temporal unit, in order. `None`: they can't be read.
pub fn headers(tools: Tools, temporal_unit: &[u8]) -> Option<Vec<Header>> {
    if tools.is_elaborate {
        return None;
    }
    let mut found = Vec::new();
    for unit in Units(temporal_unit) {
        let unit = unit.ok()?;
        match unit.kind {
            OBU_FRAME | OBU_FRAME_HEADER => found.push(read(tools, unit.payload).ok()?),
            // Another sequence may begin here: what is known of this one says nothing of its frames.
            OBU_SEQUENCE_HEADER => {
                let same = SequenceHeader::parse(unit.payload).is_ok_and(|header| header.tools == tools);
                same.then_some(())?;
            }
            _ => {}
        }
    }
    Some(found)
}

fn read(tools: Tools, payload: &[u8]) -> Result<Header, Ended> {
    let mut bits = Bits::new(payload);
    if bits.flag()? {
        return Ok(Header::Shows { slot: bits.byte(3)? });
    }
    let kind = bits.byte(2)?;
    let shown = bits.flag()?;
    if !shown {
        bits.skip(1); // showable_frame
    }
    let starts_afresh = kind == SWITCH || (kind == KEY && shown);
    let resilient = starts_afresh || bits.flag()?;
    bits.skip(1); // disable_cdf_update
    let screen_content = match tools.screen_content {
        EACH_FRAME => bits.flag()?,
        forced => forced == 1,
    };
    if screen_content && tools.integer_vectors == EACH_FRAME {
        bits.skip(1);
    }
    if kind != SWITCH {
        bits.skip(1); // frame_size_override_flag
    }
    bits.skip(usize::from(tools.order_hint_bits));
    if !(matches!(kind, KEY | INTRA_ONLY) || resilient) {
        bits.skip(3); // primary_ref_frame
    }
    Ok(Header::Decodes {
        shown,
        key: kind == KEY,
        slots: if starts_afresh { 0xff } else { bits.byte(8)? },
    })
}
