//! Delivery directives of a playlist request: `_HLS_msn`, `_HLS_part`, `_HLS_skip` (section 6.2.5).

use super::position::{MediaSequence, PartIndex, Want};

/// A parsed playlist request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reload {
    pub want: Want,
    pub skip: Skip,
}

/// `_HLS_skip` (section 6.2.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Skip {
    /// A full playlist.
    #[default]
    No,
    /// `YES`: skip older segments. `v2` would skip date ranges too; Weir lists none, so it is the same.
    Yes,
}

/// Why a request's directives are refused (400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadDirective {
    #[error("_HLS_msn must be a decimal media sequence number")]
    Msn,
    #[error("_HLS_part must be a decimal part index")]
    Part,
    #[error("_HLS_part needs _HLS_msn")]
    PartWithoutMsn,
    #[error("_HLS_skip must be YES or v2")]
    Skip,
    #[error("a directive is given twice")]
    Repeated,
}

impl Reload {
    /// The plain request: newest full playlist, at once.
    pub const NOW: Self = Self {
        want: Want::Now,
        skip: Skip::No,
    };

    /// Reads the directives of a raw query string; other parameters are ignored.
    pub fn parse(query: Option<&str>) -> Result<Self, BadDirective> {
        let (mut msn, mut part, mut skip) = (None, None, None);
        for pair in query.unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match name {
                "_HLS_msn" => &mut msn,
                "_HLS_part" => &mut part,
                "_HLS_skip" => &mut skip,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(BadDirective::Repeated);
            }
        }
        let msn = msn.map(|v| decimal(v).ok_or(BadDirective::Msn)).transpose()?;
        let part = part
            .map(|v| decimal(v).and_then(|n| u32::try_from(n).ok()).ok_or(BadDirective::Part))
            .transpose()?;
        let want = match (msn, part) {
            (None, None) => Want::Now,
            (Some(msn), None) => Want::Segment(MediaSequence(msn)),
            (Some(msn), Some(part)) => Want::Part(MediaSequence(msn), PartIndex(part)),
            (None, Some(_)) => return Err(BadDirective::PartWithoutMsn),
        };
        let skip = match skip {
            None => Skip::No,
            Some("YES" | "v2") => Skip::Yes,
            Some(_) => return Err(BadDirective::Skip),
        };
        Ok(Self { want, skip })
    }

    /// The query string that [`Reload::parse`] reads back; empty for [`Reload::NOW`].
    pub fn to_query(self) -> String {
        let mut query = match self.want {
            Want::Now => String::new(),
            Want::Segment(msn) => format!("_HLS_msn={msn}"),
            Want::Part(msn, part) => format!("_HLS_msn={msn}&_HLS_part={part}"),
        };
        if self.skip == Skip::Yes {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str("_HLS_skip=YES");
        }
        query
    }
}

fn decimal(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_and_written_back() {
        for query in [
            "",
            "_HLS_msn=7",
            "_HLS_msn=7&_HLS_part=0",
            "_HLS_msn=7&_HLS_part=2&_HLS_skip=YES",
            "_HLS_skip=YES",
        ] {
            assert_eq!(Reload::parse(Some(query)).unwrap().to_query(), query);
        }
        assert_eq!(Reload::parse(None), Ok(Reload::NOW));
        assert_eq!(Reload::parse(Some("utm=1&x&_hls_msn=4")), Ok(Reload::NOW));
    }

    #[test]
    fn malformed_directives_are_refused() {
        use BadDirective::*;
        for (query, error) in [
            ("_HLS_part=1", PartWithoutMsn),
            ("_HLS_msn=", Msn),
            ("_HLS_msn=-1", Msn),
            ("_HLS_msn=+1", Msn),
            ("_HLS_msn=99999999999999999999", Msn),
            ("_HLS_msn=1&_HLS_part=4294967296", Part),
            ("_HLS_msn=1&_HLS_part=x", Part),
            ("_HLS_skip=no", Skip),
            ("_HLS_msn=1&_HLS_msn=1", Repeated),
        ] {
            assert_eq!(Reload::parse(Some(query)), Err(error), "{query}");
        }
    }
}
