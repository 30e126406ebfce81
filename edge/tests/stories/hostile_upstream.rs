//! Upstreams that lie, bomb, drip and storm: their viewers are refused in a way that passes, memory stays bounded, and
//! everybody else goes on.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use weir_edge::config::Route;
use weir_shared::serve::gzip::gzip;

use crate::{
    origin::{FakeOrigin, Stage},
    site::Site,
};

struct Hostile {
    addr: SocketAddr,
    requests: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Hostile {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::<AtomicUsize>::default();
        let counted = requests.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, counted.clone()));
            }
        });
        Self {
            addr,
            requests,
            serving,
        }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One request, answered by what its path says. Whoever reads may go away at any time.
async fn answer(mut stream: TcpStream, requests: Arc<AtomicUsize>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    requests.fetch_add(1, Ordering::Relaxed);
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let _ = misbehave(&mut stream, &path).await;
}

async fn misbehave(stream: &mut TcpStream, path: &str) -> std::io::Result<()> {
    let ok = "HTTP/1.1 200 OK\r\ncontent-type: video/mp4\r\n";
    match path {
        "/bomb" => {
            // 8 MiB of nothing, sixteen times.
            static BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| gzip(&vec![0; 8 << 20]).repeat(16));
            let bomb = &*BOMB;
            let head = format!("{ok}content-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(bomb).await
        }
        "/encoded" => {
            stream
                .write_all(format!("{ok}content-encoding: zstd\r\ncontent-length: 1\r\n\r\nx").as_bytes())
                .await
        }
        "/short" => {
            stream
                .write_all(format!("{ok}content-length: 1000\r\n\r\nhalf").as_bytes())
                .await
        }
        "/huge" => {
            stream
                .write_all(format!("{ok}content-length: 10737418240\r\n\r\nx").as_bytes())
                .await
        }
        "/endless" => {
            stream
                .write_all(format!("{ok}transfer-encoding: chunked\r\n\r\n").as_bytes())
                .await?;
            let chunk = [b"10000\r\n".as_slice(), &[0; 65536], b"\r\n"].concat();
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        "/stuck" => {
            stream
                .write_all(format!("{ok}content-length: 10\r\n\r\nx").as_bytes())
                .await?;
            std::future::pending().await
        }
        "/drip" => {
            stream
                .write_all(format!("{ok}content-length: 1000\r\n\r\n").as_bytes())
                .await?;
            loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        "/dawdle" => {
            for byte in ok.bytes().cycle() {
                stream.write_all(&[byte]).await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        }
        "/loop" => {
            stream
                .write_all(b"HTTP/1.1 302 Found\r\nlocation: /loop\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await
        }
        "/away" => {
            let to = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/metadata\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(to.as_bytes()).await
        }
        "/headers" => {
            stream.write_all(ok.as_bytes()).await?;
            loop {
                stream.write_all(b"x-more: and more and more and more\r\n").await?;
            }
        }
        "/garbage" => {
            stream
                .write_all(format!("{ok}content-length: 16\r\n\r\n#EXTM3U\n#EXTINF:").as_bytes())
                .await
        }
        "/storm" => {
            stream
                .write_all(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await
        }
        "/nonsense" => stream.write_all(b"\x16\x03\x01 hello").await,
        "/long" => {
            stream
                .write_all(format!("{ok}content-length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\n\r\nevil").as_bytes())
                .await
        }
        _ => {
            stream
                .write_all(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await
        }
    }
}

async fn site(hostile: &Hostile, origin: &FakeOrigin) -> Site {
    Site::configured(origin.addr, |config| {
        config.routes = vec![Route {
            max_unknown_per_second: NonZeroU32::new(1000).unwrap(),
            ..Route::new("/x", format!("http://{}", hostile.addr))
        }];
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_an_upstream_does_its_viewers_are_told_to_come_back() {
    let (hostile, origin) = (Hostile::start().await, FakeOrigin::start(Stage::new("aa", 1000)));
    let site = site(&hostile, &origin).await;
    site.viewer.object("video.m3u8").await;
    for path in [
        "bomb", "encoded", "short", "huge", "endless", "stuck", "drip", "loop", "away", "headers", "garbage", "storm",
        "nonsense",
    ] {
        let (asked, before) = (Instant::now(), hostile.requests.load(Ordering::Relaxed));
        let answer = site.viewer.get(&format!("/x/{path}")).await;
        assert_eq!(answer.status.as_u16(), 503, "{path}: {}", answer.text());
        assert_eq!(
            (answer.header("retry-after"), answer.header("cache-control")),
            ("1", "no-store"),
            "{path}"
        );
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
        assert!(
            asked.elapsed() < Duration::from_secs(20),
            "{path}: {:?}",
            asked.elapsed()
        );
        let requests = hostile.requests.load(Ordering::Relaxed) - before;
        assert!(requests <= 12, "{path}: {requests} requests");
        // Meanwhile nobody else is worse off.
        let next = origin.stage().next();
        let number = origin.publish();
        let news = site.viewer.object(&format!("video.m3u8?{next}")).await;
        assert_eq!(news.status.as_u16(), 200, "after {path}: {}", news.text());
        let part = site.viewer.object(&format!("aa/video/p{number}.m4s")).await;
        assert_eq!(part.body, origin.stage().part(number), "after {path}");
    }
    let answer = site.viewer.get("/x/long").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "good"),
        "and not a byte more"
    );
    let answer = site.viewer.get("/x/long").await;
    assert_eq!(answer.text(), "good");
}

/// From outside, a head that drips is an answer that is being held: it has the time of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_never_ends_is_given_up_like_a_hold() {
    let (hostile, origin) = (Hostile::start().await, FakeOrigin::start(Stage::new("aa", 1000)));
    let site = site(&hostile, &origin).await;
    let (asked, viewer) = (Instant::now(), site.viewer.another());
    let mut waiting = JoinSet::new();
    for _ in 0..50 {
        let viewer = viewer.another();
        waiting.spawn(async move { viewer.get("/x/dawdle").await });
    }
    while let Some(answer) = waiting.join_next().await {
        let answer = answer.unwrap();
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));
    }
    assert!(asked.elapsed() < Duration::from_secs(40), "{:?}", asked.elapsed());
    // A second connection may have been tried where the first one was slow.
    assert!(hostile.requests.load(Ordering::Relaxed) <= 2, "they wait together");
    let number = origin.publish();
    site.viewer.object("video.m3u8").await;
    let part = site.viewer.object(&format!("aa/video/p{number}.m4s")).await;
    assert_eq!(part.body, origin.stage().part(number));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_is_not_fanned() {
    let (hostile, origin) = (Hostile::start().await, FakeOrigin::start(Stage::new("aa", 1000)));
    let site = site(&hostile, &origin).await;
    let begin = Instant::now();
    for _ in 0..500 {
        assert_eq!(site.viewer.get("/x/storm").await.status.as_u16(), 503);
    }
    let seconds = begin.elapsed().as_secs() as usize + 1;
    let requests = hostile.requests.load(Ordering::Relaxed);
    assert!(requests <= 2 * seconds, "{requests} requests in {seconds} s");
}
