//! How many watch: counted at the edge, told to the origins of the directory.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
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
    origin::{FakeOrigin, Stage},
    site::{Site, until},
};

/// A directory that knows no stream, and takes down what it is told of viewers.
async fn listener() -> (String, Arc<Mutex<Option<ViewersReport>>>) {
    let heard = Arc::new(Mutex::new(None));
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
                        *heard.lock().unwrap() = Some(serde_json::from_slice(&body).unwrap());
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
    let site = Site::configured(origin.addr, |config| {
        config.directory = Some(Directory {
            unknown: Unknown::Open,
            ..Directory::new(vec![api], Secret::new("a fleet's credential"))
        });
    })
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut viewers = JoinSet::new();
    for _ in 0..100 {
        let (viewer, origin, stop) = (site.viewer.another(), origin.clone(), stop.clone());
        viewers.spawn(async move {
            assert_eq!(viewer.object("video.m3u8").await.status, StatusCode::OK);
            while !stop.load(Ordering::Relaxed) {
                viewer.object(&format!("video.m3u8?{}", origin.stage().next())).await;
            }
        });
    }
    let of_show = || {
        let report: Option<ViewersReport> = heard.lock().unwrap().clone();
        let streams = report.into_iter().flat_map(|report| report.streams);
        streams.map(|(key, count)| (key.to_string(), count)).collect::<Vec<_>>()
    };
    until("the origin knows of them", async || {
        origin.publish();
        of_show() == [("show".to_owned(), 100)]
    })
    .await;
    assert_eq!(site.metric("weir_edge_viewers").await, 100);
    stop.store(true, Ordering::Relaxed);
    origin.publish();
    origin.publish();
    while viewers.join_next().await.is_some() {}
    // An edge that ends says that nobody watches there any more.
    site.edge.shutdown().await;
    until("the origin knows that they have gone", async || of_show().is_empty()).await;
}
