//! `cargo run -p weir-tests --example many_streams [streams] [database]`: how long lists and reads take over HTTP with
//! that many streams (100 000), how long an origin takes to start, and how much memory it holds. Default: a SQLite file.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use weir_origin::{
    app::Origin,
    control::{
        lifecycle::{Phase, State},
        model::{Settings, Stream},
        secret,
        store::{Store, now},
    },
};
use weir_tests::{rest::Rest, site};

/// Streams written in one unit of work.
const BATCH: usize = 1000;
/// Calls per kind.
const CALLS: usize = 300;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let streams: usize = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let folder = std::env::temp_dir().join(format!("weir-many-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = format!("sqlite:{}", folder.join("weir.db").display());
    let database = arguments.next().unwrap_or(file);

    let mut config = site::origin_config();
    config.any_key = false;
    config.database.url = database;
    config.control.max_known_streams = config.control.max_known_streams.max(streams);
    let store = Store::open(&config.database.url)
        .await?
        .with_vault(config.database.vault()?);
    let ids = fill(&store, streams).await?;
    store.close().await;
    let before = resident_mib();
    let started = Instant::now();
    let origin = Origin::start(config).await?;
    println!(
        "{streams} streams; an origin is ready to serve after {:.2?}",
        started.elapsed()
    );
    println!(
        "resident memory: {before} MiB before its start, {} MiB after",
        resident_mib()
    );
    let api = Rest {
        addr: origin.api,
        key: origin.first_key.clone().context("a fresh database has a first key")?,
    };

    let list = "/v1/projects/default/streams";
    let deep = format!("{list}?skip={}&limit=100", streams.saturating_sub(100));
    for (what, path) in [
        ("list, first page", list.to_owned()),
        ("list, 100 of them", format!("{list}?limit=100")),
        ("list, last page", deep),
        ("list, LIVE", format!("{list}?status=LIVE")),
        (
            "list, from a day",
            format!("{list}?from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z"),
        ),
        ("list, a word that all have", format!("{list}?q=show")),
        ("list, a word that one has", format!("{list}?q=show%2050000")),
    ] {
        report(what, measure(&api, || path.clone()).await?);
    }
    let mut random = StdRng::seed_from_u64(1);
    let one = || format!("{list}/{}", ids[random.random_range(0..ids.len())]);
    report("get", measure(&api, one).await?);
    println!("resident memory: {} MiB after all calls", resident_mib());
    origin.shutdown().await;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

async fn fill(store: &Store, streams: usize) -> anyhow::Result<Vec<String>> {
    let started = Instant::now();
    let project = "default".parse()?;
    let mut ids = Vec::with_capacity(streams);
    for batch in 0..streams.div_ceil(BATCH) {
        let mut tx = store.begin().await?;
        for n in batch * BATCH..((batch + 1) * BATCH).min(streams) {
            let at = now() - i64::try_from(n)? * 1000;
            let live = n % 1000 == 0;
            let stream = Stream {
                id: secret::stream_id()?,
                project: Clone::clone(&project),
                key: secret::stream_key()?,
                state: State {
                    phase: if live { Phase::Live } else { Phase::Idle },
                    primary: live,
                    ..State::default()
                },
                settings: Settings {
                    name: format!("Show {n}"),
                    client_user_id: Some(format!("user-{}", n % 97)),
                    ..Settings::default()
                },
                credentials: secret::credentials(),
                dvr_cleared: None,
                version: 1,
                created_at: at,
                updated_at: at,
            };
            tx.insert_stream(&stream).await?;
            ids.push(stream.id.to_string());
        }
        tx.commit().await?;
    }
    println!("written in {:?}", started.elapsed());
    Ok(ids)
}

async fn measure(api: &Rest, mut path: impl FnMut() -> String) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let path = path();
        let started = Instant::now();
        let answer = api.get(&path).await?;
        times.push(started.elapsed());
        anyhow::ensure!(answer.status.is_success(), "{path}: {}", answer.text());
    }
    times.sort();
    Ok(times)
}

fn report(what: &str, times: Vec<Duration>) {
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    println!("{what:<28} p50 {:>9.2?}  p99 {:>9.2?}", at(50), at(99));
}

/// Linux only: elsewhere 0.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<u64> = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0) / 1024
}
