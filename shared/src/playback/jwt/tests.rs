//! Tokens as sites make them, and as attackers would like them to be.
//!
//! `tokens.txt` was signed with OpenSSL, one line for each of the two keys; their private halves are gone.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::*;
use crate::playback::Caller;

const ONE: &str = include_str!("one.pub.pem");
const TWO: &str = include_str!("two.pub.pem");
const TOKENS: &str = include_str!("tokens.txt");
const SECRET: &str = "aKq#1kj";
/// Seconds.
const LATER: u64 = 4_102_444_800;

fn key() -> StreamKey {
    "show".parse().unwrap()
}

/// Signed by the first or second private key.
fn rs256(n: usize) -> &'static str {
    TOKENS.lines().nth(n).unwrap()
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn hs256_with(header: Value, claims: &Value, secret: &[u8]) -> String {
    let message = format!("{}.{}", part(&header), part(claims));
    let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap().chain_update(&message);
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn hs256(claims: &Value) -> String {
    hs256_with(json!({"alg": "HS256", "typ": "JWT"}), claims, SECRET.as_bytes())
}

fn check_hs256(token: &str) -> Result<Policy, Invalid> {
    Checker::hs256(None).verify(
        &key(),
        &[PlaybackSecret::new("newer"), PlaybackSecret::new(SECRET)],
        token,
    )
}

fn check_rs256(token: &str) -> Result<Policy, Invalid> {
    let checker = Checker::rs256([ONE.as_bytes()], None).unwrap();
    checker.verify(&key(), &[PlaybackSecret::new(SECRET)], token)
}

fn claims() -> Value {
    json!({"sub": "show", "exp": LATER})
}

#[test]
fn a_token_of_another_implementation_is_verified() {
    // Python: hmac.new(b"aKq#1kj", header + b"." + claims, "sha256")
    let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJzaG93IiwiZXhwIjo0MTAyNDQ0ODAwfQ.DdxSLNq2c0NccctgbCv_4sq8otyuayM2r5l603e8O44";
    assert_eq!(check_hs256(token), Ok(Policy::until(LATER * 1000)));
    assert_eq!(check_rs256(rs256(0)), Ok(Policy::until(LATER * 1000)));
}

#[test]
fn claims_become_a_policy() {
    let token = hs256(&json!({
        "sub": "show", "exp": LATER, "nbf": 1_795_000_000.5, "stream_expire": LATER + 3600,
        "allow_ip": "192.168.100.0/24", "real_ip": "2001:db8::/32", "preview": true, "aud": "somebody", "jti": "7",
    }));
    let policy = check_hs256(&token).unwrap();
    assert_eq!(
        policy,
        Policy {
            url_activate: Some(1_795_000_000_500),
            stream_expire: Some((LATER + 3600) * 1000),
            allow_ip: Some("192.168.100.0/24".parse().unwrap()),
            real_ip: Some("2001:db8::/32".parse().unwrap()),
            preview: true,
            ..Policy::until(LATER * 1000)
        }
    );
    let viewer = Caller {
        peer: "192.168.100.1".parse().unwrap(),
        real: "2001:db8::1".parse().unwrap(),
    };
    assert_eq!(policy.admits(1_795_000_000_499, viewer), Err(Invalid::NotYet));
    assert_eq!(policy.admits(1_795_000_000_500, viewer), Ok(()));
    assert_eq!(policy.admits(LATER * 1000, viewer), Err(Invalid::Expired));
}

#[test]
fn a_token_is_for_one_stream_and_for_a_time() {
    for (claims, expected) in [
        (json!({"sub": "shop", "exp": LATER}), Invalid::Signature),
        (json!({"exp": LATER}), Invalid::Malformed),
        (json!({"sub": ["show"], "exp": LATER}), Invalid::Malformed),
        (json!({"sub": "show"}), Invalid::Malformed),
        (json!({"sub": "show", "exp": "4102444800"}), Invalid::Malformed),
        (json!({"sub": "show", "exp": -1}), Invalid::Malformed),
        (json!({"sub": "show", "exp": 1e300}), Invalid::Malformed),
        (json!({"sub": "show", "exp": LATER, "nbf": -5}), Invalid::Malformed),
        (
            json!({"sub": "show", "exp": LATER, "allow_ip": "all"}),
            Invalid::Malformed,
        ),
    ] {
        assert_eq!(check_hs256(&hs256(&claims)), Err(expected), "{claims}");
    }
}

#[test]
fn where_an_audience_is_configured_a_token_names_it() {
    let checker = Checker::hs256(Some("edge.example.com".to_owned()));
    for (aud, good) in [
        (json!("edge.example.com"), true),
        (json!("api.example.com"), false),
        (Value::Null, false),
    ] {
        let token = hs256(&json!({"sub": "show", "exp": LATER, "aud": aud}));
        let checked = checker.verify(&key(), &[PlaybackSecret::new(SECRET)], &token);
        assert_eq!(checked.is_ok(), good, "{aud}");
    }
    assert!(
        checker
            .verify(&key(), &[PlaybackSecret::new(SECRET)], &hs256(&claims()))
            .is_err()
    );
}

#[test]
fn the_tokens_header_chooses_nothing() {
    for algorithm in [
        "none", "None", "NONE", "", "HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA",
    ] {
        let header = json!({"alg": algorithm, "typ": "JWT"});
        let unsigned = format!("{}.{}.", part(&header), part(&claims()));
        assert!(
            check_hs256(&unsigned).is_err() && check_rs256(&unsigned).is_err(),
            "{algorithm}"
        );
        let signed = hs256_with(header, &claims(), SECRET.as_bytes());
        assert!(check_hs256(&signed).is_err(), "{algorithm}");
    }
    // The oldest of all: what everybody may know, used as what nobody does.
    for public in [ONE.as_bytes(), ONE.trim().as_bytes()] {
        let confused = hs256_with(json!({"alg": "HS256", "typ": "JWT"}), &claims(), public);
        assert_eq!(check_rs256(&confused), Err(Invalid::Algorithm));
    }
    // A stream's secret does not help where keys are pinned, nor a key where secrets are.
    assert_eq!(check_rs256(&hs256(&claims())), Err(Invalid::Algorithm));
    assert_eq!(check_hs256(rs256(0)), Err(Invalid::Algorithm));
    // Keys that the token brings along.
    let header = json!({"alg": "HS256", "jwk": {"kty": "oct", "k": "QUFB"}, "kid": "../../dev/null"});
    assert_eq!(
        check_hs256(&hs256_with(header, &claims(), b"AAA")),
        Err(Invalid::Signature)
    );
    let critical = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
    assert!(check_hs256(&hs256_with(critical, &claims(), SECRET.as_bytes())).is_err());
}

#[test]
fn a_key_that_is_replaced_may_stay_for_a_while() {
    assert_eq!(
        check_rs256(rs256(1)),
        Err(Invalid::Signature),
        "signed with another key"
    );
    let both = Checker::rs256([TWO.as_bytes(), ONE.as_bytes()], None).unwrap();
    for token in [rs256(0), rs256(1)] {
        assert!(both.verify(&key(), &[], token).is_ok());
    }
}

#[test]
fn what_is_no_public_key_is_told_at_start() {
    for bad in [
        "",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        SECRET,
    ] {
        assert!(Checker::rs256([bad.as_bytes()], None).is_err(), "{bad}");
    }
}

#[test]
fn an_empty_secret_admits_nothing() {
    let token = hs256_with(json!({"alg": "HS256"}), &claims(), b"");
    let checked = Checker::hs256(None).verify(&key(), &[PlaybackSecret::new("")], &token);
    assert_eq!(checked, Err(Invalid::Signature));
}

#[test]
fn no_tampered_token_is_accepted() {
    let hs256 = hs256(&claims());
    for (token, check) in [
        (&*hs256, check_hs256 as fn(&str) -> Result<Policy, Invalid>),
        (rs256(0), check_rs256),
    ] {
        assert!(check(token).is_ok());
        for at in 0..token.len() {
            for flip in [1u8, 2, 4, 32] {
                let mut bytes = token.as_bytes().to_vec();
                bytes[at] ^= flip;
                if let Ok(tampered) = String::from_utf8(bytes) {
                    assert!(check(&tampered).is_err(), "{at} {flip}");
                }
            }
        }
        for odd in [
            "",
            ".",
            "..",
            "...",
            &token[1..],
            &format!("{token}."),
            &format!(".{token}"),
            &format!("{token}="),
        ] {
            assert!(check(odd).is_err(), "{odd}");
        }
    }
    assert_eq!(check_hs256(&"A".repeat(TEXT_MAX + 1)), Err(Invalid::Malformed));
}
