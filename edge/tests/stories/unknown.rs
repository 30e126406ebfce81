//! Streams nobody knows: refused in words a page can read, at a bounded cost to the origin, and not for good.

use http::StatusCode;
use tokio::task::JoinSet;

use crate::{
    origin::{FakeOrigin, Stage},
    site::{Answer, Site, until},
};

fn assert_unknown(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("retry-after"), "");
    let json: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!(json["error"]["code"], "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_stream_is_remembered_for_a_moment() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let site = Site::new(origin.addr).await;
    let paths = [
        "/app/nobody/index.m3u8",
        "/app/nobody/d/llhls.m3u8",
        "/app/nobody/d/video.m3u8",
        "/app/nobody/d/aa/video/init0.mp4",
        "/app/nobody/d/aa/video/p7.m4s",
    ];
    let mut all = JoinSet::new();
    for path in paths.repeat(40) {
        let viewer = site.viewer.clone();
        all.spawn(async move { viewer.get(path).await });
    }
    for answer in all.join_all().await {
        assert_unknown(&answer);
    }
    // Nor does it cost anything to ask again and again.
    for path in paths.repeat(20) {
        assert_unknown(&site.viewer.get(path).await);
    }
    // What is known is known for a second: on a slow machine all this may outlast it.
    let asked = paths.map(|path| origin.asked(path));
    assert!(asked.iter().all(|n| (1..=3).contains(n)), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_begins_is_noticed() {
    let origin = FakeOrigin::start(Stage {
        off_air: true,
        ..Stage::new("aa", 1000)
    });
    let site = Site::new(origin.addr).await;
    let paths = ["/app/show/index.m3u8", "/app/show/d/video.m3u8"];
    for path in paths {
        assert_unknown(&site.viewer.get(path).await);
    }
    origin.change(|s| s.off_air = false);
    for path in paths {
        until(path, async || site.viewer.get(path).await.status == StatusCode::OK).await;
    }
}
