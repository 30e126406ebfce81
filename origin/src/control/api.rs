//! The REST API: addresses and JSON as the public contract has them, the OpenAPI document made from the same code.
//!
//! Before this: `api/serve.rs`, the listener. After this: `service.rs`. Read a call in the order `extract.rs` (who, what)
//! → the call → `view.rs` or `problem.rs`.

#![allow(unused_qualifications, reason = "utoipa's macros write names out in full")]

mod body;
mod commands;
mod download;
pub mod extract;
mod keys;
pub mod page;
mod playback;
pub mod problem;
mod projects;
mod recordings;
mod serve;
mod streams;
pub mod view;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Request, State},
    middleware::Next,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderValue,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS},
};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        SecurityRequirement,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use self::problem::Problem;
use super::{addresses::AddressBook, service::Control};

pub use serve::serve;

/// Longest time a call may take, its body's arrival included. Work in the store that is under way is rolled back.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What every call has at hand.
#[derive(Clone)]
pub struct ApiState {
    pub control: Arc<Control>,
    pub addresses: Arc<AddressBook>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Weir",
        description = "Streams, their keys and their life. Every call needs `Authorization: Bearer <API key>`; every refusal is a \
                       problem document (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(Problem)),
    modifiers(&BearerKeys),
    tags(
        (name = "streams", description = "What is broadcast"),
        (name = "lifecycle", description = "IDLE → LIVE → DISABLED → IDLE"),
        (name = "credentials", description = "What encoders push with"),
        (name = "playback", description = "Signed playback"),
        (name = "recording", description = "What was broadcast, to watch again"),
        (name = "keys", description = "API keys: only a hash is kept"),
        (name = "projects", description = "Who owns streams"),
        (name = "plans", description = "What a project may have"),
    ),
)]
struct Document;

struct BearerKeys;

impl Modify for BearerKeys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key: `weir_…`"))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("apiKey", SecurityScheme::Http(scheme));
        document.security = Some(vec![SecurityRequirement::new("apiKey", Vec::<String>::new())]);
    }
}

/// All calls together with their description. Further modules add theirs with `merge`.
pub fn calls() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(streams::routes())
        .merge(commands::routes())
        .merge(playback::routes())
        .merge(recordings::routes())
        .merge(keys::routes())
        .merge(projects::routes())
}

/// Turns the calls into something that can be served: adds `/openapi.json`, `/docs` and the refusals of wrong addresses.
pub fn router(calls: OpenApiRouter<ApiState>, state: ApiState) -> Router {
    let (calls, document) = calls.split_for_parts();
    let document = Arc::new(document);
    calls
        .route("/openapi.json", get(move || openapi(document.clone())))
        .route("/docs", get(docs))
        .fallback(async || Problem::not_found("there is no such address; see /openapi.json"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(axum::middleware::from_fn_with_state(state.clone(), around))
        .with_state(state)
}

async fn openapi(document: Arc<utoipa::openapi::OpenApi>) -> Response {
    Json(document.as_ref()).into_response()
}

/// One page of our own: nothing is fetched from anywhere else.
async fn docs(State(_): State<ApiState>) -> Response {
    let mut response = Html(include_str!("api/docs.html")).into_response();
    response.headers_mut().insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    );
    response
}

/// Around every call: a limit of time, a count, and headers that keep answers, which hold secrets, out of caches.
async fn around(State(api): State<ApiState>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let mut response = match tokio::time::timeout(CALL_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable().into_response(),
    };
    let headers = response.headers_mut();
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    api.control
        .metrics
        .answered(response.status(), started.elapsed().as_secs_f64());
    response
}
