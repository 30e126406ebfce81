//! How long from the first key frame until the first part can be played?
//!
//!     cargo run --release -p weir-tests --example first_part -- [publishes]
//!
//! Origin, edge, publisher and viewer share this process. The clock starts when the publish is accepted, with the first
//! key frame on its way; it stops when a viewer of the edge has the multivariant playlist, both media playlists, and the
//! bytes of each one's first part.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use weir_loadtest::synthetic::Synthetic;
use weir_tests::site::{Broadcast, Site};

async fn first_part(site: &Site, key: &str, rendition: &str) -> anyhow::Result<()> {
    let directory = format!("/app/{key}/d/");
    loop {
        let reply = site.get(&format!("{directory}{rendition}.m3u8")).await?;
        if let Ok(playlist) = reply.playlist()
            && let Some(part) = playlist.segments.iter().flat_map(|s| &s.parts).next()
        {
            let media = site.get(&format!("{directory}{}", part.uri)).await?;
            anyhow::ensure!(media.status.is_success(), "{}", media.status);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let publishes = std::env::args().nth(1).map(|a| a.parse()).transpose()?.unwrap_or(20);
    let site = Site::start().await?;
    let mut times = Vec::new();
    for n in 0..publishes {
        let key = format!("show{n}");
        let broadcast = Broadcast::start(site.origin.rtmp, &key, &Synthetic::default()).await?;
        let since = Instant::now();
        while !site.get(&format!("/app/{key}/d/llhls.m3u8")).await?.status.is_success() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for rendition in ["video", "audio"] {
            first_part(&site, &key, rendition).await.context(rendition)?;
        }
        times.push(since.elapsed());
        broadcast.end().await?;
    }
    times.sort_unstable();
    let ms = |at: Option<&Duration>| at.map_or(0.0, |d| d.as_secs_f64() * 1000.0);
    println!(
        "{publishes} publishes with 200 ms parts: playable after p50 {:.0} ms, max {:.0} ms",
        ms(times.get(times.len() / 2)),
        ms(times.last())
    );
    Ok(())
}
