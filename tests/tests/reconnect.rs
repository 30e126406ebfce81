//! Encoders that come back, take over, back each other up or publish in parts: what viewers notice of it.
//!
//! Times are a third of the defaults: a grace of 3.3 s, and silences in proportion.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use http::StatusCode;
use weir_loadtest::synthetic::{Synthetic, SyntheticVideo};
use weir_origin::{
    config::{Config, Srt},
    live::{failover::Revert, lifecycle::State, status::Reason},
};
use weir_shared::config::HumanDuration;
use weir_tests::{
    client::get,
    history::History,
    site::{Broadcast, Site, metric, origin_config},
};

const GRACE: Duration = Duration::from_millis(3300);

fn config() -> Config {
    let mut config = origin_config();
    config.ingest.grace = HumanDuration(GRACE);
    config.ingest.failover_after = HumanDuration(Duration::from_millis(500));
    config.ingest.stable_for = HumanDuration(Duration::from_millis(1500));
    config.packaging.window = HumanDuration(Duration::from_secs(300));
    config
}

fn half_second_groups() -> Synthetic {
    Synthetic {
        video: Some(SyntheticVideo {
            gop_seconds: 0.5,
            ..Default::default()
        }),
        ..Synthetic::default()
    }
}

/// Waits until the video playlist has its next `segments` complete segments.
async fn watch(site: &Site, key: &str, segments: u64) -> anyhow::Result<()> {
    site.get(&format!("/app/{key}/index.m3u8")).await?;
    for _ in 0..segments {
        let open = site.playlist(key, "video").await?.open_sequence();
        let next = site.get(&format!("/app/{key}/d/video.m3u8?_HLS_msn={open}")).await?;
        assert_eq!(next.status, StatusCode::OK, "{}", next.text());
    }
    Ok(())
}

async fn wait_for(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds().await? {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn stream(site: &Site) -> anyhow::Result<serde_json::Value> {
    let listed = get(site.origin.admin, "/streams").await?;
    let listed: serde_json::Value = serde_json::from_slice(&listed.body)?;
    Ok(listed["streams"][0].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_that_comes_back_within_the_grace_time_continues_the_playlists() -> anyhow::Result<()> {
    let site = Site::start_with(config()).await?;
    let mut broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    watch(&site, "show", 2).await?;
    let before = site.playlist("show", "video").await?;
    // One, five and nine tenths of the grace time, gone without a word or with a goodbye.
    for (tenths, says_goodbye) in [(1, false), (5, true), (9, false)] {
        if says_goodbye {
            broadcast.end().await?;
        } else {
            broadcast.cut();
        }
        tokio::time::sleep(GRACE * tenths / 10).await;
        broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
        watch(&site, "show", 2).await?;
    }
    for rendition in ["video", "audio"] {
        let playlist = site.playlist("show", rendition).await?;
        assert!(!playlist.ended);
        assert_eq!(playlist.media_sequence, before.media_sequence, "nothing was begun anew");
    }
    History::read(&site, "show", "audio").await?.assert_continuous();
    let history = History::read(&site, "show", "video").await?;
    history.assert_continuous();
    assert_eq!(history.gaps_beyond(0.2), 3, "{history:#?}");
    let gap = history.longest_gap();
    assert!((2.9..4.2).contains(&gap), "a break keeps its length: {gap}");

    // Nobody comes back.
    broadcast.cut();
    wait_for("the end", async || Ok(site.playlist("show", "video").await?.ended)).await?;
    assert!(site.playlist("show", "audio").await?.ended);
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_heir_of_a_ghost_is_seen_within_a_second_in_the_same_playlist() -> anyhow::Result<()> {
    let site = Site::start_with(config()).await?;
    let ghost = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    watch(&site, "show", 2).await?;
    let heir = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    let taken = Instant::now();
    assert!(ghost.outcome().await.is_err(), "the first one is told to go");
    let listed = site.playlist("show", "video").await?;
    let (open, parts) = (listed.open_sequence(), listed.open_parts().len());
    site.get(&format!("/app/show/d/video.m3u8?_HLS_msn={open}&_HLS_part={parts}"))
        .await?
        .playlist()?;
    assert!(taken.elapsed() < Duration::from_secs(1), "{:?}", taken.elapsed());
    watch(&site, "show", 2).await?;
    History::read(&site, "show", "audio").await?.assert_continuous();
    let history = History::read(&site, "show", "video").await?;
    history.assert_continuous();
    assert!(history.longest_gap() < 1.0, "{}", history.longest_gap());
    assert_eq!(
        metric(site.origin.admin, "weir_origin_ingest_takeovers_total", "").await?,
        1.0
    );
    heir.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_configuration_is_a_discontinuity_in_every_rendition() -> anyhow::Result<()> {
    let site = Site::start_with(config()).await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    watch(&site, "show", 2).await?;
    broadcast.end().await?;
    let slower = Synthetic {
        video: Some(SyntheticVideo {
            fps: (25, 1),
            ..Default::default()
        }),
        ..Synthetic::default()
    };
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &slower).await?;
    watch(&site, "show", 3).await?;
    for rendition in ["video", "audio"] {
        let playlist = site.playlist("show", rendition).await?;
        let marks = playlist.segments.iter().filter(|s| s.discontinuity).count();
        assert_eq!(marks, 1, "{rendition}");
    }
    let history = History::read(&site, "show", "video").await?;
    history.assert_clock();
    let maps: Vec<_> = history.segments.iter().map(|s| s.map.clone()).collect();
    assert_ne!(
        maps.first(),
        maps.last(),
        "the new configuration has an init section of its own"
    );
    for segment in history.segments.windows(2) {
        assert_eq!(segment[1].discontinuity, segment[0].map != segment[1].map);
    }
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn primary_and_backup_are_one_broadcast_across_twenty_switches() -> anyhow::Result<()> {
    let mut config = config();
    config.ingest.revert = Revert::Never;
    let site = Site::start_with(config).await?;
    let synthetic = half_second_groups();
    let mut changes = site.origin.watch_status();
    let push = async |key: &str| Broadcast::start(site.origin.rtmp, key, &synthetic).await;
    let keys = ["show", "show/backup"];
    let mut feeds = [Some(push(keys[0]).await?), None];
    watch(&site, "show", 1).await?;
    feeds[1] = Some(push(keys[1]).await?);
    let switches = async || metric(site.origin.admin, "weir_origin_ingest_switches_total", "failover").await;
    for round in 0..20 {
        wait_for("both send", async || {
            let stream = stream(&site).await?;
            Ok(stream["live"] == true && stream["backupLive"] == true)
        })
        .await?;
        // Whoever is shown is cut; afterwards it is back, and waits.
        let shown = round % 2;
        feeds[shown].take().expect("it sends").cut();
        wait_for("the switch", async || Ok(switches().await? > f64::from(round as u32))).await?;
        feeds[shown] = Some(push(keys[shown]).await?);
    }
    watch(&site, "show", 2).await?;
    History::read(&site, "show", "audio").await?.assert_continuous();
    let history = History::read(&site, "show", "video").await?;
    history.assert_continuous();
    assert!(history.longest_gap() <= 1.0, "{}", history.longest_gap());
    let mut seen = Vec::new();
    while let Ok(change) = changes.try_recv() {
        assert_eq!(change.state, State::Live, "{change:?}");
        seen.push((change.live, change.backup_live));
    }
    for slots in [(true, false), (true, true), (false, true)] {
        assert!(
            seen.iter().filter(|s| **s == slots).count() >= 10 || slots == (true, false),
            "{seen:?}"
        );
    }
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_primary_is_replaced_and_taken_again_once_it_is_stable() -> anyhow::Result<()> {
    let site = Site::start_with(config()).await?;
    let synthetic = half_second_groups();
    let primary = Broadcast::start(site.origin.rtmp, "show", &synthetic).await?;
    watch(&site, "show", 1).await?;
    let backup = Broadcast::start(site.origin.rtmp, "show/backup", &synthetic).await?;
    wait_for("both send", async || Ok(stream(&site).await?["backupLive"] == true)).await?;
    // Connected and silent, as when a line is dead and nobody has noticed.
    let silent = primary.fall_silent();
    wait_for("the switch", async || Ok(stream(&site).await?["live"] == false)).await?;
    watch(&site, "show", 1).await?;
    let primary = Broadcast::start(site.origin.rtmp, "show", &synthetic).await?;
    drop(silent);
    wait_for("the way back", async || {
        let reverts = metric(site.origin.admin, "weir_origin_ingest_switches_total", "revert").await?;
        Ok(reverts == 1.0)
    })
    .await?;
    watch(&site, "show", 2).await?;
    History::read(&site, "show", "audio").await?.assert_continuous();
    let history = History::read(&site, "show", "video").await?;
    history.assert_continuous();
    assert!(history.longest_gap() <= 1.0, "{}", history.longest_gap());
    primary.end().await?;
    backup.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_over_srt_takes_over_from_rtmp_and_gives_back() -> anyhow::Result<()> {
    let mut config = config();
    config.ingest.revert = Revert::Never;
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.srt = Some(Srt {
        listen,
        ..Default::default()
    });
    let site = Site::start_with(config).await?;
    let srt = format!("srt://{}", site.origin.srt.context("SRT is served")?);
    let synthetic = half_second_groups();
    let primary = Broadcast::start(site.origin.rtmp, "show", &synthetic).await?;
    watch(&site, "show", 1).await?;
    let backup = Broadcast::push(&srt, "show/backup", &synthetic).await?;
    let both = async || Ok(stream(&site).await?["live"] == true && stream(&site).await?["backupLive"] == true);
    wait_for("both send", both).await?;
    primary.cut();
    wait_for("the switch to SRT", async || Ok(stream(&site).await?["live"] == false)).await?;
    watch(&site, "show", 2).await?;
    let primary = Broadcast::start(site.origin.rtmp, "show", &synthetic).await?;
    wait_for("both send again", both).await?;
    backup.cut();
    wait_for("the switch to RTMP", async || {
        let switches = metric(site.origin.admin, "weir_origin_ingest_switches_total", "failover").await?;
        Ok(switches == 2.0)
    })
    .await?;
    watch(&site, "show", 2).await?;
    History::read(&site, "show", "audio").await?.assert_continuous();
    let history = History::read(&site, "show", "video").await?;
    history.assert_continuous();
    assert!(history.longest_gap() <= 1.0, "{}", history.longest_gap());
    primary.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_sends_only_sound_is_replaced() -> anyhow::Result<()> {
    let site = Site::start_with(config()).await?;
    let synthetic = half_second_groups();
    let primary = Broadcast::start(site.origin.rtmp, "show", &synthetic).await?;
    watch(&site, "show", 1).await?;
    let backup = Broadcast::start(site.origin.rtmp, "show/backup", &synthetic).await?;
    wait_for("both send", async || Ok(stream(&site).await?["backupLive"] == true)).await?;
    primary.lose_picture();
    wait_for("the switch", async || {
        let switches = metric(site.origin.admin, "weir_origin_ingest_switches_total", "failover").await?;
        Ok(switches == 1.0)
    })
    .await?;
    watch(&site, "show", 2).await?;
    History::read(&site, "show", "audio").await?.assert_continuous();
    // The picture misses what the primary no longer sent; the sound, which went on, keeps the clock.
    let gap = History::read(&site, "show", "video").await?.longest_gap();
    assert!((0.3..1.5).contains(&gap), "{gap}");
    assert_eq!(stream(&site).await?["live"], true, "its sound still comes");
    primary.end().await?;
    backup.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_change_is_told_within_300_ms() -> anyhow::Result<()> {
    let site = Site::start_with(config()).await?;
    let mut changes = site.origin.watch_status();
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
        let begun = Instant::now();
        while changes.recv().await?.state != State::Live {}
        slowest = slowest.max(begun.elapsed());
        let gone = Instant::now();
        broadcast.cut();
        let change = changes.recv().await?;
        slowest = slowest.max(gone.elapsed());
        assert!(matches!(change.state, State::Grace { .. }), "{change:?}");
        assert_eq!((change.live, change.reason), (false, Reason::PublisherLeft));
    }
    assert!(slowest < Duration::from_millis(300), "{slowest:?}");
    let change = changes.recv().await?;
    assert_eq!((change.state, change.reason), (State::Ended, Reason::GraceOver));
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn several_publishes_of_one_stream_are_its_renditions() -> anyhow::Result<()> {
    let site = Site::start_with(config()).await?;
    let low = Synthetic {
        video: Some(SyntheticVideo {
            bitrate: 300_000,
            gop_seconds: 0.5,
            ..Default::default()
        }),
        audio: None,
    };
    let sound = Synthetic {
        video: None,
        ..Synthetic::default()
    };
    let first = Broadcast::start(site.origin.rtmp, "show/1", &half_second_groups()).await?;
    // So that the second begins in the middle of a segment, if that can be.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let second = Broadcast::start(site.origin.rtmp, "show/2", &low).await?;
    let third = Broadcast::start(site.origin.rtmp, "show/3", &sound).await?;
    let index = async || Ok::<_, anyhow::Error>(site.get("/app/show/d/llhls.m3u8").await?.text().to_owned());
    wait_for("three renditions", async || {
        let text = index().await?;
        Ok(text.contains("video-2.m3u8") && text.contains("audio-3.m3u8"))
    })
    .await?;
    watch(&site, "show", 3).await?;
    let text = index().await?;
    assert_eq!(text.matches("#EXT-X-STREAM-INF").count(), 2, "{text}");
    assert_eq!(text.matches("#EXT-X-MEDIA:").count(), 2, "{text}");
    let [high, low] = [
        History::read(&site, "show", "video").await?,
        History::read(&site, "show", "video-2").await?,
    ];
    // Segments of the same time begin at the same time and have the same number.
    let starts = |history: &History| -> Vec<(u64, u64)> {
        let numbers = history.playlist.media_sequence.0..;
        numbers.zip(history.segments.iter().map(|s| s.tfdts[0])).collect()
    };
    let (high, low) = (starts(&high), starts(&low));
    let common = low.iter().skip(1).filter(|start| high.contains(start)).count();
    assert!(common >= 2 && common >= low.len() - 2, "{high:?} {low:?}");

    // One dies: the others play on, and it is listed no more.
    second.cut();
    wait_for("one less", async || Ok(!index().await?.contains("video-2.m3u8"))).await?;
    watch(&site, "show", 1).await?;
    assert!(index().await?.contains("audio-3.m3u8"));
    first.end().await?;
    third.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listing_says_what_the_input_is_like() -> anyhow::Result<()> {
    let site = Site::start_with(config()).await?;
    let rare = Synthetic {
        video: Some(SyntheticVideo {
            gop_seconds: 20.0,
            ..Default::default()
        }),
        audio: None,
    };
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &rare).await?;
    wait_for("a warning", async || {
        let warnings = stream(&site).await?["warnings"].to_string();
        Ok(warnings.contains("set the keyframe interval to 1–2 s") && warnings.contains("no audio"))
    })
    .await?;
    let stream = stream(&site).await?;
    assert_eq!((&stream["state"], &stream["live"]), (&"live".into(), &true.into()));
    let publisher = &stream["publishers"][0];
    assert_eq!(publisher["slot"], "primary");
    let track = &publisher["tracks"][0];
    assert_eq!(
        (&track["codec"], &track["width"]),
        (&"avc1.64001f".into(), &1280.into())
    );
    let (rate, bitrate) = (track["frameRate"].as_f64(), track["bitrate"].as_f64());
    assert!(rate.is_some_and(|rate| (29.0..31.0).contains(&rate)), "{track}");
    assert!(bitrate.is_some_and(|bitrate| bitrate > 100_000.0), "{track}");
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}
