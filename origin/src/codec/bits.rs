//! Bits off the front of a slice, most significant first. Pure. For the headers of all codecs that pack them.
//!
//! Used by `codec/{aac,hevc,av1}.rs`. Reading past the end is [`Ended`], never a panic.

/// The bytes ended inside a field, or a code word is longer than any the codec allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("header ends too early")]
pub struct Ended;

/// A place in a run of bits.
#[derive(Debug, Clone)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `count` bits, at most 32, as a number.
    pub(super) fn take(&mut self, count: u32) -> Result<u32, Ended> {
        let mut value: u32 = 0;
        for _ in 0..count.min(32) {
            let byte = self.bytes.get(self.at / 8).ok_or(Ended)?;
            value = (value << 1) | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Ok(value)
    }

    /// The next `count` bits, at most 8, as a byte.
    pub(super) fn byte(&mut self, count: u32) -> Result<u8, Ended> {
        Ok(self.take(count.min(8))? as u8)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Ended> {
        Ok(self.take(1)? == 1)
    }

    /// Passes over `count` bits; whether they are there shows at the next read.
    pub(super) fn skip(&mut self, count: usize) {
        self.at = self.at.saturating_add(count);
    }

    /// An unsigned Exp-Golomb code word of at most 32 bits of value: `ue(v)` (ITU-T H.265 section 9.2).
    pub(super) fn ue(&mut self) -> Result<u32, Ended> {
        let zeros = self.leading_zeros()?;
        let rest = u64::from(self.take(zeros)?);
        u32::try_from((1u64 << zeros) - 1 + rest).map_err(|_| Ended)
    }

    /// Zero bits up to the next one, which is taken too; at most 32.
    pub(super) fn leading_zeros(&mut self) -> Result<u32, Ended> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 32 {
                return Err(Ended);
            }
        }
        Ok(zeros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cross_bytes_and_end_where_the_bytes_do() {
        let mut bits = Bits::new(&[0b1010_0101, 0b1111_0000]);
        assert_eq!((bits.take(3), bits.take(7)), (Ok(0b101), Ok(0b001_0111)));
        bits.skip(5);
        assert_eq!((bits.flag(), bits.flag()), (Ok(false), Err(Ended)));
        bits.skip(usize::MAX);
        assert_eq!(bits.take(1), Err(Ended));
    }

    #[test]
    fn exp_golomb_words() {
        // 1, 010, 011, 00100, then one that never ends.
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0000, 0, 0, 0, 0, 0]);
        assert_eq!(
            [bits.ue(), bits.ue(), bits.ue(), bits.ue()],
            [Ok(0), Ok(1), Ok(2), Ok(3)]
        );
        assert_eq!(bits.ue(), Err(Ended));
        // The largest value has 32 zeros before its one.
        let largest = [0, 0, 0, 0, 0x80, 0, 0, 0, 0x00];
        assert_eq!(Bits::new(&largest).ue(), Ok(u32::MAX));
        assert_eq!(Bits::new(&[0, 0, 0, 0, 0xff, 0, 0, 0, 0]).ue(), Err(Ended));
    }
}
