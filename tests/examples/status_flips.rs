//! `cargo run -p weir-tests --example status_flips [flips] [database]`: how long after an encoder's connect the API says
//! LIVE, one after another and all at once. Default: a SQLite file.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weir_origin::control::{
    lifecycle::Slot,
    node::{Happening, News},
    store::Store,
};
use weir_tests::api::Api;

const STREAMS: &str = "/v1/projects/default/streams";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let flips: usize = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let folder = std::env::temp_dir().join(format!("weir-flips-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = format!("sqlite:{}", folder.join("weir.db").display());
    let api = Api::over(Store::open(&arguments.next().unwrap_or(file)).await?).await?;
    let (news, heard) = mpsc::channel(flips.max(1));
    let stop = CancellationToken::new();
    let running = tokio::spawn(api.control.clone().run(heard, stop.clone()));
    let connected = |key: &str| -> anyhow::Result<News> {
        Ok(News {
            key: key.parse()?,
            what: Happening::Connected(Slot::Primary),
        })
    };

    let mut streams = Vec::with_capacity(flips);
    for n in 0..flips {
        streams.push(api.stream(json!({"streamKey": format!("k{n}")})).await?.1);
    }
    let mut one_by_one = Vec::with_capacity(flips);
    for (n, path) in streams.iter().enumerate() {
        let at = Instant::now();
        news.send(connected(&format!("k{n}"))?).await?;
        while api.get(path).await?.json["status"] != "LIVE" {
            tokio::task::yield_now().await;
        }
        one_by_one.push(at.elapsed());
    }
    report("one after another", one_by_one);

    for path in &streams {
        api.call(Method::POST, &format!("{path}/disable"), None).await?;
        api.call(Method::POST, &format!("{path}/activate"), None).await?;
    }
    let at = Instant::now();
    for n in 0..flips {
        news.send(connected(&format!("k{n}"))?).await?;
    }
    let live = format!("{STREAMS}?status=LIVE&limit=1");
    let mut seen = Vec::with_capacity(flips);
    while seen.len() < flips {
        let total = api.get(&live).await?.json["total"].as_u64().unwrap_or(0);
        seen.resize(usize::try_from(total)?.max(seen.len()), at.elapsed());
    }
    report("all at once", seen);
    stop.cancel();
    running.await?;
    api.control.store.close().await;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| {
        times
            .get(times.len() * share / 100)
            .or(times.last())
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{what:<20} p50 {:>9.2?}  p99 {:>9.2?}  max {:>9.2?}",
        at(50),
        at(99),
        at(100)
    );
}
