//! Writing bits, most significant first, and NAL units out of them. For `filler/{aac,avc}.rs`.

/// Bits in the making.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits of the last byte that are taken: 0 when it is full or there is none.
    used: u32,
}

impl BitWriter {
    /// The lowest `count` bits of `value`, at most 32.
    pub(super) fn put(&mut self, value: u32, count: u32) {
        for shift in (0..count.min(32)).rev() {
            let bit = (value >> shift & 1) as u8;
            if self.used == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= bit << (7 - self.used);
            }
            self.used = (self.used + 1) % 8;
        }
    }

    /// `ue(v)`: unsigned Exp-Golomb (ITU-T H.264 section 9.1).
    pub(super) fn ue(&mut self, value: u32) {
        let code = value.saturating_add(1);
        let length = 32 - code.leading_zeros();
        self.put(0, length - 1);
        self.put(code, length);
    }

    /// Fills the last byte with this bit.
    pub(super) fn align(&mut self, bit: u32) {
        while self.used != 0 {
            self.put(bit, 1);
        }
    }

    /// A one and zeros up to the byte's end: `rbsp_trailing_bits` (ITU-T H.264 section 7.3.2.11).
    pub(super) fn trail(&mut self) {
        self.put(1, 1);
        self.align(0);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// A NAL unit behind a length prefix of `prefix` bytes: the header, then the payload with emulation prevention bytes
/// (ITU-T H.264 section 7.4.1.1).
pub(super) fn nal_unit(prefix: u8, header: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut unit = header.to_vec();
    let mut zeros = 0;
    for byte in payload {
        if zeros == 2 && *byte <= 3 {
            unit.push(3);
            zeros = 0;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        unit.push(*byte);
    }
    let length = u32::try_from(unit.len()).unwrap_or(u32::MAX).to_be_bytes();
    let skip = length.len().saturating_sub(usize::from(prefix));
    let mut out: Vec<u8> = length.into_iter().skip(skip).collect();
    out.extend(unit);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_fill_bytes_from_the_top() {
        let mut bits = BitWriter::default();
        bits.put(0b101, 3);
        bits.ue(0);
        bits.ue(3);
        bits.trail();
        assert_eq!(bits.into_bytes(), [0b1011_0010, 0b0100_0000]);
    }

    #[test]
    fn no_start_code_appears_inside_a_unit() {
        assert_eq!(
            nal_unit(4, &[0x41], &[0, 0, 1, 0, 0, 0]),
            [0, 0, 0, 9, 0x41, 0, 0, 3, 1, 0, 0, 3, 0]
        );
        assert_eq!(nal_unit(2, &[0x41], &[7]), [0, 2, 0x41, 7]);
    }
}
