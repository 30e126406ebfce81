//! What is said to the API is what encoders meet at the door: over real sockets, from the call to the push.

use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;
use weir_loadtest::rtmp::Session;
use weir_origin::app::Origin;
use weir_tests::{
    client::{self, Reply},
    control::Disk,
    push::refused,
    rest::Rest,
    site::origin_config,
};

const PATIENCE: Duration = Duration::from_secs(10);
const STREAMS: &str = "/v1/projects/default/streams";

async fn origin() -> anyhow::Result<Origin> {
    let mut config = origin_config();
    config.any_key = false;
    Origin::start(config).await
}

async fn call(origin: &Origin, method: Method, path: &str, body: Value) -> anyhow::Result<Reply> {
    let key = origin.first_key.clone().unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "api")
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(body.to_string().into())?;
    let reply = client::exchange(origin.api, request).await?;
    anyhow::ensure!(reply.status.is_success(), "{path}: {}", reply.text());
    Ok(reply)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_made_by_the_api_takes_its_own_credentials_and_no_others() -> anyhow::Result<()> {
    let origin = origin().await?;
    let url = format!("rtmp://{}/key", origin.rtmp);
    refused(&url, "show").await?;

    let made = call(&origin, Method::POST, STREAMS, json!({"streamKey": "show"})).await?;
    assert_eq!(made.status, StatusCode::CREATED);
    let made = made.json();
    let path = format!("{STREAMS}/{}", made["id"].as_str().unwrap_or_default());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (token, user) = (text(&made["ingest"]["token"]), text(&made["ingest"]["username"]));
    let password = text(&made["ingest"]["password"]);
    refused(&url, "show").await?;
    refused(&url, "show?t=wrong").await?;
    Session::connect(&url, &format!("show?t={token}"))
        .await?
        .close()
        .await?;
    let with_password = format!("show?user={user}&pass={password}");
    Session::connect(&url, &with_password).await?.close().await?;

    let renewed = call(&origin, Method::POST, &format!("{path}/regenerate-token"), json!({}))
        .await?
        .json();
    refused(&url, &format!("show?t={token}")).await?;
    let token = text(&renewed["ingest"]["token"]);
    Session::connect(&url, &format!("show?t={token}"))
        .await?
        .close()
        .await?;

    call(&origin, Method::DELETE, &format!("{path}?purge=true"), json!({})).await?;
    refused(&url, &format!("show?t={token}")).await?;
    origin.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_a_stream_off_cuts_the_encoder_with_an_error_it_can_show() -> anyhow::Result<()> {
    let origin = origin().await?;
    let url = format!("rtmp://{}/key", origin.rtmp);
    let made = call(&origin, Method::POST, STREAMS, json!({"streamKey": "show"}))
        .await?
        .json();
    let path = format!("{STREAMS}/{}", made["id"].as_str().unwrap_or_default());
    let push = format!("show?t={}", made["ingest"]["token"].as_str().unwrap_or_default());
    let mut session = Session::connect(&url, &push).await?;
    // Rotating cuts nobody.
    call(&origin, Method::POST, &format!("{path}/rotate-push"), json!({})).await?;

    let asked = Instant::now();
    call(&origin, Method::PATCH, &path, json!({"active": false})).await?;
    let told = timeout(PATIENCE, session.next_status()).await??;
    assert!(told.is_error(), "{told:?}");
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    refused(&url, &push).await?;
    call(&origin, Method::PATCH, &path, json!({"active": true})).await?;
    Session::connect(&url, &push).await?.close().await?;
    origin.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_does_is_counted() -> anyhow::Result<()> {
    let origin = origin().await?;
    call(&origin, Method::POST, STREAMS, json!({})).await?;
    let count = weir_tests::site::metric(origin.admin, "weir_origin_api_calls_total", "status=\"2xx\"").await?;
    assert_eq!(count, 1.0);
    origin.shutdown().await;
    Ok(())
}

/// A stream that could be made and not be pushed would be a riddle to whoever made it.
#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_full_says_so_until_there_is_room_again() -> anyhow::Result<()> {
    let disk = Disk::new("full");
    let start = async |most: usize| {
        let mut config = origin_config();
        config.any_key = false;
        config.database.url = disk.url();
        config.control.max_known_streams = most;
        Origin::start(config).await
    };
    let gauge = async |origin: &Origin, name: &str| weir_tests::site::metric(origin.admin, name, "").await;
    let origin = start(2).await?;
    let rest = Rest {
        addr: origin.api,
        key: origin.first_key.clone().unwrap_or_default(),
    };
    let first = rest.post(STREAMS, json!({"streamKey": "first"})).await?.json();
    rest.post(STREAMS, json!({"streamKey": "second"})).await?;
    let third = json!({"streamKey": "third"});
    let refused = rest.post(STREAMS, third.clone()).await?;
    assert_eq!(
        (refused.status, &refused.json()["type"]),
        (StatusCode::CONFLICT, &json!("urn:weir:problem:full"))
    );
    assert!(refused.text().contains("2 streams"), "{}", refused.text());
    assert_eq!(rest.get(STREAMS).await?.json()["total"], 2);
    assert_eq!(gauge(&origin, "weir_origin_control_streams_known").await?, 2.0);
    // A change needs no room.
    let path = format!("{STREAMS}/{}", first["id"].as_str().unwrap_or_default());
    let patched = rest
        .call(Method::PATCH, &path, Some(json!({"name": "changed"})))
        .await?;
    assert_eq!(patched.status, StatusCode::OK, "{}", patched.text());

    let purged = rest.call(Method::DELETE, &format!("{path}?purge=true"), None).await?;
    assert_eq!(purged.status, StatusCode::NO_CONTENT);
    assert_eq!(rest.post(STREAMS, third).await?.status, StatusCode::CREATED);
    origin.shutdown().await;

    // One that may know fewer than there are starts all the same, and counts those that it leaves out.
    let smaller = start(1).await?;
    assert_eq!(gauge(&smaller, "weir_origin_control_streams_known").await?, 1.0);
    assert_eq!(
        gauge(&smaller, "weir_origin_control_streams_left_out_total").await?,
        1.0
    );
    smaller.shutdown().await;
    Ok(())
}
