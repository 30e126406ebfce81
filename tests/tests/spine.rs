//! A push plays through an edge: what a viewer sees of a healthy broadcast, from its first part to its end.

use std::{collections::HashSet, time::Duration};

use http::{Method, StatusCode};
use weir_loadtest::synthetic::{Synthetic, SyntheticAudio, SyntheticVideo, marks};
use weir_shared::hls::playlist::MediaPlaylist;
use weir_tests::{
    client::{ask, get},
    site::{Broadcast, Site, metric},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_gets_every_frame_once_and_in_order() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;

    let multivariant = site.get("/app/show/index.m3u8").await?;
    assert_eq!(multivariant.status, StatusCode::OK);
    assert!(
        multivariant.text().contains("CODECS=\"avc1.64001f,mp4a.40.2\""),
        "{}",
        multivariant.text()
    );
    assert!(multivariant.text().contains("d/r-video.m3u8"));

    // Follow the live edge as a player does: part by part, each asked for by the hint.
    let mut playlist = site.playlist("show", "video").await?;
    let mut seen = Vec::new();
    for _ in 0..20 {
        let hint = playlist.preload_hint.clone().expect("a live playlist has a hint");
        let (msn, part) = (playlist.open_sequence(), playlist.open_parts().len());
        let part_path = format!("/app/show/d/{}", hint.uri);
        let reload = format!("/app/show/d/video.m3u8?_HLS_msn={msn}&_HLS_part={part}");
        let (bytes, news) = tokio::join!(site.get(&part_path), site.get(&reload));
        let (bytes, news) = (bytes?, news?);
        assert_eq!(bytes.status, StatusCode::OK);
        seen.extend(marks(&bytes.body).into_iter().map(|m| m.number));
        playlist = news.playlist()?;
        let listed = playlist
            .segments
            .iter()
            .flat_map(|s| &s.parts)
            .any(|p| p.uri == hint.uri);
        assert!(listed, "the hinted part is the next one that is listed");
    }
    let first = seen[0];
    let expected: Vec<u64> = (first..first + seen.len() as u64).collect();
    assert_eq!(seen, expected);

    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_is_its_parts_byte_for_byte() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    site.get("/app/show/index.m3u8").await?;
    for rendition in ["video", "audio"] {
        let open = site.playlist("show", rendition).await?.open_sequence();
        let whole = site
            .get(&format!("/app/show/d/{rendition}.m3u8?_HLS_msn={open}"))
            .await?
            .playlist()?;
        let segment = whole
            .segments
            .iter()
            .rev()
            .find(|s| s.uri.is_some())
            .expect("one is complete");
        let bytes = site
            .get(&format!("/app/show/d/{}", segment.uri.as_ref().unwrap()))
            .await?;
        let mut joined = Vec::new();
        for part in &segment.parts {
            joined.extend_from_slice(&site.get(&format!("/app/show/d/{}", part.uri)).await?.body);
        }
        assert!(!joined.is_empty());
        assert_eq!(bytes.body, joined);
        let sum: Duration = segment.parts.iter().map(|p| p.duration).sum();
        assert!(sum.abs_diff(segment.duration) <= Duration::from_millis(10));
    }
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_push_ends_the_playlist_and_releases_who_waits() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    site.get("/app/show/index.m3u8").await?;
    let open = site.playlist("show", "video").await?.open_sequence();
    let viewers = site.viewers();
    // Two segments ahead: nothing but the end can answer this soon.
    let waiting =
        tokio::spawn(async move { get(viewers, &format!("/app/show/d/video.m3u8?_HLS_msn={}", open.0 + 2)).await });
    broadcast.end().await?;
    let last = waiting.await??.playlist()?;
    assert!(last.ended);
    assert_eq!(last.preload_hint, None);
    assert!(last.segments.iter().all(|s| s.uri.is_some()), "nothing is left open");
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tracks_come_alone_or_together_at_any_rate() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let video = |fps, b_frames| {
        Some(SyntheticVideo {
            fps,
            b_frames,
            ..Default::default()
        })
    };
    let audio = |sample_rate, channels| {
        Some(SyntheticAudio {
            sample_rate,
            channels,
            bitrate: 64_000,
        })
    };
    for (key, synthetic, renditions) in [
        (
            "video-only",
            Synthetic {
                video: video((30_000, 1001), true),
                audio: None,
            },
            &["video"][..],
        ),
        (
            "audio-only",
            Synthetic {
                video: None,
                audio: audio(44_100, 1),
            },
            &["audio"][..],
        ),
        (
            "both",
            Synthetic {
                video: video((25, 1), false),
                audio: audio(44_100, 2),
            },
            &["video", "audio"][..],
        ),
    ] {
        let broadcast = Broadcast::start(site.origin.rtmp, key, &synthetic).await?;
        let multivariant = site.get(&format!("/app/{key}/d/llhls.m3u8")).await?;
        assert_eq!(multivariant.status, StatusCode::OK, "{key}: {}", multivariant.text());
        for rendition in renditions {
            let playlist = site.playlist(key, rendition).await?;
            let target = playlist.part_target.expect("parts have a target");
            assert!(
                playlist
                    .segments
                    .iter()
                    .flat_map(|s| &s.parts)
                    .all(|p| p.duration <= target),
                "{key}"
            );
            assert_eq!(playlist.rendition_reports.len(), renditions.len() - 1, "{key}");
        }
        broadcast.end().await?;
    }
    site.shutdown().await;
    Ok(())
}

/// The running number of the part that comes next.
fn hinted(playlist: &MediaPlaylist) -> u64 {
    let hint = playlist.preload_hint.as_ref().expect("a live playlist has a hint");
    let name = hint.uri.rsplit_once("/p").expect("a part's name").1;
    name.trim_end_matches(".m4s").parse().expect("a part's number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_of_viewers_is_one_request_at_the_origin() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    site.get("/app/show/index.m3u8").await?;
    let mut playlist = site.playlist("show", "video").await?;
    let before = site.edge_metric("weir_edge_upstream_requests_total", "").await?;
    let first = hinted(&playlist);
    let mut bodies = HashSet::new();
    for _ in 0..10 {
        let hint = playlist.preload_hint.clone().expect("a live playlist has a hint");
        let (msn, part) = (playlist.open_sequence(), playlist.open_parts().len());
        let paths = [
            format!("/app/show/d/video.m3u8?_HLS_msn={msn}&_HLS_part={part}"),
            format!("/app/show/d/{}", hint.uri),
        ];
        let viewers = site.viewers();
        let mut herd = tokio::task::JoinSet::new();
        for viewer in 0..200 {
            let path = paths[viewer % 2].clone();
            herd.spawn(async move { (viewer % 2, get(viewers, &path).await) });
        }
        bodies.clear();
        while let Some(done) = herd.join_next().await {
            let (kind, reply) = done?;
            let reply = reply?;
            assert_eq!(reply.status, StatusCode::OK);
            if kind == 0 {
                playlist = reply.playlist()?;
            } else {
                bodies.insert(reply.body);
            }
        }
        assert_eq!(bodies.len(), 1, "all get the same part");
    }
    let asked = site.edge_metric("weir_edge_upstream_requests_total", "").await? - before;
    // Per part that came meanwhile: one playlist update and the part. One of each may be open at either end of the
    // count, and the init section is asked for once.
    let objects = 2 * (hinted(&playlist) - first) + 3;
    assert!(asked <= objects as f64, "{asked} requests for {objects} objects");
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_carry_what_players_and_caches_need() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    site.get("/app/show/index.m3u8").await?;
    for at in [site.viewers(), site.origin.http] {
        let playlist = get(at, "/app/show/d/video.m3u8").await?;
        assert_eq!(playlist.header("content-type"), "application/vnd.apple.mpegurl");
        assert_eq!(playlist.header("access-control-allow-origin"), "*");
        assert_eq!(playlist.header("vary"), "accept-encoding");
        assert_eq!(playlist.header("content-encoding"), "");
        let zipped = ask(
            at,
            Method::GET,
            "/app/show/d/video.m3u8",
            &[("accept-encoding", "gzip")],
        )
        .await?;
        assert_eq!(zipped.header("content-encoding"), "gzip");

        let listed = playlist.playlist()?;
        let part = &listed
            .segments
            .iter()
            .flat_map(|s| &s.parts)
            .next()
            .expect("a part is listed")
            .uri;
        let path = format!("/app/show/d/{part}");
        let whole = ask(at, Method::GET, &path, &[("accept-encoding", "gzip")]).await?;
        assert_eq!(whole.header("content-encoding"), "", "media is never encoded");
        assert_eq!(whole.header("content-type"), "video/mp4");
        assert!(whole.header("cache-control").contains("immutable"));
        let head = ask(at, Method::HEAD, &path, &[]).await?;
        assert_eq!(head.header("content-length"), whole.body.len().to_string());
        assert!(head.body.is_empty());
        let some = ask(at, Method::GET, &path, &[("range", "bytes=4-7")]).await?;
        assert_eq!(
            (some.status, &some.body[..]),
            (StatusCode::PARTIAL_CONTENT, &b"moof"[..])
        );
        let past = ask(at, Method::GET, &path, &[("range", "bytes=99999999-")]).await?;
        assert_eq!(past.status, StatusCode::RANGE_NOT_SATISFIABLE);
        let etag = whole.header("etag").to_owned();
        let same = ask(at, Method::GET, &path, &[("if-none-match", &etag)]).await?;
        assert_eq!(same.status, StatusCode::NOT_MODIFIED);
        let preflight = ask(at, Method::OPTIONS, &path, &[]).await?;
        assert_eq!(preflight.status, StatusCode::NO_CONTENT);
        assert!(preflight.header("access-control-allow-headers").contains("Range"));
        let post = ask(at, Method::POST, &path, &[]).await?;
        assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_side_tells_what_is_live() -> anyhow::Result<()> {
    let site = Site::start().await?;
    assert_eq!(get(site.origin.admin, "/readyz").await?.status, StatusCode::OK);
    assert_eq!(metric(site.origin.admin, "weir_origin_streams_live", "").await?, 0.0);
    let rare = SyntheticVideo {
        gop_seconds: 20.0,
        ..Default::default()
    };
    let synthetic = Synthetic {
        video: Some(rare),
        audio: None,
    };
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &synthetic).await?;
    site.get("/app/show/index.m3u8").await?;
    assert_eq!(metric(site.origin.admin, "weir_origin_streams_live", "").await?, 1.0);
    // Wait for the second segment: the first one can only have been cut by force.
    let open = site.playlist("show", "video").await?.open_sequence();
    site.get(&format!("/app/show/d/video.m3u8?_HLS_msn={}&_HLS_part=0", open.0 + 1))
        .await?;
    let streams = get(site.origin.admin, "/streams").await?;
    assert!(
        streams.text().contains("key frames are further apart"),
        "{}",
        streams.text()
    );
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}
