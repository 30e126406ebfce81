//! Damage done to seeds by chance, for runs without a fuzzer: `origin/tests/fuzz_seeds.rs` and
//! `origin/examples/mutate_seeds.rs`.

use rand::{RngExt as _, rngs::SmallRng};

/// Longest input made, in bytes.
const LENGTH_MAX: usize = 4096;

/// One of the seeds, or the beginning of one and the end of another, with a few bytes or bits changed, cut or doubled.
pub(super) fn damaged(seeds: &[Vec<u8>], random: &mut SmallRng) -> Vec<u8> {
    let pick = |random: &mut SmallRng| seeds[random.random_range(0..seeds.len())].clone();
    let mut bytes = pick(random);
    if random.random_bool(0.2) {
        let other = pick(random);
        bytes.truncate(random.random_range(0..=bytes.len()));
        bytes.extend_from_slice(&other[random.random_range(0..=other.len())..]);
    }
    for _ in 0..random.random_range(1..6) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..6) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes[at] = [0, 0xff, 0x7f, 0x80, 1][random.random_range(0..5)],
            3 => bytes.truncate(at),
            4 => bytes.insert(at, random.random()),
            _ => {
                let end = random.random_range(at..=bytes.len().min(at + 32));
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes.truncate(LENGTH_MAX);
    bytes
}
