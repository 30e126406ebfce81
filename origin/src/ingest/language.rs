//! The languages of audio tracks, as far as an encoder tells them. Pure, and of fixed size.
//!
//! Before this: `rtmp/command.rs` (`audioTrackIdInfoMap` of Enhanced RTMP metadata). After this: `live/master.rs`
//! (EXT-X-MEDIA LANGUAGE).

use super::flv::TRACKS_MAX;

/// Longest tag taken, in bytes: `zh-Hans-CN` has ten.
const TAG_MAX: usize = 12;

/// A language tag (RFC 5646), checked for its form only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Language {
    bytes: [u8; TAG_MAX],
    length: u8,
}

impl Language {
    /// Two or three letters, perhaps more behind hyphens. `None` for anything else, and for `und`, which says nothing.
    pub fn parse(tag: &str) -> Option<Self> {
        let primary = tag.split('-').next().unwrap_or_default();
        let is_primary = matches!(primary.len(), 2 | 3) && primary.bytes().all(|b| b.is_ascii_alphabetic());
        let is_rest = tag
            .split('-')
            .skip(1)
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()));
        if !is_primary || !is_rest || primary.eq_ignore_ascii_case("und") {
            return None;
        }
        let mut bytes = [0; TAG_MAX];
        bytes.get_mut(..tag.len())?.copy_from_slice(tag.as_bytes());
        Some(Self {
            bytes,
            length: tag.len() as u8,
        })
    }

    pub fn as_str(&self) -> &str {
        let tag = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(tag).unwrap_or_default()
    }
}

/// Languages by the encoder's track number, at most [`TRACKS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Languages([Option<(u8, Language)>; TRACKS_MAX]);

impl Languages {
    /// Replaces what was known of the track. More tracks than there may be are passed over.
    pub fn set(&mut self, track: u8, language: Language) {
        let known = self
            .0
            .iter()
            .position(|entry| entry.is_some_and(|(number, _)| number == track));
        let place = known.or_else(|| self.0.iter().position(Option::is_none));
        if let Some(entry) = place.and_then(|place| self.0.get_mut(place)) {
            *entry = Some((track, language));
        }
    }

    pub fn of(&self, track: u8) -> Option<Language> {
        let mut known = self.0.iter().flatten();
        known
            .find(|(number, _)| *number == track)
            .map(|(_, language)| *language)
    }

    /// What is said here, and what was said `before` of other tracks.
    pub fn over(self, before: Self) -> Self {
        let mut all = before;
        for (track, language) in self.0.into_iter().flatten() {
            all.set(track, language);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_the_form_of_a_tag_is_one() {
        for tag in ["de", "eng", "zh-Hans-CN", "pt-BR"] {
            assert_eq!(
                Language::parse(tag)
                    .map(|language| language.as_str().to_owned())
                    .as_deref(),
                Some(tag)
            );
        }
        for other in ["", "e", "engl", "12", "de-", "de-\"", "und", "zh-Hans-CN-x-y", "dé"] {
            assert_eq!(Language::parse(other), None, "{other}");
        }
    }

    #[test]
    fn later_words_add_to_earlier_ones() {
        let tag = |text| Language::parse(text).unwrap();
        let (mut first, mut second) = (Languages::default(), Languages::default());
        first.set(0, tag("en"));
        first.set(1, tag("de"));
        second.set(1, tag("fr"));
        let both = second.over(first);
        assert_eq!(
            [both.of(0), both.of(1), both.of(2)],
            [Some(tag("en")), Some(tag("fr")), None]
        );
        for track in 0..=255 {
            first.set(track, tag("en"));
        }
        assert_eq!((first.of(7), first.of(8)), (Some(tag("en")), None));
    }
}
