//! Projects and plans: for operators, with an `admin` key of all projects.

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use weir_shared::id::PlanId;

use super::{
    ApiState,
    extract::{Caller, InProject, JsonBody},
    problem::{FieldError, Problem, ReadProblems, WriteProblems},
    view::timestamp,
};
use crate::control::{
    model::{DVR_SECONDS_MAX, DVR_SECONDS_MIN, Limits, NAME_CHARS, Plan, Project, Scope},
    service::Refused,
    store::now,
};

/// Projects and plans that a list shows.
const LISTED: u32 = 1000;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_projects))
        .routes(routes!(get_project, put_project))
        .routes(routes!(list_plans))
        .routes(routes!(get_plan, put_plan))
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Project)]
struct ProjectView {
    id: String,
    name: String,
    plan: String,
    limits: Limits,
    /// Streams the project has.
    #[schema(minimum = 0)]
    streams: u64,
    #[schema(format = DateTime)]
    created_at: String,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ProjectSummary)]
struct ProjectLine {
    id: String,
    name: String,
    plan: String,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct ProjectList {
    items: Vec<ProjectLine>,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProjectOrder {
    #[schema(max_length = 200, pattern = "^[^\\u0000]*$")]
    name: String,
    /// An existing plan.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]+$")]
    plan: String,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Plan)]
struct PlanView {
    id: String,
    limits: Limits,
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<&Plan> for PlanView {
    fn from(plan: &Plan) -> Self {
        Self {
            id: plan.id.to_string(),
            limits: plan.limits.clone(),
            created_at: timestamp(plan.created_at),
        }
    }
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct PlanList {
    items: Vec<PlanView>,
}

/// List projects
#[utoipa::path(
    get, path = "/v1/projects", tag = "projects", operation_id = "listProjects",
    responses((status = 200, description = "At most 1000, in order of their names", body = ProjectList), ReadProblems),
)]
async fn list_projects(caller: Caller, State(api): State<ApiState>) -> Result<Json<ProjectList>, Problem> {
    caller.may_everywhere(Scope::Admin)?;
    let projects = api.control.store.list_projects(LISTED).await?;
    let line = |project: &Project| ProjectLine {
        id: project.id.to_string(),
        name: project.name.clone(),
        plan: project.plan.to_string(),
    };
    Ok(Json(ProjectList {
        items: projects.iter().map(line).collect(),
    }))
}

async fn project_view(api: &ApiState, project: Project) -> Result<Json<ProjectView>, Problem> {
    let store = &api.control.store;
    let limits = store.limits(&project.id).await?.ok_or(Refused::NoProject)?;
    Ok(Json(ProjectView {
        id: project.id.to_string(),
        name: project.name,
        plan: project.plan.to_string(),
        limits,
        streams: store.count_streams(&project.id).await?,
        created_at: timestamp(project.created_at),
    }))
}

/// Read a project, with its plan's limits
#[utoipa::path(
    get, path = "/v1/projects/{project}", tag = "projects", operation_id = "getProject",
    params(("project" = String, Path, description = "Project")),
    responses((status = 200, description = "The project", body = ProjectView), ReadProblems),
)]
async fn get_project(
    caller: Caller,
    InProject(id): InProject,
    State(api): State<ApiState>,
) -> Result<Json<ProjectView>, Problem> {
    caller.may_in(&id, Scope::StreamsRead)?;
    let project = api.control.store.project(&id).await?.ok_or(Refused::NoProject)?;
    project_view(&api, project).await
}

/// Add or change a project
#[utoipa::path(
    put, path = "/v1/projects/{project}", tag = "projects", operation_id = "putProject",
    params(("project" = String, Path, description = "Project: 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'")),
    request_body = ProjectOrder,
    responses((status = 200, description = "The project", body = ProjectView), WriteProblems),
)]
async fn put_project(
    caller: Caller,
    InProject(id): InProject,
    State(api): State<ApiState>,
    body: JsonBody<ProjectOrder>,
) -> Result<Json<ProjectView>, Problem> {
    caller.may_everywhere(Scope::Admin)?;
    let order = body.value;
    let mut wrong = Vec::new();
    if order.name.chars().count() > NAME_CHARS || order.name.contains('\0') {
        wrong.push(FieldError::new("name", "at most 200 characters, none of them NUL"));
    }
    let plan = order.plan.parse::<PlanId>();
    if let Err(error) = &plan {
        wrong.push(FieldError::new("plan", &error.to_string()));
    }
    let (true, Ok(plan)) = (wrong.is_empty(), plan) else {
        return Err(Problem::invalid(wrong));
    };
    let store = &api.control.store;
    if store.plan(&plan).await?.is_none() {
        return Err(Refused::NoPlan.into());
    }
    let created_at = store.project(&id).await?.map_or_else(now, |project| project.created_at);
    let project = Project {
        id,
        plan,
        name: order.name,
        created_at,
    };
    let mut tx = store.begin().await?;
    tx.put_project(&project, now()).await?;
    tx.commit().await?;
    project_view(&api, project).await
}

/// List plans
#[utoipa::path(
    get, path = "/v1/plans", tag = "plans", operation_id = "listPlans",
    responses((status = 200, description = "At most 1000, in order of their names", body = PlanList), ReadProblems),
)]
async fn list_plans(caller: Caller, State(api): State<ApiState>) -> Result<Json<PlanList>, Problem> {
    caller.may_everywhere(Scope::Admin)?;
    let plans = api.control.store.list_plans(LISTED).await?;
    Ok(Json(PlanList {
        items: plans.iter().map(PlanView::from).collect(),
    }))
}

#[derive(Debug, Clone, Deserialize)]
struct PlanPath {
    plan: String,
}

fn plan_id(path: &PlanPath) -> Result<PlanId, Problem> {
    path.plan.parse().map_err(|_| Refused::NoPlan.into())
}

/// Read a plan
#[utoipa::path(
    get, path = "/v1/plans/{plan}", tag = "plans", operation_id = "getPlan",
    params(("plan" = String, Path, description = "Plan")),
    responses((status = 200, description = "The plan", body = PlanView), ReadProblems),
)]
async fn get_plan(
    caller: Caller,
    Path(path): Path<PlanPath>,
    State(api): State<ApiState>,
) -> Result<Json<PlanView>, Problem> {
    caller.may_everywhere(Scope::Admin)?;
    let plan = api.control.store.plan(&plan_id(&path)?).await?.ok_or(Refused::NoPlan)?;
    Ok(Json(PlanView::from(&plan)))
}

/// Add or change a plan
///
/// Limits that are left out get their defaults. A change holds at once; what a project has already stays.
#[utoipa::path(
    put, path = "/v1/plans/{plan}", tag = "plans", operation_id = "putPlan",
    params(("plan" = String, Path, description = "Plan: 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'")),
    request_body = Limits,
    responses((status = 200, description = "The plan", body = PlanView), WriteProblems),
)]
async fn put_plan(
    caller: Caller,
    Path(path): Path<PlanPath>,
    State(api): State<ApiState>,
    body: JsonBody<Limits>,
) -> Result<Json<PlanView>, Problem> {
    caller.may_everywhere(Scope::Admin)?;
    let (id, limits) = (plan_id(&path)?, body.value);
    let ranges = [
        ("dvrSeconds", limits.dvr_seconds, DVR_SECONDS_MIN, DVR_SECONDS_MAX),
        ("qualities", limits.qualities, 0, 5),
        ("streams", limits.streams, 1, 1_000_000),
        ("idleTimeoutSeconds", limits.idle_timeout_seconds, 1, 3600),
        ("graceSeconds", limits.grace_seconds, 0, 300),
    ];
    let wrong: Vec<_> = ranges
        .into_iter()
        .filter(|(_, value, low, high)| !(low..=high).contains(&value))
        .map(|(field, _, low, high)| FieldError::new(field, &format!("{low} to {high}")))
        .collect();
    if !wrong.is_empty() {
        return Err(Problem::invalid(wrong));
    }
    let store = &api.control.store;
    let created_at = store.plan(&id).await?.map_or_else(now, |plan| plan.created_at);
    let mut tx = store.begin().await?;
    let plan = Plan { id, limits, created_at };
    // Followers take it to each stream that it concerns: not while the caller waits.
    tx.put_plan(&plan, now()).await?;
    tx.commit().await?;
    Ok(Json(PlanView::from(&plan)))
}
