//! The REST API without a socket: a router over a store of its own, a node that only remembers what it was asked.

use std::sync::Arc;

use axum::{Router, body::Body};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::Value;
use tower::ServiceExt as _;
use weir_origin::control::{
    addresses::{AddressBook, Addresses},
    api::{self, ApiState},
    health::Health,
    lifecycle::Slot,
    metrics::ControlMetrics,
    model::{Scope, Stream},
    node::{Node, StreamPolicy},
    notice::{Later, Notice, Outbox},
    secret,
    service::Control,
    store::{Millis, Store, StoreError, Tx, now},
};
use weir_shared::id::{ProjectId, StreamKey};

/// The API, its control plane, and who listens to it.
pub struct Api {
    pub control: Arc<Control>,
    pub node: Arc<Remembering>,
    pub outbox: Arc<Told>,
    /// A key with every scope, for all projects.
    pub key: String,
    router: Router,
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Null when there was no body.
    pub json: Value,
    pub text: String,
}

/// A node that only remembers.
#[derive(Debug, Default)]
pub struct Remembering {
    pub calls: Mutex<Vec<String>>,
    pub policies: Mutex<Vec<StreamPolicy>>,
}

impl Remembering {
    fn call(&self, what: &str, key: &StreamKey) {
        self.calls.lock().push(format!("{what} {key}"));
    }

    /// What was asked since the last time.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock())
    }

    /// What holds for a stream now.
    pub fn policy(&self, key: &str) -> Option<StreamPolicy> {
        self.policies
            .lock()
            .iter()
            .rev()
            .find(|p| p.key.as_str() == key)
            .cloned()
    }
}

impl Node for Remembering {
    fn apply(&self, policy: StreamPolicy) {
        self.policies.lock().push(policy);
    }
    fn remove(&self, key: &StreamKey) {
        self.call("remove", key);
    }
    fn kick(&self, key: &StreamKey) {
        self.call("kick", key);
    }
    fn end(&self, key: &StreamKey) {
        self.call("end", key);
    }
    fn hide(&self, key: &StreamKey) {
        self.call("hide", key);
    }
    fn show(&self, key: &StreamKey) {
        self.call("show", key);
    }
    fn hand_over(&self, key: &StreamKey, slot: Slot) {
        self.calls.lock().push(format!("hand over {key} {}", slot.as_str()));
    }
    fn carries(&self, _: &StreamKey) -> bool {
        false
    }
    fn clear_dvr(&self, key: &StreamKey) {
        self.call("clear", key);
    }
    fn health(&self, _: &StreamKey) -> Option<Health> {
        None
    }
}

/// An outbox that only remembers.
#[derive(Debug, Default)]
pub struct Told(pub Mutex<Vec<Notice>>);

impl Told {
    /// What was told since the last time.
    pub fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.0.lock())
            .into_iter()
            .map(Notice::as_str)
            .collect()
    }
}

impl Outbox for Told {
    fn record<'a>(
        &'a self,
        _: &'a mut Tx,
        notice: Notice,
        _: &'a Stream,
        _: Millis,
    ) -> Later<'a, Result<(), StoreError>> {
        self.0.lock().push(notice);
        Box::pin(async { Ok(()) })
    }
}

impl Api {
    pub async fn over(store: Store) -> anyhow::Result<Self> {
        let node = Arc::new(Remembering::default());
        let outbox = Arc::new(Told::default());
        let control = Control::new(
            store,
            node.clone(),
            outbox.clone(),
            ControlMetrics::new()?,
            "test-origin",
        );
        let key = control.first_key().await?.unwrap_or_default();
        let addresses = Addresses {
            host: "live.example.com".into(),
            rtmp_port: Some(1935),
            playback_base: "https://watch.example.com".into(),
            ..Addresses::default()
        };
        let state = ApiState {
            control: control.clone(),
            addresses: Arc::new(AddressBook::new(addresses)),
        };
        Ok(Self {
            control,
            node,
            outbox,
            key,
            router: api::router(api::calls(), state),
        })
    }

    /// A key with these scopes, for one project or all.
    pub async fn key_with(&self, project: Option<&str>, scopes: &[Scope]) -> anyhow::Result<String> {
        let project = project.map(str::parse::<ProjectId>).transpose()?;
        let (key, new) = secret::api_key(project, "test", scopes.to_vec(), now());
        let mut tx = self.control.store.begin().await?;
        tx.insert_key(&new).await?;
        tx.commit().await?;
        Ok(key)
    }

    /// A call with the first key.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Answer> {
        let key = self.key.clone();
        self.call_as(&key, method, path, body).await
    }

    pub async fn call_as(&self, key: &str, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {key}"));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |json| Body::from(json.to_string()));
        self.send(request.body(body)?).await
    }

    /// Any request at all.
    pub async fn send(&self, request: Request<Body>) -> anyhow::Result<Answer> {
        let response = self.router.clone().oneshot(request).await?;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await?.to_bytes();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            json: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            text: String::from_utf8_lossy(&bytes).into_owned(),
        })
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Answer> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// A stream in the default project, and its address.
    pub async fn stream(&self, body: Value) -> anyhow::Result<(Value, String)> {
        let made = self.post("/v1/projects/default/streams", body).await?;
        anyhow::ensure!(made.status == StatusCode::CREATED, "{}: {}", made.status, made.text);
        let path = format!(
            "/v1/projects/default/streams/{}",
            made.json["id"].as_str().unwrap_or_default()
        );
        Ok((made.json, path))
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }

    /// The word at the end of a problem's type. Fails unless it is a problem document of this status.
    pub fn problem(&self) -> anyhow::Result<String> {
        anyhow::ensure!(
            self.header("content-type") == "application/problem+json" && self.json["status"] == self.status.as_u16(),
            "{}: {}",
            self.status,
            self.text
        );
        let kind = self.json["type"].as_str().unwrap_or_default();
        Ok(kind.trim_start_matches("urn:weir:problem:").to_owned())
    }

    /// The fields that a problem names.
    pub fn wrong_fields(&self) -> Vec<&str> {
        let errors = self.json["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().filter_map(|error| error["field"].as_str()).collect()
    }
}
