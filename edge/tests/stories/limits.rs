//! What one client may take of an edge, and what it is told when it wants more.

use std::num::NonZeroU32;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use weir_edge::config::{Limits, Requests};
use weir_shared::config::ByteSize;

use crate::{
    origin::{FakeOrigin, Stage},
    site::{Site, until},
};

fn requests(per_second: u32, burst: u32) -> Requests {
    Requests {
        per_second: NonZeroU32::new(per_second).unwrap(),
        burst: NonZeroU32::new(burst).unwrap(),
    }
}

/// Limits that apply to everybody here, who are all on this machine.
fn for_all(change: impl FnOnce(&mut Limits)) -> impl FnOnce(&mut weir_edge::config::Config) {
    |config| {
        config.limits.exempt = Vec::new();
        change(&mut config.limits);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_asks_too_often_is_told_when_to_come_back() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let site = Site::configured(origin.addr, for_all(|limits| limits.address_requests = requests(1, 20))).await;
    let mut answers = Vec::new();
    for _ in 0..30 {
        answers.push(site.viewer.object("aa/video/p41.m4s").await);
    }
    let refused = answers.iter().filter(|answer| answer.status == 429).count();
    // A second or two may pass on a busy machine, and give back as many.
    assert!((7..=10).contains(&refused), "{refused}");
    let last = answers.last().unwrap();
    assert_eq!(last.header("retry-after"), "1");
    assert_eq!(last.header("access-control-allow-origin"), "*");
    assert_eq!(last.header("cache-control"), "no-store");
    assert!(last.text().contains("address_rate"), "{}", last.text());
    let shed = site.metric(r#"weir_edge_shed_total{limit="address_rate"}"#).await;
    assert_eq!(shed, refused as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_requests_of_one_address_are_bounded_and_leave_with_their_answers() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let site = Site::configured(origin.addr, for_all(|limits| limits.in_progress_per_address = 5)).await;
    let reload = format!("video.m3u8?{}", origin.stage().next());
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let (viewer, reload) = (site.viewer.another(), reload.clone());
        held.spawn(async move { viewer.object(&reload).await.status });
    }
    site.until_metric("weir_edge_holding", 5).await;
    let surplus = site.viewer.object("video.m3u8").await;
    assert_eq!((surplus.status.as_u16(), surplus.header("retry-after")), (429, "1"));
    origin.publish();
    for status in held.join_all().await {
        assert_eq!(status, 200);
    }
    until("their places are free", async || {
        site.viewer.object("video.m3u8").await.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_one_address_are_bounded() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let site = Site::configured(origin.addr, for_all(|limits| limits.connections_per_address = 3)).await;
    let at = site.edge.http.unwrap();
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(TcpStream::connect(at).await.unwrap());
    }
    site.until_metric("weir_edge_connections", 3).await;
    let mut surplus = TcpStream::connect(at).await.unwrap();
    let mut told = String::new();
    surplus.read_to_string(&mut told).await.unwrap();
    assert!(
        told.starts_with("HTTP/1.1 503 ") && told.contains("retry-after: 1"),
        "{told:?}"
    );
    assert_eq!(
        site.metric(r#"weir_edge_shed_total{limit="address_connections"}"#)
            .await,
        1
    );
    // Who is inside is served, and makes room by leaving.
    let mut inside = open.pop().unwrap();
    inside
        .write_all(b"GET /app/show/d/video.m3u8 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    inside.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    site.until_metric("weir_edge_connections", 2).await;
    assert_eq!(site.viewer.object("video.m3u8").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_memory_is_short_nobody_else_is_let_in() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    // Smaller than any process, which no file may say.
    let site = Site::configured(origin.addr, for_all(|limits| limits.memory = ByteSize(1))).await;
    let at = site.edge.http.unwrap();
    until("the door is shut", async || {
        let mut told = String::new();
        let mut stranger = TcpStream::connect(at).await.unwrap();
        stranger
            .write_all(b"GET /play/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let _ = stranger.read_to_string(&mut told).await;
        told.starts_with("HTTP/1.1 503 ")
    })
    .await;
    assert!(site.metric(r#"weir_edge_shed_total{limit="memory"}"#).await > 0);
    let mut config = site.config.clone();
    config.limits.memory = ByteSize(64 << 30);
    site.edge.reload(config).unwrap();
    let shed = site.metric(r#"weir_edge_shed_total{limit="memory"}"#).await;
    until("the door opens", async || {
        let viewer = site.viewer.another();
        viewer
            .try_object("video.m3u8")
            .await
            .is_some_and(|status| status == 200)
    })
    .await;
    assert!(site.metric(r#"weir_edge_shed_total{limit="memory"}"#).await >= shed);
}

/// Names that nothing vouches for, each another one: streams, renditions, lives of a stream, playlists of streams.
fn made_up(n: usize) -> String {
    match n % 4 {
        0 => format!("/app/made-up-{n}/d/video.m3u8"),
        1 => format!("/app/show/d/made-up-{n}.m3u8"),
        2 => format!("/app/show/d/madeup{n}/video/p1.m4s"),
        _ => format!("/app/made-up-{n}/index.m3u8"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_makes_names_up_asks_the_origin_a_few_questions_only() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let site = Site::configured(origin.addr, for_all(|limits| limits.address_unknown = requests(1, 20))).await;
    assert_eq!(site.viewer.object("video.m3u8").await.status, 200);
    assert_eq!(site.viewer.get("/app/show/index.m3u8").await.status, 200);
    let (mut refused, mut last) = (0, None);
    for n in 0..200 {
        let answer = site.viewer.get(&made_up(n)).await;
        match answer.status.as_u16() {
            429 => refused += 1,
            status => assert_eq!(status, 404, "{}", answer.text()),
        }
        last = Some(answer);
    }
    // Twenty, less the two honest ones, and one for each second that has passed.
    assert!((170..=182).contains(&refused), "{refused}");
    let asked = origin.asked_with("made-up") + origin.asked_with("madeup");
    assert!(asked <= 200 - refused, "{asked} questions, {refused} refused");
    let last = last.unwrap();
    assert_eq!(
        (last.header("retry-after"), last.header("cache-control")),
        ("1", "no-store")
    );
    assert!(last.text().contains("address_unknown"), "{}", last.text());

    // What is known, or named by a playlist, goes on for all who are behind that address.
    assert_eq!(site.viewer.object("video.m3u8").await.status, 200);
    assert_eq!(site.viewer.get("/app/show/index.m3u8").await.status, 200);
    assert_eq!(site.viewer.object("aa/video/p40.m4s").await.status, 200);
    let other = crate::site::Viewer::from([127, 0, 0, 2].into(), site.edge.http.unwrap());
    assert_eq!(other.get(&made_up(1000)).await.status, 404, "others have their own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_makes_names_up_takes_nothing_from_who_is_watching() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    // Loopback is exempt from what counts by address, as a thousand addresses would be.
    let site = Site::configured(origin.addr, |config| config.limits.unknown = requests(1, 20)).await;
    assert_eq!(site.viewer.object("video.m3u8").await.status, 200);
    assert_eq!(site.viewer.get("/app/show/index.m3u8").await.status, 200);
    let mut crowd = tokio::task::JoinSet::new();
    for n in 0..200 {
        let viewer = site.viewer.clone();
        crowd.spawn(async move { viewer.get(&made_up(n)).await.status.as_u16() });
    }
    let answers = crowd.join_all().await;
    let shed = answers.iter().filter(|status| **status == 503).count();
    assert!(answers.iter().all(|status| [404, 503].contains(status)), "{answers:?}");
    assert!((170..=182).contains(&shed), "{shed}");
    assert_eq!(
        site.metric(r#"weir_edge_shed_total{limit="unknown"}"#).await,
        shed as u64
    );
    for _ in 0..3 {
        // Anew each time: what is good for a moment has to be asked for again.
        let before = origin.asked("/index.m3u8");
        until("the playlist of playlists is asked for again", async || {
            assert_eq!(site.viewer.get("/app/show/index.m3u8").await.status, 200);
            origin.asked("/app/show/index.m3u8") > before
        })
        .await;
    }
    let number = origin.publish();
    let part = site.viewer.object(&format!("aa/video/p{number}.m4s")).await;
    assert_eq!(part.status, 200);
}
