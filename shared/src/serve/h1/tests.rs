use std::sync::Arc;

use http::{HeaderValue, request::Parts};
use tokio::{
    io::{AsyncReadExt as _, DuplexStream, duplex},
    sync::Notify,
    task::JoinHandle,
};

use parking_lot::Mutex;

use super::*;
use crate::serve::{
    Protocol,
    respond::{self, Asked},
};

impl Plain for DuplexStream {}

/// Answers with the path at once, or under `/held` when told to.
#[derive(Clone)]
struct Echo {
    release: Arc<Notify>,
    /// Requests that are being held.
    held: Arc<()>,
    turnstile: Turnstile,
    /// All that were asked for, in order.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Default for Echo {
    fn default() -> Self {
        Self {
            release: Arc::default(),
            held: Arc::default(),
            turnstile: Turnstile::of_width(1),
            asked: Arc::default(),
        }
    }
}

impl Handler for Echo {
    async fn handle(&self, _: Peer, request: Box<Parts>) -> Response<Body> {
        let path = request.uri.path().to_owned();
        self.asked.lock().push(path.clone());
        if path == "/held" {
            let _held = self.held.clone();
            self.release.notified().await;
        }
        let asked = Asked {
            method: &request.method,
            headers: &request.headers,
        };
        let body = match path.as_str() {
            "/bad" => return respond::refusal(StatusCode::UNAUTHORIZED, "bad", "no"),
            "/long" => vec![b'x'; 1 << 20],
            _ => path.into_bytes(),
        };
        respond::page(
            asked,
            HeaderValue::from_static("text/plain"),
            respond::NO_STORE,
            body.into(),
        )
    }
}

struct Line {
    client: DuplexStream,
    echo: Echo,
    drain: Drain,
    served: JoinHandle<End>,
}

fn limits() -> Limits {
    Limits {
        head_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(60),
        answer_grace: Duration::from_secs(10),
        answer_bytes_per_second: 1 << 20,
        ..Limits::default()
    }
}

/// A connection of a client whose network takes little at a time.
fn line() -> Line {
    line_to(Echo::default(), 512)
}

/// One whose network takes this much at a time.
fn line_to(echo: Echo, bytes: usize) -> Line {
    let (client, mut server) = duplex(bytes);
    let drain = Drain::new();
    let peer = Peer {
        addr: ([127, 0, 0, 1], 1).into(),
        protocol: Protocol::H1,
        secure: false,
    };
    let (handler, draining) = (echo.clone(), drain.clone());
    let served = tokio::spawn(async move {
        serve(
            &mut server,
            peer,
            &handler,
            (&limits(), &handler.turnstile, &Sheets::default()),
            &draining,
        )
        .await
    });
    Line {
        client,
        echo,
        drain,
        served,
    }
}

impl Line {
    async fn say(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    async fn get(&mut self, path: &str) {
        self.say(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
    }

    /// Reads an answer: its head, and a body of its length.
    async fn answer(&mut self) -> (String, Vec<u8>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.client.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let length = head
            .split("content-length: ")
            .nth(1)
            .unwrap()
            .split('\r')
            .next()
            .unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        self.client.read_exact(&mut body).await.unwrap();
        (head, body)
    }

    async fn echoed(&mut self) -> String {
        String::from_utf8(self.answer().await.1).unwrap()
    }

    async fn until_held(&self) {
        while Arc::strong_count(&self.echo.held) < 3 {
            tokio::task::yield_now().await;
        }
    }
}

fn evicted(end: End) -> Option<Eviction> {
    match end {
        End::Evicted(why) => Some(why),
        _ => None,
    }
}

#[tokio::test]
async fn requests_are_answered_one_after_another_however_they_come() {
    let mut line = line();
    line.get("/a").await;
    assert_eq!(line.echoed().await, "/a");
    // Two at once, the second one in two halves.
    line.say("GET /b HTTP/1.1\r\nHost: h\r\n\r\nGET /c HT").await;
    assert_eq!(line.echoed().await, "/b");
    line.say("TP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(line.echoed().await, "/c");
    line.get("/long").await;
    assert_eq!(line.answer().await.1.len(), 1 << 20);
    drop(line.client);
    assert!(matches!(line.served.await.unwrap(), End::Closed));
}

#[tokio::test]
async fn a_held_request_is_dropped_when_its_client_goes_and_what_comes_next_waits() {
    let mut line = line();
    line.get("/held").await;
    line.until_held().await;
    line.get("/next").await;
    line.echo.release.notify_one();
    assert_eq!(line.echoed().await, "/held");
    assert_eq!(line.echoed().await, "/next");
    line.get("/held").await;
    line.until_held().await;
    drop(line.client);
    assert!(matches!(line.served.await.unwrap(), End::Closed));
    assert_eq!(
        Arc::strong_count(&line.echo.held),
        1,
        "nobody works for a client who has gone"
    );
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_slowness_has_its_time() {
    let begun = Instant::now();
    let line_1 = line();
    assert_eq!(
        evicted(line_1.served.await.unwrap()),
        Some(Eviction::SlowHead),
        "a silent newcomer"
    );
    assert_eq!(begun.elapsed().as_secs(), 10);

    let mut line_2 = line();
    line_2.get("/a").await;
    line_2.echoed().await;
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(50)).await;
    line_2.say("GET /").await;
    // A byte now and then does not help.
    for _ in 0..9 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        line_2.say("b").await;
    }
    assert_eq!(evicted(line_2.served.await.unwrap()), Some(Eviction::SlowHead));
    assert_eq!(begun.elapsed().as_secs(), 60);

    let mut line_3 = line();
    line_3.get("/a").await;
    line_3.echoed().await;
    let begun = Instant::now();
    assert_eq!(evicted(line_3.served.await.unwrap()), Some(Eviction::Idle));
    assert_eq!(begun.elapsed().as_secs(), 60);

    let mut line_4 = line();
    let begun = Instant::now();
    line_4.get("/long").await;
    assert_eq!(evicted(line_4.served.await.unwrap()), Some(Eviction::SlowReader));
    assert_eq!(begun.elapsed().as_secs(), 11, "a megabyte has a second more");
}

#[tokio::test(start_paused = true)]
async fn a_held_request_may_take_its_time() {
    let mut line = line();
    line.get("/held").await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    line.echo.release.notify_one();
    assert_eq!(line.echoed().await, "/held");
}

#[tokio::test(start_paused = true)]
async fn draining_answers_what_is_held_and_closes_what_is_idle() {
    let mut held = line();
    held.get("/held").await;
    held.until_held().await;
    held.drain.start();
    held.echo.release.notify_one();
    assert!(held.answer().await.0.contains("connection: close"));
    assert!(matches!(held.served.await.unwrap(), End::Closed));

    let mut idle = line();
    idle.get("/a").await;
    idle.echoed().await;
    idle.drain.start();
    assert!(matches!(idle.served.await.unwrap(), End::Closed));

    let mut newcomer = line();
    newcomer.drain.start();
    tokio::time::sleep(Duration::from_millis(300)).await;
    newcomer.get("/a").await;
    assert_eq!(newcomer.echoed().await, "/a", "its request was on its way");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_a_body_ends_the_connection() {
    let mut line_1 = line();
    line_1.say("GET / HTTP/1.1\r\n\r\n").await;
    let (head, _) = line_1.answer().await;
    assert!(
        head.starts_with("HTTP/1.1 400 ") && head.contains("connection: close"),
        "{head}"
    );

    let mut line_2 = line();
    line_2
        .say("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 40\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")
        .await;
    let (head, body) = line_2.answer().await;
    assert!(head.contains("connection: close"));
    assert_eq!(body, b"/a");
    let mut rest = Vec::new();
    line_2.client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"", "what is in a body is no request");
}

#[tokio::test]
async fn who_speaks_http_2_is_handed_on_with_every_byte() {
    let mut line = line();
    line.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore").await;
    let End::H2(read) = line.served.await.unwrap() else {
        panic!("this is HTTP/2");
    };
    assert_eq!(read, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore");
}

#[tokio::test]
async fn who_sends_many_requests_at_once_takes_turns() {
    let echo = Echo::default();
    let (mut many, mut one) = (line_to(echo.clone(), 1 << 16), line_to(echo.clone(), 1 << 16));
    many.say(&"GET /many HTTP/1.1\r\nHost: h\r\n\r\n".repeat(20)).await;
    one.get("/one").await;
    for _ in 0..20 {
        assert_eq!(many.answer().await.1, b"/many");
    }
    assert_eq!(one.answer().await.1, b"/one");
    let asked = echo.asked.lock().clone();
    let turn = asked.iter().position(|path| path == "/one");
    assert!(turn.is_some_and(|turn| turn <= 2), "{turn:?} of {}", asked.len());
}

#[tokio::test]
async fn who_was_refused_waits_behind_everybody_else() {
    const LINES: usize = 16;
    let echo = Echo::default();
    let mut bad: Vec<Line> = (0..LINES).map(|_| line_to(echo.clone(), 1 << 16)).collect();
    for line in &mut bad {
        line.say(&"GET /bad HTTP/1.1\r\nHost: h\r\n\r\n".repeat(20)).await;
    }
    let mut good = line_to(echo.clone(), 1 << 16);
    good.say(&"GET /good HTTP/1.1\r\nHost: h\r\n\r\n".repeat(10)).await;
    for _ in 0..10 {
        assert_eq!(good.answer().await.1, b"/good");
    }
    let asked = echo.asked.lock().clone();
    let last_good = asked.iter().rposition(|path| path == "/good").unwrap();
    let refused = asked[..last_good].iter().filter(|path| *path == "/bad").count();
    // The first of each is not known for what it is.
    assert!(refused <= LINES + 2 * 10, "{refused} went before");
    for line in &mut bad {
        for _ in 0..20 {
            assert!(line.answer().await.0.starts_with("HTTP/1.1 401 "));
        }
    }
}

#[tokio::test]
async fn who_comes_new_waits_behind_those_already_here() {
    const LINES: usize = 16;
    let echo = Echo::default();
    let mut here = line_to(echo.clone(), 1 << 16);
    here.get("/here").await;
    here.answer().await;
    let mut newcomers: Vec<Line> = (0..LINES).map(|_| line_to(echo.clone(), 1 << 16)).collect();
    for line in &mut newcomers {
        line.get("/new").await;
    }
    here.say(&"GET /here HTTP/1.1\r\nHost: h\r\n\r\n".repeat(4)).await;
    for _ in 0..4 {
        assert_eq!(here.answer().await.1, b"/here");
    }
    let asked = echo.asked.lock().clone();
    let last_here = asked.iter().rposition(|path| path == "/here").unwrap();
    let before = asked[..last_here].iter().filter(|path| *path == "/new").count();
    assert!(before <= LINES / 2, "{before} went before");
    for line in &mut newcomers {
        assert_eq!(line.answer().await.1, b"/new");
    }
}

#[tokio::test]
async fn who_was_refused_and_is_held_now_is_in_nobodys_way() {
    let echo = Echo::default();
    let (mut patient, mut other) = (line_to(echo.clone(), 1 << 16), line_to(echo.clone(), 1 << 16));
    for line in [&mut patient, &mut other] {
        line.get("/bad").await;
        line.answer().await;
    }
    patient.get("/held").await;
    while echo.asked.lock().iter().all(|path| path != "/held") {
        tokio::task::yield_now().await;
    }
    other.get("/good").await;
    let answer = timeout(Duration::from_secs(10), other.answer()).await;
    assert_eq!(answer.expect("nobody is in the way").1, b"/good");
    echo.release.notify_one();
    assert_eq!(patient.answer().await.1, b"/held");
}
