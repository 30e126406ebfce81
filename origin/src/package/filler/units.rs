//! What H.264 and HEVC have in common: NAL units behind length prefixes, and counting pictures by low bits.
//!
//! Used by `filler/{avc,hevc}.rs`.

/// The NAL units of a frame; ends at the first length that leads beyond it.
pub(super) fn units(data: &[u8], length_size: usize) -> impl Iterator<Item = &[u8]> {
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

/// The picture order count with these low bits that is nearest to another one (ITU-T H.264 section 8.2.1.1, ITU-T H.265 section 8.3.1).
pub(super) fn nearest_order(before: i64, lsb: u32, bits: u32) -> i64 {
    let modulus = 1i64 << bits.min(16);
    let candidate = before - before.rem_euclid(modulus) + i64::from(lsb);
    [candidate - modulus, candidate, candidate + modulus]
        .into_iter()
        .min_by_key(|order| (order - before).abs())
        .unwrap_or(candidate)
}
