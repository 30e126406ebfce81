//! What an edge knows of one playlist of somebody else's origin, at one moment.
//!
//! Before this: `route/rendition.rs`, its only maker. After this: `route/routes.rs`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;
use weir_shared::{
    hls::{
        outline::{MediaOutline, Span, delta},
        position::LiveEdge,
    },
    serve::respond::PlaylistLifetimes,
};

use super::Route;
use crate::live::{Moment, texts::Texts};

/// A playlist at one moment. Never changes after publication.
#[derive(Debug)]
pub struct RouteView {
    pub outline: MediaOutline,
    pub edge: LiveEdge,
    pub lifetimes: PlaylistLifetimes,
    /// When the upstream gave it.
    pub since: Instant,
    /// The key of what is hinted, and which of its bytes.
    pub hint: Option<(Arc<str>, Option<Span>)>,
    /// Sub-ranges that are listed, by the key of their file.
    pub spans: HashMap<Arc<str>, Vec<Span>>,
    /// The file that the open segment's parts are sub-ranges of.
    pub growing: Option<Arc<str>>,
    texts: Texts,
}

impl RouteView {
    pub fn new(outline: MediaOutline, route: &Route, since: Instant) -> Self {
        let key = |name: &str| -> Arc<str> { route.key(name).into() };
        let mut spans = HashMap::<Arc<str>, Vec<Span>>::new();
        let named = outline.segments.iter().flat_map(|piece| &piece.names);
        for (name, span) in named.filter_map(|named| Some((&named.name, named.span?))) {
            spans.entry(key(name)).or_default().push(span);
        }
        let open = outline.segments.last().filter(|piece| !piece.complete);
        let growing = open
            .and_then(|piece| piece.names.last())
            .or(outline.hint.as_ref())
            .filter(|named| named.span.is_some());
        Self {
            edge: outline.live_edge(),
            lifetimes: PlaylistLifetimes::new(outline.target_duration_seconds),
            since,
            hint: outline.hint.as_ref().map(|hint| (key(&hint.name), hint.span)),
            growing: growing.map(|named| key(&named.name)),
            spans,
            outline,
            texts: Texts::default(),
        }
    }

    /// Whether this whole object is the one that comes next.
    pub fn hints(&self, key: &str) -> bool {
        self.hint
            .as_ref()
            .is_some_and(|(hinted, span)| &**hinted == key && span.is_none())
    }

    /// Where the next part of this file begins.
    pub fn hinted_from(&self, key: &str) -> Option<u64> {
        let (hinted, span) = self.hint.as_ref()?;
        (&**hinted == key).then_some(span.as_ref()?.first)
    }
}

impl Moment for RouteView {
    fn edge(&self) -> &LiveEdge {
        &self.edge
    }

    fn target_duration(&self) -> Duration {
        Duration::from_secs(u64::from(self.outline.target_duration_seconds))
    }

    fn part_target(&self) -> Option<Duration> {
        self.outline.part_target
    }

    fn lifetimes(&self) -> &PlaylistLifetimes {
        &self.lifetimes
    }

    fn since(&self) -> Instant {
        self.since
    }

    fn texts(&self) -> &Texts {
        &self.texts
    }

    fn write(&self) -> String {
        self.outline.text()
    }

    fn write_delta(&self) -> Option<String> {
        delta::text(&self.outline)
    }
}
