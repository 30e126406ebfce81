//! What header fields are looked up in (RFC 7541 section 2.3): the standard's table, and the sender's latest. Pure.

use std::collections::VecDeque;

/// The largest dynamic table, in bytes as HPACK counts them: the default, which we leave as it is.
const MAX_BYTES: usize = 4096;
/// What HPACK adds for each entry.
pub(super) const ENTRY_OVERHEAD: usize = 32;

/// The names that are always looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Known {
    Status,
    Location,
    ContentEncoding,
    ContentLength,
    Other,
}

impl Known {
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b":status" => Self::Status,
            b"location" => Self::Location,
            b"content-encoding" => Self::ContentEncoding,
            b"content-length" => Self::ContentLength,
            _ => Self::Other,
        }
    }
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Field<'a> {
    pub(in super::super) known: Known,
    pub(in super::super) name: &'a [u8],
    pub(in super::super) value: &'a [u8],
}

impl Field<'_> {
    /// As HPACK counts.
    pub(super) fn size(&self) -> usize {
        self.name.len() + self.value.len() + ENTRY_OVERHEAD
    }
}

/// Name and value behind each other: one allocation for both, and untouched when the name is none of the known.
#[derive(Debug)]
struct Entry {
    known: Known,
    name_bytes: usize,
    bytes: Box<[u8]>,
}

impl Entry {
    fn size(&self) -> usize {
        self.bytes.len() + ENTRY_OVERHEAD
    }
}

/// Both tables, as one row of numbers.
#[derive(Debug)]
pub(super) struct Table {
    /// The latest first.
    entries: VecDeque<Entry>,
    bytes: usize,
    max_bytes: usize,
}

impl Table {
    pub(super) const fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            max_bytes: MAX_BYTES,
        }
    }

    /// The field of this number; there is no number 0.
    pub(super) fn get(&self, index: usize) -> Option<Field<'_>> {
        let place = index.checked_sub(1)?;
        if let Some((name, value)) = STATIC.get(place) {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            let known = Known::of(name);
            return Some(Field { known, name, value });
        }
        let entry = self.entries.get(place - STATIC.len())?;
        let (name, value) = entry.bytes.split_at_checked(entry.name_bytes)?;
        let known = entry.known;
        Some(Field { known, name, value })
    }

    pub(super) fn insert(&mut self, field: Field<'_>) {
        let size = field.size();
        // One that is too large empties the table, and is no error.
        self.shrink_to(self.max_bytes.saturating_sub(size));
        if size <= self.max_bytes {
            self.entries.push_front(Entry {
                known: field.known,
                name_bytes: field.name.len(),
                bytes: [field.name, field.value].concat().into(),
            });
            self.bytes += size;
        }
    }

    /// The sender's own limit; `false`: more than it was offered.
    pub(super) fn resize(&mut self, max_bytes: usize) -> bool {
        self.max_bytes = max_bytes.min(MAX_BYTES);
        self.shrink_to(self.max_bytes);
        max_bytes <= MAX_BYTES
    }

    fn shrink_to(&mut self, bytes: usize) {
        while self.bytes > bytes {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.bytes -= oldest.size();
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        assert_eq!(self.bytes, self.entries.iter().map(Entry::size).sum::<usize>());
        self.bytes
    }
}

/// RFC 7541, appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];
