//! The attribute lists of media playlist tags, each read into what [`parse`](super::parse) keeps of it.

use std::time::Duration;

use super::{Problem, uri_attribute};
use crate::hls::playlist::{Part, PreloadHint, ServerControl};
use crate::hls::text::{Attribute, attributes, tag};

/// EXT-X-PART (section 4.4.4.9).
pub(super) fn part(list: &str) -> Result<Part, Problem> {
    let bad = |name| Problem::BadAttribute { tag: tag::PART, name };
    let (mut uri, mut duration, mut independent, mut gap) = (None, None, false, false);
    for attribute in attributes(list) {
        let attribute = attribute.map_err(|_| Problem::BadValue(tag::PART))?;
        match attribute.name {
            "URI" => uri = Some(uri_attribute(attribute, tag::PART)?),
            "DURATION" => duration = attribute.seconds(),
            "INDEPENDENT" => independent = attribute.yes(),
            "GAP" => gap = attribute.yes(),
            "BYTERANGE" => return Err(Problem::Unsupported("BYTERANGE of EXT-X-PART")),
            _ => {}
        }
    }
    Ok(Part {
        uri: uri.ok_or(bad("URI"))?,
        duration: duration.ok_or(bad("DURATION"))?,
        independent,
        gap,
    })
}

/// The URI of EXT-X-MAP (section 4.4.4.5).
pub(super) fn map(list: &str) -> Result<String, Problem> {
    let mut uri = None;
    for attribute in attributes(list) {
        let attribute = attribute.map_err(|_| Problem::BadValue(tag::MAP))?;
        match attribute.name {
            "URI" => uri = Some(uri_attribute(attribute, tag::MAP)?),
            "BYTERANGE" => return Err(Problem::Unsupported("BYTERANGE of EXT-X-MAP")),
            _ => {}
        }
    }
    uri.ok_or(Problem::BadAttribute {
        tag: tag::MAP,
        name: "URI",
    })
}

/// EXT-X-SERVER-CONTROL (section 4.4.3.8); `None` when it says nothing we know.
pub(in crate::hls) fn server_control(list: &str) -> Result<Option<ServerControl>, Problem> {
    const SILENT: ServerControl = ServerControl {
        can_block_reload: false,
        can_skip_until: None,
        hold_back: None,
        part_hold_back: None,
    };
    let mut control = SILENT;
    for attribute in attributes(list) {
        let attribute = attribute.map_err(|_| Problem::BadValue(tag::SERVER_CONTROL))?;
        let (slot, name) = match attribute.name {
            "CAN-BLOCK-RELOAD" => {
                control.can_block_reload = attribute.yes();
                continue;
            }
            "CAN-SKIP-UNTIL" => (&mut control.can_skip_until, "CAN-SKIP-UNTIL"),
            "HOLD-BACK" => (&mut control.hold_back, "HOLD-BACK"),
            "PART-HOLD-BACK" => (&mut control.part_hold_back, "PART-HOLD-BACK"),
            _ => continue,
        };
        *slot = Some(attribute.seconds().ok_or(Problem::BadAttribute {
            tag: tag::SERVER_CONTROL,
            name,
        })?);
    }
    Ok((control != SILENT).then_some(control))
}

/// PART-TARGET of EXT-X-PART-INF (section 4.4.3.7).
pub(in crate::hls) fn part_inf(list: &str) -> Result<Duration, Problem> {
    find(list, tag::PART_INF, "PART-TARGET", |a| a.seconds())
}

/// SKIPPED-SEGMENTS of EXT-X-SKIP (section 4.4.5.2).
pub(in crate::hls) fn skip(list: &str) -> Result<u64, Problem> {
    find(list, tag::SKIP, "SKIPPED-SEGMENTS", |a| a.integer())
}

/// EXT-X-PRELOAD-HINT (section 4.4.5.3); `None` for a hint of anything but a part.
pub(super) fn preload_hint(list: &str) -> Result<Option<PreloadHint>, Problem> {
    let (mut uri, mut is_part, mut is_range) = (None, false, false);
    for attribute in attributes(list) {
        let attribute = attribute.map_err(|_| Problem::BadValue(tag::PRELOAD_HINT))?;
        match attribute.name {
            "TYPE" => is_part = attribute.word() == Some("PART"),
            "URI" => uri = Some(uri_attribute(attribute, tag::PRELOAD_HINT)?),
            "BYTERANGE-START" => is_range |= attribute.integer() != Some(0),
            "BYTERANGE-LENGTH" => is_range = true,
            _ => {}
        }
    }
    if !is_part {
        return Ok(None);
    }
    if is_range {
        return Err(Problem::Unsupported("byte range of EXT-X-PRELOAD-HINT"));
    }
    let uri = uri.ok_or(Problem::BadAttribute {
        tag: tag::PRELOAD_HINT,
        name: "URI",
    })?;
    Ok(Some(PreloadHint { uri }))
}

/// A rendition report whose LAST-MSN may be left to this playlist's own (section 4.4.5.4).
pub(super) struct Report {
    pub(super) uri: String,
    pub(super) last_msn: Option<u64>,
    pub(super) last_part: Option<u32>,
}

/// EXT-X-RENDITION-REPORT (section 4.4.5.4).
pub(super) fn rendition_report(list: &str) -> Result<Report, Problem> {
    let bad = |name| Problem::BadAttribute {
        tag: tag::RENDITION_REPORT,
        name,
    };
    let (mut uri, mut last_msn, mut last_part) = (None, None, None);
    for attribute in attributes(list) {
        let attribute = attribute.map_err(|_| Problem::BadValue(tag::RENDITION_REPORT))?;
        match attribute.name {
            "URI" => uri = Some(uri_attribute(attribute, tag::RENDITION_REPORT)?),
            "LAST-MSN" => last_msn = Some(attribute.integer().ok_or(bad("LAST-MSN"))?),
            "LAST-PART" => {
                let part = attribute.integer().and_then(|n| u32::try_from(n).ok());
                last_part = Some(part.ok_or(bad("LAST-PART"))?);
            }
            _ => {}
        }
    }
    Ok(Report {
        uri: uri.ok_or(bad("URI"))?,
        last_msn,
        last_part,
    })
}

/// EXT-X-KEY: only METHOD=NONE changes nothing.
pub(super) fn key(value: &str) -> Result<(), Problem> {
    let is_none = find(value, tag::KEY, "METHOD", |a| a.word().map(|method| method == "NONE"))?;
    if is_none {
        Ok(())
    } else {
        Err(Problem::Unsupported(tag::KEY))
    }
}

/// The one attribute a tag is about.
fn find<T>(
    list: &str,
    tag: &'static str,
    name: &'static str,
    read: impl Fn(&Attribute<'_>) -> Option<T>,
) -> Result<T, Problem> {
    let mut found = None;
    for attribute in attributes(list) {
        let attribute = attribute.map_err(|_| Problem::BadValue(tag))?;
        if attribute.name == name {
            found = read(&attribute);
        }
    }
    found.ok_or(Problem::BadAttribute { tag, name })
}
