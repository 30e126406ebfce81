//! Bent requests, below routes as well: nothing a viewer writes into a request changes what another one gets. What is kept is
//! what the origin gives, however it was asked for, and nothing made up reaches an origin.

use std::net::SocketAddr;

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng, seq::IndexedRandom as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufStream},
    net::TcpStream,
    task::JoinSet,
};
use weir_edge::config::Route;

use crate::{
    foreign::{Foreign, Manner, segment},
    origin::{FakeOrigin, Stage},
    site::Site,
};

/// Requests of the test that always runs, and of the one that is asked for.
const REQUESTS: usize = 5_000;
const MANY_REQUESTS: usize = 100_000;
const CONNECTIONS: usize = 8;

/// What there is, and asked for honestly.
const OWN: [&str; 5] = [
    "/app/show/index.m3u8",
    "/app/show/d/video.m3u8",
    "/app/show/d/aa/video/init0.mp4",
    "/app/show/d/aa/video/p41.m4s",
    "/app/show/d/aa/video/1003.m4s",
];
const FOREIGN: [&str; 4] = ["/live/index", "/live/chunks?v=1", "/live/seg51", "/live/init"];

/// A request of a viewer who means ill: a known path, bent, with headers and a body it should not have.
fn request(rng: &mut SmallRng, edge: SocketAddr) -> Vec<u8> {
    let all: Vec<&str> = OWN.into_iter().chain(FOREIGN).collect();
    let mut path = (*all.choose(rng).unwrap()).to_owned();
    let number: u32 = rng.random_range(0..1000);
    match rng.random_range(0..14) {
        0 => path += &format!("{}x={number}", if path.contains('?') { '&' } else { '?' }),
        1 => path = format!("{}?_HLS_skip=YES&cb={number}", path.split('?').next().unwrap()),
        2 => path += &format!(";v={number}"),
        3 => path = path.replacen('/', "/%2e%2e/", 2),
        4 => path = path.replacen("/", "//", 1),
        5 => path = path.replace('a', "%61"),
        6 => path = path.to_uppercase(),
        7 => path += &format!("%00{number}"),
        8 => path = format!("/app/made-up-{number}/d/video.m3u8"),
        9 => path = path.replace("aa", &format!("e{number}")),
        10 => path = format!("http://evil.example{path}"),
        11 => path += "#fragment",
        _ => {}
    }
    let mut head = format!("GET {path} HTTP/1.1\r\n");
    head += match rng.random_range(0..4) {
        0 => "Host: evil.example\r\n".to_owned(),
        _ => format!("Host: {edge}\r\n"),
    }
    .as_str();
    for (name, value) in [
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "gopher"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Original-URL", "/app/show/d/aa/video/p0.m4s"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Forwarded", "host=evil.example"),
        ("Cookie", "session=evil"),
        ("Authorization", "Bearer evil"),
        ("Accept-Encoding", "gzip;q=0, br"),
        ("If-None-Match", "\"other\""),
        ("Cache-Control", "no-cache"),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Transfer", "chunked"),
    ] {
        if rng.random_range(0..6) == 0 {
            head += &format!("{name}: {value}\r\n");
        }
    }
    if rng.random_range(0..8) == 0 {
        let body = format!("path=/evil&n={number}");
        return format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    }
    format!("{head}\r\n").into_bytes()
}

/// Reads one answer; gives whether the connection goes on.
async fn answered(stream: &mut BufStream<TcpStream>) -> Option<bool> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let value = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name).map(str::trim).map(str::to_owned))
    };
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert!([200, 304, 400, 404, 503].contains(&status), "{head}");
    assert!(!head.contains("evil"), "{head}");
    let length: usize = value("content-length:").map_or(0, |length| length.parse().unwrap());
    let length = if status == 304 { 0 } else { length };
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    assert!(!String::from_utf8_lossy(&body).contains("evil"));
    Some(value("connection:").as_deref() != Some("close"))
}

async fn attack(edge: SocketAddr, seed: u64, requests: usize) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut stream = None;
    for _ in 0..requests {
        let mut open = match stream.take() {
            Some(open) => open,
            None => BufStream::new(TcpStream::connect(edge).await.unwrap()),
        };
        let sent = open.write_all(&request(&mut rng, edge)).await.and(open.flush().await);
        if sent.is_ok() && answered(&mut open).await == Some(true) {
            stream = Some(open);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_of_routes_is_what_their_origin_gives() {
    bend(REQUESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the same for minutes: cargo test -p weir-edge --test stories -- --ignored a_hundred_thousand"]
async fn a_hundred_thousand_requests_bend_nothing() {
    bend(MANY_REQUESTS).await;
}

async fn bend(requests: usize) {
    let (origin, foreign) = (
        FakeOrigin::start(Stage::new("aa", 1000)),
        Foreign::start(Manner::Named).await,
    );
    let site = Site::configured(origin.addr, |config| {
        config.routes = vec![Route {
            max_unknown_per_second: 50.try_into().unwrap(),
            ..Route::new("/live", format!("http://{}/hls", foreign.addr))
        }];
    })
    .await;
    let edge = site.edge.http.unwrap();
    // Half of the names are met by the attack first.
    for path in ["/live/index", OWN[1], OWN[3]] {
        site.viewer.get(path).await;
    }
    let mut attackers = JoinSet::new();
    for seed in 0..CONNECTIONS as u64 {
        attackers.spawn(attack(edge, seed, requests / CONNECTIONS));
    }
    attackers.join_all().await;

    // Each thing once, but for what is good for a moment only and holds that came to their end.
    let twice = origin.asked_twice();
    let honest = |path: &str| OWN[1..].contains(&path);
    let often: Vec<_> = twice.iter().filter(|(path, _)| honest(path)).collect();
    assert!(often.is_empty(), "{often:?}");

    let stage = origin.stage();
    let fresh = Site::new(origin.addr).await;
    for path in OWN {
        let (kept, fresh) = (site.viewer.get(path).await, fresh.viewer.get(path).await);
        assert_eq!((kept.status, &kept.body), (fresh.status, &fresh.body), "{path}");
        assert_eq!(kept.header("etag"), fresh.header("etag"), "{path}");
    }
    assert_eq!(site.viewer.get(OWN[3]).await.body, stage.part(41));
    assert_eq!(site.viewer.get("/live/seg51").await.body, segment(51));
    let playlist = site.viewer.get("/live/chunks?v=1").await;
    assert!(
        playlist.text().ends_with("URI=\"part42?t=42\"\n"),
        "{}",
        playlist.text()
    );

    for trace in ["evil", "%", ";", "//", "x=", "cb=", "SHOW", "#"] {
        assert_eq!(origin.asked_with(trace), 0, "{trace}");
    }
    for trace in ["evil", "..", "%2e", "//", "x=", "cb=", "#"] {
        assert_eq!(foreign.asked(trace), 0, "{trace}");
    }
}
