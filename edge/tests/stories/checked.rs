//! A site that decides by itself who may watch: asked at the entrance, believed for as long as it says, and when it does not
//! answer, nobody is let in.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Response, StatusCode, request::Parts};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use weir_edge::config::ExternalCheck;
use weir_shared::{
    config::HumanDuration,
    serve::{Handler, Peer, body::Body, drain::Drain, respond, tcp},
};

use crate::{
    directory::{FakeDirectory, signed},
    origin::{FakeOrigin, Stage},
    signed::{assert_refused, directory_of_children},
    site::{Answer, Site},
};

/// Lets in whoever says `pass=yes`, and says for how long that is true.
#[derive(Clone, Default)]
struct Doorman {
    asked: Arc<AtomicUsize>,
}

impl Handler for Doorman {
    async fn handle(&self, _: Peer, request: Box<Parts>) -> Response<Body> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let header = |name: &str| request.headers.get(name).map_or("", |v| v.to_str().unwrap());
        assert_eq!((request.uri.path(), header("x-stream-key")), ("/may-watch", "show"));
        assert!(header("x-original-uri").starts_with("/app/show/") && header("x-real-ip") == "127.0.0.1");
        let (status, lifetime) = match header("cookie") {
            "pass=yes" => (StatusCode::NO_CONTENT, "max-age=60"),
            "pass=once" => (StatusCode::OK, "no-store"),
            "pass=never" => (StatusCode::FORBIDDEN, "max-age=60"),
            "pass=broken" => (StatusCode::BAD_GATEWAY, "max-age=60"),
            "pass=slow" => std::future::pending().await,
            _ => (StatusCode::UNAUTHORIZED, ""),
        };
        let mut response = respond::refusal(status, "x", "y");
        response
            .headers_mut()
            .insert("cache-control", HeaderValue::from_static(lifetime));
        response
    }
}

struct Door {
    site: Site,
    origin: FakeOrigin,
    doorman: Doorman,
    _directory: FakeDirectory,
    _task: Option<AbortOnDropHandle<()>>,
}

impl Door {
    async fn open() -> Self {
        let doorman = Doorman::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at: SocketAddr = listener.local_addr().unwrap();
        let serve = tcp::serve(listener, None, tcp::Limits::default(), doorman.clone(), Drain::new());
        let task = AbortOnDropHandle::new(tokio::spawn(serve));
        Self {
            doorman,
            _task: Some(task),
            ..Self::open_with(at).await
        }
    }

    /// With a doorman at this address, or none.
    async fn open_with(at: SocketAddr) -> Self {
        let origin = FakeOrigin::start(Stage::new("aa", 1000));
        let directory = FakeDirectory::start([signed("show", &["secret"])]).await;
        let site = Site::configured(origin.addr, |config| {
            config.directory = Some(directory.config());
            config.playback.external_check = Some(ExternalCheck {
                timeout: HumanDuration(Duration::from_millis(400)),
                ..ExternalCheck::new(format!("http://{at}/may-watch"))
            });
        })
        .await;
        Self {
            site,
            origin,
            doorman: Doorman::default(),
            _directory: directory,
            _task: None,
        }
    }

    async fn get(&self, object: &str, cookie: &str) -> Answer {
        let path = format!("/app/show/{object}");
        self.site.viewer.ask("GET", &path, &[("cookie", cookie)]).await
    }

    fn asked(&self) -> usize {
        self.doorman.asked.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_the_site_lets_in_is_in_without_further_questions() {
    let door = Door::open().await;
    let entered = door.get("index.m3u8", "pass=yes").await;
    assert_eq!(entered.status, StatusCode::OK);
    let directory = directory_of_children(&entered);
    for object in ["d/video.m3u8", "d/aa/video/p41.m4s"] {
        assert_eq!(
            door.get(&format!("{directory}/{object}"), "").await.status,
            StatusCode::OK
        );
    }
    assert_eq!(door.asked(), 1, "what is below the entrance has a session");
    assert_eq!(door.get("index.m3u8", "pass=yes").await.status, StatusCode::OK);
    assert_eq!(door.asked(), 1, "its answer is kept for as long as it says");
    assert_eq!(door.get("index.m3u8?x=1", "pass=yes").await.status, StatusCode::OK);
    assert_eq!(door.asked(), 2, "for this very question");
    for asked in 3..=4 {
        assert_eq!(door.get("index.m3u8", "pass=once").await.status, StatusCode::OK);
        assert_eq!(door.asked(), asked, "and not at all if it says so");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_the_site_turns_away_costs_no_media() {
    let door = Door::open().await;
    for _ in 0..3 {
        assert_refused(&door.get("index.m3u8", "pass=never").await, 403, "not_allowed");
    }
    assert_eq!(door.asked(), 1, "a no is kept, too");
    assert_refused(&door.get("index.m3u8", "").await, 401, "not_allowed");
    assert_refused(&door.get("d/video.m3u8", "pass=yes").await, 401, "ticket_missing");
    assert_refused(
        &door.get("index.m3u8?token=x", "pass=yes").await,
        401,
        "ticket_malformed",
    );
    assert_eq!(door.asked(), 2, "a bad ticket is no reason to ask");
    assert_eq!(door.origin.asked(""), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_answer_nobody_is_let_in() {
    let door = Door::open().await;
    for cookie in ["pass=broken", "pass=slow"] {
        let answer = door.get("index.m3u8", cookie).await;
        assert_refused(&answer, 503, "check_unavailable");
        assert_eq!(answer.header("retry-after"), "1");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let dead = Door::open_with(nobody).await;
    assert_refused(&dead.get("index.m3u8", "pass=yes").await, 503, "check_unavailable");
    assert_eq!(door.origin.asked("") + dead.origin.asked(""), 0);
}
