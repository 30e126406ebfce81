//! What viewers see when publishers, origins or the network misbehave.

use std::time::{Duration, Instant, UNIX_EPOCH};

use http::StatusCode;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use weir_edge::Edge;
use weir_loadtest::synthetic::Synthetic;
use weir_origin::app::Origin;
use weir_shared::media::time::Timescale;
use weir_tests::{
    client::get,
    site::{Broadcast, Site, origin_config, start_edge},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_gone_is_503_and_its_return_is_noticed() -> anyhow::Result<()> {
    let mut config = origin_config();
    config.packaging.target_duration = Some(weir_shared::config::HumanDuration(Duration::from_secs(2)));
    let origin = Origin::start(config.clone()).await?;
    let (http, rtmp) = (origin.http, origin.rtmp);
    let edge: Edge = start_edge(http).await?;
    let viewers = edge.http.expect("a plain listener");
    let broadcast = Broadcast::start(rtmp, "show", &Synthetic::default()).await?;
    get(viewers, "/app/show/index.m3u8").await?;
    let before = get(viewers, "/app/show/d/video.m3u8").await?.playlist()?;
    let old_part = before.preload_hint.clone().expect("live").uri;

    origin.shutdown().await;
    broadcast.cut();
    let asked = Instant::now();
    let held = get(
        viewers,
        &format!("/app/show/d/video.m3u8?_HLS_msn={}", before.open_sequence().0 + 1),
    )
    .await?;
    assert_eq!(held.status, StatusCode::SERVICE_UNAVAILABLE, "{}", held.text());
    assert_ne!(held.header("retry-after"), "");
    assert_eq!(held.header("access-control-allow-origin"), "*");
    assert!(asked.elapsed() <= Duration::from_millis(6500), "{:?}", asked.elapsed());

    // The same addresses again, as after a restart of the process.
    config.http.listen = http;
    config.rtmp.listen = rtmp;
    let origin = Origin::start(config).await?;
    let broadcast = Broadcast::start(rtmp, "show", &Synthetic::default()).await?;
    let deadline = Instant::now() + Duration::from_secs(10);
    let after = loop {
        let reply = get(viewers, "/app/show/d/video.m3u8").await?;
        if reply.status == StatusCode::OK && !reply.text().contains(old_part.split('/').next().unwrap()) {
            break reply.playlist()?;
        }
        assert!(Instant::now() < deadline, "the edge did not notice: {}", reply.text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(after.media_sequence > before.media_sequence, "numbers never go back");
    // A playlist of parts alone is taken for an empty one by players that follow.
    let first = after.segments.first().expect("a segment");
    let uri = first.uri.as_deref().expect("a complete one");
    // Media time goes on where the old life stood: it is the wall clock's.
    let media = get(viewers, &format!("/app/show/d/{uri}")).await?;
    let date = first.program_date_time.expect("dated").duration_since(UNIX_EPOCH)?;
    let off = date.as_secs_f64() - decode_time_seconds(&media.body).expect("a tfdt");
    assert!(off.abs() < 0.5, "media time is {off} s off the wall clock");
    assert_ne!(
        after.preload_hint.expect("live").uri,
        old_part,
        "names are never reused"
    );
    broadcast.end().await?;
    edge.shutdown().await;
    origin.shutdown().await;
    Ok(())
}

/// `tfdt` (version 1) of the first fragment, in seconds of the video timescale.
fn decode_time_seconds(fragment: &[u8]) -> Option<f64> {
    let at = fragment.windows(4).position(|kind| kind == b"tfdt")?;
    let ticks = fragment.get(at + 8..at + 16)?.try_into().ok()?;
    Some(u64::from_be_bytes(ticks) as f64 / f64::from(Timescale::VIDEO.get()))
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_connections_disturb_nobody() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    site.get("/app/show/index.m3u8").await?;

    let garbage: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0xff; 5000],
        vec![3; 1537],
        // A right handshake, then chunks of nonsense.
        [vec![3u8], vec![0; 1536], vec![0; 1536], vec![0xee; 4096]].concat(),
        vec![],
    ];
    for bytes in garbage {
        let mut socket = TcpStream::connect(site.origin.rtmp).await?;
        // The server may close in the middle of it: that is an answer too.
        let _ = socket.write_all(&bytes).await;
    }
    let mut playlist = site.playlist("show", "video").await?;
    for _ in 0..10 {
        let (msn, part) = (playlist.open_sequence(), playlist.open_parts().len());
        let next = site
            .get(&format!("/app/show/d/video.m3u8?_HLS_msn={msn}&_HLS_part={part}"))
            .await?;
        playlist = next.playlist()?;
    }
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_line_ends_the_stream_and_the_next_push_goes_on_above_it() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    site.get("/app/show/index.m3u8").await?;
    let before = site.playlist("show", "video").await?;
    broadcast.cut();
    let open = before.open_sequence();
    let ended = site
        .get(&format!("/app/show/d/video.m3u8?_HLS_msn={}", open.0 + 2))
        .await?
        .playlist()?;
    assert!(ended.ended);
    for directives in ["_HLS_msn=999999999999", "_HLS_part=0", "_HLS_msn=x"] {
        let path = format!("/app/show/d/video.m3u8?{directives}");
        for place in [site.viewers(), site.origin.http] {
            let reply = get(place, &path).await?;
            assert!(
                reply.playlist().is_ok_and(|p| p.ended),
                "after the end directives are ignored: {directives}, {}",
                reply.text()
            );
        }
    }

    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    let deadline = Instant::now() + Duration::from_secs(15);
    let after = loop {
        let reply = site.get("/app/show/d/video.m3u8").await?;
        if let Ok(playlist) = reply.playlist()
            && !playlist.ended
        {
            break playlist;
        }
        assert!(Instant::now() < deadline, "{}", reply.text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(
        after.media_sequence >= ended.open_sequence(),
        "numbers go on above the old ones"
    );
    broadcast.end().await?;
    site.shutdown().await;
    Ok(())
}
