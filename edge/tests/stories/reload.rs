//! Changing an edge's configuration, and ending an edge, while viewers watch.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tokio::task::JoinSet;
use weir_shared::config::HumanDuration;

use crate::{
    line::{Doors, Line, Protocol},
    origin::{FakeOrigin, Stage},
    site::{Site, until},
    tls::https,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_configuration_drops_nobody_and_applies_to_the_next_request() {
    let (old, new) = (
        FakeOrigin::start(Stage::new("aa", 1000)),
        FakeOrigin::start(Stage::new("bb", 2000)),
    );
    let site = Site::new(old.addr).await;
    let viewer = site.viewer.another();
    let reload = format!("video.m3u8?{}", old.stage().next());
    assert!(viewer.object("video.m3u8").await.text().contains("aa/video/"));
    let held = tokio::spawn(async move { viewer.object(&reload).await });
    site.until_metric("weir_edge_holding", 1).await;

    let mut config = site.config.clone();
    config.origins = vec![format!("http://{}", new.addr)];
    config.follow.idle = HumanDuration(Duration::from_secs(1));
    site.edge.reload(config).unwrap();
    assert!(site.viewer.object("video.m3u8").await.text().contains("bb/video/"));
    let number = old.publish();
    let answer = held.await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        answer.text().contains(&format!("aa/video/p{number}.m4s")),
        "what it waited for"
    );
    assert_eq!(site.metric(r#"weir_edge_reloads_total{result="applied"}"#).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_a_fault_changes_nothing_and_its_line_is_told() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let site = Site::new(origin.addr).await;
    let file = std::env::temp_dir().join(format!("weir-edge-reload-{}.yaml", std::process::id()));
    // The first change alone would be fine.
    std::fs::write(&file, "origins: [\"http://127.0.0.1:1\"]\nfollow:\n  idle: 0s\n").unwrap();
    let told = site.edge.reload_from(&file).unwrap_err();
    assert!(
        format!("{told:#}").contains("line 3: follow.idle: expected 1s to 1h"),
        "{told:#}"
    );
    // What can't change while it runs is refused as a whole, too.
    std::fs::write(
        &file,
        "origins: [\"http://127.0.0.1:1\"]\nadmin: { listen: \"127.0.0.1:1\" }\n",
    )
    .unwrap();
    let told = site.edge.reload_from(&file).unwrap_err();
    assert!(format!("{told:#}").contains("admin.listen"), "{told:#}");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(site.metric(r#"weir_edge_reloads_total{result="refused"}"#).await, 2);
    assert_eq!(site.viewer.object("video.m3u8").await.status, StatusCode::OK);
}

/// A load balancer's view of three edges: who is ready.
struct Fleet {
    edges: Vec<tokio::sync::Mutex<Option<Site>>>,
    ready: Vec<(AtomicBool, std::sync::Mutex<Doors>)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_three_edges_fails_no_request() {
    let origin = Arc::new(FakeOrigin::start(Stage::new("aa", 1000)));
    let fleet = Arc::new(Fleet::start(origin.addr).await);
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut viewers = JoinSet::new();
    for n in 0..12usize {
        let (fleet, stop, answered, origin) = (fleet.clone(), stop.clone(), answered.clone(), origin.clone());
        viewers.spawn(async move {
            let protocol = Protocol::ALL[n % 3];
            let mut at = usize::MAX;
            let mut line = None;
            while !stop.load(Ordering::Relaxed) {
                // As a balancer does: another node only when this one is not ready.
                if at == usize::MAX || !fleet.ready[at].0.load(Ordering::Relaxed) {
                    let ready = (0..3)
                        .map(|k| (n + k) % 3)
                        .find(|&k| fleet.ready[k].0.load(Ordering::Relaxed));
                    at = ready.expect("two of three are ready at any time");
                    line = None;
                }
                if line.is_none() {
                    let doors = *fleet.ready[at].1.lock().unwrap();
                    line = Some(Line::open(protocol, doors).await);
                }
                let path = format!("/app/show/d/video.m3u8?{}", origin.stage().next());
                let Some(Ok((status, body))) = (match &mut line {
                    Some(line) => Some(line.get(&path).await),
                    None => None,
                }) else {
                    // Told to go before it was asked: not a failure, but the edge is about to say that it is not ready.
                    line = None;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                assert_eq!(status, StatusCode::OK, "{protocol:?}: {body:?}");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let publishing = {
        let (origin, stop) = (origin.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                origin.publish();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    // An edge without a connection ends at once: all have to be there first.
    until("everybody watches", async || answered.load(Ordering::Relaxed) >= 24).await;
    for n in 0..3 {
        let before = answered.load(Ordering::Relaxed);
        let took = fleet.restart(n, origin.addr).await;
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert!(answered.load(Ordering::Relaxed) > before, "they watched meanwhile");
    }
    stop.store(true, Ordering::Relaxed);
    origin.publish();
    publishing.await.unwrap();
    origin.publish();
    while let Some(viewer) = viewers.join_next().await {
        viewer.expect("no request failed");
    }
}

impl Fleet {
    async fn start(origin: std::net::SocketAddr) -> Self {
        let mut fleet = Self {
            edges: Vec::new(),
            ready: Vec::new(),
        };
        for _ in 0..3 {
            let site = start(origin).await;
            let doors = std::sync::Mutex::new(Doors::of(&site));
            fleet.ready.push((AtomicBool::new(true), doors));
            fleet.edges.push(tokio::sync::Mutex::new(Some(site)));
        }
        fleet
    }

    /// Ends one edge and starts another in its place. Says how long the end took.
    async fn restart(&self, n: usize, origin: std::net::SocketAddr) -> Duration {
        let site = self.edges[n].lock().await.take().unwrap();
        let (admin, edge) = (site.admin.clone(), site.edge);
        let ending = tokio::spawn(async move {
            let began = std::time::Instant::now();
            edge.shutdown().await;
            began.elapsed()
        });
        // The balancer asks now and then.
        while admin.get("/readyz").await.status == StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.ready[n].0.store(false, Ordering::Relaxed);
        let took = ending.await.unwrap();
        let site = start(origin).await;
        *self.ready[n].1.lock().unwrap() = Doors::of(&site);
        *self.edges[n].lock().await = Some(site);
        self.ready[n].0.store(true, Ordering::Relaxed);
        took
    }
}

/// An edge with a door for each protocol.
async fn start(origin: std::net::SocketAddr) -> Site {
    Site::configured(origin, |config| config.https = Some(https(None))).await
}
