//! A rendition of the fleet's: how its playlist is read, and how the bytes of its parts are had before the news.
//!
//! Before this: `live/follower.rs`, which asks. After this: `live/view.rs`, what viewers see. Whether an answer goes onto
//! what is known is decided in `live/fit.rs`.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use weir_shared::hls::{parse, playlist::MediaPlaylist, position::PartNumber, reload::Reload};

use super::{
    Moment as _,
    fit::{self, Misfit},
    follower::{Given, Offers, Source},
    view::{PartBytes, View, part_number},
};
use crate::{
    admit::Asker,
    cache::{Absent, Entry, Kind, Store},
    upstream::{Answer, Resource},
};

/// Parts whose bytes one update waits for. More than a few means that much was missed: who wants old parts fetches them.
const MAX_ANNOUNCED: usize = 32;

/// A rendition of the fleet's.
pub struct OwnRendition {
    /// `/app/<key>/d/`
    pub directory: String,
    /// `<rendition>.m3u8`
    pub file: String,
    pub store: Arc<Store>,
}

impl Source for OwnRendition {
    type View = View;
    type Playlist = MediaPlaylist;

    fn resource(&self, reload: Reload) -> Resource {
        let query = reload.to_query();
        let mark = if query.is_empty() { "" } else { "?" };
        Resource::own(&format!("{}{}{mark}{query}", self.directory, self.file))
    }

    fn read(&self, answer: Answer) -> Option<MediaPlaylist> {
        let text = std::str::from_utf8(&answer.body).ok()?;
        let playlist = parse::parse(text);
        playlist
            .inspect_err(|error| tracing::warn!(%error, "an origin's playlist could not be read"))
            .ok()
    }

    fn offers(&self, known: &View) -> Offers {
        let control = known.playlist.server_control;
        Offers {
            blocks: control.is_some_and(|c| c.can_block_reload),
            skips: control.is_some_and(|c| c.can_skip_until.is_some()),
        }
    }

    fn hint(&self, known: &View) -> Option<Resource> {
        let hint = known.playlist.preload_hint.as_ref()?;
        Some(Resource::own(&format!("{}{}", self.directory, hint.uri)))
    }

    fn update(&self, known: &View, update: MediaPlaylist) -> Result<MediaPlaylist, Misfit> {
        fit::update(&known.playlist, update)
    }

    fn restart(
        &self,
        known: Option<&View>,
        playlist: MediaPlaylist,
        down_for: Option<Duration>,
    ) -> Result<MediaPlaylist, Misfit> {
        fit::restart(known, playlist, down_for)
    }

    async fn view(&self, known: Option<&View>, given: Given<MediaPlaylist>) -> View {
        let mut view = View::new(given.playlist, given.since, PartBytes::default());
        if let Some(known) = known {
            let same_life = view.epoch == known.epoch;
            let mut parts = if same_life {
                known.parts().clone()
            } else {
                PartBytes::default()
            };
            let first_new = if same_life { known.edge.next_part } else { PartNumber(0) };
            for (number, entry) in self.announced(known, &view.playlist, first_new).await {
                parts.insert(number, entry);
            }
            view = View::new(view.playlist, given.since, parts);
            view.render_like(known);
        }
        view
    }
}

impl OwnRendition {
    /// The bytes of the parts from number `first_new` on, once they (and a new init section) are in memory. Those that
    /// can't be had within a target duration are left to whoever asks for them.
    async fn announced(
        &self,
        known: &View,
        playlist: &MediaPlaylist,
        first_new: PartNumber,
    ) -> Vec<(PartNumber, Arc<Entry>)> {
        let listed = playlist.segments.iter().flat_map(|s| &s.parts);
        let mut parts: Vec<(PartNumber, &str)> = listed
            .filter_map(|part| Some((part_number(&part.uri)?, part.uri.as_str())))
            .filter(|(number, _)| *number >= first_new)
            .collect();
        parts.drain(..parts.len().saturating_sub(MAX_ANNOUNCED));
        let fetch = |uri: &str| {
            let (store, path) = (self.store.clone(), format!("{}{uri}", self.directory));
            tokio::spawn(async move { store.get(&path, Kind::Listed, Asker::Trusted).await })
        };
        let map = |playlist: &MediaPlaylist| playlist.segments.last().and_then(|s| s.map_uri.clone());
        let new_map = map(playlist).filter(|uri| map(&known.playlist).as_ref() != Some(uri));
        let init = new_map.as_deref().map(fetch);
        let fetches: Vec<_> = parts.into_iter().map(|(number, uri)| (number, fetch(uri))).collect();

        let deadline = Instant::now() + known.target_duration();
        let mut bytes = Vec::with_capacity(fetches.len());
        for (number, fetch) in fetches {
            match timeout_at(deadline, fetch).await {
                Ok(Ok(Ok(entry))) => bytes.push((number, entry)),
                Ok(Ok(Err(Absent::Ending))) => {}
                _ => tracing::warn!("a part is announced before its bytes could be had"),
            }
        }
        if let Some(init) = init
            && !matches!(timeout_at(deadline, init).await, Ok(Ok(Ok(_))))
        {
            tracing::warn!("an init section is announced before its bytes could be had");
        }
        bytes
    }
}
