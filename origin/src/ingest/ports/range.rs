//! Ports as the configuration says them. Pure.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// `20000-20999`, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// A text that is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}`: expected two ports from 1 to 65535, like 20000-20999")]
pub struct BadRange(String);

impl PortRange {
    pub(super) fn iter(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }

    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl FromStr for PortRange {
    type Err = BadRange;
    fn from_str(text: &str) -> Result<Self, BadRange> {
        let parse = || {
            let (first, last) = text.split_once('-')?;
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first > 0 && first <= last).then_some(Self { first, last })
        };
        parse().ok_or_else(|| BadRange(text.to_owned()))
    }
}

impl TryFrom<String> for PortRange {
    type Error = BadRange;
    fn try_from(text: String) -> Result<Self, BadRange> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_two_ports_in_order() {
        let range: PortRange = "20000-20010".parse().unwrap();
        assert_eq!(range.iter().count(), 11);
        assert!(range.overlaps("20010-20020".parse().unwrap()) && !range.overlaps("20011-20020".parse().unwrap()));
        for bad in ["", "1", "2-1", "0-5", "1-65536", "a-b"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }
}
