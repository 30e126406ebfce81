//! The first copy of each object, against which every later copy is held. Pure.

use std::{borrow::Cow, collections::HashMap};

use crate::rule::{Rule, Violation};

/// Objects remembered in one generation; the older of two goes.
const GENERATION: usize = 16_384;
/// Shorter bodies may be equal by chance: an empty part.
const DISTINCT_BYTES: u64 = 256;

/// First copies by name, and names by content.
#[derive(Debug, Default)]
pub struct Ledger {
    young: HashMap<Box<str>, Copy>,
    old: HashMap<Box<str>, Copy>,
    /// A hash of the name by directory and bytes, in the same two generations. Two streams may carry the same broadcast;
    /// two parts of one rendition are never equal.
    young_owners: HashMap<u64, u64>,
    old_owners: HashMap<u64, u64>,
    /// Objects met for the first time.
    pub unique: u64,
}

#[derive(Debug, Clone, Copy)]
struct Copy {
    bytes: u64,
    hash: Option<u64>,
}

impl Ledger {
    /// Holds a body against the first copy under its name. At most one violation is found.
    pub fn check(&mut self, path: &str, bytes: u64, hash: Option<u64>) -> Option<Violation> {
        let name = plain(path);
        if let Some(first) = self.young.get(&*name).or_else(|| self.old.get(&*name)) {
            let differs = first.bytes != bytes || first.hash.zip(hash).is_some_and(|(a, b)| a != b);
            return differs.then(|| {
                let detail = format!(
                    "{name}: {bytes} bytes that differ from the first copy's {}",
                    first.bytes
                );
                Violation::new(Rule::SameBytes, detail)
            });
        }
        self.unique += 1;
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.old_owners = std::mem::take(&mut self.young_owners);
        }
        self.young.insert(name.as_ref().into(), Copy { bytes, hash });
        let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
        let hash = hash.filter(|_| bytes >= DISTINCT_BYTES)? ^ crate::stamp::stream_tag(directory);
        let owner = crate::stamp::stream_tag(&name);
        let known = self.old_owners.get(&hash).copied();
        let known = *self.young_owners.entry(hash).or_insert(known.unwrap_or(owner));
        (known != owner).then(|| {
            Violation::new(
                Rule::ForeignBytes,
                format!("{name} holds the very bytes of another object"),
            )
        })
    }
}

/// A path without query and tickets: what an object is called for everybody.
pub(super) fn plain(path: &str) -> Cow<'_, str> {
    let path = path.split('?').next().unwrap_or(path);
    if !path.contains("/~") {
        return Cow::Borrowed(path);
    }
    let steps = path.split('/').filter(|step| !step.starts_with('~'));
    Cow::Owned(steps.collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_must_be_equal_and_names_must_differ_in_content() {
        let mut ledger = Ledger::default();
        let rule = |found: Option<Violation>| found.map(|v| v.rule);
        assert_eq!(ledger.check("/a/p1.m4s?x", 1000, Some(1)), None);
        assert_eq!(ledger.check("/a/~ticket/p1.m4s", 1000, Some(1)), None);
        assert_eq!(ledger.check("/a/p1.m4s", 1000, None), None, "not hashed, same length");
        assert_eq!(rule(ledger.check("/a/p1.m4s", 1000, Some(2))), Some(Rule::SameBytes));
        assert_eq!(rule(ledger.check("/a/p1.m4s", 999, None)), Some(Rule::SameBytes));
        assert_eq!(rule(ledger.check("/a/p2.m4s", 1000, Some(1))), Some(Rule::ForeignBytes));
        let twin = ledger.check("/b/p1.m4s", 1000, Some(1));
        assert_eq!(twin, None, "the same broadcast under two keys");
        assert_eq!(ledger.check("/a/p3.m4s", 100, Some(7)), None);
        assert_eq!(
            ledger.check("/a/p4.m4s", 100, Some(7)),
            None,
            "too short to be distinct"
        );
        assert_eq!(ledger.unique, 5);
    }

    #[test]
    fn a_ledger_stays_small() {
        let mut ledger = Ledger::default();
        for n in 0..3 * GENERATION as u64 {
            ledger.check(&format!("/p{n}"), 1000, Some(n));
        }
        assert!(ledger.young.len() + ledger.old.len() <= 2 * GENERATION);
        assert!(ledger.young_owners.len() + ledger.old_owners.len() <= 2 * GENERATION);
    }
}
