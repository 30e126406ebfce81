//! What the admission webhook is asked and what it answers: bodies, signatures, verdicts. Pure.
//!
//! The shape is OvenMediaEngine's admission webhook, so that a server written for that works; ours says a little more.
//!
//! Before this: `ingest/admission.rs`. After this: `ingest/webhook.rs`, which sends it.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use weir_shared::{hls::date, id::StreamKey};

use crate::ingest::{Line, Slot, catalog::policy::hmac_sha256, secret::Secret};

/// How requests are signed, and how much they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// `X-Weir-Signature: sha256=<hex of HMAC-SHA256 over the body>`.
    #[default]
    Weir,
    /// `X-OME-Signature: <base64url of HMAC-SHA1 over the body>`, and OvenMediaEngine's fields only.
    Ome,
}

/// A publish that credentials have let in already.
#[derive(Debug, Clone)]
pub struct Question {
    pub key: StreamKey,
    pub slot: Slot,
    /// What it proved: `password`, `token`, `key`.
    pub proof: &'static str,
    pub line: Line,
    pub app: &'static str,
    /// What the encoder sent after `?`, passwords and challenge answers left out.
    pub query: String,
}

/// Whether a publish begins or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Opening,
    Closing,
}

/// A good answer that lets in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// Publish as this stream instead.
    pub key: Option<StreamKey>,
    /// End the publish after this time.
    pub lifetime: Option<Duration>,
}

/// Why an answer lets nobody in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    #[error("denied: {0}")]
    Denied(String),
    #[error("status {0} instead of 200")]
    Status(u16),
    #[error("not the JSON that was expected")]
    Form,
    #[error("new_url names no stream key")]
    NewUrl,
}

#[derive(Serialize)]
struct Body<'a> {
    client: Client,
    request: Request,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<Stream<'a>>,
}

#[derive(Serialize)]
struct Client {
    address: String,
    port: u16,
    real_ip: String,
}

#[derive(Serialize)]
struct Request {
    direction: &'static str,
    protocol: &'static str,
    status: &'static str,
    time: String,
    url: String,
}

#[derive(Serialize)]
struct Stream<'a> {
    key: &'a str,
    slot: &'static str,
    proof: &'static str,
}

#[derive(Deserialize)]
struct Answer {
    allowed: bool,
    new_url: Option<String>,
    /// Milliseconds; 0 = for ever.
    lifetime: Option<u64>,
    reason: Option<String>,
}

impl Question {
    /// The request's body.
    pub fn body(&self, style: Style, status: Status, now: SystemTime) -> Vec<u8> {
        let Line {
            peer, local, transport, ..
        } = &self.line;
        let address = peer.ip().to_canonical().to_string();
        let question_mark = if self.query.is_empty() { "" } else { "?" };
        let body = Body {
            client: Client {
                address: address.clone(),
                port: peer.port(),
                real_ip: address,
            },
            request: Request {
                direction: "incoming",
                protocol: transport.as_str(),
                status: match status {
                    Status::Opening => "opening",
                    Status::Closing => "closing",
                },
                time: date::utc(now),
                url: format!(
                    "{}://{local}/{}/{}{question_mark}{}",
                    transport.as_str(),
                    self.app,
                    self.key,
                    self.query
                ),
            },
            stream: (style == Style::Weir).then(|| Stream {
                key: self.key.as_str(),
                slot: self.slot.as_str(),
                proof: self.proof,
            }),
        };
        // Strings and numbers only: this can't fail.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

/// Name and value of the header that signs a body.
pub fn signature(style: Style, secret: &Secret, body: &[u8]) -> (&'static str, String) {
    match style {
        Style::Weir => {
            let tag = hmac_sha256(secret.expose().as_bytes(), &[body]);
            let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
            ("x-weir-signature", format!("sha256={hex}"))
        }
        Style::Ome => {
            #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
            let mut mac = Hmac::<Sha1>::new_from_slice(secret.expose().as_bytes()).expect("any length");
            mac.update(body);
            ("x-ome-signature", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
        }
    }
}

/// Reads an answer.
pub fn verdict(status: u16, body: &[u8]) -> Result<Asked, BadAnswer> {
    if status != 200 {
        return Err(BadAnswer::Status(status));
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| BadAnswer::Form)?;
    if !answer.allowed {
        let reason = answer.reason.unwrap_or_default();
        // One line of a log.
        let shown = reason.chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(BadAnswer::Denied(shown));
    }
    let key = answer
        .new_url
        .map(|url| key_of(&url).ok_or(BadAnswer::NewUrl))
        .transpose()?;
    Ok(Asked {
        key,
        lifetime: answer.lifetime.filter(|ms| *ms > 0).map(Duration::from_millis),
    })
}

/// `scheme://host/app/<key>`.
fn key_of(url: &str) -> Option<StreamKey> {
    let path = url.split_once("://")?.1.split('?').next()?;
    let mut steps = path.trim_end_matches('/').split('/');
    let (_authority, _app, key) = (steps.next()?, steps.next()?, steps.next()?);
    if steps.next().is_some() {
        return None;
    }
    key.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{Entrance, Transport};

    fn question() -> Question {
        Question {
            key: "stream".parse().unwrap(),
            slot: Slot::Backup,
            proof: "token",
            line: Line {
                entrance: Entrance::Shared,
                transport: Transport::Rtmp,
                peer: "203.0.113.7:29291".parse().unwrap(),
                local: "127.0.0.1:1935".parse().unwrap(),
            },
            app: "app",
            query: String::new(),
        }
    }

    /// The vector of OvenMediaEngine's signature.
    #[test]
    fn the_signature_is_that_of_ovenmediaengine() {
        let body = br#"{"client":{"address":"203.0.113.7","port":29291,"real_ip":"203.0.113.7","user_agent":"test/1.0"},"request":{"direction":"incoming","protocol":"rtmp","status":"opening","time":"2026-01-01T00:00:00.000+00:00","url":"rtmp://127.0.0.1:1935/app/stream"}}"#;
        let (name, value) = signature(Style::Ome, &Secret::new("1234"), body);
        assert_eq!(
            (name, value.as_str()),
            ("x-ome-signature", "ppxjt5V5h3wslViu0-o5DxodAew")
        );
    }

    /// RFC 4231, test case 2.
    #[test]
    fn our_signature_is_plain_hmac_sha256() {
        let (name, value) = signature(Style::Weir, &Secret::new("Jefe"), b"what do ya want for nothing?");
        assert_eq!(name, "x-weir-signature");
        assert_eq!(
            value,
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn a_request_says_who_what_and_when() {
        let new_year = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        let body = question().body(Style::Ome, Status::Opening, new_year);
        let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            told,
            serde_json::json!({
                "client": {"address": "203.0.113.7", "port": 29291, "real_ip": "203.0.113.7"},
                "request": {
                    "direction": "incoming", "protocol": "rtmp", "status": "opening",
                    "time": "2026-01-01T00:00:00.000Z", "url": "rtmp://127.0.0.1:1935/app/stream",
                },
            })
        );
        let mut asked = question();
        asked.query = "t=x".into();
        let body = asked.body(Style::Weir, Status::Closing, new_year);
        let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(told["request"]["url"], "rtmp://127.0.0.1:1935/app/stream?t=x");
        assert_eq!(told["request"]["status"], "closing");
        assert_eq!(
            told["stream"],
            serde_json::json!({"key": "stream", "slot": "backup", "proof": "token"})
        );
    }

    #[test]
    fn only_a_clear_yes_lets_in() {
        assert_eq!(verdict(200, br#"{"allowed":true}"#), Ok(Asked::default()));
        let rewritten = br#"{"allowed":true,"new_url":"rtmp://host:1935/app/other?x=y","lifetime":1500,"more":1}"#;
        let asked = verdict(200, rewritten).unwrap();
        assert_eq!(asked.key.unwrap().as_str(), "other");
        assert_eq!(asked.lifetime, Some(Duration::from_millis(1500)));
        assert_eq!(
            verdict(200, br#"{"allowed":false,"reason":"not\ntoday"}"#),
            Err(BadAnswer::Denied("nottoday".into()))
        );
        assert_eq!(verdict(204, b""), Err(BadAnswer::Status(204)));
        assert_eq!(verdict(200, b"yes"), Err(BadAnswer::Form));
        assert_eq!(verdict(200, b"{}"), Err(BadAnswer::Form));
        for url in [
            "",
            "other",
            "rtmp://host/app",
            "rtmp://host/app/a/b",
            "rtmp://host/app/a b",
        ] {
            let body = serde_json::json!({"allowed": true, "new_url": url}).to_string();
            assert_eq!(verdict(200, body.as_bytes()), Err(BadAnswer::NewUrl), "{url}");
        }
    }
}
