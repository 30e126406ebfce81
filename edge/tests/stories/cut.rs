//! Answers of the origin that end too early: nobody gets half of one, nobody's half is another's beginning.

use http::StatusCode;
use tokio::task::JoinSet;
use weir_shared::hls::write;

use crate::{
    origin::{FakeOrigin, Stage},
    relay::Relay,
    site::Site,
};

/// In the middle of a part: they have 10 000 bytes.
const MIDDLE: usize = 5000;

fn stage() -> Stage {
    Stage::new("aa", 1000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_is_cut_is_asked_for_once_more() {
    let origin = FakeOrigin::start(stage());
    let relay = Relay::start(origin.addr).await;
    let site = Site::new(relay.addr).await;
    site.viewer.object("video.m3u8").await;
    relay.cut("p42.m4s", MIDDLE, 1);

    let (reload, part) = (format!("video.m3u8?{}", origin.stage().next()), "aa/video/p42.m4s");
    let mut waiting = JoinSet::new();
    for n in 0..40 {
        let (viewer, reload) = (site.viewer.another(), reload.clone());
        waiting.spawn(async move {
            if n % 2 == 0 {
                let playlist = viewer.object(&reload).await;
                assert!(playlist.text().contains(part), "the playlist announces the part");
            }
            viewer.object(part).await
        });
    }
    site.until_metric("weir_edge_holding", 40).await;
    let number = origin.publish();
    for answer in waiting.join_all().await {
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.body, origin.stage().part(number));
    }
    assert_eq!(relay.cuts_left(), 0);
    assert_eq!(origin.asked("p42.m4s"), 2, "of all who waited one asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_cut_again_and_again_is_no_answer() {
    let origin = FakeOrigin::start(stage());
    let relay = Relay::start(origin.addr).await;
    let site = Site::new(relay.addr).await;
    let segment = "aa/video/1002.m4s";
    relay.cut("1002.m4s", MIDDLE, 2);
    let refused = site.viewer.object(segment).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_ne!(refused.header("retry-after"), "");
    assert!(refused.text().contains("\"code\":\"origin_unreachable\""));
    assert_eq!(origin.asked("1002.m4s"), 2, "tries are bounded");
    // Nothing of what came before the cut is kept.
    assert_eq!(site.viewer.object(segment).await.body, origin.stage().segment(1002));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_playlist_is_shown_to_nobody() {
    let origin = FakeOrigin::start(stage());
    let relay = Relay::start(origin.addr).await;
    let site = Site::new(relay.addr).await;
    relay.cut("/video.m3u8", 600, 1);
    let first = site.viewer.object("video.m3u8").await;
    assert_eq!(
        (first.status, first.text()),
        (StatusCode::OK, write::write(&origin.stage().playlist()))
    );

    let next = origin.stage().next();
    relay.cut(&format!("{next}&_HLS_skip=YES"), 600, 1);
    let (viewer, reload) = (site.viewer.another(), format!("video.m3u8?{next}"));
    let held = tokio::spawn(async move { viewer.object(&reload).await });
    site.until_metric("weir_edge_holding", 1).await;
    origin.publish();
    let answer = held.await.unwrap();
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::OK, write::write(&origin.stage().playlist()))
    );
    assert_eq!(relay.cuts_left(), 0);
}
