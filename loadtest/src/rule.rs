//! What a server must keep, by name. Pure.
//!
//! Identifiers such as `PL-21` are the numbered rules for LL-HLS servers that the repository uses throughout; those that
//! begin with `VW` hold for what a viewer sees over time and have no single line in the draft.

use std::fmt;

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident, $id:literal, $text:literal;)*) => {
        /// A rule that one or two answers can show to be broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize)]
        #[serde(try_from = "String")]
        pub enum Rule { $($(#[$doc])* $name,)* }

        impl Rule {
            /// Every rule, in the order of reports.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The identifier: a closed set, fit for a label.
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            /// Whether the documents demand it (MUST). The others are what is expected of a good server: told, and no
            /// reason for a run to fail.
            pub const fn is_must(self) -> bool {
                !matches!(self,
                    Self::HeldTooLong | Self::MediaType | Self::Varies | Self::MediaCoding | Self::CorsOnErrors
                    | Self::AgeExposed | Self::PlainLifetime | Self::BlockedLifetime | Self::MediaLifetime
                    | Self::RefusalLifetime | Self::LengthTold | Self::Validator | Self::Priority | Self::BrowserLifetime
                )
            }

            /// Whether it is about when things come: a machine that is too busy breaks it for any server.
            pub const fn is_pace(self) -> bool {
                matches!(self, Self::SegmentsInTime | Self::PartsInTime)
            }

            /// What holds.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

rules! {
    PositionBack, "VW-01", "a viewer's position never goes back";
    PartOnce, "VW-02", "each part comes once";
    NoGap, "VW-03", "no part is left out";
    SameBytes, "VW-04", "everybody gets the same bytes under one name";
    ForeignBytes, "VW-05", "a name gives its own bytes, not those of another object";
    ForeignTicket, "VW-06", "no viewer gets another viewer's ticket";
    WholeBody, "VW-07", "a body has the announced length";
    RenditionStalls, "VW-08", "no rendition stands still while others go on";
    Answered, "VW-09", "a request is answered: no reset, no garbage, no silence";
    Readable, "PL-01", "a playlist is text that can be read";
    TargetDuration, "PL-04", "TARGETDURATION >= every rounded EXTINF";
    TargetDurationFixed, "PL-05", "TARGETDURATION never changes";
    MapPresent, "PL-09", "EXT-X-MAP applies to every fMP4 segment and part";
    PartInf, "PL-14", "PART-INF whenever parts are listed";
    PartHoldBack, "PL-15", "PART-HOLD-BACK >= 2 x PART-TARGET";
    HoldBack, "PL-17", "HOLD-BACK >= 3 x TARGETDURATION";
    SkipUntil, "PL-18", "CAN-SKIP-UNTIL >= 6 x TARGETDURATION";
    BlockReload, "PL-20", "CAN-BLOCK-RELOAD=YES with parts";
    PartTooLong, "PL-21", "every part DURATION <= PART-TARGET";
    PartTooShort, "PL-22", "part DURATION >= 85% of PART-TARGET unless excepted";
    PartSum, "PL-23", "part DURATIONs of a segment add up to its EXTINF";
    HintPresent, "PL-26", "a PRELOAD-HINT in every live playlist with parts";
    HintAfterEnd, "PL-28", "no PRELOAD-HINT together with ENDLIST";
    DateContinuous, "PL-30", "program dates continuous within 1 s";
    UnaskedSkip, "PL-36", "no EXT-X-SKIP unless asked for";
    SegmentsInTime, "UP-03", "a new segment at most 1.5 Target Durations after the previous one";
    PartsInTime, "UP-04", "a new part within one Part Target of the previous one, 95 times in 100";
    SequenceBack, "UP-01", "MEDIA-SEQUENCE never decreases, a number keeps its segment";
    PartsStable, "UP-05", "listed parts do not change";
    HintKept, "UP-06", "the hinted URI is the next part that appears";
    StalePlaylist, "UP-09", "playlists never go back in time";
    HeaderFixed, "UP-10", "SERVER-CONTROL, PART-INF and VERSION do not change";
    AfterEnd, "UP-11", "nothing is added after ENDLIST";
    BlockedEarly, "BL-01", "a blocking request is held until that part is listed";
    HeldTooLong, "BL-08", "a request blocked more than three Target Durations ends with 503";
    PastAnswered, "BL-03", "a position that is listed or due is answered with 200";
    HintAnswered, "PH-01", "the hinted part is held, then answered 200";
    EarlyBytes, "PH-02", "no byte of a part is sent before the part is whole";
    ListedPart, "PH-05", "a listed part can be had at once";
    ListedSegment, "PH-06", "a listed segment or init section can be had at once";
    DeltaFits, "DL-02", "a delta update merged is the full playlist";
    ReportFresh, "RR-03", "rendition reports as fresh as the playlist";
    Multivariant, "MV-19", "every rendition's URI answers 200 with a media playlist";
    PlaylistType, "HT-01", "a playlist's Content-Type is application/vnd.apple.mpegurl";
    MediaType, "HT-02", "media is video/mp4, audio/mp4 or application/mp4";
    Gzip, "HT-03", "playlists are gzip-encoded when the viewer takes it";
    UnaskedCoding, "HT-04", "playlists are not encoded when the viewer does not take it";
    Varies, "HT-05", "Vary: Accept-Encoding on playlists";
    MediaCoding, "HT-06", "media is not content-encoded";
    Cors, "HT-08", "CORS allow-origin on playlists and media";
    CorsOnErrors, "HT-09", "CORS allow-origin on refusals";
    AgeExposed, "HT-10", "Access-Control-Expose-Headers names Age";
    PlainLifetime, "HT-11", "an unblocked playlist is kept at most half a Target Duration";
    BlockedLifetime, "HT-12", "a blocked playlist can be kept about six Target Durations";
    MediaLifetime, "HT-13", "parts and segments can be kept at least six Target Durations";
    RefusalLifetime, "HT-14", "404 and 400 are kept at most four Target Durations";
    LengthTold, "HT-16", "Content-Length on media";
    Validator, "HT-17", "ETag or Last-Modified on media";
    Priority, "HT-21", "RFC 9218 priority: playlists u=1, media u=2 to u=6";
    StaleWithoutAge, "HT-22", "a stale playlist says so with Age";
    BrowserLifetime, "HT-23", "a blocked playlist is not kept by a browser";
}

impl From<Rule> for &'static str {
    fn from(rule: Rule) -> Self {
        rule.id()
    }
}

impl TryFrom<String> for Rule {
    type Error = String;

    fn try_from(id: String) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|rule| rule.id() == id);
        found.copied().ok_or_else(|| format!("{id} is no rule"))
    }
}

impl serde::Serialize for Rule {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.id())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id(), self.text())
    }
}

/// A broken rule and how it showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    /// For people; without tickets.
    pub detail: String,
}

impl Violation {
    pub fn new(rule: Rule, detail: impl Into<String>) -> Self {
        Self {
            rule,
            detail: detail.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn identifiers_are_unique() {
        let ids: BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.id()).collect();
        assert_eq!(ids.len(), Rule::ALL.len());
    }
}
