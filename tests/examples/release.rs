//! How long after a part is published at the origin do all waiting viewers have the playlist that announces it?
//!
//!     cargo run --release -p weir-tests --example release -- [viewers] [parts]
//!
//! Origin, edge and viewers share this process and its cores. The clock starts when a lone viewer at the origin itself
//! has the news in hand; it stops for each viewer of the edge when its last byte is there. Viewers keep their connection
//! and ask for the next part at once, as players do. Prints percentiles over parts of the *first* and of the *last*
//! viewer's delay, and how many requests the origin got per object.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::mpsc};
use weir_loadtest::synthetic::Synthetic;
use weir_shared::hls::parse;
use weir_tests::site::{Broadcast, Site, metric};

/// A viewer's connection.
struct Viewer {
    sender: SendRequest<Empty<Bytes>>,
    at: SocketAddr,
}

impl Viewer {
    async fn connect(at: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, at })
    }

    /// The playlist once part `part` of segment `msn` is there; what comes after it.
    async fn next(&mut self, (msn, part): (u64, usize)) -> anyhow::Result<(u64, usize)> {
        let request = Request::get(format!("/app/show/d/video.m3u8?_HLS_msn={msn}&_HLS_part={part}"))
            .header("host", self.at.to_string())
            .body(Empty::new())?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        anyhow::ensure!(response.status().is_success(), "{}", response.status());
        let body = response.into_body().collect().await?.to_bytes();
        position(&body)
    }
}

fn position(body: &[u8]) -> anyhow::Result<(u64, usize)> {
    let playlist = parse::parse(std::str::from_utf8(body)?)?;
    Ok((playlist.open_sequence().0, playlist.open_parts().len()))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<usize>());
    let viewers = arguments.next().transpose()?.unwrap_or(500);
    let parts = arguments.next().transpose()?.unwrap_or(100);

    let site = Site::start().await?;
    let broadcast = Broadcast::start(site.origin.rtmp, "show", &Synthetic::default()).await?;
    site.get("/app/show/index.m3u8").await?;
    let start = position(&site.get("/app/show/d/video.m3u8").await?.body)?;
    let upstream_before = site.edge_metric("weir_edge_upstream_requests_total", "").await?;
    let parts_before = metric(site.origin.admin, "weir_origin_parts_total", "video").await?;

    // (round, when): round counts parts; the reference viewer reports on its own channel.
    let (tell, mut told) = mpsc::channel::<((u64, usize), Instant)>(viewers * 4);
    for _ in 0..viewers {
        let tell = tell.clone();
        let mut viewer = Viewer::connect(site.viewers()).await?;
        tokio::spawn(async move {
            let mut at = start;
            while let Ok(next) = viewer.next(at).await {
                at = next;
                if tell.send((at, Instant::now())).await.is_err() {
                    return;
                }
            }
        });
    }
    // A task of its own: a request given up half-way would break its connection.
    let (tell_published, mut news) = mpsc::channel(64);
    let mut reference = Viewer::connect(site.origin.http).await?;
    tokio::spawn(async move {
        let mut at = start;
        while let Ok(next) = reference.next(at).await {
            at = next;
            if tell_published.send((at, Instant::now())).await.is_err() {
                return;
            }
        }
    });
    let mut delays = Vec::new();
    let mut published = std::collections::HashMap::new();
    let mut firsts = Vec::new();
    let mut arrived: std::collections::HashMap<(u64, usize), (usize, Instant, Instant)> =
        std::collections::HashMap::new();
    let until = Instant::now() + Duration::from_millis(200) * (parts as u32 + 10);
    while delays.len() < parts && Instant::now() < until {
        tokio::select! {
            Some((position, when)) = news.recv() => {
                published.insert(position, when);
            }
            Some((position, when)) = told.recv() => {
                let entry = arrived.entry(position).or_insert((0, when, when));
                entry.0 += 1;
                entry.1 = entry.1.max(when);
                entry.2 = entry.2.min(when);
                if entry.0 == viewers {
                    // The first parts are still those of viewers coming in.
                    if let Some(from) = published.get(&position)
                        && published.len() > 5
                    {
                        delays.push(entry.1.saturating_duration_since(*from));
                        firsts.push(entry.2.saturating_duration_since(*from));
                    }
                }
            }
        }
    }
    let upstream = site.edge_metric("weir_edge_upstream_requests_total", "").await? - upstream_before;
    let objects = 2.0 * (metric(site.origin.admin, "weir_origin_parts_total", "video").await? - parts_before);
    println!("{viewers} viewers, {} parts", delays.len());
    for (who, delays) in [("first", &mut firsts), ("last", &mut delays)] {
        delays.sort_unstable();
        let at = |q: f64| delays.get(((delays.len() as f64 - 1.0) * q).round() as usize);
        let show = |q: f64| at(q).map_or("-".to_owned(), |d| format!("{:.1} ms", d.as_secs_f64() * 1000.0));
        println!(
            "the {who} viewer has the playlist after p50 {}, p90 {}, p99 {}, max {}",
            show(0.5),
            show(0.9),
            show(0.99),
            show(1.0)
        );
    }
    println!(
        "origin requests {upstream:.0} for {objects:.0} objects: {:.2}",
        upstream / objects
    );
    broadcast.end().await.context("ending the broadcast")?;
    Ok(())
}
