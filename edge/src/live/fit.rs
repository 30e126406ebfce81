//! Whether an origin's answer goes onto what is known of a rendition. Pure: playlists in, playlist or refusal out.
//!
//! Before this: `live/follower.rs` and its request. After this: the next `live/view.rs`.

use std::time::Duration;

use weir_shared::hls::{delta, playlist::MediaPlaylist};

use super::{
    Moment as _,
    view::{self, View},
};

/// For how many target durations a playlist that goes back is not believed: an origin that lags behind another one
/// catches up in that time; one that does not has started afresh with its clock set back.
const DISBELIEF_TARGET_DURATIONS: u32 = 3;

/// Why an answer can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// The full playlist is needed to go on.
    NeedsFull,
    /// It tells of a past that viewers have left behind.
    WentBack,
    /// A new life of the stream that has no complete segment yet. Players that follow the old one would take a playlist
    /// without segments for a broken one and give up (hls.js on the third); held for a moment, they go on.
    TooYoung,
}

/// The answer to a request for what follows `known`.
pub fn update(known: &MediaPlaylist, update: MediaPlaylist) -> Result<MediaPlaylist, Misfit> {
    delta::merge(known, update).map_err(|error| {
        tracing::info!(%error, "an update does not fit, asking for the full playlist");
        Misfit::NeedsFull
    })
}

/// A full playlist after a gap, a misfit or at the very beginning. `down_for`: how long the origin has given nothing
/// believable.
pub fn restart(
    known: Option<&View>,
    playlist: MediaPlaylist,
    down_for: Option<Duration>,
) -> Result<MediaPlaylist, Misfit> {
    if playlist.skipped_segments.is_some() {
        // Nobody asked for a delta update.
        return Err(Misfit::WentBack);
    }
    let Some(known) = known else {
        return Ok(playlist);
    };
    let position = |p: &MediaPlaylist| (p.open_sequence(), p.open_parts().len(), p.ended);
    let same_life = view::epoch(&playlist) == known.epoch;
    let goes_on = if same_life {
        position(&playlist) >= position(&known.playlist)
    } else {
        playlist.open_sequence() >= known.edge.open
    };
    let disbelief = known.target_duration() * DISBELIEF_TARGET_DURATIONS;
    if !goes_on && down_for.is_none_or(|down| down < disbelief) {
        tracing::warn!("an origin's playlist went back, it is not used for now");
        return Err(Misfit::WentBack);
    }
    if !same_life && !playlist.ended && playlist.segments.iter().all(|segment| segment.uri.is_none()) {
        return Err(Misfit::TooYoung);
    }
    Ok(playlist)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;
    use weir_shared::hls::parse::parse;

    use super::*;

    fn playlist(epoch: &str, first: u64, parts: u32) -> MediaPlaylist {
        let parts: String = (0..parts)
            .map(|n| format!("#EXT-X-PART:DURATION=0.5,URI=\"{epoch}/video/p{n}.m4s\"\n"))
            .collect();
        let text = format!(
            "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:2\n\
             #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.5,CAN-SKIP-UNTIL=12.0\n\
             #EXT-X-PART-INF:PART-TARGET=0.5\n#EXT-X-MEDIA-SEQUENCE:{first}\n#EXT-X-DISCONTINUITY-SEQUENCE:0\n\
             #EXT-X-MAP:URI=\"{epoch}/video/init0.mp4\"\n#EXTINF:2.0,\n{epoch}/video/{first}.m4s\n{parts}"
        );
        parse(&text).unwrap()
    }

    fn view(epoch: &str, first: u64, parts: u32) -> View {
        View::new(
            playlist(epoch, first, parts),
            Instant::now(),
            view::PartBytes::default(),
        )
    }

    fn judge(known: &View, new: MediaPlaylist, down_seconds: Option<u64>) -> Result<(), Misfit> {
        let down = down_seconds.map(Duration::from_secs);
        restart(Some(known), new, down).map(|_| ())
    }

    #[tokio::test]
    async fn a_playlist_that_goes_back_is_not_believed_for_a_while() {
        let known = view("aa", 50, 2);
        assert_eq!(judge(&known, playlist("aa", 50, 2), None), Ok(()));
        assert_eq!(judge(&known, playlist("aa", 50, 3), None), Ok(()));
        assert_eq!(judge(&known, playlist("aa", 50, 1), None), Err(Misfit::WentBack));
        assert_eq!(judge(&known, playlist("aa", 49, 9), Some(5)), Err(Misfit::WentBack));
        assert_eq!(judge(&known, playlist("aa", 49, 9), Some(6)), Ok(()));
    }

    #[tokio::test]
    async fn another_life_is_believed_when_it_counts_on() {
        let known = view("aa", 50, 2);
        assert_eq!(judge(&known, playlist("bb", 50, 0), None), Ok(()));
        assert_eq!(judge(&known, playlist("bb", 70, 1), None), Ok(()));
        assert_eq!(judge(&known, playlist("bb", 3, 1), None), Err(Misfit::WentBack));
    }

    /// hls.js calls a playlist that lists parts alone empty, and gives up on the third.
    #[tokio::test]
    async fn another_life_is_not_shown_before_its_first_segment_is_complete() {
        let known = view("aa", 50, 2);
        let mut young = playlist("bb", 70, 2);
        young.segments.retain(|segment| segment.uri.is_none());
        assert_eq!(judge(&known, young.clone(), Some(5)), Err(Misfit::TooYoung));
        assert_eq!(judge(&known, playlist("bb", 70, 2), Some(5)), Ok(()));
        young.ended = true;
        assert_eq!(judge(&known, young.clone(), Some(5)), Ok(()), "there will be no more");
        young.ended = false;
        assert!(restart(None, young, None).is_ok(), "nobody has followed an older life");
    }

    #[test]
    fn an_update_of_another_life_asks_for_the_full_playlist() {
        let known = playlist("aa", 50, 2);
        assert_eq!(update(&known, playlist("bb", 50, 2)), Err(Misfit::NeedsFull));
        assert!(update(&known, playlist("aa", 50, 3)).is_ok());
    }
}
