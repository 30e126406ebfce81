//! The operator's own say on every publish.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use weir_loadtest::rtmp::Session;
use weir_origin::{
    app::Origin,
    config::Webhook,
    ingest::{
        secret::Secret,
        webhook::{Fail, Style},
    },
};
use weir_shared::config::HumanDuration;
use weir_tests::{
    client::get,
    push::{refusals, refused},
    site::{metric, origin_config},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// What the hook was asked: headers, body as sent, body as read.
type Asked = (http::HeaderMap, Bytes, Value);

/// A server that says yes, no or nothing by the stream that it is asked about.
struct Hook {
    address: SocketAddr,
    asked: mpsc::UnboundedReceiver<Asked>,
    /// Every permit lets one held answer go.
    held: Arc<Semaphore>,
}

impl Hook {
    async fn start() -> anyhow::Result<Self> {
        Self::start_with(None).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (tell, asked) = mpsc::unbounded_channel();
        let held = Arc::new(Semaphore::new(0));
        let permits = held.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (tell, permits) = (tell.clone(), permits.clone());
                let service = service_fn(move |request| answer(request, tell.clone(), permits.clone()));
                let tls = tls.clone();
                tokio::spawn(async move {
                    // Whether it worked is what the test asks the origin.
                    match tls {
                        None => drop(
                            http1::Builder::new()
                                .serve_connection(TokioIo::new(socket), service)
                                .await,
                        ),
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                drop(
                                    http1::Builder::new()
                                        .serve_connection(TokioIo::new(socket), service)
                                        .await,
                                );
                            }
                        }
                    }
                });
            }
        });
        Ok(Self { address, asked, held })
    }

    async fn asked(&mut self) -> anyhow::Result<Asked> {
        Ok(timeout(PATIENCE, self.asked.recv()).await?.expect("the hook lives"))
    }
}

async fn answer(
    request: Request<Incoming>,
    tell: mpsc::UnboundedSender<Asked>,
    held: Arc<Semaphore>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let question: Value = serde_json::from_slice(&body).unwrap_or_default();
    let url = question["request"]["url"].as_str().unwrap_or_default().to_owned();
    tell.send((head.headers, body, question)).ok();
    let key = url.split('?').next().and_then(|url| url.rsplit('/').next());
    let answers = HashMap::from([
        ("yes", json!({"allowed": true})),
        ("no", json!({"allowed": false, "reason": "unpaid"})),
        ("alias", json!({"allowed": true, "new_url": "rtmp://host/app/real"})),
        ("short", json!({"allowed": true, "lifetime": 300})),
    ]);
    match key {
        Some("held") => {
            held.acquire().await.expect("never closed").forget();
            Ok(Response::new(Full::from(json!({"allowed": true}).to_string())))
        }
        Some(key) if answers.contains_key(key) => Ok(Response::new(Full::from(answers[key].to_string()))),
        _ => Ok(Response::new(Full::from("what?"))),
    }
}

async fn origin(hook: &Hook, change: impl FnOnce(&mut Webhook)) -> anyhow::Result<Origin> {
    let mut config = origin_config();
    let mut webhook = Webhook {
        url: format!("http://{}/admission?node=1", hook.address),
        secret: Secret::new("1234"),
        timeout: HumanDuration(Duration::from_secs(3)),
        fail: Fail::Closed,
        style: Style::Weir,
        authority: None,
    };
    change(&mut webhook);
    config.admission_webhook = Some(webhook);
    Origin::start(config).await
}

async fn is_live(origin: &Origin, key: &str) -> anyhow::Result<bool> {
    let streams = get(origin.admin, "/streams").await?;
    Ok(streams.text().contains(&format!("\"key\":\"{key}\"")))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hook_allows_denies_and_rewrites() -> anyhow::Result<()> {
    let mut hook = Hook::start().await?;
    let origin = origin(&hook, |_| ()).await?;
    let url = format!("rtmp://{}/app", origin.rtmp);

    let session = Session::connect(&url, "yes?lang=de&pass=opensesame").await?;
    let (headers, body, question) = hook.asked().await?;
    let mut mac = Hmac::<Sha256>::new_from_slice(b"1234")?;
    mac.update(&body);
    let tag: Vec<String> = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(headers["x-weir-signature"], format!("sha256={}", tag.concat()));
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(question["request"]["status"], "opening");
    assert_eq!(
        question["request"]["url"],
        format!("rtmp://{}/app/yes?lang=de", origin.rtmp)
    );
    assert_eq!(
        question["stream"],
        json!({"key": "yes", "slot": "primary", "proof": "key"})
    );
    session.close().await?;
    let (_, _, closing) = hook.asked().await?;
    assert_eq!(closing["request"]["status"], "closing");

    let told = refused(&url, "no").await?;
    assert!(!told.description.contains("unpaid"), "{told}");
    assert_eq!(refusals(&origin, "webhook_denied").await?, 1.0);
    let rewritten = Session::connect(&url, "alias").await?;
    assert!(is_live(&origin, "real").await? && !is_live(&origin, "alias").await?);
    rewritten.close().await?;
    assert!(refused(&url, "nonsense").await?.description.contains("try again"));
    assert_eq!(refusals(&origin, "webhook_failed").await?, 1.0);

    // A publish whose time is up is told so.
    let mut short = Session::connect(&url, "short").await?;
    let told = timeout(PATIENCE, short.next_status()).await??;
    assert!(told.description.contains("time"), "{told}");
    origin.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_hook_delays_nobody_else() -> anyhow::Result<()> {
    let mut hook = Hook::start().await?;
    let origin = origin(&hook, |_| ()).await?;
    let url = format!("rtmp://{}/app", origin.rtmp);
    let slow = {
        let url = url.clone();
        tokio::spawn(async move { Session::connect(&url, "held").await.map(|_| ()) })
    };
    hook.asked().await?;
    for _ in 0..10 {
        Session::connect(&url, "yes").await?.close().await?;
    }
    assert!(!slow.is_finished(), "all others came in while it waited");
    hook.held.add_permits(1);
    timeout(PATIENCE, slow).await???;
    origin.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_the_setting_decides() -> anyhow::Result<()> {
    let hook = Hook::start().await?;
    for (fail, lets_in) in [(Fail::Closed, false), (Fail::Open, true)] {
        let origin = origin(&hook, |webhook| {
            webhook.fail = fail;
            webhook.timeout = HumanDuration(Duration::from_millis(300));
        })
        .await?;
        let started = Instant::now();
        let pushed = Session::connect(&format!("rtmp://{}/app", origin.rtmp), "held").await;
        assert_eq!(pushed.is_ok(), lets_in, "{fail:?}");
        assert!(started.elapsed() >= Duration::from_millis(300));
        let late = metric(
            origin.admin,
            "weir_origin_admission_webhook_total",
            "outcome=\"timed_out\"",
        )
        .await?;
        assert_eq!(late, 1.0);
        // No is no, even where silence is yes.
        assert!(refused(&format!("rtmp://{}/app", origin.rtmp), "no").await.is_ok());
        origin.shutdown().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_written_for_ovenmediaengine_understands() -> anyhow::Result<()> {
    let mut hook = Hook::start().await?;
    let origin = origin(&hook, |webhook| webhook.style = Style::Ome).await?;
    let session = Session::connect(&format!("rtmp://{}/app", origin.rtmp), "yes").await?;
    let (headers, body, question) = hook.asked().await?;
    let signature = headers["x-ome-signature"].to_str()?;
    assert_eq!(
        URL_SAFE_NO_PAD.decode(signature)?.len(),
        20,
        "HMAC-SHA1 without padding"
    );
    assert!(question.get("stream").is_none() && !body.is_empty());
    for field in ["direction", "protocol", "status", "time", "url"] {
        assert!(question["request"][field].is_string(), "{field}");
    }
    session.close().await?;
    origin.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_over_tls_has_to_be_who_it_says() -> anyhow::Result<()> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = made
        .signing_key
        .serialize_der()
        .try_into()
        .map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    let mut hook = Hook::start_with(Some(TlsAcceptor::from(Arc::new(server)))).await?;
    let authority = std::env::temp_dir().join(format!("weir-hook-{}.pem", std::process::id()));
    std::fs::write(&authority, made.cert.pem())?;

    let url = format!("https://localhost:{}/admission", hook.address.port());
    for (trusted, lets_in) in [(Some(authority.clone()), true), (None, false)] {
        let origin = origin(&hook, |webhook| {
            webhook.url = url.clone();
            webhook.authority = trusted;
        })
        .await?;
        let pushed = Session::connect(&format!("rtmp://{}/app", origin.rtmp), "yes").await;
        assert_eq!(pushed.is_ok(), lets_in);
        if lets_in {
            hook.asked().await?;
        } else {
            assert_eq!(refusals(&origin, "webhook_failed").await?, 1.0);
        }
        origin.shutdown().await;
    }
    std::fs::remove_file(&authority)?;
    Ok(())
}
