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
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use weir_edge::config::{CertificateFiles, Https};

use crate::{
    h3,
    origin::{FakeOrigin, Stage},
    site::{Site, until},
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
pub(crate) fn client(roots: Option<RootCertStore>, alpn: &[&str]) -> ClientConfig {
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

pub(crate) async fn connect(to: SocketAddr, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
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

/// Over HTTP/1.1, from a client that trusts anybody.
pub(crate) async fn get_h1(to: SocketAddr, path: &str) -> Response<hyper::body::Incoming> {
    let stream = connect(to, client(None, &["http/1.1"])).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(get(path.to_owned())).await.unwrap()
}

async fn text(response: Response<hyper::body::Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// A listener on a free port with this certificate and key.
pub(crate) fn https(pem: Option<(PathBuf, PathBuf)>) -> Https {
    let (certificate, key) = pem.unzip();
    Https {
        certificate,
        key,
        ..Https::self_signed("127.0.0.1:0".parse().unwrap())
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
    let desk = Desk::new("file");
    let (files, issued) = desk.issue("cert", &["localhost"]);
    let mut roots = RootCertStore::empty();
    roots.add(issued).unwrap();

    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let site = Site::configured(origin.addr, |config| config.https = Some(https(Some(files)))).await;
    drop(desk);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_drops_nobody() {
    let desk = Desk::new("renewed");
    let (files, old) = desk.issue("main", &["localhost"]);
    let (other, other_leaf) = desk.issue("other", &["other.example"]);
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let with_two_names = Https {
        certificates: vec![CertificateFiles {
            certificate: other.0,
            key: other.1,
        }],
        ..https(Some(files))
    };
    let site = Site::configured(origin.addr, |config| config.https = Some(with_two_names)).await;
    let at = site.edge.https.unwrap();
    let h3_leaf = async |name| {
        let connection = h3::Connection::open(at, name).await;
        let chain = connection
            .quic
            .peer_identity()
            .unwrap()
            .downcast::<Vec<CertificateDer>>()
            .unwrap();
        (chain[0].clone().into_owned(), connection)
    };
    assert_eq!(leaf(at, "other.example").await, other_leaf, "each name its own");
    assert_eq!(leaf(at, "localhost").await, old);
    assert_eq!(h3_leaf("other.example").await.0, other_leaf);

    // Two viewers who are held while it happens.
    let stream = connect(at, client(None, &["http/1.1"])).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (old_h3, over_h3) = h3_leaf("localhost").await;
    assert_eq!(old_h3, old);
    let reload = format!("/app/show/d/video.m3u8?{}", origin.stage().next());
    let held = tokio::spawn(sender.send_request(get(reload.clone())));
    let held_h3 = tokio::spawn(over_h3.get(&reload));
    site.until_metric("weir_edge_holding", 2).await;

    // Half of a pair is not used.
    let (_, new) = desk
        .issue_key_last("main", &["localhost"], async || {
            site.until_metric(r#"weir_edge_reloads_total{result="refused"}"#, 1)
                .await;
            assert_eq!(leaf(at, "localhost").await, old);
        })
        .await;
    until("the new certificate is shown", async || {
        leaf(at, "localhost").await == new
    })
    .await;
    assert_eq!(h3_leaf("localhost").await.0, new);
    assert_eq!(leaf(at, "other.example").await, other_leaf);

    let number = origin.publish();
    let news = format!("aa/video/p{number}.m4s");
    assert!(text(held.await.unwrap().unwrap()).await.contains(&news));
    let answer = held_h3.await.unwrap().unwrap();
    assert!(String::from_utf8(answer.body.to_vec()).unwrap().contains(&news));
    // And the old connections serve on.
    let again = sender
        .send_request(get("/app/show/d/video.m3u8".to_owned()))
        .await
        .unwrap();
    assert_eq!(again.status(), StatusCode::OK);
    assert_eq!(
        over_h3.get("/app/show/d/video.m3u8").await.unwrap().status,
        StatusCode::OK
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_1_2_is_spoken_and_nothing_older() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let site = Site::configured(origin.addr, |config| config.https = Some(https(None))).await;
    let at = site.edge.https.unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = connect(at, config).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    // A hello of TLS 1.1 (RFC 4346) is answered with a fatal alert.
    let mut old = TcpStream::connect(at).await.unwrap();
    let hello = tls_1_1_hello();
    old.write_all(&hello).await.unwrap();
    let mut alert = Vec::new();
    old.read_to_end(&mut alert).await.unwrap();
    assert!(matches!(alert[..], [21, 3, _, 0, 2, 2, _]), "{alert:?}");
}

/// A ClientHello that knows TLS 1.1 and one cipher suite of its time.
fn tls_1_1_hello() -> Vec<u8> {
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.push(0);
    hello.extend([0, 2, 0xc0, 0x13]);
    hello.extend([1, 0]);
    let length = u16::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1];
    record.extend((length + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend(length.to_be_bytes());
    record.extend(hello);
    record
}

/// What a client that asks for this name is shown.
async fn leaf(at: SocketAddr, name: &'static str) -> CertificateDer<'static> {
    let stream = TcpStream::connect(at).await.unwrap();
    let name = ServerName::try_from(name).unwrap();
    let connector = TlsConnector::from(Arc::new(client(None, &["h2"])));
    let stream = connector.connect(name, stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Issues certificates in a folder that goes with it.
struct Desk(PathBuf);

impl Desk {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("weir-edge-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn paths(&self, file: &str) -> (PathBuf, PathBuf) {
        (self.0.join(format!("{file}.pem")), self.0.join(format!("{file}.key")))
    }

    fn issue(&self, file: &str, names: &[&str]) -> ((PathBuf, PathBuf), CertificateDer<'static>) {
        let made = made(names);
        let (certificate, key) = self.paths(file);
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        ((certificate, key), made.cert.into())
    }

    /// The certificate first, and its key after `meanwhile`.
    async fn issue_key_last(
        &self,
        file: &str,
        names: &[&str],
        meanwhile: impl AsyncFnOnce(),
    ) -> ((PathBuf, PathBuf), CertificateDer<'static>) {
        let made = made(names);
        let (certificate, key) = self.paths(file);
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        meanwhile().await;
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        ((certificate, key), made.cert.into())
    }
}

fn made(names: &[&str]) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    rcgen::generate_simple_self_signed(names).unwrap()
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
