//! HTTP/2 and HTTP/1.1 over TLS, with a certificate from a file and with the self-signed one.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::{TlsConnector, client::TlsStream};
use weir_edge::config::{Https, Tickets};

use crate::{
    origin::{FakeOrigin, Stage},
    site::Site,
};

/// What a developer does with the browser's warning.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A client that trusts these roots, or anybody, and speaks these protocols.
fn client(roots: Option<RootCertStore>, alpn: &[&str]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut config = match roots {
        Some(roots) => builder.with_root_certificates(roots).with_no_client_auth(),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

async fn connect(to: SocketAddr, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(to).await?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn get(uri: String) -> Request<Empty<Bytes>> {
    Request::get(uri)
        .header("host", "localhost")
        .body(Empty::new())
        .unwrap()
}

async fn text(response: Response<hyper::body::Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// A listener on a free port with this certificate and key.
fn https(pem: Option<(PathBuf, PathBuf)>) -> Https {
    let (certificate, key) = pem.unzip();
    Https {
        listen: "127.0.0.1:0".parse().unwrap(),
        certificate,
        key,
        tickets: Tickets::On,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_holds_fit_on_one_http2_connection() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let site = Site::configured(origin.addr, |config| config.https = Some(https(None))).await;
    let at = site.edge.https.unwrap();
    let stream = connect(at, client(None, &["h2", "http/1.1"])).await.unwrap();
    let session = stream.get_ref().1;
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]), "the edge prefers HTTP/2");
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);

    let directory = format!("https://localhost:{}/app/show/d", at.port());
    let first = sender
        .send_request(get(format!("{directory}/video.m3u8")))
        .await
        .unwrap();
    assert_eq!((first.status(), first.version()), (StatusCode::OK, Version::HTTP_2));
    let mut held = JoinSet::new();
    for _ in 0..100 {
        let reload = format!("{directory}/video.m3u8?{}", origin.stage().next());
        let answer = sender.send_request(get(reload));
        held.spawn(async move { text(answer.await.unwrap()).await });
    }
    site.until_metric("weir_edge_holding", 100).await;
    // What need not wait overtakes what does.
    let ready = sender
        .send_request(get(format!("{directory}/aa/video/p41.m4s")))
        .await
        .unwrap();
    assert_eq!(ready.status(), StatusCode::OK);
    let number = origin.publish();
    for playlist in held.join_all().await {
        assert!(playlist.contains(&format!("aa/video/p{number}.m4s")));
    }
    let seen = r#"weir_edge_requests_total{object="playlist",outcome="ok",protocol="h2"}"#;
    assert_eq!(site.metric(seen).await, 101);
    assert_eq!(origin.asked_twice(), vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_from_a_file_is_the_one_that_is_shown() {
    let folder = std::env::temp_dir().join(format!("weir-edge-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&certificate).unwrap()).unwrap();

    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let files = Some((certificate, key));
    let site = Site::configured(origin.addr, |config| config.https = Some(https(files))).await;
    std::fs::remove_dir_all(&folder).unwrap();
    let at = site.edge.https.unwrap();
    assert!(
        connect(at, client(Some(RootCertStore::empty()), &[])).await.is_err(),
        "nobody else vouches for it"
    );
    // Without ALPN it is HTTP/1.1.
    let stream = connect(at, client(Some(roots), &[])).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let answer = sender
        .send_request(get("/app/show/d/video.m3u8".to_owned()))
        .await
        .unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_11));
    assert!(text(answer).await.starts_with("#EXTM3U\n"));
}
