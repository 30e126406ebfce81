//! How many watch: counted at the edge, told to the origins of the directory.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};
use weir_edge::config::{Directory, Unknown};
use weir_shared::{
    config::Secret,
    directory::{Cursor, Page, VIEWERS_PATH, ViewersReport},
};

use crate::{
    fleet::base,
    origin::{FakeOrigin, Stage},
    site::{Site, until},
};

/// What an origin has heard last of each edge.
type Heard = Arc<Mutex<HashMap<String, ViewersReport>>>;

/// Streams and how many watch them, at all edges together.
fn told(heard: &Heard) -> HashMap<String, u32> {
    let mut sums = HashMap::new();
    for (key, count) in heard.lock().unwrap().values().flat_map(|report| &report.streams) {
        *sums.entry(key.to_string()).or_default() += count;
    }
    sums
}

/// A directory that knows no stream, and takes down what it is told of viewers.
async fn listener() -> (String, Heard) {
    let heard = Heard::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let take = heard.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let heard = take.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let heard = heard.clone();
                async move {
                    let mut answer = Response::new(Full::<Bytes>::default());
                    if request.uri().path() != VIEWERS_PATH {
                        // Nothing changes here.
                        if !request.uri().query().unwrap_or_default().starts_with("key=") {
                            std::future::pending::<()>().await;
                        }
                        let page = Page {
                            cursor: Cursor { instance: 1, number: 0 },
                            records: Vec::new(),
                            unknown: vec!["show".parse().unwrap()],
                            reset: false,
                        };
                        *answer.body_mut() = Full::from(serde_json::to_vec(&page).unwrap());
                    } else {
                        assert_eq!(request.method(), "POST");
                        assert_eq!(request.headers()["authorization"], "Bearer a fleet's credential");
                        let body = request.into_body().collect().await?.to_bytes();
                        let report: ViewersReport = serde_json::from_slice(&body).unwrap();
                        heard.lock().unwrap().insert(report.node.clone(), report);
                        *answer.status_mut() = StatusCode::NO_CONTENT;
                    }
                    Ok::<_, hyper::Error>(answer)
                }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    (base, heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_viewers_are_told_as_a_hundred() {
    let origin = Arc::new(FakeOrigin::start(Stage::new("aa", 1000)));
    let (api, heard) = listener().await;
    let site = Site::configured(origin.addr, |config| config.directory = Some(directory(&api))).await;
    let mut audience = Audience::default();
    audience.join(100, &site, &origin);
    until("the origin knows of them", async || {
        origin.publish();
        told(&heard) == HashMap::from([("show".to_owned(), 100)])
    })
    .await;
    assert_eq!(site.metric("weir_edge_viewers").await, 100);
    audience.leave(&origin).await;
    // An edge that ends says that nobody watches there any more.
    site.edge.shutdown().await;
    until("the origin knows that they have gone", async || told(&heard).is_empty()).await;
}

/// Children report their viewers themselves; to their parent they are edges, not viewers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_of_child_edges_are_counted_once() {
    let origin = Arc::new(FakeOrigin::start(Stage::new("aa", 1000)));
    let (api, heard) = listener().await;
    let parent = Site::configured(origin.addr, |config| config.directory = Some(directory(&api))).await;
    let shield = base(parent.edge.http.unwrap());
    let child = || {
        Site::configured(origin.addr, |config| {
            config.directory = Some(directory(&api));
            config.parents = vec![shield.clone()];
        })
    };
    let (first, second) = (child().await, child().await);
    let mut audience = Audience::default();
    audience.join(20, &first, &origin);
    audience.join(30, &second, &origin);
    audience.join(5, &parent, &origin);
    until("the origin knows of them", async || {
        origin.publish();
        told(&heard).get("show") == Some(&55)
    })
    .await;
    let counted = async |site: &Site| site.metric("weir_edge_viewers").await;
    assert_eq!(
        (counted(&first).await, counted(&second).await, counted(&parent).await),
        (20, 30, 5)
    );
    assert_eq!(origin.asked_twice(), vec![]);
    audience.leave(&origin).await;
}

fn directory(api: &str) -> Directory {
    Directory {
        unknown: Unknown::Open,
        ..Directory::new(vec![api.to_owned()], Secret::new("a fleet's credential"))
    }
}

/// Viewers who wait for each part until they are told to leave.
#[derive(Default)]
struct Audience {
    viewers: JoinSet<()>,
    stop: Arc<AtomicBool>,
}

impl Audience {
    fn join(&mut self, count: usize, site: &Site, origin: &Arc<FakeOrigin>) {
        for _ in 0..count {
            let (viewer, origin, stop) = (site.viewer.another(), origin.clone(), self.stop.clone());
            self.viewers.spawn(async move {
                assert_eq!(viewer.object("video.m3u8").await.status, StatusCode::OK);
                while !stop.load(Ordering::Relaxed) {
                    viewer.object(&format!("video.m3u8?{}", origin.stage().next())).await;
                }
            });
        }
    }

    async fn leave(mut self, origin: &FakeOrigin) {
        self.stop.store(true, Ordering::Relaxed);
        origin.publish();
        origin.publish();
        while self.viewers.join_next().await.is_some() {}
    }
}
