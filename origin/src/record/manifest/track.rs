//! `thumbnails.vtt`: which picture to show for which moment of a recording, as WebVTT with one JPEG for each cue. Pure.
//!
//! Before this: `ledger.rs`. After this: `thumbnails.rs` (the store's copy), `shelf.rs` (viewers of a running recording).

use std::{fmt::Write as _, time::Duration};

use weir_shared::hls::address::{THUMBNAILS_END, VodObject};

use super::{Growth, rows};
use crate::record::ledger::Ledger;

/// The track (WebVTT section 4.1). Each picture is shown until the next one's moment. `None` while there is none.
pub fn thumbnails(ledger: &Ledger, growth: Growth) -> Option<String> {
    let of = ledger.renditions.get(ledger.pictures.values().next()?)?;
    let rows = rows(ledger, of, growth);
    let total: Duration = rows.iter().map(super::Row::duration).sum();
    let mut cues: Vec<(Duration, String)> = Vec::with_capacity(ledger.pictures.len());
    let mut start = Duration::ZERO;
    for row in &rows {
        if let Some(rendition) = ledger.pictures.get(&row.at) {
            let picture = VodObject::Picture {
                epoch: row.at.epoch,
                rendition: rendition.clone(),
                msn: row.at.msn,
            };
            // What comes before the first picture is shown as it.
            let from = if cues.is_empty() { Duration::ZERO } else { start };
            cues.push((from, picture.to_string()));
        }
        start += row.duration();
    }
    if cues.is_empty() {
        return None;
    }
    let mut out = String::with_capacity(16 + cues.len() * 64);
    out.push_str("WEBVTT\n");
    let ends = cues.iter().skip(1).map(|(from, _)| *from).chain([total]);
    for ((from, picture), to) in cues.iter().zip(ends) {
        let _ = write!(out, "\n{} --> {}\n{picture}\n", Stamp(*from), Stamp(to));
    }
    if growth == Growth::Finished {
        let _ = write!(out, "\n{THUMBNAILS_END}");
    }
    Some(out)
}

/// `01:02:03.456` (WebVTT section 3.3).
struct Stamp(Duration);

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.as_secs();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        write!(
            f,
            "{hours:02}:{minutes:02}:{:02}.{:03}",
            seconds % 60,
            self.0.subsec_millis()
        )
    }
}
