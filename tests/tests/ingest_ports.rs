//! Ports that belong to one stream each, plain and over TLS, beside the shared ones.

use std::{net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use weir_loadtest::rtmp::Session;
use weir_origin::{
    app::Origin,
    config::{Config, Rtmps},
    ingest::catalog::StreamPolicy,
};
use weir_tests::{
    push::{Relay, key, refusals, refused, with_token},
    site::{metric, origin_config},
};

const PATIENCE: Duration = Duration::from_secs(10);

fn config(first: u16) -> anyhow::Result<Config> {
    let mut config = origin_config();
    config.any_key = false;
    config.rtmp.port_range = Some(format!("{first}-{}", first + 99).parse()?);
    config.rtmps = Some(Rtmps {
        listen: ([127, 0, 0, 1], 0).into(),
        port_range: Some(format!("{}-{}", first + 100, first + 199).parse()?),
    });
    Ok(config)
}

fn local(port: Option<u16>) -> SocketAddr {
    ([127, 0, 0, 1], port.unwrap_or(0)).into()
}

/// Waits until as many own ports of a transport listen.
async fn ports_bound(origin: &Origin, transport: &str, count: usize) -> anyhow::Result<()> {
    let label = format!("transport=\"{transport}\"");
    let wait = async {
        loop {
            let bound = metric(origin.admin, "weir_origin_ingest_own_ports", &label).await?;
            if bound as usize == count {
                return anyhow::Ok(());
            }
        }
    };
    timeout(PATIENCE, wait).await?
}

/// Every stream at every port: only the diagonal gets in, and on the shared ports everybody does. The relay makes every URL
/// name a port that is not the one the push arrives at.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_gets_in_at_its_own_port_and_at_the_shared_one() -> anyhow::Result<()> {
    const N: usize = 4;
    let origin = Origin::start(config(21_000)?).await?;
    for n in 0..N {
        origin
            .catalog
            .put(with_token(&format!("s{n}"), &format!("token-{n}"))?)?;
    }
    ports_bound(&origin, "rtmp", N).await?;
    ports_bound(&origin, "rtmps", N).await?;

    let mut relays = Vec::new();
    for n in 0..N {
        let own = origin.own_ports.of(&key(&format!("s{n}"))?);
        relays.push((Some(n), Relay::plain(local(own.rtmp)).await?));
        relays.push((Some(n), Relay::into_tls(local(own.rtmps)).await?));
    }
    relays.push((None, Relay::plain(origin.rtmp).await?));
    relays.push((None, Relay::into_tls(origin.rtmps.expect("configured")).await?));

    let mut pushes = JoinSet::new();
    for (owner, relay) in &relays {
        for n in 0..N {
            let (owner, url) = (*owner, format!("rtmp://{}/app", relay.address));
            pushes.spawn(async move {
                let pushed = Session::connect(&url, &format!("s{n}?t=token-{n}")).await;
                (owner, n, pushed)
            });
        }
    }
    let mut let_in = 0;
    while let Some(push) = pushes.join_next().await {
        let (owner, n, pushed) = push?;
        match pushed {
            Ok(session) => {
                assert!(owner.is_none_or(|owner| owner == n), "s{n} at the port of {owner:?}");
                let_in += 1;
                session.close().await.ok();
            }
            Err(error) => {
                assert!(owner.is_some_and(|owner| owner != n), "s{n} at {owner:?}: {error}");
                assert!(error.to_string().contains("not pushed to this port"), "{error}");
            }
        }
    }
    assert_eq!(
        let_in,
        2 * N + 2 * N,
        "the diagonal of both transports, and both shared ports"
    );
    assert_eq!(refusals(&origin, "wrong_port").await? as usize, 2 * N * (N - 1));
    origin.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_come_and_go_with_their_streams() -> anyhow::Result<()> {
    let origin = Origin::start(config(21_200)?).await?;
    ports_bound(&origin, "rtmp", 0).await?;
    origin.catalog.put(StreamPolicy::open(key("first")?))?;
    ports_bound(&origin, "rtmp", 1).await?;
    let port = origin.own_ports.of(&key("first")?).rtmp;
    assert_eq!(
        origin.own_ports.owner(port.expect("bound")).map(|o| o.0),
        Some(key("first")?)
    );

    // A publish that came through the port outlives it; nobody new comes in.
    let session = Session::connect(&format!("rtmp://{}/app", local(port)), "first").await?;
    let mut moved = StreamPolicy::open(key("first")?);
    moved.ports.rtmp = port.map(|port| port + 50);
    origin.catalog.put(moved)?;
    let gone = async { while TcpStream::connect(local(port)).await.is_ok() {} };
    timeout(PATIENCE, gone).await?;
    assert_eq!(origin.own_ports.of(&key("first")?).rtmp, port.map(|port| port + 50));
    assert!(metric(origin.admin, "weir_origin_rtmp_publishing", "").await? >= 1.0);
    session.close().await?;

    // The next stream gets the port at once.
    origin.catalog.remove(&key("first")?);
    ports_bound(&origin, "rtmp", 0).await?;
    origin.catalog.put(StreamPolicy::open(key("second")?))?;
    ports_bound(&origin, "rtmp", 1).await?;
    let url = format!("rtmp://{}/app", local(origin.own_ports.of(&key("second")?).rtmp));
    assert!(refused(&url, "first").await?.description.contains("not authorized"));
    let by_port = Session::connect(&url, "second").await?;
    by_port.close().await?;
    origin.shutdown().await;
    Ok(())
}
