//! Which streams changed since when, as far back as it is remembered.
//!
//! Pure. Before this: `directory.rs`, which hears of changes. After this: an edge's long poll.

use std::collections::{HashSet, VecDeque};

use weir_shared::{directory::Cursor, id::StreamKey};

/// What changed after a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// These, each once; all changes up to the cursor are among them.
    Keys { keys: Vec<StreamKey>, cursor: Cursor },
    /// It can't be told: the cursor is another node's, or too old.
    Lost,
}

/// A bounded memory of changes, numbered from 1.
#[derive(Debug)]
pub struct ChangeLog {
    instance: u64,
    /// The newest change's number.
    newest: u64,
    /// Changes after this number are all in `entries`.
    floor: u64,
    entries: VecDeque<StreamKey>,
    capacity: usize,
}

impl ChangeLog {
    /// `instance` is drawn at random, so that no cursor of an earlier run fits.
    pub fn new(instance: u64, capacity: usize) -> Self {
        Self {
            instance,
            newest: 0,
            floor: 0,
            entries: VecDeque::new(),
            capacity,
        }
    }

    pub fn cursor(&self) -> Cursor {
        Cursor {
            instance: self.instance,
            number: self.newest,
        }
    }

    /// Gives the change's number.
    pub fn note(&mut self, key: StreamKey) -> u64 {
        self.newest += 1;
        self.entries.push_back(key);
        if self.entries.len() > self.capacity {
            self.entries.pop_front();
            self.floor += 1;
        }
        self.newest
    }

    /// Some changes were missed: whoever asks from before now has to start over. Gives the number that says so.
    pub fn forget(&mut self) -> u64 {
        self.newest += 1;
        self.floor = self.newest;
        self.entries.clear();
        self.newest
    }

    /// At most `limit` streams that changed after the cursor.
    pub fn since(&self, cursor: Cursor, limit: usize) -> Since {
        let known = self.floor..=self.newest;
        if cursor.instance != self.instance || !known.contains(&cursor.number) {
            return Since::Lost;
        }
        let (mut keys, mut seen, mut number) = (Vec::new(), HashSet::new(), cursor.number);
        let skip = usize::try_from(cursor.number - self.floor).unwrap_or(usize::MAX);
        for key in self.entries.iter().skip(skip) {
            if seen.insert(key) {
                if keys.len() >= limit {
                    break;
                }
                keys.push(key.clone());
            }
            number += 1;
        }
        let cursor = Cursor { number, ..cursor };
        Since::Keys { keys, cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> StreamKey {
        name.parse().unwrap()
    }

    fn at(number: u64) -> Cursor {
        Cursor { instance: 9, number }
    }

    fn log(names: &[&str]) -> ChangeLog {
        let mut log = ChangeLog::new(9, 4);
        for name in names {
            log.note(key(name));
        }
        log
    }

    fn keys(names: &[&str], number: u64) -> Since {
        Since::Keys {
            keys: names.iter().map(|n| key(n)).collect(),
            cursor: at(number),
        }
    }

    #[test]
    fn each_stream_is_told_once_however_often_it_changed() {
        let log = log(&["a", "b", "a", "a"]);
        assert_eq!(log.since(at(0), 10), keys(&["a", "b"], 4));
        assert_eq!(log.since(at(2), 10), keys(&["a"], 4));
        assert_eq!(log.since(at(4), 10), keys(&[], 4));
    }

    #[test]
    fn a_page_ends_where_the_next_one_begins() {
        let log = log(&["a", "b", "a", "c"]);
        assert_eq!(log.since(at(0), 1), keys(&["a"], 1));
        assert_eq!(log.since(at(1), 1), keys(&["b"], 2));
        assert_eq!(log.since(at(2), 1), keys(&["a"], 3));
        assert_eq!(
            log.since(at(0), 2),
            keys(&["a", "b"], 3),
            "the second a is in it already"
        );
    }

    #[test]
    fn what_is_too_old_or_somebody_elses_is_lost_rather_than_wrong() {
        let log = log(&["a", "b", "c", "d", "e", "f"]);
        assert_eq!(log.since(at(1), 10), Since::Lost);
        assert_eq!(log.since(at(2), 10), keys(&["c", "d", "e", "f"], 6));
        assert_eq!(log.since(at(7), 10), Since::Lost, "from the future");
        assert_eq!(log.since(Cursor { instance: 8, number: 6 }, 10), Since::Lost);
    }

    #[test]
    fn a_gap_loses_everybody_who_asks_from_before_it() {
        let mut log = log(&["a"]);
        let before = log.cursor();
        log.forget();
        assert_eq!(log.since(before, 10), Since::Lost);
        let after = log.cursor();
        log.note(key("b"));
        assert_eq!(log.since(after, 10), keys(&["b"], 3));
    }
}
