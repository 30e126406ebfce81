//! Two origins that share a database: each lets in what the other made, cuts what the other took, and tells edges the same.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use weir_loadtest::synthetic::Synthetic;
use weir_origin::{app::Origin, config};
use weir_shared::config::Secret;
use weir_tests::{
    client::{self, Reply},
    database,
    rest::Rest,
    site::{Broadcast, origin_config},
};

const CREDENTIAL: &str = "the-fleet's-own-credential";
/// Longer than anything waited for here.
const PATIENCE: Duration = Duration::from_secs(15);
const STREAMS: &str = "/v1/projects/default/streams";

/// Two origins, and a caller of each one's API.
struct Fleet {
    paris: Origin,
    tokyo: Origin,
    at_paris: Rest,
    at_tokyo: Rest,
}

async fn origin(name: &str, database: &str) -> anyhow::Result<Origin> {
    let mut config = origin_config();
    config.any_key = false;
    config.database.url = database.to_owned();
    config.control.node = Some(name.to_owned());
    config.directory = Some(config::Directory {
        credential: Secret::new(CREDENTIAL),
        url: None,
    });
    Origin::start(config).await
}

impl Fleet {
    /// `None`: there is no PostgreSQL here.
    async fn start() -> anyhow::Result<Option<Self>> {
        let Some(database) = database::postgres().await? else {
            return Ok(None);
        };
        let paris = origin("paris", &database).await?;
        let tokyo = origin("tokyo", &database).await?;
        let key = paris.first_key.clone().context("a fresh database has a first key")?;
        let rest = |addr| Rest { addr, key: key.clone() };
        let (at_paris, at_tokyo) = (rest(paris.api), rest(tokyo.api));
        let limits = json!({"graceSeconds": 1});
        let planned = at_paris.call(Method::PUT, "/v1/plans/default", Some(limits)).await?;
        anyhow::ensure!(planned.status.is_success(), "{}", planned.text());
        Ok(Some(Self {
            paris,
            tokyo,
            at_paris,
            at_tokyo,
        }))
    }

    async fn shutdown(self) {
        self.paris.shutdown().await;
        self.tokyo.shutdown().await;
    }
}

async fn create(rest: &Rest, key: &str) -> anyhow::Result<Value> {
    let made = rest.post(STREAMS, json!({"streamKey": key})).await?;
    anyhow::ensure!(made.status == 201, "{}", made.text());
    Ok(made.json())
}

async fn stream(rest: &Rest, made: &Value) -> anyhow::Result<Value> {
    let id = made["id"].as_str().context("an id")?;
    Ok(rest.get(&format!("{STREAMS}/{id}")).await?.json())
}

async fn call(rest: &Rest, made: &Value, call: &str) -> anyhow::Result<Reply> {
    let id = made["id"].as_str().context("an id")?;
    let reply = rest.post(&format!("{STREAMS}/{id}/{call}"), json!({})).await?;
    anyhow::ensure!(reply.status.is_success(), "{}", reply.text());
    Ok(reply)
}

/// Pushes with a slot's token; tries again until the origin has heard of the stream.
async fn push(at: SocketAddr, made: &Value, slot: &str) -> anyhow::Result<Broadcast> {
    let pointer = match slot {
        "backup" => "/ingest/backup/token",
        _ => "/ingest/token",
    };
    let token = made.pointer(pointer).and_then(Value::as_str).context("a token")?;
    let key = made["streamKey"].as_str().context("a key")?;
    let name = match slot {
        "backup" => format!("{key}/backup"),
        _ => key.to_owned(),
    };
    let since = Instant::now();
    loop {
        match Broadcast::start_in(at, &format!("app?t={token}"), &name, &Synthetic::default()).await {
            Ok(broadcast) => return Ok(broadcast),
            Err(error) if since.elapsed() > PATIENCE => return Err(error),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// What an edge is told.
async fn record(at: &Origin, key: &str) -> anyhow::Result<Value> {
    let bearer = format!("Bearer {CREDENTIAL}");
    let path = format!("/internal/directory?key={key}");
    let reply = client::ask(at.api, Method::GET, &path, &[("authorization", &bearer)]).await?;
    Ok(reply.json()["records"][0].clone())
}

async fn until<F: Future<Output = anyhow::Result<Value>>>(
    read: impl Fn() -> F,
    holds: impl Fn(&Value) -> bool,
) -> anyhow::Result<Duration> {
    let since = Instant::now();
    loop {
        let read = read().await?;
        if holds(&read) {
            return Ok(since.elapsed());
        }
        anyhow::ensure!(since.elapsed() < PATIENCE, "never: {read}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_made_at_one_origin_is_pushed_to_the_other_and_switched_off_at_the_first() -> anyhow::Result<()> {
    let Some(fleet) = Fleet::start().await? else {
        return Ok(());
    };
    let made = create(&fleet.at_paris, "show").await?;
    let broadcast = push(fleet.tokyo.rtmp, &made, "primary").await?;
    until(|| stream(&fleet.at_paris, &made), |s| s["live"] == true).await?;
    let playlist = || async {
        client::get(fleet.tokyo.http, "/app/show/d/video.m3u8")
            .await?
            .playlist()
    };
    assert!(!playlist().await?.ended);

    // Hidden, shown and disabled by calls to the origin that does not have it.
    call(&fleet.at_paris, &made, "stop-broadcasting").await?;
    let since = Instant::now();
    while !playlist().await.is_ok_and(|playlist| playlist.ended) {
        anyhow::ensure!(since.elapsed() < PATIENCE, "the playlist goes on");
        sleep(Duration::from_millis(10)).await;
    }
    call(&fleet.at_paris, &made, "go-live").await?;
    while !playlist().await.is_ok_and(|playlist| !playlist.ended) {
        anyhow::ensure!(since.elapsed() < PATIENCE, "no new playlist");
        sleep(Duration::from_millis(10)).await;
    }
    let since = Instant::now();
    call(&fleet.at_paris, &made, "disable").await?;
    assert!(broadcast.outcome().await.is_err(), "the publisher is told to go");
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    fleet.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_that_moves_to_another_origin_leaves_nothing_behind() -> anyhow::Result<()> {
    let Some(fleet) = Fleet::start().await? else {
        return Ok(());
    };
    let made = create(&fleet.at_paris, "show").await?;
    let stale = push(fleet.paris.rtmp, &made, "primary").await?;
    until(|| stream(&fleet.at_tokyo, &made), |s| s["live"] == true).await?;
    let _moved = push(fleet.tokyo.rtmp, &made, "primary").await?;
    let since = Instant::now();
    assert!(stale.outcome().await.is_err(), "its origin lost the lease");
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());

    let tokyo = format!("http://{}", fleet.tokyo.http);
    until(
        || record(&fleet.paris, "show"),
        |r| r["origins"]["primary"] == tokyo.as_str(),
    )
    .await?;
    // Gone, and not ended: players go on where the stream goes on.
    let gone = client::get(fleet.paris.http, "/app/show/d/video.m3u8").await?;
    assert_eq!(gone.status, 404, "{}", gone.text());
    let seen = stream(&fleet.at_paris, &made).await?;
    assert_eq!((&seen["status"], &seen["live"]), (&json!("LIVE"), &json!(true)));
    fleet.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn primary_and_backup_may_be_pushed_to_different_origins() -> anyhow::Result<()> {
    let Some(fleet) = Fleet::start().await? else {
        return Ok(());
    };
    let made = create(&fleet.at_paris, "show").await?;
    let primary = push(fleet.paris.rtmp, &made, "primary").await?;
    let backup = push(fleet.tokyo.rtmp, &made, "backup").await?;
    let (paris, tokyo) = (
        format!("http://{}", fleet.paris.http),
        format!("http://{}", fleet.tokyo.http),
    );
    until(
        || record(&fleet.tokyo, "show"),
        |r| r["origins"] == json!({"primary": paris, "backup": tokyo}),
    )
    .await?;
    until(
        || stream(&fleet.at_paris, &made),
        |s| s["live"] == true && s["backupLive"] == true,
    )
    .await?;

    // The primary ends: the stream goes on where the backup is, and nowhere else.
    primary.end().await?;
    until(
        || record(&fleet.paris, "show"),
        |r| r["origins"] == json!({"primary": tokyo, "backup": null}),
    )
    .await?;
    let seen = stream(&fleet.at_paris, &made).await?;
    assert_eq!(
        (&seen["status"], &seen["live"], &seen["backupLive"]),
        (&json!("LIVE"), &json!(false), &json!(true))
    );

    backup.end().await?;
    until(|| stream(&fleet.at_paris, &made), |s| s["status"] == "DISABLED").await?;
    fleet.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_purged_at_one_origin_is_unknown_at_the_other() -> anyhow::Result<()> {
    let Some(fleet) = Fleet::start().await? else {
        return Ok(());
    };
    let made = create(&fleet.at_paris, "show").await?;
    let broadcast = push(fleet.tokyo.rtmp, &made, "primary").await?;
    let start = client::ask(
        fleet.tokyo.api,
        Method::GET,
        "/internal/directory",
        &[("authorization", &format!("Bearer {CREDENTIAL}"))],
    )
    .await?
    .json();
    let path = format!("{STREAMS}/{}?purge=true", made["id"].as_str().context("an id")?);
    let purged = fleet.at_paris.call(Method::DELETE, &path, None).await?;
    anyhow::ensure!(purged.status.is_success(), "{}", purged.text());
    assert!(broadcast.outcome().await.is_err(), "the publisher is told to go");
    // Edges of the other origin are told that it is no more: not that it is disabled.
    let mut cursor = start["cursor"].as_str().context("a cursor")?.to_owned();
    let since = Instant::now();
    loop {
        let path = format!("/internal/directory?since={cursor}&wait=5");
        let bearer = format!("Bearer {CREDENTIAL}");
        let page = client::ask(fleet.tokyo.api, Method::GET, &path, &[("authorization", &bearer)]).await?;
        let page = page.json();
        if page["unknown"] == json!(["show"]) {
            break;
        }
        anyhow::ensure!(since.elapsed() < PATIENCE, "never: {page}");
        cursor = page["cursor"].as_str().context("a cursor")?.to_owned();
    }
    assert!(
        push_is_refused(fleet.tokyo.rtmp, &made).await?,
        "it is not let in any more"
    );
    fleet.shutdown().await;
    Ok(())
}

/// How long an origin waits for the encoder of a stream to come back.
fn grace(at: &Origin, key: &str) -> anyhow::Result<Value> {
    let policy = at.catalog.get(&key.parse()?);
    let grace = policy
        .and_then(|policy| policy.timers)
        .map(|timers| timers.grace.as_secs());
    Ok(json!(grace))
}

async fn put(rest: &Rest, path: &str, body: Value) -> anyhow::Result<()> {
    let reply = rest.call(Method::PUT, path, Some(body)).await?;
    anyhow::ensure!(reply.status.is_success(), "{path}: {}", reply.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_changed_at_one_origin_holds_at_the_other_before_any_stream_changes() -> anyhow::Result<()> {
    let Some(fleet) = Fleet::start().await? else {
        return Ok(());
    };
    put(&fleet.at_paris, "/v1/plans/small", json!({"graceSeconds": 5})).await?;
    put(
        &fleet.at_paris,
        "/v1/projects/acme",
        json!({"name": "Acme", "plan": "default"}),
    )
    .await?;
    let made = fleet
        .at_paris
        .post("/v1/projects/acme/streams", json!({"streamKey": "acmes"}))
        .await?;
    anyhow::ensure!(made.status == 201, "{}", made.text());
    create(&fleet.at_paris, "ours").await?;
    until(|| async { grace(&fleet.tokyo, "acmes") }, |g| *g == 1).await?;
    until(|| async { grace(&fleet.tokyo, "ours") }, |g| *g == 1).await?;
    let told = record(&fleet.tokyo, "acmes").await?;

    // The plan itself; then another plan for the project. Each reaches both origins, and nobody else's streams.
    for (path, change, seconds) in [
        ("/v1/plans/default", json!({"graceSeconds": 7}), 7),
        ("/v1/projects/acme", json!({"name": "Acme", "plan": "small"}), 5),
        ("/v1/plans/small", json!({"graceSeconds": 6}), 6),
    ] {
        put(&fleet.at_paris, path, change).await?;
        for origin in [&fleet.tokyo, &fleet.paris] {
            let took = until(|| async { grace(origin, "acmes") }, |g| *g == seconds).await?;
            assert!(took < Duration::from_secs(2), "{path}: {took:?}");
        }
        // At once the first time; untouched by what concerns the other project.
        until(|| async { grace(&fleet.tokyo, "ours") }, |g| *g == 7).await?;
    }
    assert_eq!(
        record(&fleet.tokyo, "acmes").await?,
        told,
        "edges have nothing to hear of it"
    );
    fleet.shutdown().await;
    Ok(())
}

async fn push_is_refused(at: SocketAddr, made: &Value) -> anyhow::Result<bool> {
    let token = made["ingest"]["token"].as_str().context("a token")?;
    let pushed = Broadcast::start_in(at, &format!("app?t={token}"), "show", &Synthetic::default()).await;
    Ok(pushed.is_err())
}
