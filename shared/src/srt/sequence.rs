//! Packet sequence numbers: 31 bits that wrap (draft-sharabayko-srt-01, section 3.1). Pure.

/// Numbers there are.
const COUNT: u32 = 1 << 31;
const MASK: u32 = COUNT - 1;

/// A data packet's number. Two of them are compared by which is ahead on the circle, so there is no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sequence(u32);

impl Sequence {
    /// The upper bit is left out.
    pub const fn new(raw: u32) -> Self {
        Self(raw & MASK)
    }

    pub const fn raw(self) -> u32 {
        self.0
    }

    pub const fn plus(self, count: u32) -> Self {
        Self::new(self.0.wrapping_add(count))
    }

    /// How many packets this one is ahead of the other; negative: behind.
    pub const fn ahead_of(self, other: Self) -> i32 {
        // The 31 bits are brought to the top for their sign, and back.
        ((self.0.wrapping_sub(other.0) << 1) as i32) >> 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_over_the_wrap() {
        let last = Sequence::new(u32::MAX);
        assert_eq!(last.raw(), MASK);
        assert_eq!(last.plus(1), Sequence::new(0));
        assert_eq!(last.plus(1).ahead_of(last), 1);
        assert_eq!(last.ahead_of(last.plus(3)), -3);
        assert_eq!(last.ahead_of(last), 0);
        assert_eq!(Sequence::new(100).ahead_of(Sequence::new(90)), 10);
    }
}
