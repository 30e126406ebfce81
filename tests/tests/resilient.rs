//! The resilient playlists as a viewer at an edge gets them, while the upload stalls, breaks, comes back or stays away.

use std::time::{Duration, Instant, SystemTime};

use weir_loadtest::synthetic::{Synthetic, SyntheticAudio, SyntheticVideo};
use weir_origin::config::{Config, KeepAlive};
use weir_shared::{config::HumanDuration, hls::playlist::MediaPlaylist};
use weir_tests::{
    history::History,
    relay::Relay,
    site::{Broadcast, Site, metric, origin_config},
};

const CUSHION: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(4);
/// What segments and their neighbours may be apart by rounding.
const SEAMLESS: f64 = 0.05;

fn config() -> Config {
    let mut config = origin_config();
    config.ingest.grace = HumanDuration(GRACE);
    config.resilience.cushion = HumanDuration(CUSHION);
    config.packaging.window = HumanDuration(Duration::from_secs(120));
    config
}

/// Waits until a playlist has its next `segments` complete segments.
async fn watch(site: &Site, rendition: &str, segments: u64) -> anyhow::Result<MediaPlaylist> {
    let mut playlist = first(site, rendition).await?;
    for _ in 0..segments {
        let open = playlist.open_sequence();
        playlist = site
            .get(&format!("/app/show/d/{rendition}.m3u8?_HLS_msn={open}"))
            .await?
            .playlist()?;
    }
    Ok(playlist)
}

/// A playlist, once there is one: the resilient ones begin a cushion after their broadcast.
async fn first(site: &Site, rendition: &str) -> anyhow::Result<MediaPlaylist> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match site.playlist("show", rendition).await {
            Ok(playlist) => return Ok(playlist),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// How far the end of a playlist is behind the wall clock, in seconds.
fn behind(playlist: &MediaPlaylist) -> f64 {
    let dated = playlist
        .segments
        .iter()
        .rev()
        .find(|segment| segment.program_date_time.is_some());
    let Some(segment) = dated else { return f64::NAN };
    let listed: Duration = segment.parts.iter().map(|part| part.duration).sum();
    let end = segment.program_date_time.unwrap_or(SystemTime::UNIX_EPOCH) + segment.duration.max(listed);
    SystemTime::now().duration_since(end).unwrap_or_default().as_secs_f64()
}

async fn filled(site: &Site) -> anyhow::Result<f64> {
    metric(
        site.origin.admin,
        "weir_origin_resilience_filler_seconds_total",
        "video",
    )
    .await
}

/// Follows a rendition for `time` by blocking requests, part by part; gives the longest time that a viewer had to wait for the next.
async fn longest_wait(site: &Site, rendition: &str, time: Duration) -> anyhow::Result<Duration> {
    let until = Instant::now() + time;
    let mut playlist = first(site, rendition).await?;
    let mut longest = Duration::ZERO;
    while Instant::now() < until {
        let (open, parts) = (playlist.open_sequence(), playlist.open_parts().len());
        let asked = Instant::now();
        let path = format!("/app/show/d/{rendition}.m3u8?_HLS_msn={open}&_HLS_part={parts}");
        playlist = site.get(&path).await?.playlist()?;
        longest = longest.max(asked.elapsed());
    }
    Ok(longest)
}

async fn assert_seamless(site: &Site, renditions: &[&str]) -> anyhow::Result<()> {
    for rendition in renditions {
        let history = History::read(site, "show", rendition).await?;
        history.assert_continuous();
        assert_eq!(history.gaps_beyond(SEAMLESS), 0, "{rendition}: {history:#?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hiccup_longer_than_the_cushion_is_filled_without_a_seam() -> anyhow::Result<()> {
    let site = Site::start_with(config()).await?;
    let relay = Relay::open(site.origin.rtmp).await?;
    let broadcast = Broadcast::start(relay.address, "show", &Synthetic::default()).await?;
    let before = behind(&watch(&site, "r-video", 2).await?);
    let direct = behind(&watch(&site, "video", 1).await?);
    assert!(
        (before - direct - 1.0).abs() < 0.3,
        "direct {direct}, resilient {before}: a cushion apart"
    );
    assert_eq!(filled(&site).await?, 0.0, "nothing is filled without need");

    let trouble = async {
        relay.hold(Duration::from_millis(500)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let unseen = filled(&site).await?;
        relay.hold(Duration::from_millis(2500)).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        anyhow::Ok(unseen)
    };
    let watching = longest_wait(&site, "r-video", Duration::from_secs(8));
    let (unseen, longest) = tokio::try_join!(trouble, watching)?;
    assert_eq!(unseen, 0.0, "half a second is within the cushion");
    assert!(
        longest < Duration::from_millis(600),
        "a viewer waited {longest:?} for a part"
    );
    let time = filled(&site).await?;
    assert!((1.0..3.5).contains(&time), "{time} s were filled");
    assert_seamless(&site, &["r-video", "r-audio"]).await?;
    let after = behind(&watch(&site, "r-video", 1).await?);
    assert!(
        (after - before).abs() < 0.25,
        "{before} s behind before, {after} s after"
    );
    // What was late is in the direct playlist all the same.
    History::read(&site, "show", "video").await?.assert_continuous();
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_of_any_tracks_goes_on_seamlessly_within_the_grace_time_and_ends_after_it() -> anyhow::Result<()> {
    let whole = Synthetic::default();
    let (picture, sound) = (
        Synthetic {
            audio: None,
            ..Synthetic::default()
        },
        Synthetic {
            video: None,
            ..Synthetic::default()
        },
    );
    for (synthetic, renditions) in [
        (whole, &["r-video", "r-audio"][..]),
        (picture, &["r-video"]),
        (sound, &["r-audio"]),
    ] {
        let site = Site::start_with(config()).await?;
        let broadcast = Broadcast::start(site.origin.rtmp, "show", &synthetic).await?;
        watch(&site, renditions[0], 2).await?;
        broadcast.cut();
        // The encoder is away for three quarters of the grace time, and its new session begins at zero again.
        let longest = longest_wait(&site, renditions[0], GRACE * 3 / 4).await?;
        assert!(
            longest < Duration::from_millis(600),
            "{renditions:?}: {longest:?} for a part"
        );
        let broadcast = Broadcast::start(site.origin.rtmp, "show", &synthetic).await?;
        watch(&site, renditions[0], 4).await?;
        assert_seamless(&site, renditions).await?;

        broadcast.cut();
        let gone = Instant::now();
        while !site.playlist("show", renditions[0]).await?.ended {
            assert!(gone.elapsed() < GRACE * 3, "{renditions:?} never end");
            longest_wait(&site, renditions[0], Duration::from_millis(500))
                .await
                .ok();
        }
        assert!(gone.elapsed() >= GRACE, "{renditions:?} end after {:?}", gone.elapsed());
        for rendition in renditions {
            assert!(site.playlist("show", rendition).await?.ended, "{rendition}");
        }
        assert_seamless(&site, renditions).await?;
        site.shutdown().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_kept_alive_outlasts_any_grace_time() -> anyhow::Result<()> {
    let mut config = config();
    config.ingest.grace = HumanDuration(Duration::from_millis(300));
    config.resilience.keep_alive = KeepAlive::Forever;
    let site = Site::start_with(config).await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    watch(&site, "r-video", 2).await?;
    broadcast.end().await?;
    let playlist = watch(&site, "r-video", 5).await?;
    assert!(
        !playlist.ended && behind(&playlist) < 1.5,
        "{} s behind",
        behind(&playlist)
    );
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    watch(&site, "r-video", 3).await?;
    assert_seamless(&site, &["r-video", "r-audio"]).await?;
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn renditions_stay_aligned_when_one_of_them_stalls() -> anyhow::Result<()> {
    let site = Site::start_with(config()).await?;
    let relay = Relay::open(site.origin.rtmp).await?;
    let low = Synthetic {
        video: Some(SyntheticVideo {
            bitrate: 300_000,
            ..Default::default()
        }),
        audio: None,
    };
    let high = Broadcast::start(site.origin.rtmp, "show/1", &Synthetic::default()).await?;
    let low = Broadcast::start(relay.address, "show/2", &low).await?;
    watch(&site, "r-video-2", 2).await?;
    relay.hold(Duration::from_millis(3500)).await;
    watch(&site, "r-video-2", 3).await?;
    watch(&site, "r-video", 1).await?;
    assert!(filled(&site).await? > 1.0, "the stalled one was filled");
    let starts = async |rendition: &str| -> anyhow::Result<Vec<(u64, u64)>> {
        let history = History::read(&site, "show", rendition).await?;
        history.assert_continuous();
        let numbers = history.playlist.media_sequence.0..;
        Ok(numbers
            .zip(history.segments.iter().map(|segment| segment.tfdts[0]))
            .collect())
    };
    let (high_starts, low_starts) = (starts("r-video").await?, starts("r-video-2").await?);
    // A frame's time: the two encoders do not begin at the same instant.
    let aligned = |low: &(u64, u64)| {
        high_starts
            .iter()
            .any(|high| high.0 == low.0 && high.1.abs_diff(low.1) <= 45_000)
    };
    // The newest may be in one of the two answers only.
    let common = &low_starts[1..low_starts.len() - 1];
    assert!(
        common.len() >= 5 && common.iter().all(aligned),
        "{high_starts:?} {low_starts:?}"
    );
    high.end().await?;
    low.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_picture_or_sound_is_one_discontinuity_with_an_init_section_of_its_own() -> anyhow::Result<()> {
    let other_picture = Synthetic {
        video: Some(SyntheticVideo {
            fps: (25, 1),
            ..Default::default()
        }),
        ..Synthetic::default()
    };
    let other_sound = Synthetic {
        audio: Some(SyntheticAudio {
            sample_rate: 44_100,
            ..Default::default()
        }),
        ..Synthetic::default()
    };
    for (other, changed, unchanged) in [
        (other_picture, "r-video", "r-audio"),
        (other_sound, "r-audio", "r-video"),
    ] {
        let site = Site::start_with(config()).await?;
        let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
        watch(&site, "r-video", 2).await?;
        broadcast.cut();
        let broadcast = Broadcast::start(site.origin.rtmp, "show", &other).await?;
        watch(&site, "r-video", 5).await?;
        let mut breaks = Vec::new();
        for rendition in [changed, unchanged] {
            let history = History::read(&site, "show", rendition).await?;
            if rendition == "r-video" || changed == "r-video" {
                // Another sampling rate counts in other ticks.
                history.assert_clock();
            }
            assert_eq!(
                history.gaps_beyond(SEAMLESS),
                0,
                "{rendition}: time goes on: {history:#?}"
            );
            let marks: Vec<bool> = history.segments.iter().map(|segment| segment.discontinuity).collect();
            assert_eq!(marks.iter().filter(|mark| **mark).count(), 1, "{rendition}: {marks:?}");
            for pair in history.segments.windows(2) {
                let new_map = pair[0].map != pair[1].map;
                assert_eq!(new_map, pair[1].discontinuity && rendition == changed, "{rendition}");
            }
            let broken = marks.iter().position(|mark| *mark).expect("counted");
            breaks.push((broken, history.segments[broken].pdt));
        }
        // Players wait with one rendition until the other comes to the same discontinuity.
        assert_eq!(breaks[0].0, breaks[1].0, "in the same segment");
        let apart = breaks[0]
            .1
            .max(breaks[1].1)
            .duration_since(breaks[0].1.min(breaks[1].1))?;
        assert!(apart < Duration::from_millis(50), "{apart:?}");
        broadcast.end().await?;
        site.shutdown().await;
    }
    Ok(())
}
