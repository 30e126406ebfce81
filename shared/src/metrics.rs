//! The admin side of a node: `/metrics`, `/livez`, `/readyz`, and what a node adds.

use std::sync::Arc;

use http::{HeaderValue, Method, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use prometheus::{Encoder as _, Registry, TextEncoder};

use crate::serve::{Handler, Peer, body::Body, drain::Drain, respond};

/// Further addresses of an admin port.
pub trait AdminExtra: Send + Sync + 'static {
    /// `None`: not mine.
    fn respond(&self, request: &Parts) -> Option<Response<Body>>;
}

/// The admin port's handler. It is not meant to be public.
#[derive(Clone)]
pub struct Admin {
    registry: Registry,
    drain: Drain,
    extra: Option<Arc<dyn AdminExtra>>,
}

impl Admin {
    pub fn new(registry: Registry, drain: Drain) -> Self {
        Self {
            registry,
            drain,
            extra: None,
        }
    }

    #[must_use]
    pub fn with(mut self, extra: Arc<dyn AdminExtra>) -> Self {
        self.extra = Some(extra);
        self
    }

    fn metrics(&self) -> Response<Body> {
        let mut text = Vec::new();
        let encoder = TextEncoder::new();
        match encoder.encode(&self.registry.gather(), &mut text) {
            Ok(()) => {
                let mut response = Response::new(Body::full(text.into()));
                if let Ok(kind) = HeaderValue::try_from(encoder.format_type()) {
                    response.headers_mut().insert(CONTENT_TYPE, kind);
                }
                response
            }
            Err(error) => respond::refusal(StatusCode::INTERNAL_SERVER_ERROR, "metrics", &error.to_string()),
        }
    }
}

impl Handler for Admin {
    async fn handle(&self, _: Peer, request: Box<Parts>) -> Response<Body> {
        if request.method != Method::GET && request.method != Method::HEAD {
            return respond::method_not_allowed();
        }
        match request.uri.path() {
            "/metrics" => self.metrics(),
            "/livez" => Response::new(Body::full("alive\n".into())),
            "/readyz" if self.drain.is_draining() => {
                respond::refusal_until(StatusCode::SERVICE_UNAVAILABLE, "draining", "this node is ending", 1)
            }
            "/readyz" => Response::new(Body::full("ready\n".into())),
            _ => self
                .extra
                .as_ref()
                .and_then(|extra| extra.respond(&request))
                .unwrap_or_else(|| respond::refusal(StatusCode::NOT_FOUND, "not_found", "there is no such page")),
        }
    }
}
