//! Every way to say no: `application/problem+json` (RFC 9457), with the field and what would be right.
//!
//! Before this: all other files of `api/`. The word at the end of `type` is for programs and never changes.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{ContentBuilder, RefOr, ResponseBuilder, schema::Ref},
};

use crate::control::{
    model::{DVR_SECONDS_MIN, Scope},
    service::Refused,
    store::StoreError,
};

pub(crate) const PROBLEM_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Why a call did nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `urn:weir:problem:` and a word that programs can rely on.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for all problems of this type.
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What is wrong this time.
    pub detail: String,
    /// The fields that are wrong, all of them at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// A field, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    pub field: String,
    pub expected: String,
}

impl FieldError {
    pub fn new(field: &str, expected: &str) -> Self {
        Self {
            field: field.to_owned(),
            expected: expected.to_owned(),
        }
    }
}

impl Problem {
    fn new(status: StatusCode, word: &str, title: &str, detail: String) -> Self {
        Self {
            kind: format!("urn:weir:problem:{word}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail,
            errors: Vec::new(),
        }
    }

    pub fn bad_request(detail: String) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "malformed",
            "The request can't be read",
            detail,
        )
    }

    pub fn unauthorized(detail: &str) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "A valid API key is needed",
            detail.to_owned(),
        )
    }

    pub fn missing_scope(scope: Scope) -> Self {
        let detail = format!("this call needs an API key with the scope {}", scope.as_str());
        Self::forbidden(detail)
    }

    pub fn forbidden(detail: String) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "The API key does not allow this",
            detail,
        )
    }

    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", what.to_owned())
    }

    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "This address has no such method",
            "see /openapi.json for what it has".to_owned(),
        )
    }

    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "The body is too large",
            format!("at most {limit} bytes"),
        )
    }

    pub fn field_too_large(field: &str, limit: usize) -> Self {
        let mut problem = Self::too_large(limit);
        problem.detail = format!("{field} has at most {limit} bytes");
        problem.errors = vec![FieldError::new(field, &format!("at most {limit} bytes of JSON"))];
        problem
    }

    pub fn not_json() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not-json",
            "The body must be JSON",
            "send it with Content-Type: application/json".to_owned(),
        )
    }

    /// All wrong fields at once.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let told: Vec<_> = errors
            .iter()
            .map(|error| format!("{}: expected {}", error.field, error.expected))
            .collect();
        let mut problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            "Some values are not right",
            told.join("; "),
        );
        problem.errors = errors;
        problem
    }

    pub fn conflict(word: &str, detail: String) -> Self {
        Self::new(StatusCode::CONFLICT, word, "Not possible in the present state", detail)
    }

    pub fn precondition_failed(current: i64) -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "changed",
            "Somebody else has changed it",
            format!("read it again: its entity tag is \"{current}\" now"),
        )
    }

    pub fn unsatisfiable_range(length: u64) -> Self {
        Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "range",
            "The range starts past the end",
            format!("the file has {length} bytes"),
        )
    }

    pub fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "The database is busy",
            "try again in a second".to_owned(),
        )
    }

    /// A defect of ours: the log has the cause, the caller only that it was not their fault.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong here",
            "the server's log says what".to_owned(),
        )
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NoProject | Refused::NoStream | Refused::NoPlan => Self::not_found(&refused.to_string()),
            Refused::IllegalMove(refused) => Self::conflict("illegal-state", refused.to_string()),
            Refused::Taken(field) => {
                let mut problem = Self::conflict("taken", refused.to_string());
                problem.errors = vec![FieldError::new(field, "one that no other stream has")];
                problem
            }
            Refused::Changed { current } => Self::precondition_failed(current),
            Refused::OverPlan { field, limit } => {
                let mut problem = Self::forbidden(refused.to_string());
                problem.kind = "urn:weir:problem:over-plan".to_owned();
                problem.title = "The project's plan does not allow this".to_owned();
                problem.errors = vec![FieldError::new(field, &format!("at most {limit}"))];
                if field == "dvrDuration" {
                    // Whatever the plan, there is a shortest and a longest: too long is as wrong as too short.
                    problem.status = StatusCode::UNPROCESSABLE_ENTITY.as_u16();
                    problem.errors = vec![FieldError::new(field, &format!("{DVR_SECONDS_MIN} to {limit} seconds"))];
                }
                problem
            }
            Refused::Full { .. } => Self::conflict("full", refused.to_string()),
            Refused::IdempotencyReused => Self::invalid(vec![FieldError::new(
                "Idempotency-Key",
                "a new key for a new request; this one came with another body",
            )]),
            Refused::Name(error) => {
                tracing::error!(%error, "a name that was made up here is not well-formed");
                Self::internal()
            }
            Refused::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy | StoreError::Conflict => Self::unavailable(),
            // The same request is under way twice, and the other one was faster.
            StoreError::Taken => Self::conflict("taken", error.to_string()),
            StoreError::NotOwner => Self::conflict("not-owner", error.to_string()),
            other => {
                tracing::error!(error = %other, "the store failed");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_TYPE);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"weir\""));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

type Documented = BTreeMap<String, RefOr<utoipa::openapi::response::Response>>;

fn documented(statuses: &[(&str, &str)]) -> Documented {
    let problem = || {
        ContentBuilder::new()
            .schema(Some(Ref::from_schema_name(Problem::name())))
            .build()
    };
    statuses
        .iter()
        .map(|(status, description)| {
            let response = ResponseBuilder::new()
                .description(*description)
                .content("application/problem+json", problem())
                .build();
            ((*status).to_owned(), response.into())
        })
        .collect()
}

const READING: &[(&str, &str)] = &[
    ("401", "No valid API key"),
    (
        "403",
        "The key lacks the scope, or the project's plan does not allow this",
    ),
    ("404", "No such thing in this project"),
    ("422", "A value is not right; `errors` names the fields"),
    ("500", "A defect of the server's"),
    ("503", "The database is busy: try again"),
];

const WRITING: &[(&str, &str)] = &[
    ("400", "The body is no JSON"),
    ("409", "Not possible in the present state, which `detail` names"),
    ("413", "Body over 1 MiB, or metadata over 64 KiB"),
    ("415", "The body is not sent as JSON"),
];

/// What calls that only read may answer besides success.
pub struct ReadProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> Documented {
        documented(READING)
    }
}

/// What calls that change something may answer besides success.
pub struct WriteProblems;

impl IntoResponses for WriteProblems {
    fn responses() -> Documented {
        let mut all = documented(READING);
        all.extend(documented(WRITING));
        all
    }
}
