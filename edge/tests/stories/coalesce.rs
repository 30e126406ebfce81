//! Many viewers, one request per object; and nobody's mistake is another's.

use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::{task::JoinSet, time::timeout};
use weir_shared::{config::ByteSize, hls::write};

use crate::{
    origin::{FakeOrigin, Stage},
    site::{Site, until},
};

const VIEWERS: u64 = 200;

fn stage() -> Stage {
    Stage::new("aa", 1000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_viewers_cost_one_request_per_object() {
    let origin = FakeOrigin::start(stage());
    let site = Site::new(origin.addr).await;
    site.viewer.object("video.m3u8").await;

    // Across a segment's end: parts 42, 43 (its last), 44 and 45.
    for _ in 0..4 {
        let before = origin.stage();
        let mut waiting = JoinSet::new();
        for n in 0..VIEWERS {
            let viewer = site.viewer.another();
            let skip = if n % 2 == 0 { "&_HLS_skip=YES" } else { "" };
            let reload = format!("video.m3u8?{}{skip}", before.next());
            let part = format!("aa/video/p{}.m4s", before.parts);
            waiting.spawn(async move {
                if n % 10 == 0 {
                    // As Safari does: the hinted part, before it is announced.
                    return (StatusCode::OK, viewer.object(&part).await.body);
                }
                let playlist = viewer.object(&reload).await;
                assert!(playlist.text().contains(&part), "the playlist announces the part");
                (playlist.status, viewer.object(&part).await.body)
            });
        }
        site.until_metric("weir_edge_holding", VIEWERS).await;
        let number = origin.publish();
        for (status, body) in waiting.join_all().await {
            assert_eq!(status, StatusCode::OK);
            assert_eq!(body, before.part(number));
        }
    }
    for path in ["video.m3u8", "llhls.m3u8", "aa/video/init0.mp4", "aa/video/1002.m4s"] {
        let mut all = JoinSet::new();
        for _ in 0..20 {
            let (viewer, path) = (site.viewer.clone(), path.to_owned());
            all.spawn(async move { viewer.object(&path).await.status });
        }
        assert_eq!(all.join_all().await, vec![StatusCode::OK; 20], "{path}");
    }
    let late = site.viewer.object("video.m3u8?_HLS_msn=1003&_HLS_part=1").await;
    assert_eq!(late.text(), write::write(&origin.stage().playlist()));
    assert_eq!(origin.asked("_HLS_msn=1003&_HLS_part=1"), 0, "answered from memory");
    assert_eq!(origin.asked_twice(), vec![], "each object is asked for once");
    assert_eq!(origin.asked("/video.m3u8"), 1, "the full playlist is needed once");
}

/// On one thread, which is kept busy.
#[tokio::test]
async fn news_arrives_while_viewers_keep_every_processor_busy() {
    let origin = FakeOrigin::start(stage());
    let site = Site::new(origin.addr).await;
    site.viewer.object("video.m3u8").await;
    for _ in 0..3 {
        let part = format!("p{}.m4s", origin.publish());
        let next = origin.stage().next();
        // As if thousands were being answered: nothing else gets its turn where viewers are.
        let busy_since = Instant::now();
        while origin.asked_with(&next) == 0 || origin.asked(&part) == 0 {
            assert!(
                busy_since.elapsed() < Duration::from_secs(10),
                "nobody asked for {next}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let text = site.viewer.object("video.m3u8").await.text();
    assert_eq!(text, write::write(&origin.stage().playlist()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bytes_come_before_the_news() {
    let origin = FakeOrigin::start(stage());
    let site = Site::new(origin.addr).await;
    let old = site.viewer.object("video.m3u8").await.text();

    origin.change(|s| s.withheld_from = s.parts);
    let (viewer, reload) = (site.viewer.clone(), format!("video.m3u8?{}", origin.stage().next()));
    let mut waiting = tokio::spawn(async move { viewer.object(&reload).await.text() });
    site.until_metric("weir_edge_holding", 1).await;
    let number = origin.publish();
    // The full playlist was the first answer, the news is the second; the hinted part is still owed.
    site.until_metric("weir_edge_upstream_requests_total{outcome=\"ok\"}", 2)
        .await;
    assert_eq!(origin.asked(&format!("p{number}.m4s")), 1);
    // The origin gives out playlist but not part: nobody is told of it.
    let told = timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(told.is_err(), "a part was announced without its bytes");
    assert_eq!(site.viewer.object("video.m3u8").await.text(), old);

    origin.change(|s| s.withheld_from = u64::MAX);
    let text = waiting.await.unwrap();
    assert_eq!(text, write::write(&origin.stage().playlist()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_too_early_takes_nothing_from_others() {
    let origin = FakeOrigin::start(stage());
    let site = Site::new(origin.addr).await;
    // Before anybody watches: the origin says no, which is remembered for a moment.
    let early = ["aa/video/p43.m4s", "aa/video/1010.m4s"];
    for name in early {
        assert_eq!(site.viewer.object(name).await.status, 404);
    }
    site.viewer.object("video.m3u8").await;
    for name in early {
        assert_eq!(site.viewer.object(name).await.status, 404);
    }
    for _ in 0..2 {
        let reload = format!("video.m3u8?{}", origin.stage().next());
        origin.publish();
        site.viewer.object(&reload).await;
    }
    let stage = origin.stage();
    assert_eq!(site.viewer.object(early[0]).await.body, stage.part(43));
    assert_eq!(site.viewer.object(early[1]).await.body, stage.segment(1010));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_who_leaves_cancels_nothing() {
    let origin = FakeOrigin::start(stage());
    let site = Site::new(origin.addr).await;
    let viewer = site.viewer.another();
    // Nobody follows the playlist here: the leaver's own request went upstream.
    let leaver = tokio::spawn(async move { viewer.object("aa/video/p42.m4s").await.status });
    until("the part was asked for", async || origin.asked("p42.m4s") == 1).await;
    leaver.abort();
    assert!(leaver.await.unwrap_err().is_cancelled());
    let viewer = site.viewer.another();
    let stayer = tokio::spawn(async move { viewer.object("aa/video/p42.m4s").await.body });
    until("the other joined", async || {
        site.metric("weir_edge_cache_lookups_total{result=\"join\"}").await == 1
    })
    .await;
    let number = origin.publish();
    assert_eq!(stayer.await.unwrap(), origin.stage().part(number));
    assert_eq!(origin.asked("p42.m4s"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_is_put_together_from_parts_that_are_here() {
    let origin = FakeOrigin::start(stage());
    let site = Site::new(origin.addr).await;
    site.viewer.object("video.m3u8").await;
    for _ in 0..6 {
        let reload = format!("video.m3u8?{}", origin.stage().next());
        origin.publish();
        site.viewer.object(&reload).await;
    }
    // Of segment 1010 the first two parts came before this edge watched, 1011 came whole.
    for (msn, fetched) in [(1010, 1), (1011, 0)] {
        let name = format!("aa/video/{msn}.m4s");
        assert_eq!(site.viewer.object(&name).await.body, origin.stage().segment(msn));
        assert_eq!(origin.asked(&name), fetched, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_live_stays_when_memory_is_full() {
    // Nobody's hold ends before the test does, however slow the machine.
    let origin = FakeOrigin::start(Stage {
        target_duration: Duration::from_secs(10),
        ..stage()
    });
    let site = Site::configured(origin.addr, |config| config.cache.max_bytes = ByteSize(1)).await;
    site.viewer.object("video.m3u8").await;
    let mut published = vec![];
    for _ in 0..5 {
        let reload = format!("video.m3u8?{}", origin.stage().next());
        published.push(origin.publish());
        site.viewer.object(&reload).await;
    }
    // Whatever fills the memory: the store looks at its limit now and then, after some dozens of entries at the latest.
    for n in 0..200 {
        site.viewer.object(&format!("aa/video/init{n}.mp4")).await;
    }
    for number in published {
        let part = site.viewer.object(&format!("aa/video/p{number}.m4s")).await;
        assert_eq!(part.body, origin.stage().part(number));
    }
    assert_eq!(
        origin.asked_twice(),
        vec![],
        "the store keeps nothing, the view all that is live"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_carry_what_players_and_caches_need() {
    let origin = FakeOrigin::start(stage());
    let site = Site::new(origin.addr).await;
    let viewer = &site.viewer;

    let path = "/app/show/d/video.m3u8";
    let plain = viewer.get(path).await;
    let zipped = viewer.ask("GET", path, &[("accept-encoding", "gzip")]).await;
    assert_eq!(plain.header("content-type"), "application/vnd.apple.mpegurl");
    assert_eq!(
        (plain.header("content-encoding"), zipped.header("content-encoding")),
        ("", "gzip")
    );
    assert_eq!((plain.header("vary"), plain.header("age")), ("accept-encoding", "0"));
    let blocked = viewer.get(&format!("{path}?_HLS_msn=1009&_HLS_part=0")).await;
    assert_eq!(blocked.header("cache-control"), "public, max-age=0, s-maxage=6");
    assert_eq!(blocked.body, plain.body, "a past position gets the newest playlist");

    let part = "/app/show/d/aa/video/p41.m4s";
    let whole = viewer.get(part).await;
    assert_eq!(whole.header("cache-control"), "public, max-age=31536000, immutable");
    let range = viewer.ask("GET", part, &[("range", "bytes=3-8")]).await;
    assert_eq!((range.status.as_u16(), &range.body[..]), (206, &whole.body[3..9]));
    let past = viewer.ask("GET", part, &[("range", "bytes=999999-")]).await;
    assert_eq!(past.status, 416);
    let same = viewer
        .ask("GET", part, &[("if-none-match", whole.header("etag"))])
        .await;
    assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));
    let head = viewer.ask("HEAD", part, &[]).await;
    assert_eq!((head.header("content-length"), head.body.len()), ("10000", 0));
    let preflight = viewer.ask("OPTIONS", part, &[("origin", "https://example.com")]).await;
    assert!(preflight.header("access-control-allow-headers").contains("Range"));
    assert_eq!(viewer.ask("POST", part, &[]).await.status, 405);

    for (path, status, code) in [
        ("/app/show/d/video.m3u8?_HLS_part=1", 400, "bad_directive"),
        ("/app/show/d/video.m3u8?_HLS_msn=x", 400, "bad_directive"),
        ("/app/show/d/video.m3u8?_HLS_msn=1013", 400, "too_far_ahead"),
        (
            "/app/show/d/video.m3u8?_HLS_msn=1010&_HLS_part=99",
            400,
            "too_far_ahead",
        ),
        ("/app/nobody/d/video.m3u8", 404, "not_found"),
        ("/app/show/d/aa/video/p99.m4s", 404, "not_found"),
        ("/app/show/d/aa/video/7.m4s", 404, "not_found"),
        ("/app/show/d/%61a/video/p41.m4s", 404, "not_found"),
        ("/app/show/d/../d/video.m3u8", 404, "not_found"),
        ("/app//show/d/video.m3u8", 404, "not_found"),
    ] {
        let refused = viewer.get(path).await;
        assert_eq!(refused.status, status, "{path}");
        assert_eq!(refused.header("access-control-allow-origin"), "*", "{path}");
        assert_eq!(refused.header("cache-control"), "no-store", "{path}");
        assert!(
            refused.text().contains(&format!("\"code\":\"{code}\"")),
            "{path}: {}",
            refused.text()
        );
    }
}
