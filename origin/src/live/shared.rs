//! Bytes of parts that both flavours have: the resilient one, a cushion behind, finds those that the direct one has laid
//! out and holds them instead of its own. As long as a publish lasts, they have the same timeline and cut at the same key
//! frames.
//!
//! Before and after this: `live/track.rs`, whose direct tracks offer and whose resilient tracks look for them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;
use weir_shared::{id::RenditionName, media::time::Ticks};

/// Parts of a rendition on offer: the longest cushion of the shortest parts.
const PARTS_MAX: usize = 64;

/// Newest parts of each rendition of one stream.
#[derive(Debug, Default)]
pub(super) struct SharedParts(Mutex<BTreeMap<RenditionName, VecDeque<(Ticks, Bytes)>>>);

impl SharedParts {
    /// A part of the direct flavour, which begins at `tfdt`.
    pub(super) fn offer(&self, rendition: &RenditionName, tfdt: Ticks, bytes: &Bytes) {
        let mut all = self.0.lock();
        let parts = match all.get_mut(rendition) {
            Some(parts) => parts,
            None => all.entry(rendition.clone()).or_default(),
        };
        if parts.len() == PARTS_MAX {
            parts.pop_front();
        }
        parts.push_back((tfdt, bytes.clone()));
    }

    /// The same bytes if they are on offer, else these; and whether they were.
    pub(super) fn or_own(&self, rendition: &str, tfdt: Ticks, own: Bytes) -> (Bytes, bool) {
        let all = self.0.lock();
        let parts = all
            .iter()
            .find(|(name, _)| name.as_str() == rendition)
            .map(|(_, parts)| parts);
        let same = parts.and_then(|parts| parts.iter().find(|(at, bytes)| *at == tfdt && *bytes == own));
        same.map_or((own, false), |(_, bytes)| (bytes.clone(), true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_parts_are_shared() {
        let (shared, name) = (SharedParts::default(), "video".parse().unwrap());
        let offered = Bytes::from(vec![1, 2, 3]);
        shared.offer(&name, Ticks(7), &offered);
        let find = |tfdt, own: Vec<u8>| shared.or_own("video", Ticks(tfdt), own.into());
        let (found, is_shared) = find(7, vec![1, 2, 3]);
        assert_eq!((found.as_ptr(), is_shared), (offered.as_ptr(), true));
        assert!(!find(8, vec![1, 2, 3]).1);
        assert_eq!(find(7, vec![1, 2, 4]), (vec![1, 2, 4].into(), false));
        for n in 0..100 {
            shared.offer(&name, Ticks(100 + n), &offered);
        }
        assert_ne!(find(7, vec![1, 2, 3]).0.as_ptr(), offered.as_ptr());
    }
}
