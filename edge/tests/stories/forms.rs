//! The other two forms of signed addresses, asked of a running edge: OvenMediaEngine's and JSON Web Tokens; and two valid
//! secrets at a time in every form.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::StatusCode;
use sha1::Sha1;
use sha2::Sha256;
use weir_edge::config::{Algorithm, Config, Jwt};
use weir_shared::directory::PlaybackSecret;

use crate::{
    directory::{FakeDirectory, signed},
    origin::{FakeOrigin, Stage},
    signed::{OLD_SECRET, SECRET, Signed, an_hour, assert_refused, directory_of_children, query_by},
    site::{Site, until},
};

/// `{"url_expire":4102444800000}`
const OME_POLICY: &str = "eyJ1cmxfZXhwaXJlIjo0MTAyNDQ0ODAwMDAwfQ";
/// `{"url_activate":1700000000000,"url_expire":4102444800000,"stream_expire":4102448400000,
/// "allow_ip":"192.168.100.0/24","real_ip":"203.0.113.0/24"}`
const OME_BOUND: &str = "eyJ1cmxfYWN0aXZhdGUiOjE3MDAwMDAwMDAwMDAsInVybF9leHBpcmUiOjQxMDI0NDQ4MDAwMDAsInN0cmVhbV9leHBpcmUiOjQxMDI0NDg0MDAwMDAsImFsbG93X2lwIjoiMTkyLjE2OC4xMDAuMC8yNCIsInJlYWxfaXAiOiIyMDMuMC4xMTMuMC8yNCJ9";

/// An edge of streams as OvenMediaEngine's own addresses know them.
async fn ome(origin: &FakeOrigin, change: impl FnOnce(&mut Config)) -> (FakeDirectory, Site) {
    let streams = [signed("hkr_abc123", &[SECRET]), signed("stream", &["ome_is_the_best"])];
    let directory = FakeDirectory::start(streams).await;
    let site = Site::configured(origin.addr, |config| {
        config.directory = Some(directory.config());
        change(config);
    })
    .await;
    (directory, site)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_signed_for_ovenmediaengine_open_their_streams() {
    let origin = FakeOrigin::start(Stage::new("aa", 1000));
    let behind_a_proxy =
        |config: &mut Config| config.playback.ome_origin = Some("https://edge.example.com:443".to_owned());
    let (_directory, site) = ome(&origin, behind_a_proxy).await;
    let genuine = format!("/app/hkr_abc123/llhls.m3u8?policy={OME_POLICY}&signature=hP-XZgyyxflsTb7NfsY9N2lxL8s");
    let entered = site.viewer.get(&genuine).await;
    assert_eq!(entered.status, StatusCode::OK, "{}", entered.text());
    let below = format!("/app/hkr_abc123/{}/d", directory_of_children(&entered));
    for object in ["video.m3u8", "aa/video/p41.m4s"] {
        assert_eq!(
            site.viewer.get(&format!("{below}/{object}")).await.status,
            StatusCode::OK
        );
    }
    // Bound to somebody else's address.
    let bound = format!("/app/hkr_abc123/master.m3u8?policy={OME_BOUND}&signature=TkV_cC3rhv3RP-jD61eQgjoLtpw");
    assert_refused(&site.viewer.get(&bound).await, 401, "ticket_address");
    // What is signed is the whole address.
    for (from, to) in [
        ("llhls.m3u8", "master.m3u8"),
        ("hkr_abc123", "stream"),
        ("?policy", "?x=1&policy"),
        ("signature=h", "signature=H"),
    ] {
        let answer = site.viewer.get(&genuine.replacen(from, to, 1)).await;
        assert_refused(&answer, 401, "ticket_invalid");
    }
    // Without a proxy, scheme, host and port are those that the viewer sees.
    let (_directory, site) = ome(&origin, |_| ()).await;
    let direct =
        format!("/app/stream/llhls.m3u8?_HLS_legacy=YES&policy={OME_POLICY}&signature=vHjf-jLHGoZQwWjUB4VGORcvmBY");
    for (host, status) in [("127.0.0.1:3333", 200), ("127.0.0.1:3334", 401), ("127.0.0.1", 401)] {
        let answer = site.viewer.ask("GET", &direct, &[("host", host)]).await;
        assert_eq!(answer.status, status, "{host}: {}", answer.text());
    }
    assert_eq!(site.viewer.get(&genuine).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(origin.asked_with("policy"), 0);
}

/// Files of the shared crate's own tests: keys, and tokens that OpenSSL signed with their private halves.
fn key_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/src/playback/jwt")
        .join(name)
}

fn rs256(n: usize) -> String {
    let tokens = std::fs::read_to_string(key_file("tokens.txt")).unwrap();
    tokens.lines().nth(n).unwrap().to_owned()
}

fn hs256(header: &str, secret: &[u8]) -> String {
    let claims = BASE64.encode(r#"{"sub":"show","exp":4102444800}"#);
    let text = format!("{}.{claims}", BASE64.encode(header));
    let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap().chain_update(&text);
    format!("{text}.{}", BASE64.encode(mac.finalize().into_bytes()))
}

const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_open_the_stream_with_the_configured_algorithm_only() {
    let secret = Signed::start().await;
    let keys = |config: &mut Config| {
        config.playback.jwt = Jwt {
            algorithm: Algorithm::RS256,
            public_keys: vec![key_file("one.pub.pem"), key_file("two.pub.pem")],
            audience: None,
        };
    };
    let public = Signed::configured(keys).await;
    let own = hs256(HS256, SECRET.as_bytes());
    for (edge, tokens) in [(&secret, vec![own.clone()]), (&public, vec![rs256(0), rs256(1)])] {
        for token in tokens {
            let entered = edge.get(&format!("index.m3u8?token={token}")).await;
            assert_eq!(entered.status, StatusCode::OK, "{}", entered.text());
            let child = format!("{}/d/video.m3u8", directory_of_children(&entered));
            assert_eq!(edge.get(&child).await.status, StatusCode::OK);
            let sent = edge.get(&format!("d/video.m3u8?token={token}")).await;
            assert_eq!(sent.status, StatusCode::FOUND, "to its ticketed address");
        }
    }
    // The public key is no secret: whoever signs with it as if it were one gets nothing.
    let public_key = std::fs::read(key_file("one.pub.pem")).unwrap();
    let none = format!("{}.", hs256(r#"{"alg":"none"}"#, b"x").rsplit_once('.').unwrap().0);
    for (edge, token) in [
        (&public, hs256(HS256, &public_key)),
        (&public, own),
        (&public, hs256(r#"{"alg":"RS256"}"#, &public_key)),
        (&secret, rs256(0)),
        (&secret, hs256(r#"{"alg":"HS384"}"#, SECRET.as_bytes())),
        (&secret, hs256(HS256, b"another secret")),
        (&secret, none.clone()),
        (&public, none),
    ] {
        let before = edge.origin.asked_with("index.m3u8");
        let refused = edge.get(&format!("index.m3u8?token={token}")).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{token}");
        assert_eq!(edge.origin.asked_with("index.m3u8"), before);
    }
}

/// An address in each form, signed with this secret.
fn addresses(site: &Site, secret: &str) -> [String; 3] {
    let path = "/app/show/index.m3u8";
    let policy = format!("{path}?policy={OME_POLICY}");
    let text = format!("http://{}{policy}", site.edge.http.unwrap());
    let mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes())
        .unwrap()
        .chain_update(&text);
    [
        format!("{path}?{}", query_by(secret, &an_hour())),
        format!("{path}?token={}", hs256(HS256, secret.as_bytes())),
        format!("{policy}&signature={}", BASE64.encode(mac.finalize().into_bytes())),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_before_opens_in_every_form_until_it_is_revoked() {
    let signed = Signed::start().await;
    let statuses = async |secret: &str| {
        let mut statuses = Vec::new();
        for address in addresses(&signed.site, secret) {
            statuses.push(signed.site.viewer.get(&address).await.status.as_u16());
        }
        statuses
    };
    assert_eq!(statuses(SECRET).await, [200; 3]);
    assert_eq!(statuses(OLD_SECRET).await, [200; 3]);
    assert_eq!(statuses("neither").await, [401; 3]);
    signed.directory.change("show", |record| {
        record.playback_secrets = vec![PlaybackSecret::new(SECRET)];
    });
    // What was verified before is not remembered beyond that.
    until("the secret before is revoked", async || {
        statuses(OLD_SECRET).await == [401; 3]
    })
    .await;
    assert_eq!(statuses(SECRET).await, [200; 3]);
}
