//! API keys of a project. The key itself is in the answer to its creation and nowhere else, ever.

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiState,
    extract::{Caller, InProject, JsonBody},
    problem::{FieldError, Problem, ReadProblems, WriteProblems},
    view::timestamp,
};
use crate::control::{
    model::{ApiKey, NAME_CHARS, Scope},
    secret,
    service::Refused,
    store::now,
};

/// Keys that a list shows.
const LISTED: u32 = 1000;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(revoke))
}

/// An API key, without the key.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKey)]
struct KeyView {
    id: String,
    name: String,
    /// The project it belongs to; null: all projects.
    project: Option<String>,
    scopes: Vec<Scope>,
    /// How the key begins.
    prefix: String,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    revoked_at: Option<String>,
}

impl From<&ApiKey> for KeyView {
    fn from(key: &ApiKey) -> Self {
        Self {
            id: key.id.clone(),
            name: key.name.clone(),
            project: key.project.as_ref().map(ToString::to_string),
            scopes: key.scopes.clone(),
            prefix: key.prefix.clone(),
            created_at: timestamp(key.created_at),
            revoked_at: key.revoked_at.map(timestamp),
        }
    }
}

/// A key that was just made. It is shown this once.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NewKeyView {
    /// For `Authorization: Bearer <key>`.
    key: String,
    record: KeyView,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct KeyList {
    items: Vec<KeyView>,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeyOrder {
    /// What the key is for.
    #[schema(max_length = 200, pattern = "^[^\\u0000]*$")]
    name: String,
    /// What it may do. Writing streams includes reading them; admin includes everything.
    #[schema(min_items = 1, max_items = 7)]
    scopes: Vec<Scope>,
}

impl KeyOrder {
    fn check(&self) -> Result<(), Problem> {
        let mut wrong = Vec::new();
        if self.name.chars().count() > NAME_CHARS || self.name.contains('\0') {
            wrong.push(FieldError::new("name", "at most 200 characters, none of them NUL"));
        }
        if self.scopes.is_empty() || self.scopes.len() > Scope::ALL.len() {
            wrong.push(FieldError::new("scopes", "1 to 7 scopes"));
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Problem::invalid(wrong)),
        }
    }
}

/// List the project's API keys, newest first
#[utoipa::path(
    get, path = "/v1/projects/{project}/keys", tag = "keys", operation_id = "listKeys",
    params(("project" = String, Path, description = "Project")),
    responses((status = 200, description = "The project's keys, revoked ones included; at most 1000", body = KeyList), ReadProblems),
)]
async fn list(
    caller: Caller,
    InProject(project): InProject,
    State(api): State<ApiState>,
) -> Result<Json<KeyList>, Problem> {
    caller.may_in(&project, Scope::Admin)?;
    exists(&api, &project).await?;
    let keys = api.control.store.list_keys(Some(&project), LISTED).await?;
    Ok(Json(KeyList {
        items: keys.iter().map(KeyView::from).collect(),
    }))
}

async fn exists(api: &ApiState, project: &weir_shared::id::ProjectId) -> Result<(), Problem> {
    match api.control.store.project(project).await? {
        Some(_) => Ok(()),
        None => Err(Refused::NoProject.into()),
    }
}

/// Make an API key
#[utoipa::path(
    post, path = "/v1/projects/{project}/keys", tag = "keys", operation_id = "createKey",
    params(("project" = String, Path, description = "Project")),
    request_body = KeyOrder,
    responses((status = 201, description = "The key, shown this once", body = NewKeyView), WriteProblems),
)]
async fn create(
    caller: Caller,
    InProject(project): InProject,
    State(api): State<ApiState>,
    body: JsonBody<KeyOrder>,
) -> Result<(StatusCode, Json<NewKeyView>), Problem> {
    caller.may_in(&project, Scope::Admin)?;
    body.value.check()?;
    exists(&api, &project).await?;
    let (key, new) = secret::api_key(Some(project), &body.value.name, body.value.scopes, now());
    let mut tx = api.control.store.begin().await?;
    tx.insert_key(&new).await?;
    tx.commit().await?;
    let record = KeyView::from(&new.record);
    Ok((StatusCode::CREATED, Json(NewKeyView { key, record })))
}

#[derive(Debug, Clone, Deserialize)]
struct KeyPath {
    key: String,
}

/// Revoke an API key
///
/// It fails at the very next call. Revoking it again changes nothing.
#[utoipa::path(
    delete, path = "/v1/projects/{project}/keys/{key}", tag = "keys", operation_id = "revokeKey",
    params(("project" = String, Path, description = "Project"), ("key" = String, Path, description = "Id of the API key")),
    responses((status = 204, description = "Revoked"), ReadProblems),
)]
async fn revoke(
    caller: Caller,
    InProject(project): InProject,
    Path(KeyPath { key }): Path<KeyPath>,
    State(api): State<ApiState>,
) -> Result<StatusCode, Problem> {
    caller.may_in(&project, Scope::Admin)?;
    let mut tx = api.control.store.begin().await?;
    // An id is text of ours; anything else names no key (and PostgreSQL takes no NUL).
    let known = !key.contains('\0') && tx.revoke_key(&project, &key, now()).await?;
    if !known {
        return Err(Problem::not_found("there is no such API key in this project"));
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
