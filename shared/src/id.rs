//! Names of things: parsed once at the border, printable, never mixed up.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing there.
    #[error("a {0} must not be empty")]
    Empty(&'static str),
    /// Longer than the limit, in bytes.
    #[error("a {what} has at most {limit} bytes, this one has {found}")]
    TooLong {
        what: &'static str,
        limit: usize,
        found: usize,
    },
    /// A character outside `[A-Za-z0-9_-]`.
    #[error("a {0} consists of A-Z, a-z, 0-9, '_' and '-'")]
    Character(&'static str),
}

fn check(what: &'static str, limit: usize, name: &str) -> Result<(), InvalidName> {
    if name.is_empty() {
        return Err(InvalidName::Empty(what));
    }
    if name.len() > limit {
        return Err(InvalidName::TooLong {
            what,
            limit,
            found: name.len(),
        });
    }
    if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    {
        return Err(InvalidName::Character(what));
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $limit:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Longest accepted name, in bytes.
            pub const MAX_LEN: usize = $limit;

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(s: &str) -> Result<Self, InvalidName> {
                check($what, $limit, s)?;
                Ok(Self(s.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(s: String) -> Result<Self, InvalidName> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), &self.0)
            }
        }
    };
}

name_type!(
    /// A stream's public name: the `<key>` of `/app/<key>/…` and of a push.
    StreamKey,
    "stream key",
    128
);

name_type!(
    /// A rendition's name inside its stream: `video`, `audio`, …
    RenditionName,
    "rendition name",
    32
);

name_type!(
    /// One recording of a stream: the `<recording>` of `/vod/<key>/<recording>/…`. Later ones sort above earlier ones.
    RecordingName,
    "recording",
    64
);

name_type!(
    /// A project: who owns streams and API keys.
    ProjectId,
    "project",
    64
);

name_type!(
    /// A stream in the control plane. Unlike its key it opens nothing, so it may be shown and logged.
    StreamId,
    "stream id",
    64
);

name_type!(
    /// A plan: what a project may have.
    PlanId,
    "plan",
    64
);

/// One life of a stream's pipeline: its start in milliseconds since 1970. Every object name carries it, so that a
/// restarted origin never reuses a name that a cache may still hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

const BASE36: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0u8; 13];
        let (mut at, mut rest) = (digits.len(), self.0);
        loop {
            at -= 1;
            digits[at] = BASE36[(rest % 36) as usize];
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        f.write_str(std::str::from_utf8(&digits[at..]).unwrap_or("0"))
    }
}

impl FromStr for Epoch {
    type Err = InvalidName;
    fn from_str(s: &str) -> Result<Self, InvalidName> {
        check("epoch", 13, s)?;
        // One spelling per epoch: an object has one name.
        let canonical = s == "0" || !s.starts_with('0');
        if !canonical || s.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(InvalidName::Character("epoch"));
        }
        u64::from_str_radix(s, 36)
            .map(Self)
            .map_err(|_| InvalidName::Character("epoch"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_letters_digits_dash_and_underscore() {
        assert!("show_2026-a".parse::<StreamKey>().is_ok());
        for bad in ["", "a/b", "..", "a b", "a%2f", "ü", &"k".repeat(129)] {
            assert!(bad.parse::<StreamKey>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_epoch_has_one_spelling() {
        for n in [0, 1, 35, 36, 1_795_000_000_000, u64::MAX] {
            assert_eq!(Epoch(n).to_string().parse(), Ok(Epoch(n)));
        }
        for bad in ["", "01", "A", "zzzzzzzzzzzzz", "-1", "1_0"] {
            assert!(bad.parse::<Epoch>().is_err(), "{bad:?}");
        }
    }
}
