//! A media playlist of somebody else's origin: how it is read, what it names, and how the bytes of its parts are had
//! before the news.
//!
//! Before this: `live/follower.rs`, which asks. After this: `route/view.rs`, what viewers see, and `route/routes.rs`, which
//! remembers the names.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};
use weir_shared::hls::{
    outline::{MediaOutline, Named, Outline, delta, outline},
    position::MediaSequence,
    reload::Reload,
};

use super::{
    Route,
    place::Place,
    routes::{Form, Known, Names},
    view::RouteView,
};
use crate::{
    cache::{Kind, Store},
    live::{
        Moment as _,
        fit::Misfit,
        follower::{Given, Offers, Source},
    },
    upstream::{Answer, Resource, Via},
};

/// Objects whose bytes one update waits for.
const MAX_ANNOUNCED: usize = 32;
/// For how many target durations a playlist that goes back is not believed.
const DISBELIEF_TARGET_DURATIONS: u32 = 3;

/// A media playlist below a route.
pub struct RouteRendition {
    pub route: Arc<Route>,
    /// Its key.
    pub page: Arc<str>,
    /// Its address at this edge: path and query.
    pub address: Arc<str>,
    /// Where a redirect led, path and query upstream.
    pub moved_to: Mutex<Option<Arc<str>>>,
    pub names: Names,
    pub store: Arc<Store>,
}

/// Reads a playlist that was found at `found` for viewers who ask for it at `page`.
pub fn read(route: &Route, page: &str, found: &str, body: &[u8]) -> Option<Outline> {
    let upstreams = route.upstreams.iter().map(|base| &**base);
    let place = Place::new(&route.prefix, &route.base_path, upstreams, found, page)?;
    let read = outline(std::str::from_utf8(body).ok()?, |uri| place.map(uri));
    read.inspect_err(|error| tracing::warn!(%error, "a playlist of a route could not be read"))
        .ok()
}

/// A query without what a player asks of a playlist (section 6.2.5).
pub fn without_directives(query: &str) -> String {
    let kept = query
        .split('&')
        .filter(|pair| !pair.starts_with("_HLS_") && !pair.is_empty());
    kept.collect::<Vec<_>>().join("&")
}

impl RouteRendition {
    fn resource_of(&self, named: &Named) -> Resource {
        let key: Arc<str> = self.route.key(&named.name).into();
        self.route.resource(&key, &named.name, named.span)
    }

    /// Remembers what the playlist names for the first time.
    async fn learn(&self, known: Option<&RouteView>, playlist: &MediaOutline) {
        let first_new = known.map_or(MediaSequence(0), |known| known.edge.open);
        let hint = playlist.hint.iter();
        for named in playlist.names_from(first_new).chain(hint) {
            let key = self.route.key(&named.name);
            let known = Known {
                address: named.name.clone(),
                form: Form::Media(self.page.clone()),
            };
            self.names.learn(key, known).await;
        }
    }

    /// Waits until the bytes of what is announced are in memory; what can't be had within a target duration is left to
    /// whoever asks for it.
    async fn announced(&self, known: &RouteView, playlist: &MediaOutline) {
        let already = |named: &Named| {
            let segments = known.outline.segments.iter().rev().take(2);
            segments.flat_map(|piece| &piece.names).any(|old| old == named)
        };
        let has_parts = playlist.part_target.is_some();
        let open = known.edge.open.0.saturating_sub(playlist.first_listed().0);
        let since = playlist
            .segments
            .iter()
            .skip(usize::try_from(open).unwrap_or(usize::MAX));
        // Where there are parts, who wants the whole segment later fetches it.
        let wanted: Vec<&Named> = since
            .flat_map(|piece| {
                let itself = usize::from(has_parts && piece.complete && piece.parts > 0);
                piece.names.iter().take(piece.names.len().saturating_sub(itself))
            })
            .filter(|named| !already(named))
            .collect();
        let mut fetches = JoinSet::new();
        for named in wanted.iter().rev().take(MAX_ANNOUNCED) {
            let (store, resource) = (self.store.clone(), self.resource_of(named));
            fetches.spawn(async move { store.get_resource(&resource, Kind::Listed).await.is_ok() });
        }
        let deadline = Instant::now() + known.target_duration();
        while let Ok(Some(done)) = timeout_at(deadline, fetches.join_next()).await {
            if !matches!(done, Ok(true)) {
                tracing::debug!("a part of a route is announced before its bytes could be had");
            }
        }
        // Fetches belong to the store: those that are late go on.
        fetches.detach_all();
    }
}

impl Source for RouteRendition {
    type View = RouteView;
    type Playlist = MediaOutline;

    fn resource(&self, reload: Reload) -> Resource {
        let mut resource = self.route.resource(&self.page, &self.address, None);
        let Via::Route { path, .. } = &mut resource.via else {
            return resource;
        };
        // A session that came to its end begins where it began.
        if reload != Reload::NOW
            && let Some(moved_to) = &*self.moved_to.lock()
        {
            *path = moved_to.clone();
        }
        let query = reload.to_query();
        if !query.is_empty() {
            let mark = if path.contains('?') { '&' } else { '?' };
            *path = format!("{path}{mark}{query}").into();
        }
        resource
    }

    fn read(&self, answer: Answer) -> Option<MediaOutline> {
        let found = answer.url.path_and_query()?;
        let query = found.query().map(without_directives).unwrap_or_default();
        let mark = if query.is_empty() { "" } else { "?" };
        *self.moved_to.lock() = Some(format!("{}{mark}{query}", found.path()).into());
        match read(&self.route, &self.address, &answer.url.to_string(), &answer.body)? {
            Outline::Media(media) => Some(media),
            Outline::Multivariant(_) => None,
        }
    }

    fn offers(&self, known: &RouteView) -> Offers {
        let control = known.outline.server_control;
        Offers {
            blocks: control.is_some_and(|c| c.can_block_reload),
            skips: control.is_some_and(|c| c.can_skip_until.is_some()),
        }
    }

    fn hint(&self, known: &RouteView) -> Option<Resource> {
        // A file that grows is not read ahead: nobody says where its next part ends.
        let hint = known.outline.hint.as_ref().filter(|hint| hint.span.is_none())?;
        Some(self.resource_of(hint))
    }

    fn update(&self, known: &RouteView, update: MediaOutline) -> Result<MediaOutline, Misfit> {
        delta::merge(&known.outline, update).map_err(|error| {
            tracing::info!(%error, "an update does not fit, asking for the full playlist");
            Misfit::NeedsFull
        })
    }

    fn restart(
        &self,
        known: Option<&RouteView>,
        playlist: MediaOutline,
        down_for: Option<Duration>,
    ) -> Result<MediaOutline, Misfit> {
        if playlist.skipped_segments.is_some() {
            return Err(Misfit::WentBack);
        }
        let Some(known) = known else {
            return Ok(playlist);
        };
        let position = |p: &MediaOutline| (p.open_sequence(), p.open_parts(), p.ended);
        let disbelief = known.target_duration() * DISBELIEF_TARGET_DURATIONS;
        if position(&playlist) < position(&known.outline) && down_for.is_none_or(|down| down < disbelief) {
            return Err(Misfit::WentBack);
        }
        Ok(playlist)
    }

    async fn view(&self, known: Option<&RouteView>, given: Given<MediaOutline>) -> RouteView {
        let Given { playlist, since } = given;
        self.learn(known, &playlist).await;
        if let Some(known) = known {
            self.announced(known, &playlist).await;
        }
        let view = RouteView::new(playlist, &self.route, since);
        if let Some(known) = known {
            view.render_like(known);
        }
        view
    }
}
