//! Parts: one `moof` + `mdat`, laid out once, in one allocation of the exact size.

use bytes::Bytes;
use weir_shared::media::time::Ticks;

use super::{TRACK_ID, boxes::Writer};
use crate::package::segmenter::Draft;

/// data-offset, sample durations, sizes, flags and composition offsets are present (14496-12 section 8.8.8).
const TRUN_FLAGS: u32 = 0x00_0f01;
const DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;
/// Depends on nothing; a sync sample.
const SYNC: u32 = 0x0200_0000;
/// Depends on others; not a sync sample.
const NON_SYNC: u32 = 0x0101_0000;

/// moof, mfhd, traf, tfhd, tfdt, trun without its entries, and the header of mdat.
const HEADERS: usize = 8 + 16 + 8 + 16 + 20 + 20 + 8;
const TRUN_ENTRY: usize = 16;

/// The bytes of a part.
pub fn part(sequence_number: u32, draft: &Draft) -> Bytes {
    let media: usize = draft.samples.iter().map(|s| s.data.len()).sum();
    let size = HEADERS + TRUN_ENTRY * draft.samples.len() + media;
    let mut w = Writer::with_capacity(size);
    let mut offset_at = 0;
    w.boxed(b"moof", |w| {
        w.full(b"mfhd", 0, 0, |w| w.u32(sequence_number));
        w.boxed(b"traf", |w| {
            w.full(b"tfhd", 0, DEFAULT_BASE_IS_MOOF, |w| w.u32(TRACK_ID));
            w.full(b"tfdt", 1, 0, |w| w.u64(draft.tfdt.0.max(0) as u64));
            w.full(b"trun", 1, TRUN_FLAGS, |w| {
                w.u32(draft.samples.len() as u32);
                offset_at = w.len();
                w.u32(0);
                for sample in &draft.samples {
                    w.u32(u32::try_from(sample.duration.0).unwrap_or(1));
                    w.u32(sample.data.len() as u32);
                    w.u32(if sample.sync { SYNC } else { NON_SYNC });
                    w.i32(clamp(sample.composition_offset));
                }
            });
        });
    });
    let mdat = w.len();
    w.patch_u32(offset_at, (mdat + 8) as u32);
    w.boxed(b"mdat", |w| {
        for sample in &draft.samples {
            w.bytes(&sample.data);
        }
    });
    debug_assert_eq!(w.len(), size);
    w.into_bytes()
}

fn clamp(offset: Ticks) -> i32 {
    offset.0.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}
