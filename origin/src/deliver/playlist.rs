//! Playlist requests: decide (pure, `weir_shared::hls::position`), wait, answer.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Response;
use tokio::time::Instant;
use weir_shared::{
    hls::{
        position::{Verdict, answer},
        reload::{Reload, Skip},
    },
    hold::{self, Held},
    serve::{
        body::Body,
        gzip::gzip,
        respond::{self, Asked, PlaylistLifetimes},
    },
};

use super::route::Refusal;
use crate::live::{master::Rendition, snapshot::Snapshot};

/// Longest wait for a blocking reload, in target durations (section 6.2.5.2). Later: 503.
pub(super) const HOLD_TARGET_DURATIONS: u32 = 3;

/// When a request that arrives now must be given up.
pub(super) fn hold_deadline(target_duration_seconds: u32) -> Instant {
    Instant::now() + Duration::from_secs(u64::from(target_duration_seconds)) * HOLD_TARGET_DURATIONS
}

pub(super) fn multivariant(asked: Asked<'_>, text: &Bytes) -> Response<Body> {
    let compressed = asked.gzip();
    let body = if compressed { gzip(text) } else { text.clone() };
    let lifetime = PlaylistLifetimes::new(1).multivariant;
    respond::playlist(asked, body, compressed, lifetime)
}

pub(super) async fn media(
    asked: Asked<'_>,
    query: Option<&str>,
    mut rendition: Rendition,
) -> Result<Response<Body>, Refusal> {
    let reload = match Reload::parse(query) {
        // Wrong ones are ignored like all others once the playlist has ended (section 6.2.5.2).
        Err(_) if rendition.feed.borrow().edge.ended => Reload::NOW,
        parsed => parsed.map_err(Refusal::BadDirective)?,
    };
    let target_duration_seconds = rendition.feed.borrow().settings.target_duration_seconds;
    let decide = |snapshot: &Arc<Snapshot>| match answer(&snapshot.edge, reload.want) {
        Verdict::Answer => Some(Ok(snapshot.clone())),
        Verdict::TooFarAhead => Some(Err(Refusal::TooFarAhead)),
        Verdict::Wait => None,
    };
    let deadline = hold_deadline(target_duration_seconds);
    let snapshot = match hold::hold(&mut rendition.feed, deadline, decide).await {
        Held::Ready(decided) => decided?,
        Held::TimedOut => return Err(Refusal::HeldTooLong),
        Held::Gone => return Err(Refusal::StreamReplaced),
    };
    let compressed = asked.gzip();
    let lifetimes = PlaylistLifetimes::new(target_duration_seconds);
    let lifetime = if reload.want == Reload::NOW.want {
        lifetimes.plain
    } else {
        lifetimes.blocked
    };
    // Directives are ignored once the playlist has ended (section 6.2.5.2).
    let skip = if snapshot.edge.ended { Skip::No } else { reload.skip };
    Ok(respond::playlist(
        asked,
        snapshot.playlist(skip, compressed),
        compressed,
        lifetime,
    ))
}
