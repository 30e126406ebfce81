//! Requests below static routes: from an address to its answer.
//!
//! Before this: `handle.rs`. After this: `live/roster.rs` and `live/hold.rs` (playlists), `cache.rs` (everything else).
//!
//! What an address stands for is learnt from the playlists that name it, and remembered. What no playlist has named is
//! asked for, so many times a second, and told by its content.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Response, header, request::Parts};
use moka::{future::Cache, policy::EvictionPolicy};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_shared::{
    hls::{
        outline::{MediaOutline, Outline, Span},
        reload::Reload,
    },
    hold::{Held, hold},
    serve::{
        body::Body,
        gzip::gzip,
        respond::{self, Asked},
    },
};

use super::{
    Route,
    place::is_straight,
    range::{self, Covered, covered},
    rendition::{RouteRendition, read, without_directives},
    view::RouteView,
};
use crate::{
    admit::Asker,
    answer::{aged, media_playlist, stored},
    cache::{Kind, Store},
    config::QueryRule,
    live::{
        Moment as _,
        follower::{End, Follower, Given},
        hold::{self, Fate, HOLD_TARGET_DURATIONS},
        roster::{Roster, Watched},
    },
    metrics::Metrics,
    refusal::Refusal,
    upstream::Upstream,
};

/// Names remembered, those used longest ago first to go.
const MAX_NAMES: u64 = 500_000;
/// How long a multivariant playlist is reused.
const PAGE_LIFE: Duration = Duration::from_millis(1000);
/// Multivariant playlists kept.
const MAX_PAGES: u64 = 10_000;
/// Longest wait for bytes of a file that grows while nothing is known of its playlist.
const FIRST_HOLD: Duration = Duration::from_secs(6);

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    Multivariant,
    Playlist,
    /// A part, segment or init section, and the key of the playlist that named it.
    Media(Arc<str>),
}

/// What is known of a name.
#[derive(Debug, Clone)]
pub struct Known {
    /// Path and query at this edge, as a playlist gave them.
    pub address: Arc<str>,
    pub form: Form,
}

/// What names stand for, by key.
#[derive(Debug, Clone)]
pub struct Names(Cache<Arc<str>, Known>);

impl Names {
    fn new() -> Self {
        let names = Cache::builder().max_capacity(MAX_NAMES);
        Self(names.eviction_policy(EvictionPolicy::lru()).build())
    }

    /// Remembers a name. What a playlist said first counts: an address that only differs in what the route ignores is
    /// another viewer's session.
    pub async fn learn(&self, key: &str, known: Known) {
        if self.0.get(key).await.is_none_or(|old| old.form != known.form) {
            self.0.insert(key.into(), known).await;
        }
    }

    async fn get(&self, key: &str) -> Option<Known> {
        self.0.get(key).await
    }
}

/// A multivariant playlist as viewers get it.
struct Page {
    text: Bytes,
    gzipped: Bytes,
    since: Instant,
}

/// A request below a route.
struct Wanted<'a> {
    asked: Asked<'a>,
    request: &'a Parts,
    route: &'a Arc<Route>,
    key: Arc<str>,
    /// Path and query at this edge.
    address: Arc<str>,
}

/// All static routes.
pub struct Routes {
    /// Those with the longest prefix first.
    routes: Vec<Arc<Route>>,
    names: Names,
    pages: Cache<Arc<str>, Arc<Page>>,
    roster: Arc<Roster<Arc<str>, RouteView>>,
    upstream: Arc<Upstream>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
}

impl Routes {
    pub fn new(
        mut routes: Vec<Arc<Route>>,
        (idle, limit): (Duration, usize),
        upstream: Arc<Upstream>,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        Arc::new(Self {
            routes,
            names: Names::new(),
            pages: Cache::builder().max_capacity(MAX_PAGES).time_to_live(PAGE_LIFE).build(),
            roster: Roster::new(idle, limit, metrics.clone(), stop),
            upstream,
            store,
            metrics,
        })
    }

    /// The route of a path.
    pub fn find(&self, path: &str) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| route.rest(path).is_some())
    }

    /// Answers a request below a route.
    pub async fn answer(&self, route: &Arc<Route>, request: &Parts) -> Result<Response<Body>, Refusal> {
        let path = request.uri.path();
        if !is_straight(path) {
            return Err(Refusal::NoSuchObject);
        }
        let query = without_directives(request.uri.query().unwrap_or_default());
        let (address, known) = self.lookup(route, path, &query).await;
        let wanted = Wanted {
            asked: Asked {
                method: &request.method,
                headers: &request.headers,
            },
            request,
            route,
            key: route.key(&address).into(),
            address: known.as_ref().map_or(address, |known| known.address.clone()),
        };
        match known.map(|known| known.form) {
            Some(Form::Playlist) => self.playlist(&wanted, None).await,
            Some(Form::Multivariant) => self.multivariant(&wanted).await,
            Some(Form::Media(page)) => self.media(&wanted, &page).await,
            None => self.unknown(&wanted).await,
        }
    }

    /// Which address is meant. A query that no playlist gave is not part of it, unless the route says so.
    async fn lookup(&self, route: &Route, path: &str, query: &str) -> (Arc<str>, Option<Known>) {
        if !query.is_empty() && route.query != QueryRule::Ignore {
            let whole: Arc<str> = format!("{path}?{query}").into();
            let known = self.names.get(&whole).await;
            if known.is_some() || route.query == QueryRule::Pass {
                return (whole, known);
            }
        }
        (path.into(), self.names.get(path).await)
    }

    /// Something that no playlist has named: asked for, and told by its content.
    async fn unknown(&self, wanted: &Wanted<'_>) -> Result<Response<Body>, Refusal> {
        let resource = wanted.route.resource(&wanted.key, &wanted.address, None);
        let entry = self.store.get_resource(&resource, Kind::Unlisted).await?;
        if !entry.is_playlist() {
            return Ok(stored(wanted.asked, &entry));
        }
        let read = read(wanted.route, &wanted.address, &entry.url.to_string(), &entry.body);
        let form = match read.ok_or(Refusal::UnreadableUpstream)? {
            Outline::Multivariant(_) => Form::Multivariant,
            Outline::Media(first) => {
                self.learn(wanted, Form::Playlist).await;
                let since = entry.since;
                let first = Given { playlist: first, since };
                return self.playlist(wanted, Some(first)).await;
            }
        };
        self.learn(wanted, form).await;
        self.multivariant(wanted).await
    }

    async fn learn(&self, wanted: &Wanted<'_>, form: Form) {
        let known = Known {
            address: wanted.address.clone(),
            form,
        };
        self.names.learn(&wanted.key, known).await;
    }

    async fn multivariant(&self, wanted: &Wanted<'_>) -> Result<Response<Body>, Refusal> {
        let page = self.pages.try_get_with(wanted.key.clone(), self.page(wanted)).await;
        let page = page.map_err(|refusal| (*refusal).clone())?;
        let compressed = wanted.asked.gzip();
        let text = if compressed { &page.gzipped } else { &page.text };
        let lifetime = respond::MULTIVARIANT_LIFETIME;
        let response = respond::playlist(wanted.asked, text.clone(), compressed, lifetime);
        Ok(aged(response, page.since))
    }

    async fn page(&self, wanted: &Wanted<'_>) -> Result<Arc<Page>, Refusal> {
        let resource = wanted.route.resource(&wanted.key, &wanted.address, None);
        let entry = self.store.get_resource(&resource, Kind::Multivariant).await?;
        let read = read(wanted.route, &wanted.address, &entry.url.to_string(), &entry.body);
        let Some(Outline::Multivariant(multivariant)) = read else {
            return Err(Refusal::UnreadableUpstream);
        };
        for playlist in &multivariant.playlists {
            let known = Known {
                address: playlist.clone(),
                form: Form::Playlist,
            };
            self.names.learn(wanted.route.key(playlist), known).await;
        }
        let text = Bytes::from(multivariant.text);
        Ok(Arc::new(Page {
            gzipped: gzip(&text),
            text,
            since: entry.since,
        }))
    }

    /// `first`: the playlist itself, if it has just been read.
    async fn playlist(
        &self,
        wanted: &Wanted<'_>,
        first: Option<Given<MediaOutline>>,
    ) -> Result<Response<Body>, Refusal> {
        let parsed = Reload::parse(wanted.request.uri.query());
        let reload = *parsed.as_ref().unwrap_or(&Reload::NOW);
        let held = self.metrics.hold();
        let view = hold::until(|| self.follow(wanted, first.clone()), reload.want).await?;
        drop(held);
        if let Err(fault) = parsed
            && !view.edge.ended
        {
            return Err(Refusal::BadDirective(fault));
        }
        Ok(media_playlist(wanted.asked, &*view, reload))
    }

    fn follow(
        &self,
        wanted: &Wanted<'_>,
        first: Option<Given<MediaOutline>>,
    ) -> Result<Watched<RouteView>, crate::live::roster::NotFollowed> {
        // Routes have an allowance of their own for names that nothing vouches for.
        self.roster.watch(&wanted.key, Asker::Trusted, |state| {
            let follower = Follower {
                source: RouteRendition {
                    route: wanted.route.clone(),
                    page: wanted.key.clone(),
                    address: wanted.address.clone(),
                    moved_to: Default::default(),
                    names: self.names.clone(),
                    store: self.store.clone(),
                },
                upstream: self.upstream.clone(),
                store: self.store.clone(),
                metrics: self.metrics.clone(),
                state,
                first,
            };
            let names = self.names.clone();
            let key = wanted.key.clone();
            async move {
                let end = follower.run().await;
                if end == End::Absent {
                    // Whatever comes at this address next is told by its content again.
                    names.0.invalidate(&key).await;
                }
                end
            }
        })
    }

    /// A part, segment or init section that the playlist at `page` names.
    async fn media(&self, wanted: &Wanted<'_>, page: &Arc<str>) -> Result<Response<Body>, Refusal> {
        if let Some(view) = self.roster.view(page) {
            if view.hints(&wanted.key) {
                return self.hinted(wanted, page).await;
            }
            if view.spans.contains_key(&wanted.key) || view.hinted_from(&wanted.key).is_some() {
                return self.growing(wanted, page).await;
            }
        }
        let resource = wanted.route.resource(&wanted.key, &wanted.address, None);
        let entry = self.store.get_resource(&resource, Kind::Named).await?;
        Ok(stored(wanted.asked, &entry))
    }

    /// The part that comes next: held until its bytes are here.
    async fn hinted(&self, wanted: &Wanted<'_>, page: &Arc<str>) -> Result<Response<Body>, Refusal> {
        let _held = self.metrics.hold();
        let resource = wanted.route.resource(&wanted.key, &wanted.address, None);
        let watched = self.roster.peek(page).ok_or(Refusal::OriginUnreachable)?;
        let fate = |view: &RouteView| match view.hints(&wanted.key) {
            _ if view.edge.ended => Fate::Never,
            true => Fate::Coming,
            // Listed now, or given up: the upstream knows.
            false => Fate::Listed,
        };
        let entry = hold::part(watched, &self.store, &resource, fate).await?;
        Ok(stored(wanted.asked, &entry))
    }

    /// A file whose byte ranges are parts.
    async fn growing(&self, wanted: &Wanted<'_>, page: &Arc<str>) -> Result<Response<Body>, Refusal> {
        let range = wanted.asked.headers.get(header::RANGE);
        let range = range.and_then(|range| range::Asked::parse(range.to_str().ok()?));
        let Some(range) = range else {
            return self.grown(wanted, page).await;
        };
        let _held = self.metrics.hold();
        let mut watched = self.roster.peek(page).ok_or(Refusal::OriginUnreachable)?;
        let (begin, longest) = (Instant::now(), self.longest(page));
        let decide = |view: &RouteView| {
            let spans = view.spans.get(&wanted.key).map_or(&[][..], Vec::as_slice);
            let hinted = view.hinted_from(&wanted.key).filter(|_| !view.edge.ended);
            match covered(range, spans, hinted) {
                Covered::Coming => None,
                decided => Some(decided),
            }
        };
        let held = hold(&mut watched, begin + longest, |state| decide(state.view.as_deref()?)).await;
        match held {
            Held::Ready(Covered::By { spans, skip, length }) => {
                self.sub_ranges(wanted, range.first, &spans, skip, length).await
            }
            Held::Ready(_) => self.grown(wanted, page).await,
            Held::TimedOut => Err(Refusal::HeldTooLong),
            Held::Gone => Err(Refusal::OriginUnreachable),
        }
    }

    /// A file as a whole, once it is one.
    async fn grown(&self, wanted: &Wanted<'_>, page: &Arc<str>) -> Result<Response<Body>, Refusal> {
        if let Some(mut watched) = self.roster.peek(page) {
            let _held = self.metrics.hold();
            let done = |view: &RouteView| view.edge.ended || view.growing.as_ref() != Some(&wanted.key);
            let deadline = Instant::now() + self.longest(page);
            match hold(&mut watched, deadline, |state| {
                done(state.view.as_deref()?).then_some(())
            })
            .await
            {
                Held::Ready(()) => {}
                Held::TimedOut => return Err(Refusal::HeldTooLong),
                Held::Gone => return Err(Refusal::OriginUnreachable),
            }
        }
        let resource = wanted.route.resource(&wanted.key, &wanted.address, None);
        let entry = self.store.get_resource(&resource, Kind::Named).await?;
        Ok(stored(wanted.asked, &entry))
    }

    /// Parts of a file, one after the other, as one answer.
    async fn sub_ranges(
        &self,
        wanted: &Wanted<'_>,
        first: u64,
        spans: &[Span],
        skip: u64,
        length: u64,
    ) -> Result<Response<Body>, Refusal> {
        let mut entries = Vec::with_capacity(spans.len());
        for span in spans {
            let resource = wanted.route.resource(&wanted.key, &wanted.address, Some(*span));
            entries.push(self.store.get_resource(&resource, Kind::Named).await?);
        }
        let (Some(one), Some(last)) = (entries.first(), entries.last()) else {
            return Err(Refusal::NoSuchObject);
        };
        let bytes = entries.iter().map(|entry| entry.body.clone()).collect();
        let response = respond::sub_range(
            wanted.asked,
            respond::SubRange {
                pieces: respond::cut(bytes, skip, skip + length - 1),
                first,
                whole: None,
                content_type: one.content_type.clone(),
                lifetime: last.lifetime.clone(),
            },
        );
        Ok(aged(response, last.since))
    }

    fn longest(&self, page: &Arc<str>) -> Duration {
        let view = self.roster.view(page);
        view.map_or(FIRST_HOLD, |view| view.target_duration() * HOLD_TARGET_DURATIONS)
    }
}
