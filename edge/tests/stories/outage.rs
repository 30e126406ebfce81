//! Origins that die, return, contradict themselves or come to an end; viewers who leave; edges that shut down.

use std::time::Duration;

use http::StatusCode;
use tokio::{task::JoinSet, time::Instant};
use weir_shared::hls::write;

use crate::{
    origin::{FakeOrigin, Stage, TARGET_DURATION},
    site::{Answer, Site, until},
};

fn stage() -> Stage {
    Stage::new("aa", 1000)
}

/// A refusal that passes by itself, as any page may read it.
fn assert_refused_for_now(refused: &Answer) {
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_ne!(refused.header("retry-after"), "");
    assert_eq!(refused.header("access-control-allow-origin"), "*");
    assert_eq!(refused.header("cache-control"), "no-store");
    let json: serde_json::Value = serde_json::from_str(&refused.text()).unwrap();
    assert!(json["error"]["code"].is_string(), "{json}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_dies_and_returns() {
    let origin = FakeOrigin::start(stage());
    let site = Site::new(origin.addr).await;
    site.viewer.object("video.m3u8").await;
    let first = origin.publish();
    site.viewer.object("video.m3u8?_HLS_msn=1010&_HLS_part=2").await;

    let (viewer, reload) = (site.viewer.another(), format!("video.m3u8?{}", origin.stage().next()));
    let held = tokio::spawn(async move { viewer.object(&reload).await });
    site.until_metric("weir_edge_holding", 1).await;
    let old = origin.stage();
    let died = Instant::now();
    let addr = origin.die();
    let refused = held.await.unwrap();
    assert_refused_for_now(&refused);
    assert!(died.elapsed() < TARGET_DURATION * 3 + Duration::from_millis(500));
    until("plain requests are told, too", async || {
        site.viewer.object("video.m3u8").await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;

    let origin = FakeOrigin::start_at(addr, Stage::new("bb", 2000));
    until("the edge found the origin again", async || {
        site.viewer.object("video.m3u8").await.status == StatusCode::OK
    })
    .await;
    let text = site.viewer.object("video.m3u8").await.text();
    assert_eq!(text, write::write(&origin.stage().playlist()));
    let reload = format!("video.m3u8?{}", origin.stage().next());
    let number = origin.publish();
    assert!(
        site.viewer
            .object(&reload)
            .await
            .text()
            .contains(&format!("bb/video/p{number}.m4s"))
    );
    let kept = site.viewer.object(&format!("aa/video/p{first}.m4s")).await;
    assert_eq!(
        kept.body,
        old.part(first),
        "old names are served while they are remembered"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_hangs_is_not_waited_for_longer_than_a_hold() {
    let origin = FakeOrigin::start(stage());
    let site = Site::new(origin.addr).await;
    let before = site.viewer.object("video.m3u8").await.text();
    let reload = format!("video.m3u8?{}", origin.stage().next());
    // The request for the next part is under way already and stays so: nothing is published.
    origin.change(|s| s.hangs = true);
    let asked = Instant::now();
    let (waiting, hinted) = tokio::join!(site.viewer.object(&reload), site.viewer.object("aa/video/p42.m4s"));
    for refused in [waiting, hinted] {
        assert_refused_for_now(&refused);
    }
    let waited = asked.elapsed();
    assert!(
        waited >= TARGET_DURATION * 3 && waited < TARGET_DURATION * 3 + Duration::from_millis(800),
        "{waited:?}"
    );
    // Whoever joins meanwhile gets what was last known to be true.
    assert_eq!(site.viewer.object("video.m3u8").await.text(), before);
    origin.change(|s| s.hangs = false);
    origin.publish();
    let answer = site.viewer.object(&reload).await;
    assert_eq!(answer.text(), write::write(&origin.stage().playlist()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_outage_only_makes_a_hold_longer() {
    let mut same_life = stage();
    same_life.parts += 3;
    for later in [same_life, Stage::new("bb", 2000)] {
        let origin = FakeOrigin::start(stage());
        let site = Site::new(origin.addr).await;
        site.viewer.object("video.m3u8").await;
        let (viewer, reload) = (site.viewer.another(), format!("video.m3u8?{}", origin.stage().next()));
        let held = tokio::spawn(async move { viewer.object(&reload).await });
        site.until_metric("weir_edge_holding", 1).await;
        let addr = origin.die();
        let expected = write::write(&later.playlist());
        let _origin = FakeOrigin::start_at(addr, later);
        let answer = held.await.unwrap();
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, expected));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_origin_takes_over() {
    let (first, second) = (FakeOrigin::start(stage()), FakeOrigin::start(stage()));
    let both = [&first, &second].map(|origin| format!("http://{}", origin.addr));
    let site = Site::configured(first.addr, |config| config.origins = both.to_vec()).await;
    site.viewer.object("video.m3u8").await;
    let (viewer, reload) = (site.viewer.another(), format!("video.m3u8?{}", first.stage().next()));
    let held = tokio::spawn(async move { viewer.object(&reload).await });
    site.until_metric("weir_edge_holding", 1).await;
    assert_eq!(second.asked(".m3u8"), 0, "the second is there for need only");
    let addr = first.die();
    let number = second.publish();
    let answer = held.await.unwrap();
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::OK, write::write(&second.stage().playlist()))
    );
    // The first is back and has nothing to play: that is not the last word.
    let _first = FakeOrigin::start_at(
        addr,
        Stage {
            off_air: true,
            ..stage()
        },
    );
    let old = site.viewer.object("aa/video/1003.m4s").await;
    assert_eq!(old.body, second.stage().segment(1003));
    let part = site.viewer.object(&format!("aa/video/p{number}.m4s")).await;
    assert_eq!(part.body, second.stage().part(number));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_that_do_not_fit_lead_to_the_full_playlist() {
    let origin = FakeOrigin::start(stage());
    let site = Site::new(origin.addr).await;
    site.viewer.object("video.m3u8").await;
    origin.change(|s| s.broken_deltas = true);
    for _ in 0..6 {
        let reload = format!("video.m3u8?{}", origin.stage().next());
        origin.publish();
        let text = site.viewer.object(&reload).await.text();
        assert_eq!(text, write::write(&origin.stage().playlist()));
    }
    assert!(site.metric("weir_edge_delta_failures_total").await >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_playlist_that_goes_back_is_not_shown() {
    let origin = FakeOrigin::start(stage());
    let site = Site::new(origin.addr).await;
    let shown = site.viewer.object("video.m3u8").await.text();
    let update = format!("{}&_HLS_skip=YES", origin.stage().next());
    until("the edge waits for news", async || origin.asked(&update) == 1).await;
    let addr = origin.die();
    let mut lagging = stage();
    lagging.parts -= 5;
    let origin = FakeOrigin::start_at(addr, lagging);
    until("the edge looked twice", async || origin.asked("/video.m3u8") >= 2).await;
    assert_eq!(site.viewer.object("video.m3u8").await.text(), shown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_stream_releases_all_holds() {
    let origin = FakeOrigin::start(stage());
    let site = Site::new(origin.addr).await;
    site.viewer.object("video.m3u8").await;
    let mut held = JoinSet::new();
    let wanted = [
        &origin.stage().next(),
        "_HLS_msn=1010",
        "_HLS_msn=1011",
        "_HLS_msn=1011&_HLS_part=2",
    ];
    for query in wanted.repeat(10) {
        let (viewer, reload) = (site.viewer.another(), format!("video.m3u8?{query}"));
        held.spawn(async move { viewer.object(&reload).await });
    }
    site.until_metric("weir_edge_holding", 40).await;
    origin.change(|s| {
        s.parts += 2;
        s.ended = true;
    });
    for answer in held.join_all().await {
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.text().ends_with("#EXT-X-ENDLIST\n"), "{}", answer.text());
    }
    let far = site.viewer.object("video.m3u8?_HLS_msn=99999").await;
    assert_eq!(far.status, StatusCode::OK, "directives are ignored now");
    assert_eq!(
        site.viewer.object("aa/video/p43.m4s").await.body,
        origin.stage().part(43)
    );
    site.until_metric("weir_edge_followers", 0).await;
    assert_eq!(
        origin.asked_twice(),
        vec![],
        "there is no news to ask for after the end"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_followed_for_nobody() {
    let origin = FakeOrigin::start(stage());
    let site = Site::with_idle(origin.addr, Duration::from_secs(1)).await;
    // Waits for longer than a follower may be idle: somebody who waits is somebody.
    let quiet = format!("video.m3u8?{}", origin.stage().next());
    assert_eq!(site.viewer.object(&quiet).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(origin.asked("/video.m3u8"), 1, "one follower all the while");
    site.until_metric("weir_edge_followers", 0).await;
    assert_eq!(site.viewer.object("video.m3u8").await.status, StatusCode::OK);
    assert_eq!(origin.asked("/video.m3u8"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_shuts_down_leaves_nobody_waiting() {
    let origin = FakeOrigin::start(stage());
    let site = Site::new(origin.addr).await;
    site.viewer.object("video.m3u8").await;
    let (viewer, reload) = (site.viewer.another(), format!("video.m3u8?{}", origin.stage().next()));
    let held = tokio::spawn(async move { viewer.object(&reload).await });
    site.until_metric("weir_edge_holding", 1).await;
    let begin = Instant::now();
    site.edge.shutdown().await;
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    assert_refused_for_now(&held.await.unwrap());
}
