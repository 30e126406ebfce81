//! From a request to typed values: who calls, which stream, which body. Whatever is wrong becomes a [`Problem`].
//!
//! Before this: `api.rs`, the router. After this: the calls.

use std::time::Duration;

use axum::extract::{FromRef, FromRequest, FromRequestParts, Path, Request};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, IF_MATCH},
    request::Parts,
};
use http_body_util::{BodyExt as _, Limited};
use serde::{Deserialize, de::DeserializeOwned};
use weir_shared::id::{ProjectId, StreamId};

use super::{
    ApiState,
    problem::{FieldError, Problem},
};
use crate::control::{
    model::{ApiKey, Scope},
    secret::{KEY_PREFIX, sha256_hex},
    service::IfMatch,
};

/// Largest request body, in bytes.
pub const BODY_BYTES: usize = 1 << 20;
/// Time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest API key and Idempotency-Key, in bytes.
const KEY_BYTES: usize = 255;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Whoever calls, with a key that is valid at this moment.
#[derive(Debug, Clone)]
pub struct Caller(pub ApiKey);

impl Caller {
    /// The key has the scope.
    pub fn may(&self, scope: Scope) -> Result<(), Problem> {
        match self.0.allows(scope) {
            true => Ok(()),
            false => Err(Problem::missing_scope(scope)),
        }
    }

    /// The key has the scope and belongs to this project, or to all. Foreign projects do not exist for it.
    pub fn may_in(&self, project: &ProjectId, scope: Scope) -> Result<(), Problem> {
        match &self.0.project {
            Some(own) if own != project => Err(Problem::not_found("there is no such project")),
            _ => self.may(scope),
        }
    }

    /// The key has the scope in all projects: for plans and projects themselves.
    pub fn may_everywhere(&self, scope: Scope) -> Result<(), Problem> {
        self.may(scope)?;
        match &self.0.project {
            Some(_) => Err(Problem::forbidden(
                "this call needs an API key of all projects".to_owned(),
            )),
            None => Ok(()),
        }
    }
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    ApiState: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let secret = bearer(&parts.headers)?;
        let api = ApiState::from_ref(state);
        // Asked of the store each time: a revoked key fails at the very next call.
        match api.control.store.key_by_hash(&sha256_hex(secret.as_bytes())).await? {
            Some(key) if key.revoked_at.is_none() => Ok(Self(key)),
            Some(_) => Err(Problem::unauthorized("this API key was revoked")),
            None => Err(Problem::unauthorized("this API key is unknown")),
        }
    }
}

/// A header came more than once.
struct Repeated;

/// Of two that differ, this program and a proxy before it may each believe another one: neither counts.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Repeated> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (first, None) => Ok(first),
        _ => Err(Repeated),
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || Problem::unauthorized("send it as Authorization: Bearer weir_…");
    let value = single(headers, &AUTHORIZATION)
        .map_err(|_| missing())?
        .ok_or_else(missing)?;
    let (scheme, secret) = value
        .to_str()
        .ok()
        .and_then(|v| v.split_once(' '))
        .ok_or_else(missing)?;
    let secret = secret.trim();
    let formed = secret.starts_with(KEY_PREFIX) && secret.len() <= KEY_BYTES;
    match scheme.eq_ignore_ascii_case("bearer") && formed {
        true => Ok(secret),
        false => Err(missing()),
    }
}

/// `/v1/projects/{project}/…`
#[derive(Debug, Clone, Deserialize)]
struct RawPath {
    project: String,
    stream: Option<String>,
}

async fn raw_path<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<RawPath, Problem> {
    let path: Result<Path<RawPath>, _> = Path::from_request_parts(parts, state).await;
    path.map(|Path(raw)| raw)
        .map_err(|_| Problem::not_found("there is no such address"))
}

/// The project of an address. A name that can't be one is not found.
#[derive(Debug, Clone)]
pub struct InProject(pub ProjectId);

impl<S: Send + Sync> FromRequestParts<S> for InProject {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw = raw_path(parts, state).await?;
        project(&raw).map(Self)
    }
}

/// The stream of an address.
#[derive(Debug, Clone)]
pub struct OfStream {
    pub project: ProjectId,
    pub id: StreamId,
}

impl<S: Send + Sync> FromRequestParts<S> for OfStream {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw = raw_path(parts, state).await?;
        let id = raw.stream.as_deref().and_then(|id| id.parse().ok());
        Ok(Self {
            project: project(&raw)?,
            id: id.ok_or_else(|| Problem::not_found("there is no such stream in this project"))?,
        })
    }
}

fn project(raw: &RawPath) -> Result<ProjectId, Problem> {
    raw.project
        .parse()
        .map_err(|_| Problem::not_found("there is no such project"))
}

/// A JSON body of a known form, and the SHA-256 of its bytes.
#[derive(Debug, Clone)]
pub struct JsonBody<T> {
    pub value: T,
    pub hash: String,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::not_json());
        }
        let bytes = body(request).await?;
        Ok(Self {
            value: parse(&bytes)?,
            hash: sha256_hex(&bytes),
        })
    }
}

/// A body that may be left out.
#[derive(Debug, Clone)]
pub struct OptionalJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let json = is_json(request.headers());
        let bytes = body(request).await?;
        match (bytes.is_empty(), json) {
            (true, _) => Ok(Self(T::default())),
            (false, false) => Err(Problem::not_json()),
            (false, true) => parse(&bytes).map(Self),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = single(headers, &CONTENT_TYPE).ok().flatten();
    let kind = kind.and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

async fn body(request: Request) -> Result<bytes::Bytes, Problem> {
    let told = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|length| length > BODY_BYTES) {
        return Err(Problem::too_large(BODY_BYTES));
    }
    let arrival = Limited::new(request.into_body(), BODY_BYTES).collect();
    match tokio::time::timeout(BODY_TIMEOUT, arrival).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::too_large(BODY_BYTES)),
        Ok(Err(_)) => Err(Problem::bad_request("the body ended early".to_owned())),
        Err(_) => Err(Problem::bad_request("the body took too long to arrive".to_owned())),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would take a list for a struct, field by field.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::invalid(vec![FieldError::new("body", "an object")]));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner();
        match cause.classify() {
            serde_json::error::Category::Data => Problem::invalid(vec![misfit("body", &path, &cause.to_string())]),
            _ => Problem::bad_request(cause.to_string()),
        }
    })?;
    json.end().map_err(|error| Problem::bad_request(error.to_string()))?;
    Ok(value)
}

/// Which field is not right, and what would be. `whole` stands for all of it, `path` is where serde stopped.
fn misfit(whole: &str, path: &str, message: &str) -> FieldError {
    let inside = |name: &str| match path {
        "." => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    for (what, expected) in [
        ("missing", "a value: it is missing"),
        ("duplicate", "one value: there are two"),
    ] {
        let named = message
            .strip_prefix(what)
            .and_then(|rest| rest.strip_prefix(" field `"));
        if let Some((name, _)) = named.and_then(|rest| rest.split_once('`')) {
            return FieldError::new(&inside(name), expected);
        }
    }
    let field = if path == "." { whole } else { path };
    FieldError::new(field, &reworded(message))
}

/// serde says what it found and what it expected; only the latter helps.
fn reworded(message: &str) -> String {
    let expected = message
        .split_once("expected ")
        .map_or(message, |(_, expected)| expected);
    let end = expected.rfind(" at line ").unwrap_or(expected.len());
    match expected.get(..end).unwrap_or(expected) {
        // Names of this program's own mean nothing to the caller.
        own if own.starts_with("struct ") => "an object".to_owned(),
        expected => expected.to_owned(),
    }
}

/// The query of an address, of a known form.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(pairs).map(Self).map_err(|error| {
            let path = error.path().to_string();
            Problem::invalid(vec![misfit("query", &path, &error.inner().to_string())])
        })
    }
}

/// Which version a change is meant for (RFC 9110 section 13.1.1).
impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let headers = parts.headers.get_all(IF_MATCH);
        // As many tags as a request's head has room for.
        let tags = headers
            .iter()
            .flat_map(|value| value.to_str().unwrap_or_default().split(','));
        let mut versions = Vec::new();
        for tag in tags.map(str::trim) {
            if tag == "*" {
                return Ok(Self::Any);
            }
            // Weak tags never match (RFC 9110 section 8.8.3.2), nor do those that are not ours.
            let number = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            versions.extend(number.and_then(|number| number.parse::<i64>().ok()));
        }
        match parts.headers.contains_key(IF_MATCH) {
            true => Ok(Self::OneOf(versions)),
            false => Ok(Self::Any),
        }
    }
}

/// A caller's own name for a creating request.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let value = match single(&parts.headers, &IDEMPOTENCY_KEY) {
            Ok(None) => return Ok(Self(None)),
            Ok(Some(value)) => value.to_str().ok(),
            Err(Repeated) => None,
        };
        match value {
            Some(text) if (1..=KEY_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(Self(Some(text.to_owned())))
            }
            _ => Err(Problem::invalid(vec![FieldError::new(
                "Idempotency-Key",
                "one header of 1 to 255 printable ASCII characters without spaces",
            )])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        name: String,
        inner: Option<Box<Self>>,
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        let told = |text: &str| {
            let error = parse::<Order>(text.as_bytes()).unwrap_err().errors.remove(0);
            format!("{}: {}", error.field, error.expected)
        };
        for (text, expected) in [
            ("{}", "name: a value: it is missing"),
            (r#"{"name": "a", "name": "b"}"#, "name: one value: there are two"),
            (r#"{"name": "a", "inner": {}}"#, "inner.name: a value: it is missing"),
            (r#"{"name": 7}"#, "name: a string"),
            (r#"{"name": "a", "nmae": 1}"#, "nmae: `name` or `inner`"),
            ("7", "body: an object"),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
        let order = Order {
            name: "a".to_owned(),
            inner: None,
        };
        assert_eq!(parse::<Order>(br#"{"name": "a"}"#).ok(), Some(order));
    }
}
