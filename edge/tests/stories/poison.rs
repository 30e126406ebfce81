//! Cache poisoning: whatever is asked and however, what the next viewer gets is what the origin would have given them.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::task::JoinSet;

use crate::{
    origin::{FakeOrigin, Stage},
    site::Site,
};

/// Requests of the test that always runs, and of the one that is asked for.
const REQUESTS: usize = 20_000;
const MANY_REQUESTS: usize = 100_000;
const ATTACKERS: usize = 8;

const OBJECTS: [&str; 6] = [
    "index.m3u8",
    "d/llhls.m3u8",
    "d/video.m3u8",
    "d/aa/video/init0.mp4",
    "d/aa/video/1005.m4s",
    "d/aa/video/p41.m4s",
];

const HEADERS: [(&str, &[&str]); 12] = [
    ("x-forwarded-host", &["evil.example", "127.0.0.1:1"]),
    ("x-forwarded-proto", &["https", "gopher"]),
    ("x-forwarded-for", &["10.0.0.1", "' or 1=1"]),
    ("x-forwarded-prefix", &["/evil", "//evil.example/"]),
    ("x-original-url", &["/app/other/index.m3u8"]),
    ("x-rewrite-url", &["/app/show/d/audio.m3u8"]),
    ("x-http-method-override", &["DELETE", "PURGE"]),
    ("range", &["bytes=0-0", "bytes=5-", "bytes=99999999-", "bytes=0-1,2-3"]),
    ("if-none-match", &["*", "\"aa/video/p41.m4s\"", "\"x\""]),
    ("accept-encoding", &["gzip", "identity", "br;q=1, gzip;q=0"]),
    ("cache-control", &["no-cache", "max-age=0"]),
    ("origin", &["https://evil.example", "null"]),
];

const QUERIES: [&str; 10] = [
    "utm_source=x",
    "_HLS_msn=1003",
    "_HLS_msn=1003&_HLS_part=1&_HLS_skip=YES",
    "_HLS_msn=x",
    "_hls_msn=99",
    "policy=a&signature=b",
    "callback=alert(1)",
    "%5fHLS_msn=7",
    ";_HLS_msn=7",
    "x=/app/show/d/audio.m3u8",
];

fn pick<'a, T: ?Sized>(rng: &mut SmallRng, from: &[&'a T]) -> &'a T {
    from[rng.random_range(0..from.len())]
}

/// A path of an object, or one that nearly is; whether it is one.
fn path(rng: &mut SmallRng) -> (String, bool) {
    let object = pick(rng, &OBJECTS);
    let plain = format!("/app/show/{object}");
    if rng.random_bool(0.5) {
        return (plain, true);
    }
    let bent = match rng.random_range(0..9) {
        0 => plain.replacen("show", "sh%6fw", 1),
        1 => plain.replace('.', "%2e"),
        2 => format!("{plain};x=1"),
        3 => plain.replacen("/show", "//show", 1),
        4 => plain.replacen("/show/", "/show/./", 1),
        5 => format!("{plain}/"),
        6 => format!("/app/other/../show/{object}"),
        7 => plain.to_ascii_uppercase(),
        _ => format!("{plain}%00.css"),
    };
    (bent, false)
}

/// One request of an attacker; what comes back is either the object or a refusal.
async fn attack(client: &Client<HttpConnector, Full<Bytes>>, base: &str, rng: &mut SmallRng) {
    let (path, is_one) = path(rng);
    let query = match rng.random_bool(0.6) {
        true => format!("?{}", pick(rng, &QUERIES)),
        false => String::new(),
    };
    let method = pick(rng, &["GET", "GET", "GET", "HEAD", "OPTIONS", "POST", "PURGE"]);
    let mut request = Request::builder().method(method).uri(format!("{base}{path}{query}"));
    for _ in 0..rng.random_range(0..4) {
        let (name, values) = HEADERS[rng.random_range(0..HEADERS.len())];
        request = request.header(name, pick(rng, values));
    }
    if rng.random_bool(0.3) {
        request = request.header("host", pick(rng, &["evil.example", "127.0.0.1", "show:0"]));
    }
    // A GET with a body, which must not become part of anything.
    let body = match rng.random_bool(0.3) {
        true => format!("_HLS_msn={}&x={:x}", rng.next_u32(), rng.next_u64()),
        false => String::new(),
    };
    let response = client
        .request(request.body(Full::new(body.into())).unwrap())
        .await
        .unwrap();
    let status = response.status();
    response.into_body().collect().await.unwrap();
    if !is_one && method != "OPTIONS" {
        assert!(status.is_client_error(), "{method} {path}{query}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cached_is_what_is_fresh() {
    poison(REQUESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the same for minutes: cargo test -p weir-edge --test stories -- --ignored a_hundred_thousand"]
async fn a_hundred_thousand_requests_poison_nothing() {
    poison(MANY_REQUESTS).await;
}

async fn poison(requests: usize) {
    let origin = FakeOrigin::start(Stage {
        parts: 42,
        ..Stage::new("aa", 1000)
    });
    let site = Site::new(origin.addr).await;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut attackers = JoinSet::new();
    for n in 0..ATTACKERS {
        let base = format!("http://{}", site.edge.http.unwrap());
        attackers.spawn(async move {
            let client = Client::builder(TokioExecutor::new()).build_http();
            let mut rng = SmallRng::seed_from_u64(seed ^ n as u64);
            for _ in 0..requests / ATTACKERS {
                attack(&client, &base, &mut rng).await;
            }
        });
    }
    attackers.join_all().await;
    let fresh = Site::new(origin.addr).await;
    for object in OBJECTS {
        let path = format!("/app/show/{object}");
        for encoding in ["identity", "gzip"] {
            let headers = [("accept-encoding", encoding)];
            let cached = site.viewer.ask("GET", &path, &headers).await;
            let other = fresh.viewer.ask("GET", &path, &headers).await;
            assert_eq!(cached.status, StatusCode::OK, "{path}");
            assert_eq!(cached.body, other.body, "{path}");
            for header in [
                "content-type",
                "content-encoding",
                "etag",
                "cache-control",
                "access-control-allow-origin",
            ] {
                assert_eq!(cached.header(header), other.header(header), "{path}: {header}");
            }
        }
    }
    for piece in ["evil", "utm", "policy", "callback", "%", ";", "other"] {
        assert_eq!(origin.asked_with(piece), 0, "{piece} reached the origin");
    }
}
