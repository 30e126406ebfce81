//! Which requests are answered, held or refused: the table of blocking reloads, at the origin and at the edge alike.

use std::time::{Duration, Instant};

use http::StatusCode;
use weir_loadtest::synthetic::Synthetic;
use weir_tests::{
    client::get,
    site::{Broadcast, Site},
};

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_json_that_any_page_may_read() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    site.get("/app/show/index.m3u8").await?;
    let open = site.playlist("show", "video").await?.open_sequence().0;
    let cases = [
        ("/app/nobody/index.m3u8".to_owned(), StatusCode::NOT_FOUND),
        ("/app/nobody/d/video.m3u8".to_owned(), StatusCode::NOT_FOUND),
        ("/app/show/d/subtitles.m3u8".to_owned(), StatusCode::NOT_FOUND),
        ("/app/show/d/0/video/p1.m4s".to_owned(), StatusCode::NOT_FOUND),
        ("/app/show/d/../../etc/passwd".to_owned(), StatusCode::NOT_FOUND),
        ("/app/show/d/%2e%2e/video.m3u8".to_owned(), StatusCode::NOT_FOUND),
        ("/app/sh%6Fw/index.m3u8".to_owned(), StatusCode::NOT_FOUND),
        ("/app/show/d/video.m3u8?_HLS_part=1".to_owned(), StatusCode::BAD_REQUEST),
        (
            "/app/show/d/video.m3u8?_HLS_msn=soon".to_owned(),
            StatusCode::BAD_REQUEST,
        ),
        (
            format!("/app/show/d/video.m3u8?_HLS_msn={}", open + 9),
            StatusCode::BAD_REQUEST,
        ),
        (
            format!("/app/show/d/video.m3u8?_HLS_msn={open}&_HLS_part=200"),
            StatusCode::BAD_REQUEST,
        ),
        (
            "/app/show/d/video.m3u8?_HLS_skip=maybe".to_owned(),
            StatusCode::BAD_REQUEST,
        ),
    ];
    for at in [site.viewers(), site.origin.http] {
        for (path, status) in &cases {
            let asked = Instant::now();
            let reply = get(at, path).await?;
            assert_eq!(reply.status, *status, "{path}: {}", reply.text());
            assert!(asked.elapsed() < Duration::from_secs(3), "{path} is refused at once");
            let json: serde_json::Value = serde_json::from_str(reply.text())?;
            assert!(json["error"]["code"].is_string(), "{path}");
            assert_eq!(reply.header("access-control-allow-origin"), "*", "{path}");
            assert_eq!(reply.header("cache-control"), "no-store", "{path}");
        }
    }
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn old_positions_are_answered_at_once_and_new_ones_when_they_are_there() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    site.get("/app/show/index.m3u8").await?;
    for at in [site.viewers(), site.origin.http] {
        let playlist = get(at, "/app/show/d/video.m3u8").await?.playlist()?;
        let (open, parts) = (playlist.open_sequence().0, playlist.open_parts().len());
        for old in [
            format!("_HLS_msn={}", open - 1000),
            format!("_HLS_msn={}&_HLS_part=3", open - 1),
        ] {
            let reply = get(at, &format!("/app/show/d/video.m3u8?{old}")).await?;
            assert_eq!(reply.status, StatusCode::OK, "{old}");
        }
        let next = get(at, &format!("/app/show/d/video.m3u8?_HLS_msn={open}&_HLS_part={parts}")).await?;
        // A browser must not answer a repeated request from its own cache.
        assert!(next.header("cache-control").contains("max-age=0, s-maxage="));
        let news = next.playlist()?;
        let advanced = (news.open_sequence().0, news.open_parts().len());
        assert!(advanced > (open, parts), "{advanced:?} is after {:?}", (open, parts));
        // An index past the end of a segment is part 0 of the next.
        let rolled = get(
            at,
            &format!("/app/show/d/video.m3u8?_HLS_msn={open}&_HLS_part={}", parts + 6),
        )
        .await?;
        let rolled = rolled.playlist()?;
        assert!(rolled.open_sequence().0 > open);
        // The whole segment.
        let open = rolled.open_sequence().0;
        let whole = get(at, &format!("/app/show/d/video.m3u8?_HLS_msn={open}"))
            .await?
            .playlist()?;
        assert!(whole.open_sequence().0 > open);
    }
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_not_next_is_absent_at_once() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    site.get("/app/show/index.m3u8").await?;
    let hint = site.playlist("show", "video").await?.preload_hint.expect("live").uri;
    let (stem, number) = hint.trim_end_matches(".m4s").rsplit_once('p').expect("a part's name");
    let far = number.parse::<u64>()? + 50;
    let asked = Instant::now();
    let reply = site.get(&format!("/app/show/d/{stem}p{far}.m4s")).await?;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert!(asked.elapsed() < Duration::from_secs(1));
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn delta_updates_merge_into_the_full_playlist() -> anyhow::Result<()> {
    let mut config = weir_tests::site::origin_config();
    // A target duration of one second brings the skip boundary within a test's reach.
    config.packaging.segment_target = weir_shared::config::HumanDuration(Duration::from_millis(1000));
    config.packaging.target_duration = Some(weir_shared::config::HumanDuration(Duration::from_secs(1)));
    let origin = weir_origin::app::Origin::start(config).await?;
    let broadcast = Broadcast::start(origin.rtmp, "show", &Synthetic::default()).await?;
    get(origin.http, "/app/show/index.m3u8").await?;
    let mut playlist = get(origin.http, "/app/show/d/video.m3u8").await?.playlist()?;
    let until = playlist.open_sequence().0 + 9;
    let mut skipped = 0;
    while playlist.open_sequence().0 < until {
        let (msn, part) = (playlist.open_sequence(), playlist.open_parts().len());
        let plain = format!("/app/show/d/video.m3u8?_HLS_msn={msn}&_HLS_part={part}");
        let skipping = format!("{plain}&_HLS_skip=YES");
        let (full, delta) = tokio::join!(get(origin.http, &plain), get(origin.http, &skipping));
        let (full, delta) = (full?.playlist()?, delta?.playlist()?);
        skipped += delta.skipped_segments.unwrap_or(0);
        let merged = match delta.skipped_segments {
            Some(_) => weir_shared::hls::delta::merge(&playlist, delta)?,
            None => delta,
        };
        if merged.open_sequence() == full.open_sequence() && merged.open_parts().len() == full.open_parts().len() {
            assert_eq!(merged.segments, full.segments);
        }
        playlist = full;
    }
    assert!(skipped > 0, "the window grew past the skip boundary");
    broadcast.end().await?;
    origin.shutdown().await;
    Ok(())
}
