//! Whether a body is what its name says. Pure.

use weir_shared::hls::{
    address::{Address, Object},
    delta::MergeError,
    name::{MediaObject, ObjectName},
};

use super::{Common, ledger};
use crate::{
    listing::{Listing, Unreadable},
    rule::{Rule, Violation},
    stamp::{self, Stamp},
    tally::Tally,
    viewer::Received,
};

/// The same bytes for everybody, and nobody else's.
pub(super) fn bytes(path: &str, received: &Received, common: &mut Common, tally: &mut Tally) {
    tally.violations_from(common.ledger.check(path, received.body.bytes, received.body.hash));
}

/// A made-up part says which one it is; a path of Weir's form says which one was asked for.
pub(super) fn identity(path: &str, stamp: &Stamp, tally: &mut Tally) {
    let (Some(identity), Some(address)) = (stamp.identity, Address::parse(&ledger::plain(path))) else {
        return;
    };
    let Object::Direct(ObjectName::Media {
        rendition,
        object: MediaObject::Part(part),
        ..
    }) = address.object
    else {
        return;
    };
    let asked = stamp::Identity {
        stream: stamp::stream_tag(address.key.as_str()),
        rendition: stamp::stream_tag(rendition.as_str()) as u32,
        part: part.0,
    };
    if asked != identity {
        let what = if asked.stream != identity.stream {
            "another stream"
        } else {
            "another part"
        };
        let detail = format!("{} holds the bytes of {what}", ledger::plain(path));
        tally.violation(Violation::new(Rule::ForeignBytes, detail));
    }
}

/// A media playlist is the same for everybody: a ticket in it can only be that of the path it was asked by.
pub(super) fn foreign_tickets(path: &str, listing: &Listing, tally: &mut Tally) {
    let own = path.split('/').find(|step| step.starts_with('~'));
    let foreign = |uri: &str| uri.split('/').any(|step| step.starts_with('~') && Some(step) != own);
    let segments = listing.playlist.segments.iter().filter_map(|s| s.uri.as_deref());
    if segments.chain(listing.parts.iter().map(|p| &*p.uri)).any(foreign) {
        let detail = format!("{} names objects under another ticket", ledger::plain(path));
        tally.violation(Violation::new(Rule::ForeignTicket, detail));
    }
}

pub(super) fn unreadable(path: &str, why: &Unreadable, tally: &mut Tally) {
    let rule = match why {
        Unreadable::NothingToMerge => Rule::UnaskedSkip,
        Unreadable::Merge(MergeError::Older { .. }) => Rule::StalePlaylist,
        Unreadable::Merge(MergeError::WentBack { .. } | MergeError::Contradiction(_)) => Rule::SequenceBack,
        Unreadable::Merge(_) => Rule::DeltaFits,
        Unreadable::Gzip | Unreadable::Utf8 | Unreadable::Parse(_) => Rule::Readable,
    };
    tally.violation(Violation::new(rule, format!("{}: {why}", ledger::plain(path))));
}
