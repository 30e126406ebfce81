//! What an edge knows of one playlist of somebody else's origin, at one moment.
//!
//! Before this: `route/rendition.rs`, its only maker. After this: `route/routes.rs`.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;
use weir_shared::{
    hls::{
        outline::{MediaOutline, Span, delta},
        position::LiveEdge,
        reload::Skip,
    },
    serve::{gzip::gzip, respond::PlaylistLifetimes},
};

use super::Route;
use crate::live::Moment;

/// A playlist at one moment. Never changes after publication.
#[derive(Debug)]
pub struct RouteView {
    pub outline: MediaOutline,
    pub edge: LiveEdge,
    pub lifetimes: PlaylistLifetimes,
    /// When the upstream's answer arrived.
    pub received: Instant,
    /// The key of what is hinted, and which of its bytes.
    pub hint: Option<(Arc<str>, Option<Span>)>,
    /// Sub-ranges that are listed, by the key of their file.
    pub spans: HashMap<Arc<str>, Vec<Span>>,
    /// The file that the open segment's parts are sub-ranges of.
    pub growing: Option<Arc<str>>,
    texts: [OnceLock<Bytes>; 4],
    /// Bit `n`: somebody asked for `texts[n]`.
    asked: AtomicU8,
}

impl RouteView {
    pub fn new(outline: MediaOutline, route: &Route, received: Instant) -> Self {
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
            received,
            hint: outline.hint.as_ref().map(|hint| (key(&hint.name), hint.span)),
            growing: growing.map(|named| key(&named.name)),
            spans,
            outline,
            texts: Default::default(),
            asked: AtomicU8::new(0),
        }
    }

    /// The playlist's bytes: full or delta, gzip-encoded or not. All viewers share them.
    pub fn text(&self, skip: Skip, compressed: bool) -> Bytes {
        let form = usize::from(skip == Skip::Yes) * 2 + usize::from(compressed);
        let bit = 1u8 << form;
        if self.asked.load(Ordering::Relaxed) & bit == 0 {
            self.asked.fetch_or(bit, Ordering::Relaxed);
        }
        self.rendered(form)
    }

    fn rendered(&self, form: usize) -> Bytes {
        let Some(slot) = self.texts.get(form) else {
            return Bytes::new();
        };
        slot.get_or_init(|| match form {
            0 => self.outline.text().into(),
            2 => delta::text(&self.outline).map_or_else(|| self.rendered(0), Bytes::from),
            compressed => gzip(&self.rendered(compressed - 1)),
        })
        .clone()
    }

    /// Makes the texts that viewers of the previous view asked for, so that those who wait for this one need not.
    pub fn render_like(&self, previous: &Self) {
        let asked = previous.asked.load(Ordering::Relaxed);
        for form in 0..self.texts.len() {
            if asked & (1 << form) != 0 {
                self.rendered(form);
            }
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
}
