//! What an edge must know of a stream, and the words in which it asks an origin for it (`/internal/directory`).
//!
//! Pure. Before this on the data path: the origin's store (`control/directory.rs`). After it: the edge's
//! (`edge/src/directory.rs`), which decides with it who may watch and where to ask.
//!
//! | request | answer |
//! |---|---|
//! | `?key=a&key=b` (1 to [`MAX_KEYS`]) | their records, at once |
//! | none | no records, the present cursor |
//! | `?since=<cursor>&wait=<seconds>` | what changed after the cursor, as soon as something has (the idiom of blocking playlist reload), or nothing when the time is over |
//!
//! Every answer is a [`Page`].

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::id::StreamKey;

/// Where an origin answers.
pub const PATH: &str = "/internal/directory";
/// Where an origin takes [`ViewersReport`]s, by POST.
pub const VIEWERS_PATH: &str = "/internal/viewers";
/// Streams of one report.
pub const MAX_REPORTED_STREAMS: usize = 10_000;
/// Largest report, in bytes: full of the longest keys.
pub const MAX_REPORT_BYTES: usize = 2 << 20;
/// Keys of one request.
pub const MAX_KEYS: usize = 100;
/// Changes in one answer. There may be more: ask again with its cursor.
pub const MAX_CHANGES: usize = 256;
/// Longest wait for a change, in seconds.
pub const MAX_WAIT_SECONDS: u64 = 30;
/// Largest answer, in bytes: full of the largest records.
pub const MAX_PAGE_BYTES: usize = 4 << 20;
/// Secrets that are valid at once: the present one, and the one before it while it is being replaced.
pub const MAX_SECRETS: usize = 2;

/// How many watch at one edge. Streams nobody watches are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewersReport {
    /// Another one at each start of an edge.
    pub node: String,
    pub streams: Vec<(StreamKey, u32)>,
}

/// Where a stream is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Waiting for a push.
    Idle,
    /// A publisher is connected, or may still come back.
    Live,
    /// Ended or switched off.
    Disabled,
}

/// Where a stream's media is to be had.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Origins {
    /// Base address of the origin that owns the broadcast: `http://10.0.0.5:8081`. `None`: nobody does.
    pub primary: Option<String>,
    /// Base address of the one to ask when the first does not answer.
    pub backup: Option<String>,
}

impl Origins {
    /// In the order in which they are asked.
    pub fn in_order(&self) -> impl Iterator<Item = &str> {
        self.primary.iter().chain(&self.backup).map(String::as_str)
    }
}

/// What a viewer's plan allows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Seconds of the past that stay seekable; 0: no DVR.
    pub dvr_seconds: u32,
}

/// A secret that signs playback policies. Printed as `…`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlaybackSecret(String);

impl PlaybackSecret {
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PlaybackSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlaybackSecret(…)")
    }
}

/// Which of two records of one stream is the later one: the moment of its last change, and how many there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordVersion {
    /// Milliseconds since 1970: a stream that is removed and made again starts above the old one.
    pub changed_at: i64,
    pub number: i64,
}

/// A stream, as edges know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamRecord {
    pub key: StreamKey,
    pub version: RecordVersion,
    pub status: Status,
    /// Whether publishers are let in at all.
    pub active: bool,
    /// It is being pushed, and not shown yet (or no more).
    pub backstage: bool,
    #[serde(default)]
    pub origins: Origins,
    /// Whether viewers need a signed address.
    #[serde(default)]
    pub signed_playback: bool,
    /// The newest first; at most [`MAX_SECRETS`].
    #[serde(default)]
    pub playback_secrets: Vec<PlaybackSecret>,
    #[serde(default)]
    pub limits: Limits,
    /// The recording that is served at the live address after the end.
    #[serde(default)]
    pub recording: Option<String>,
}

/// Why viewers are not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The broadcast is over, or somebody switched it off.
    Disabled,
    /// Pushed, and not shown.
    Backstage,
}

impl StreamRecord {
    /// Whether and why viewers are not let in now.
    pub fn closed(&self) -> Option<Closed> {
        match self.status {
            Status::Disabled if self.recording.is_none() => Some(Closed::Disabled),
            Status::Live if self.backstage => Some(Closed::Backstage),
            _ => None,
        }
    }
}

/// A place in the changes that one origin has seen. Another origin, or the same one after a restart, counts anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor {
    /// Drawn at random when the origin starts.
    pub instance: u64,
    pub number: u64,
}

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a cursor of an earlier answer")]
pub struct BadCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.instance, self.number)
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;
    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (instance, number) = text.split_once('-').ok_or(BadCursor)?;
        let hex = |digits: &str| {
            let formed = (1..=16).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let digits = formed.then_some(digits).ok_or(BadCursor)?;
            u64::from_str_radix(digits, 16).map_err(|_| BadCursor)
        };
        Ok(Self {
            instance: hex(instance)?,
            number: hex(number)?,
        })
    }
}

impl TryFrom<String> for Cursor {
    type Error = BadCursor;
    fn try_from(text: String) -> Result<Self, BadCursor> {
        text.parse()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

/// An answer of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// Everything up to here is in the records or was in earlier ones: what to ask with next.
    pub cursor: Cursor,
    pub records: Vec<StreamRecord>,
    /// Keys that were asked for, or that changed, and that no stream has.
    #[serde(default)]
    pub unknown: Vec<StreamKey>,
    /// The cursor asked with says nothing here: what is known has to be asked for again.
    #[serde(default)]
    pub reset: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(status: Status, backstage: bool) -> StreamRecord {
        StreamRecord {
            key: "show".parse().unwrap(),
            version: RecordVersion {
                changed_at: 1_795_000_000_000,
                number: 7,
            },
            status,
            active: true,
            backstage,
            origins: Origins {
                primary: Some("http://10.0.0.5:8081".to_owned()),
                backup: Some("http://10.0.0.6:8081".to_owned()),
            },
            signed_playback: true,
            playback_secrets: vec![PlaybackSecret::new("new"), PlaybackSecret::new("old")],
            limits: Limits { dvr_seconds: 3600 },
            recording: None,
        }
    }

    #[test]
    fn a_page_reads_back_as_it_was_written() {
        let page = Page {
            cursor: Cursor {
                instance: u64::MAX,
                number: 255,
            },
            records: vec![record(Status::Live, true)],
            unknown: vec!["gone".parse().unwrap()],
            reset: true,
        };
        let text = serde_json::to_string(&page).unwrap();
        assert!(text.contains(r#""cursor":"ffffffffffffffff-ff""#), "{text}");
        assert_eq!(serde_json::from_str::<Page>(&text).unwrap(), page);
    }

    #[test]
    fn what_a_later_version_leaves_out_or_adds_does_not_matter() {
        let text = r#"{"key": "a", "version": {"changedAt": 1, "number": 1}, "status": "IDLE", "active": true,
                       "backstage": false, "somethingNew": {}}"#;
        let record: StreamRecord = serde_json::from_str(text).unwrap();
        assert_eq!((record.origins, record.signed_playback), (Origins::default(), false));
    }

    #[test]
    fn viewers_are_let_in_unless_it_is_over_or_backstage() {
        for (status, backstage, closed) in [
            (Status::Idle, false, None),
            (Status::Idle, true, None),
            (Status::Live, false, None),
            (Status::Live, true, Some(Closed::Backstage)),
            (Status::Disabled, false, Some(Closed::Disabled)),
        ] {
            assert_eq!(record(status, backstage).closed(), closed, "{status:?} {backstage}");
        }
        let recorded = StreamRecord {
            recording: Some("r1".to_owned()),
            ..record(Status::Disabled, false)
        };
        assert_eq!(recorded.closed(), None);
    }

    #[test]
    fn a_cursor_is_two_numbers_and_nothing_else() {
        for bad in ["", "-", "1", "1-", "-1", "+1-1", "1-1-1", "g-1", "11111111111111111-1"] {
            assert_eq!(bad.parse::<Cursor>(), Err(BadCursor), "{bad}");
        }
        let cursor = Cursor { instance: 1, number: 2 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }

    #[test]
    fn a_stream_made_again_is_newer_than_the_one_that_was_removed() {
        let old = record(Status::Live, false).version;
        let new = RecordVersion {
            changed_at: old.changed_at + 1,
            number: 1,
        };
        assert!(new > old);
    }

    #[test]
    fn secrets_are_not_printed() {
        assert!(!format!("{:?}", record(Status::Live, false)).contains("new"));
    }
}
