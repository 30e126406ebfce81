//! The Huffman code of header strings (RFC 7541 section 5.2). Pure.
//!
//! The code is canonical: the lengths of its words give the words, so only those stand here.

use super::Malformed;

/// Length of each octet's word in bits (RFC 7541, appendix B). The end-of-string word, thirty ones, must not be sent.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

const SHORTEST: usize = 5;
const LONGEST: usize = 30;
/// Words of up to this many bits are looked up at once: all letters and digits are among them.
const QUICK_BITS: u32 = 8;

/// The code, ready for reading.
struct Code {
    /// For each eight bits the octet they begin with and its word's length; 0: a longer word.
    quick: [(u8, u8); 1 << QUICK_BITS],
    /// For each length where its words begin, and where the next length's do; left-aligned in 32 bits.
    from: [u64; LONGEST + 1],
    until: [u64; LONGEST + 1],
    /// For each length the place of its first octet in `octets`.
    first: [usize; LONGEST + 1],
    /// By length, then by value.
    octets: [u8; 256],
}

static CODE: Code = code();

const fn code() -> Code {
    let mut code = Code {
        quick: [(0, 0); 1 << QUICK_BITS],
        from: [0; LONGEST + 1],
        until: [0; LONGEST + 1],
        first: [0; LONGEST + 1],
        octets: [0; 256],
    };
    let (mut next, mut place, mut length) = (0u64, 0, SHORTEST);
    while length <= LONGEST {
        code.from[length] = next;
        code.first[length] = place;
        let mut octet = 0;
        while octet < LENGTHS.len() {
            if LENGTHS[octet] as usize == length {
                code.octets[place] = octet as u8;
                place += 1;
                if length as u32 <= QUICK_BITS {
                    let mut at = (next >> (32 - QUICK_BITS)) as usize;
                    let beyond = at + (1 << (QUICK_BITS - length as u32));
                    while at < beyond {
                        code.quick[at] = (octet as u8, length as u8);
                        at += 1;
                    }
                }
                next += 1 << (32 - length);
            }
            octet += 1;
        }
        code.until[length] = next;
        length += 1;
    }
    code
}

/// The octet and the length of the word that `window`, left-aligned in 32 bits, begins with.
fn word(window: u32) -> Option<(u8, u32)> {
    let quick = CODE.quick.get((window >> (32 - QUICK_BITS)) as usize)?;
    if quick.1 > 0 {
        return Some((quick.0, u32::from(quick.1)));
    }
    let window = u64::from(window);
    let length = (QUICK_BITS as usize + 1..=LONGEST).find(|length| CODE.until.get(*length) > Some(&window))?;
    let nth = usize::try_from((window - CODE.from.get(length)?) >> (32 - length)).ok()?;
    let octet = CODE.octets.get(CODE.first.get(length)? + nth)?;
    Some((*octet, u32::try_from(length).ok()?))
}

/// Appends what `coded` says. It is at most 8/5 as long.
pub(super) fn decode(coded: &[u8], into: &mut Vec<u8>) -> Result<(), Malformed> {
    const WRONG: Malformed = Malformed("a header with a broken Huffman code");
    let mut coded = coded.iter();
    // Bits that are not read yet, left-aligned, ones behind them as padding has it.
    let (mut window, mut bits) = (u64::MAX, 0u32);
    loop {
        while bits <= 56 {
            let Some(octet) = coded.next() else { break };
            let shift = 56 - bits;
            window = window & !(0xff << shift) | u64::from(*octet) << shift;
            bits += 8;
        }
        // What is left over are the first bits of the end-of-string word, less than an octet of them.
        if bits < 8 && window == u64::MAX {
            return Ok(());
        }
        let (octet, length) = word((window >> 32) as u32).ok_or(WRONG)?;
        if length > bits {
            return Err(WRONG);
        }
        into.push(octet);
        window = window << length | ((1 << length) - 1);
        bits -= length;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By the definition: words of one length follow each other, and the next length goes on behind them.
    fn encode(plain: &[u8]) -> Vec<u8> {
        let mut order: Vec<usize> = (0..256).collect();
        order.sort_by_key(|octet| (LENGTHS[*octet], *octet));
        let (mut words, mut next, mut length) = ([0u32; 256], 0, 0);
        for octet in order {
            next <<= LENGTHS[octet] - length;
            length = LENGTHS[octet];
            words[octet] = next;
            next += 1;
        }
        let bits = plain.iter().flat_map(|octet| {
            let (word, length) = (words[usize::from(*octet)], LENGTHS[usize::from(*octet)]);
            (0..length).rev().map(move |bit| word >> bit & 1 == 1)
        });
        let bits: Vec<bool> = bits.collect();
        bits.chunks(8)
            .map(|octet| (0..8).fold(0, |byte, n| byte << 1 | u8::from(octet.get(n).copied().unwrap_or(true))))
            .collect()
    }

    #[test]
    fn the_examples_of_the_rfc_read_as_they_should() {
        for (coded, plain) in [
            (
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..],
                "www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x64, 0x02], "302"),
            (&[], ""),
        ] {
            let mut read = vec![];
            assert_eq!(decode(coded, &mut read), Ok(()));
            assert_eq!(read, plain.as_bytes());
        }
    }

    #[test]
    fn what_is_padded_wrongly_is_refused() {
        // An octet of ones too many, a zero, and the end-of-string word itself.
        for coded in [
            &[0x64, 0x02, 0xff][..],
            &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbe],
            &[0xff; 4],
        ] {
            assert!(decode(coded, &mut vec![]).is_err(), "{coded:?}");
        }
    }

    proptest! {
        #[test]
        fn every_string_reads_back(plain in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut read = vec![];
            prop_assert_eq!(decode(&encode(&plain), &mut read), Ok(()));
            prop_assert_eq!(read, plain);
        }

        #[test]
        fn garbage_never_panics_nor_grows(coded in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut read = vec![];
            let _ = decode(&coded, &mut read);
            prop_assert!(read.len() <= coded.len() * 8 / SHORTEST);
        }
    }
}
