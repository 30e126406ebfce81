//! The edge in front of an origin that is not Weir's: the same holding and coalescing, learnt from its playlists.

use std::num::NonZeroU32;

use http::StatusCode;
use tokio::task::JoinSet;
use weir_edge::config::Route;

use crate::{
    foreign::{Foreign, Manner, PARTS_PER_SEGMENT, part, segment},
    site::{Site, until},
};

fn route(origin: &Foreign) -> Route {
    Route {
        max_unknown_per_second: NonZeroU32::new(20).unwrap(),
        ..Route::new("/live", format!("http://{}/hls", origin.addr))
    }
}

async fn site(origin: &Foreign) -> Site {
    Site::configured(origin.addr, |config| {
        config.origins.clear();
        config.routes = vec![route(origin)];
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_viewers_cost_a_strange_origin_one_request_per_object() {
    let origin = Foreign::start(Manner::Named).await;
    let site = site(&origin).await;
    let entrance = site.viewer.get("/live/index?utm=1").await;
    assert_eq!(
        entrance.text(),
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\n/live/chunks?v=1\n"
    );
    let first = site.viewer.get("/live/chunks?v=1").await;
    assert_eq!(first.status, StatusCode::OK);
    assert!(first.text().contains("#EXT-X-OWN-WORDS:1\n"));
    assert!(first.text().contains("URI=\"/live/part41?t=41\""), "{}", first.text());
    assert_eq!(first.header("cache-control"), "public, max-age=0, s-maxage=0");

    for _ in 0..5 {
        let (number, reload) = (origin.parts(), origin.next());
        let mut waiting = JoinSet::new();
        for n in 0..200 {
            let viewer = site.viewer.another();
            let skip = if n % 3 == 0 { "&_HLS_skip=YES" } else { "" };
            let reload = format!("/live/chunks?v=1&{reload}{skip}");
            waiting.spawn(async move {
                let name = format!("/live/part{number}?t={number}");
                if n % 10 != 0 {
                    let playlist = viewer.get(&reload).await;
                    assert_eq!(playlist.status, StatusCode::OK);
                    assert!(playlist.text().contains(&name), "{}", playlist.text());
                    assert_eq!(playlist.text().contains("#EXT-X-SKIP"), n % 3 == 0);
                }
                viewer.get(&name).await
            });
        }
        site.until_metric("weir_edge_holding", 200).await;
        assert_eq!(origin.publish(), number);
        for answer in waiting.join_all().await {
            assert_eq!((answer.status, answer.body), (StatusCode::OK, part(number)));
        }
    }
    let whole = site.viewer.get("/live/seg50").await;
    assert_eq!(
        (whole.body, whole.headers["cache-control"].clone()),
        (segment(50), "public, max-age=60".parse().unwrap())
    );
    let tail = site.viewer.ask("GET", "/live/seg50", &[("range", "bytes=-10")]).await;
    assert_eq!((tail.status.as_u16(), tail.body), (206, segment(50).slice(3990..)));
    assert_eq!(origin.asked_twice(), vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_may_be_ranges_of_a_file_that_grows() {
    let origin = Foreign::start(Manner::Ranges).await;
    let site = site(&origin).await;
    site.viewer.get("/live/index").await;
    site.viewer.get("/live/chunks?v=1").await;
    // Parts 40 and 41 are listed, 42 is hinted.
    let listed = site
        .viewer
        .ask("GET", "/live/seg60", &[("range", "bytes=1000-1999")])
        .await;
    assert_eq!((listed.status.as_u16(), listed.body.clone()), (206, part(41)));
    assert_eq!(listed.header("content-range"), "bytes 1000-1999/*");

    let mut waiting = JoinSet::new();
    for range in ["bytes=2000-", "bytes=2000-2999", "bytes=1000-2999"].repeat(10) {
        let viewer = site.viewer.another();
        waiting.spawn(async move { viewer.ask("GET", "/live/seg60", &[("range", range)]).await });
    }
    let whole = site.viewer.another();
    let whole = tokio::spawn(async move { whole.get("/live/seg60").await });
    site.until_metric("weir_edge_holding", 31).await;
    origin.publish();
    for answer in waiting.join_all().await {
        let expected = match answer.header("content-range") {
            "bytes 2000-2999/*" => part(42),
            "bytes 1000-2999/*" => [part(41), part(42)].concat().into(),
            other => panic!("{other}"),
        };
        assert_eq!((answer.status.as_u16(), answer.body), (206, expected));
    }
    assert!(!whole.is_finished(), "the file is not whole yet");
    for _ in 0..2 {
        origin.publish();
    }
    assert_eq!(whole.await.unwrap().body, segment(60));
    let past = site
        .viewer
        .ask("GET", "/live/seg60", &[("range", "bytes=9000-9999")])
        .await;
    assert_eq!(past.status.as_u16(), 416);
    assert_eq!(origin.asked_twice(), vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_with_sessions_sees_one_visitor() {
    let origin = Foreign::start(Manner::Sessions).await;
    let site = site(&origin).await;
    let entrance = site.viewer.get("/live/index").await;
    assert_eq!(
        entrance.header("set-cookie"),
        "",
        "the edge's cookie is not the viewer's"
    );
    assert!(entrance.text().contains("/live/7/chunks?v=1"), "{}", entrance.text());
    for _ in 0..3 {
        let reload = origin.next();
        let mut waiting = JoinSet::new();
        for _ in 0..20 {
            let (viewer, reload) = (site.viewer.another(), format!("/live/7/chunks?v=1&{reload}"));
            waiting.spawn(async move { viewer.ask("GET", &reload, &[("cookie", "session=8")]).await.status });
        }
        site.until_metric("weir_edge_holding", 20).await;
        origin.publish();
        assert_eq!(waiting.join_all().await, vec![StatusCode::OK; 20]);
    }
    assert_eq!(site.viewer.get("/live/7/seg51").await.body, segment(51));
    assert_eq!(origin.asked_twice(), vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_never_holds_is_asked_by_the_edge_alone() {
    let origin = Foreign::start(Manner::Plain).await;
    let site = site(&origin).await;
    site.viewer.get("/live/index").await;
    let mut waiting = JoinSet::new();
    for _ in 0..50 {
        let viewer = site.viewer.another();
        waiting.spawn(async move { viewer.get("/live/chunks?v=1&_HLS_msn=60").await.text() });
    }
    site.until_metric("weir_edge_holding", 50).await;
    for _ in 0..PARTS_PER_SEGMENT {
        origin.publish();
    }
    for text in waiting.join_all().await {
        assert!(text.ends_with("seg60\n"), "{text}");
    }
    assert!(origin.asked("chunks") < 10, "{}", origin.asked("chunks"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_nobody_named_are_asked_for_so_many_times_a_second() {
    let origin = Foreign::start(Manner::Named).await;
    let site = site(&origin).await;
    let mut statuses = [0; 2];
    for n in 0..300 {
        match site.viewer.get(&format!("/live/guess{n}")).await.status.as_u16() {
            404 => statuses[0] += 1,
            503 => statuses[1] += 1,
            other => panic!("{other}"),
        }
    }
    // Twenty at once, and twenty more each second.
    assert!(statuses[0] >= 20 && statuses[1] > 0, "{statuses:?}");
    assert_eq!(origin.asked("guess"), statuses[0]);
    // A known name and a query that means nothing cost nothing.
    until("the entrance", async || {
        site.viewer.get("/live/index").await.status == StatusCode::OK
    })
    .await;
    let before = origin.asked("index");
    for n in 0..50 {
        assert_eq!(
            site.viewer.get(&format!("/live/index?x={n}")).await.status,
            StatusCode::OK
        );
    }
    assert!(origin.asked("index") <= before + 1);
    for trick in [
        "/live/../hls/index",
        "/live/%2e%2e/index",
        "/live/x%2findex",
        "/live/x%5cindex",
        "/livex/index",
    ] {
        assert_eq!(site.viewer.get(trick).await.status, StatusCode::NOT_FOUND, "{trick}");
    }
    assert_eq!(origin.asked("%"), 0);
}
