//! The arithmetic encoder of H.264 and HEVC (ITU-T H.264 section 9.3.4.2, ITU-T H.265 section 9.3.4.2): as much of it as
//! skipped blocks need.
//!
//! Used by `filler/avc.rs`.

use super::bits::BitWriter;

/// Sub-range of the less probable symbol by state and by the range's two bits below its top (table 9-44).
const RANGE_LPS: [[u16; 4]; 64] = [
    [128, 176, 208, 240],
    [128, 167, 197, 227],
    [128, 158, 187, 216],
    [123, 150, 178, 205],
    [116, 142, 169, 195],
    [111, 135, 160, 185],
    [105, 128, 152, 175],
    [100, 122, 144, 166],
    [95, 116, 137, 158],
    [90, 110, 130, 150],
    [85, 104, 123, 142],
    [81, 99, 117, 135],
    [77, 94, 111, 128],
    [73, 89, 105, 122],
    [69, 85, 100, 116],
    [66, 80, 95, 110],
    [62, 76, 90, 104],
    [59, 72, 86, 99],
    [56, 69, 81, 94],
    [53, 65, 77, 89],
    [51, 62, 73, 85],
    [48, 59, 69, 80],
    [46, 56, 66, 76],
    [43, 53, 63, 72],
    [41, 50, 59, 69],
    [39, 48, 56, 65],
    [37, 45, 54, 62],
    [35, 43, 51, 59],
    [33, 41, 48, 56],
    [32, 39, 46, 53],
    [30, 37, 43, 50],
    [29, 35, 41, 48],
    [27, 33, 39, 45],
    [26, 31, 37, 43],
    [24, 30, 35, 41],
    [23, 28, 33, 39],
    [22, 27, 32, 37],
    [21, 26, 30, 35],
    [20, 24, 29, 33],
    [19, 23, 27, 31],
    [18, 22, 26, 30],
    [17, 21, 25, 28],
    [16, 20, 23, 27],
    [15, 19, 22, 25],
    [14, 18, 21, 24],
    [14, 17, 20, 23],
    [13, 16, 19, 22],
    [12, 15, 18, 21],
    [12, 14, 17, 20],
    [11, 14, 16, 19],
    [11, 13, 15, 18],
    [10, 12, 15, 17],
    [10, 12, 14, 16],
    [9, 11, 13, 15],
    [9, 11, 12, 14],
    [8, 10, 12, 14],
    [8, 9, 11, 13],
    [7, 9, 11, 12],
    [7, 9, 10, 12],
    [7, 8, 10, 11],
    [6, 8, 9, 11],
    [6, 7, 9, 10],
    [6, 7, 8, 9],
    [2, 2, 2, 2],
];

/// State after the less probable symbol (table 9-45).
const AFTER_LPS: [u8; 64] = [
    0, 0, 1, 2, 2, 4, 4, 5, 6, 7, 8, 9, 9, 11, 11, 12, 13, 13, 15, 15, 16, 16, 18, 18, 19, 19, 21, 21, 22, 22, 23, 24,
    24, 25, 26, 26, 27, 27, 28, 29, 29, 30, 30, 30, 31, 32, 32, 33, 33, 33, 34, 34, 35, 35, 35, 36, 36, 36, 37, 37, 37,
    38, 38, 63,
];

/// The state after which the more probable symbol is as probable as it gets.
const STATE_MAX: u8 = 62;

/// How probable a symbol is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probability {
    state: u8,
    likely: bool,
}

impl Probability {
    /// From a context's slope and offset at a quantiser (ITU-T H.264 section 9.3.1.1).
    pub(super) fn new(slope: i32, offset: i32, qp: i32) -> Self {
        let start = (((slope * qp.clamp(0, 51)) >> 4) + offset).clamp(1, 126) as u8;
        if start <= 63 {
            Self {
                state: 63 - start,
                likely: false,
            }
        } else {
            Self {
                state: start - 64,
                likely: true,
            }
        }
    }
}

/// An arithmetic codeword in the making.
#[derive(Debug)]
pub(super) struct Encoder {
    out: BitWriter,
    low: u32,
    range: u32,
    first: bool,
    outstanding: u32,
}

impl Encoder {
    /// Goes on behind what is written already, which ends at a byte.
    pub(super) fn new(out: BitWriter) -> Self {
        Self {
            out,
            low: 0,
            range: 510,
            first: true,
            outstanding: 0,
        }
    }

    pub(super) fn encode(&mut self, symbol: bool, probability: &mut Probability) {
        let state = usize::from(probability.state);
        let quarter = (self.range >> 6 & 3) as usize;
        let less = RANGE_LPS
            .get(state)
            .and_then(|row| row.get(quarter))
            .copied()
            .unwrap_or(2);
        self.range -= u32::from(less);
        if symbol == probability.likely {
            probability.state = (probability.state + 1).min(STATE_MAX);
        } else {
            self.low += self.range;
            self.range = u32::from(less);
            if probability.state == 0 {
                probability.likely = !probability.likely;
            }
            probability.state = AFTER_LPS.get(state).copied().unwrap_or(0);
        }
        self.renormalise();
    }

    /// Whether the slice (or substream) ends here. After a `true`, take the [`finish`](Self::finish)ed bits.
    pub(super) fn terminate(&mut self, ends: bool) {
        self.range -= 2;
        if ends {
            self.low += self.range;
            self.range = 2;
        }
        self.renormalise();
    }

    /// The bits, the last one of which is the stop bit (section 9.3.4.5).
    pub(super) fn finish(mut self) -> BitWriter {
        self.put(self.low >> 9 & 1);
        self.out.put((self.low >> 7 & 3) | 1, 2);
        self.out
    }

    fn renormalise(&mut self) {
        while self.range < 256 {
            if self.low < 256 {
                self.put(0);
            } else if self.low >= 512 {
                self.low -= 512;
                self.put(1);
            } else {
                self.low -= 256;
                self.outstanding += 1;
            }
            self.range <<= 1;
            self.low <<= 1;
        }
    }

    fn put(&mut self, bit: u32) {
        if self.first {
            self.first = false;
        } else {
            self.out.put(bit, 1);
        }
        while self.outstanding > 0 {
            self.out.put(1 - bit, 1);
            self.outstanding -= 1;
        }
    }
}
