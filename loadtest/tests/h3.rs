//! Viewers over HTTP/3, against a small proxy in front of the made-up origin.

use std::{net::Ipv4Addr, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use weir_loadtest::{
    arrival::Arrival,
    content::Shape,
    defect::Defects,
    fleet::Audience,
    http::{Protocol, Target, Verify},
    origin::{MadeUpOrigin, Options},
    run::{self, Plan},
};

/// A QUIC endpoint whose HTTP/3 requests are answered by the server at `origin`.
fn h3_in_front_of(origin: SocketAddr) -> anyhow::Result<SocketAddr> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der())
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls)?;
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into())?;
    let address = endpoint.local_addr()?;
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move { connection(incoming, origin).await });
        }
    });
    Ok(address)
}

async fn connection(incoming: quinn::Incoming, origin: SocketAddr) -> anyhow::Result<()> {
    let mut connection = h3::server::Connection::<_, Bytes>::new(h3_quinn::Connection::new(incoming.await?)).await?;
    while let Some(resolver) = connection.accept().await? {
        tokio::spawn(async move {
            let (request, mut stream) = resolver.resolve_request().await?;
            let (head, body) = fetch(origin, request).await?.into_parts();
            stream.send_response(Response::from_parts(head, ())).await?;
            if body.has_remaining() {
                stream.send_data(body).await?;
            }
            stream.finish().await?;
            anyhow::Ok(())
        });
    }
    Ok(())
}

async fn fetch(origin: SocketAddr, asked: Request<()>) -> anyhow::Result<Response<Bytes>> {
    let stream = tokio::net::TcpStream::connect(origin).await?;
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    let path = asked.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(path)
        .header("host", "origin")
        .body(Empty::<Bytes>::new())?;
    if let Some(coding) = asked.headers().get("accept-encoding") {
        request.headers_mut().insert("accept-encoding", coding.clone());
    }
    let (head, body) = sender.send_request(request).await?.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_watches_over_http3() -> anyhow::Result<()> {
    let options = Options {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        shape: Shape {
            renditions: vec![400_000],
            ..Shape::default()
        },
        defects: Defects::default(),
        ticket_secret: None,
    };
    let origin = MadeUpOrigin::start(options).await?;
    let proxy = h3_in_front_of(origin.address)?;
    let url = format!("https://127.0.0.1:{}/app/s0/index.m3u8", proxy.port());
    let plan = Plan {
        name: "h3".to_owned(),
        audience: Audience {
            targets: vec![Arc::new(Target::new(&url, Protocol::H3, true)?)],
            viewers: 4,
            threads: 1,
            arrival: Arrival::AtOnce,
            stay: None,
            safari_percent: 50,
            delta: true,
            switch_every: None,
            seek_every: None,
            verify: Verify { every: 1 },
            ticket_secret: None,
            ticket_life: Duration::from_secs(60),
        },
        duration: Duration::from_secs(5),
        warmup: Duration::ZERO,
        server_pid: None,
        origin_metrics: None,
        origin_counter: None,
        progress: false,
        check_first: true,
    };
    let run = run::run(&plan, &CancellationToken::new()).await?;
    assert!(run.total.broken.keys().all(|rule| rule.is_pace()), "{}", run.table());
    assert_eq!(
        (run.total.counts.joined, run.total.counts.failed),
        (4, 0),
        "{}",
        run.table()
    );
    assert!(run.total.counts.live_parts > 40, "{}", run.table());
    assert!(
        Target::new("http://h/", Protocol::H3, true).is_err(),
        "HTTP/3 needs TLS"
    );
    Ok(())
}
