//! As much of ISO base media (14496-12) as recordings need: where a segment's first picture ends, and one file made of the
//! fragments of several renditions. Pure; it reads stored bytes, which may be anything.
//!
//! Before this: `collect.rs`, `remux.rs`.

/// A box: its type, and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    pub kind: [u8; 4],
    /// Where it begins in what was searched.
    pub start: usize,
    /// Header included.
    pub size: usize,
    pub content: &'a [u8],
}

impl Found<'_> {
    pub fn end(&self) -> usize {
        self.start + self.size
    }

    /// Where its content begins in what was searched.
    pub fn content_start(&self) -> usize {
        self.end() - self.content.len()
    }
}

/// The boxes that stand one after another in `bytes`. Ends at the first that is not whole.
pub fn boxes(bytes: &[u8]) -> impl Iterator<Item = Found<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..)?;
        let short = u32_at(rest, 0)?;
        let kind: [u8; 4] = rest.get(4..8)?.try_into().ok()?;
        let (header, size) = match short {
            1 => (16, usize::try_from(u64_at(rest, 8)?).ok()?),
            0 => (8, rest.len()),
            size => (8, size as usize),
        };
        let found = Found {
            kind,
            start: at,
            size,
            content: rest.get(header..size)?,
        };
        at += size;
        Some(found)
    })
}

/// The first box of a type.
pub fn find<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<Found<'a>> {
    boxes(bytes).find(|found| found.kind == *kind)
}

/// The first box down a path of types, and where its content begins in `bytes`.
pub fn descend<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<(usize, &'a [u8])> {
    path.iter().try_fold((0, bytes), |(base, bytes), kind| {
        let found = find(bytes, kind)?;
        Some((base + found.content_start(), found.content))
    })
}

/// Where the first frame of a part ends, from the start of the part: `moof`, the header of `mdat`, and the frame.
/// `None`: the part does not begin with a key frame.
pub fn key_frame_end(part: &[u8]) -> Option<u64> {
    const SYNC_MASK: u32 = 0x1_0000;
    let moof = find(part, b"moof")?;
    let mdat = find(part, b"mdat")?;
    let (_, traf) = descend(moof.content, &[b"traf"])?;
    let trun = find(traf, b"trun")?.content;
    let flags = u32_at(trun, 0)? & 0xff_ffff;
    // Ours have data offset, durations, sizes and flags of every sample (14496-12 section 8.8.8).
    const OURS: u32 = 0x1 | 0x100 | 0x200 | 0x400;
    if flags & OURS != OURS || flags & 0x4 != 0 || u32_at(trun, 4)? == 0 {
        return None;
    }
    let (size, sample_flags) = (u32_at(trun, 16)?, u32_at(trun, 20)?);
    let end = mdat.content_start() as u64 + u64::from(size);
    (sample_flags & SYNC_MASK == 0 && end <= mdat.end() as u64).then_some(end)
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let eight = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_be_bytes(eight.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let mut out = (content.len() as u32 + 8).to_be_bytes().to_vec();
        out.extend(kind);
        out.extend(content);
        out
    }

    fn part(flags: u32, sample_flags: u32, first: u32, media: usize) -> Vec<u8> {
        let mut trun = flags.to_be_bytes().to_vec();
        for value in [2, 0, 3000, first, sample_flags, 0, 3000, 5, 0x101_0000, 0] {
            trun.extend(u32::to_be_bytes(value));
        }
        let mut part = boxed(b"moof", &boxed(b"traf", &boxed(b"trun", &trun)));
        part.extend(boxed(b"mdat", &vec![7; media]));
        part
    }

    #[test]
    fn a_key_frame_ends_where_its_bytes_do() {
        let whole = part(0x100_0f01, 0x200_0000, 40, 45);
        let moof = find(&whole, b"moof").unwrap().size as u64;
        assert_eq!(key_frame_end(&whole), Some(moof + 8 + 40));
        assert_eq!(
            key_frame_end(&part(0x100_0f01, 0x101_0000, 40, 45)),
            None,
            "no key frame"
        );
        assert_eq!(
            key_frame_end(&part(0x100_0f01, 0x200_0000, 46, 45)),
            None,
            "longer than its box"
        );
        assert_eq!(
            key_frame_end(&part(0x100_0000, 0x200_0000, 40, 45)),
            None,
            "nothing said of samples"
        );
    }

    #[test]
    fn whatever_is_cut_off_is_not_there() {
        let whole = part(0x100_0f01, 0x200_0000, 40, 45);
        for length in 0..whole.len() {
            let cut = whole.get(..length).unwrap();
            assert_eq!(key_frame_end(cut), None, "{length}");
            assert!(boxes(cut).all(|found| found.end() <= length));
        }
        // A box that claims more than there is, and one whose size makes no sense.
        for size in [0u32, 1, 7, 9, u32::MAX] {
            let mut bad = size.to_be_bytes().to_vec();
            bad.extend(b"moof");
            assert!(boxes(&bad).count() <= 1);
        }
    }
}
