//! Several origins, several edges: who is asked, what happens when one dies, and that it does not matter which edge a
//! viewer asks.

use std::{net::SocketAddr, time::Duration};

use http::StatusCode;
use tokio::{task::JoinSet, time::Instant};
use weir_edge::config::{QueryRule, Route};

use crate::{
    foreign::{Foreign, Manner, part},
    origin::{FakeOrigin, Stage},
    site::{Site, Viewer, until},
};

pub(crate) fn base(addr: SocketAddr) -> String {
    format!("http://{addr}")
}

async fn edge_of(origins: &[&FakeOrigin]) -> Site {
    let bases: Vec<_> = origins.iter().map(|origin| base(origin.addr)).collect();
    Site::configured(origins[0].addr, |config| config.origins = bases).await
}

/// Where a playlist ends: its open segment and how many parts of it are listed.
fn position(text: &str) -> (u64, usize) {
    let playlist = weir_shared::hls::parse::parse(text).unwrap();
    (playlist.open_sequence().0, playlist.open_parts().len())
}

/// Watches as a player does: asks for what follows the playlist it has.
pub(crate) struct Player {
    viewer: Viewer,
    at: (u64, usize),
}

impl Player {
    pub(crate) async fn start(viewer: Viewer) -> Self {
        let text = viewer.object("video.m3u8").await.text();
        Self {
            viewer,
            at: position(&text),
        }
    }

    /// The next playlist, which must not go back; how long it took.
    pub(crate) async fn step(&mut self) -> (String, Duration) {
        let (msn, parts) = self.at;
        let asked = Instant::now();
        let answer = self
            .viewer
            .object(&format!("video.m3u8?_HLS_msn={msn}&_HLS_part={parts}"))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        let now = position(&answer.text());
        assert!(now >= self.at, "{now:?} after {:?}", self.at);
        self.at = now;
        (answer.text(), asked.elapsed())
    }
}

/// Two origins that get the same broadcast: their objects have names of their own, their numbers go with the wall clock.
fn pair() -> (FakeOrigin, FakeOrigin) {
    (
        FakeOrigin::start(Stage::new("aa", 1000)),
        FakeOrigin::start(Stage::new("bb", 1000)),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_goes_on_at_the_backup_when_its_origin_dies() {
    let (first, second) = pair();
    let site = edge_of(&[&first, &second]).await;
    let mut player = Player::start(site.viewer.another()).await;
    for _ in 0..3 {
        first.publish();
        second.publish();
        assert!(player.step().await.0.contains("aa/video/p"));
    }
    assert_eq!(second.asked(""), 0, "the second is there for need only");
    first.die();
    second.publish();
    let (text, took) = player.step().await;
    assert!(text.contains("bb/video/p45.m4s") && !text.contains("aa/"), "{text}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    for _ in 0..3 {
        let number = second.publish();
        player.step().await;
        let part = site.viewer.object(&format!("bb/video/p{number}.m4s")).await;
        assert_eq!(part.body, second.stage().part(number));
    }
    assert_eq!(
        second.asked_twice(),
        vec![],
        "nothing is asked for twice for being asked elsewhere"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_falls_silent_is_not_waited_for() {
    let (first, second) = pair();
    let site = edge_of(&[&first, &second]).await;
    let mut player = Player::start(site.viewer.another()).await;
    first.publish();
    second.publish();
    player.step().await;
    // No connection is closed: the machine is gone, or its network.
    first.change(|stage| stage.hangs = true);
    second.publish();
    let (text, took) = player.step().await;
    assert!(text.contains("bb/video/p43.m4s"), "{text}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    let hedges = site.metric("weir_edge_upstream_hedges_total").await;
    assert!(hedges >= 1);
    second.publish();
    let (_, took) = player.step().await;
    assert!(took < Duration::from_millis(900), "it is asked last now: {took:?}");
    let asked_last = site.metric("weir_edge_upstream_hedges_total").await;
    assert_eq!(asked_last, hedges, "nobody waits for it any more");
    assert_eq!(site.metric("weir_edge_upstream_down").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_behind_is_shown_when_it_has_caught_up() {
    let (first, second) = pair();
    second.change(|stage| stage.parts -= 4);
    let site = edge_of(&[&first, &second]).await;
    let mut player = Player::start(site.viewer.another()).await;
    first.die();
    let waiting = tokio::spawn(async move { (player.step().await, player) });
    until("the backup is asked", async || second.asked_with("video.m3u8") >= 1).await;
    assert!(!waiting.is_finished());
    for _ in 0..5 {
        second.publish();
    }
    let ((text, took), _) = waiting.await.unwrap();
    assert!(text.contains("bb/video/p42.m4s"), "{text}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hinted_part_is_held_while_its_origin_is_away() {
    // Half a minute of patience: however slow the machine, it is back in time.
    let origin = FakeOrigin::start(Stage {
        target_duration: Duration::from_secs(10),
        ..Stage::new("aa", 1000)
    });
    let site = Site::new(origin.addr).await;
    site.viewer.object("video.m3u8").await;
    let viewer = site.viewer.another();
    let held = tokio::spawn(async move { viewer.object("aa/video/p42.m4s").await });
    site.until_metric("weir_edge_holding", 1).await;
    let stage = origin.stage();
    let addr = origin.die();
    until("the edge has noticed", async || {
        site.metric("weir_edge_upstream_failures_total").await >= 1
    })
    .await;
    assert!(!held.is_finished(), "nobody is told so who can still be served");
    let origin = FakeOrigin::start_at(addr, stage);
    origin.publish();
    let answer = held.await.unwrap();
    assert_eq!((answer.status, answer.body), (StatusCode::OK, origin.stage().part(42)));
}

/// Players that are told so at once ask again at once, several times a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_without_a_wait_while_the_origin_is_gone() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let site = Site::new(origin.addr).await;
    site.viewer.object("video.m3u8").await;
    let viewer = site.viewer.another();
    let held = tokio::spawn(async move { (Instant::now(), viewer.object("aa/video/p42.m4s").await) });
    site.until_metric("weir_edge_holding", 1).await;
    let stage = origin.stage();
    let reload = format!("video.m3u8?{}", stage.next());
    let addr = origin.die();
    // Three target durations at first, in a way that passes.
    let (asked, answer) = held.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));
    assert!(asked.elapsed() >= Duration::from_millis(2900), "{:?}", asked.elapsed());
    until("what was last known is not true any more", async || {
        site.viewer.object("video.m3u8").await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    // One from then on.
    for object in ["aa/video/p42.m4s", &reload, "video.m3u8"] {
        let (viewer, asked) = (site.viewer.another(), Instant::now());
        let answer = viewer.object(object).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("retry-after")),
            (503, "1"),
            "{object}"
        );
        assert!(
            asked.elapsed() >= Duration::from_millis(900),
            "{object}: {:?}",
            asked.elapsed()
        );
    }
    // And whoever waits hears first of its return.
    let viewer = site.viewer.another();
    let back = tokio::spawn(async move {
        loop {
            let answer = viewer.object(&reload).await;
            if answer.status == StatusCode::OK {
                return answer;
            }
        }
    });
    let origin = FakeOrigin::start_at(addr, stage);
    let number = origin.publish();
    assert!(back.await.unwrap().text().contains(&format!("aa/video/p{number}.m4s")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_edges_of_two_origins_give_the_same_to_everybody() {
    let (first, second) = (
        FakeOrigin::start(Stage::new("aa", 1000)),
        // Without this broadcast.
        FakeOrigin::start(Stage {
            off_air: true,
            ..Stage::new("aa", 1000)
        }),
    );
    let edges = [
        edge_of(&[&first, &second]).await,
        edge_of(&[&second, &first]).await,
        edge_of(&[&first, &second]).await,
    ];
    // A session that goes from edge to edge with each request.
    for edge in &edges {
        edge.viewer.object("video.m3u8").await;
    }
    let astray = second.asked("");
    for round in 0..6 {
        let (reload, number) = (first.stage().next(), first.stage().parts);
        let mut waiting = JoinSet::new();
        for n in 0..30 {
            let viewer = edges[n % 3].viewer.another();
            let (playlist, part) = (format!("video.m3u8?{reload}"), format!("aa/video/p{number}.m4s"));
            let path = if n % 2 == 0 { playlist } else { part };
            waiting.spawn(async move { (n % 2, viewer.object(&path).await) });
        }
        for edge in &edges {
            edge.until_metric("weir_edge_holding", 10).await;
        }
        first.publish();
        let answers = waiting.join_all().await;
        for kind in 0..2 {
            let mut of_kind = answers.iter().filter(|(k, _)| *k == kind).map(|(_, answer)| answer);
            let one = of_kind.next().unwrap();
            assert_eq!(one.status, StatusCode::OK, "round {round}");
            for other in of_kind {
                assert_eq!((&other.body, other.header("etag")), (&one.body, one.header("etag")));
                assert_eq!(other.header("cache-control"), one.header("cache-control"));
            }
        }
        assert_eq!(first.asked(&format!("/p{number}.m4s")), 3, "one request of each edge");
    }
    assert_eq!(second.asked(""), astray, "who has a stream is remembered");
    assert!(astray <= 1, "{astray}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_has_its_backup_too() {
    let (dead, alive) = (
        FakeOrigin::start(Stage::new("aa", 1000)),
        Foreign::start(Manner::Plain).await,
    );
    let upstream = format!("{}/hls", base(dead.die()));
    let site = Site::configured(alive.addr, |config| {
        config.routes = vec![Route {
            backups: vec![base(alive.addr)],
            query: QueryRule::Pass,
            max_unknown_per_second: 10.try_into().unwrap(),
            ..Route::new("/", upstream)
        }];
    })
    .await;
    assert_eq!(site.viewer.get("/chunks?v=1").await.status, StatusCode::OK);
    let segment = site.viewer.get("/seg51").await;
    assert_eq!(segment.body.slice(..1000), part(4));
}
