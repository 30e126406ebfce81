//! Projects and plans in the store.

use sqlx::{AnyConnection, Row as _, any::AnyRow};
use weir_shared::id::{PlanId, ProjectId};

use super::{Millis, Store, StoreError, Tx, now};
use crate::control::model::{DEFAULT, Limits, Plan, Project};

impl Store {
    /// The project and plan named `default`, in a fresh database.
    pub(super) async fn seed(&self) -> Result<(), StoreError> {
        let (Ok(plan), Ok(project)) = (DEFAULT.parse::<PlanId>(), DEFAULT.parse::<ProjectId>()) else {
            return Ok(());
        };
        let at = now();
        let mut tx = self.begin().await?;
        sqlx::query("INSERT INTO plans (id, doc, created_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING")
            .bind(plan.as_str().to_owned())
            .bind(serde_json::to_string(&Limits::default())?)
            .bind(at)
            .execute(tx.connection())
            .await?;
        sqlx::query(
            "INSERT INTO projects (id, plan, name, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING",
        )
        .bind(project.as_str().to_owned())
        .bind(plan.as_str().to_owned())
        .bind(DEFAULT)
        .bind(at)
        .execute(tx.connection())
        .await?;
        tx.commit().await
    }

    pub async fn project(&self, id: &ProjectId) -> Result<Option<Project>, StoreError> {
        let row = sqlx::query("SELECT id, plan, name, created_at FROM projects WHERE id = $1")
            .bind(id.as_str().to_owned())
            .fetch_optional(self.reader())
            .await?;
        Ok(row.as_ref().map(project).transpose()?.flatten())
    }

    /// In order of their names, at most `limit`.
    pub async fn list_projects(&self, limit: u32) -> Result<Vec<Project>, StoreError> {
        let rows = sqlx::query("SELECT id, plan, name, created_at FROM projects ORDER BY id LIMIT $1")
            .bind(i64::from(limit))
            .fetch_all(self.reader())
            .await?;
        rows.iter().filter_map(|row| project(row).transpose()).collect()
    }

    pub async fn plan(&self, id: &PlanId) -> Result<Option<Plan>, StoreError> {
        let mut connection = self.reader().acquire().await?;
        let row = sqlx::query("SELECT id, doc, created_at FROM plans WHERE id = $1")
            .bind(id.as_str().to_owned())
            .fetch_optional(&mut *connection)
            .await?;
        Ok(row.as_ref().map(plan).transpose()?.flatten())
    }

    /// What a project may have. `None`: no such project.
    pub async fn limits(&self, project: &ProjectId) -> Result<Option<Limits>, StoreError> {
        let mut connection = self.reader().acquire().await?;
        limits(&mut connection, project).await
    }

    /// Projects whose limits were changed at or after a moment, each with how often in all; at most `limit`.
    pub async fn limits_changed_since(&self, since: Millis, limit: u32) -> Result<Vec<(ProjectId, i64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, limits_version FROM projects WHERE limits_changed_at >= $1 ORDER BY limits_changed_at LIMIT $2",
        )
        .bind(since)
        .bind(i64::from(limit))
        .fetch_all(self.reader())
        .await?;
        limits_versions(&rows)
    }

    /// In order of their names, at most `limit`.
    pub async fn list_plans(&self, limit: u32) -> Result<Vec<Plan>, StoreError> {
        let rows = sqlx::query("SELECT id, doc, created_at FROM plans ORDER BY id LIMIT $1")
            .bind(i64::from(limit))
            .fetch_all(self.reader())
            .await?;
        rows.iter().filter_map(|row| plan(row).transpose()).collect()
    }
}

impl Tx {
    pub async fn limits(&mut self, project: &ProjectId) -> Result<Option<Limits>, StoreError> {
        limits(self.connection(), project).await
    }

    /// Adds or changes a plan. A change holds for its projects at once: followers hear of each.
    pub async fn put_plan(&mut self, plan: &Plan, at: Millis) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO plans (id, doc, created_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET doc = excluded.doc",
        )
        .bind(plan.id.as_str().to_owned())
        .bind(serde_json::to_string(&plan.limits)?)
        .bind(plan.created_at)
        .execute(self.connection())
        .await?;
        let rows = sqlx::query(
            "UPDATE projects SET limits_version = limits_version + 1, limits_changed_at = $1 WHERE plan = $2 \
             RETURNING id, limits_version",
        )
        .bind(at)
        .bind(plan.id.as_str().to_owned())
        .fetch_all(self.connection())
        .await?;
        self.note_limits(&rows)
    }

    /// Adds or changes a project. Its plan has to exist; followers hear if it is another one than before.
    pub async fn put_project(&mut self, project: &Project, at: Millis) -> Result<(), StoreError> {
        let moved = sqlx::query(
            "UPDATE projects SET limits_version = limits_version + 1, limits_changed_at = $1 \
             WHERE id = $2 AND plan <> $3 RETURNING id, limits_version",
        )
        .bind(at)
        .bind(project.id.as_str().to_owned())
        .bind(project.plan.as_str().to_owned())
        .fetch_all(self.connection())
        .await?;
        sqlx::query(
            "INSERT INTO projects (id, plan, name, created_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (id) DO UPDATE SET plan = excluded.plan, name = excluded.name",
        )
        .bind(project.id.as_str().to_owned())
        .bind(project.plan.as_str().to_owned())
        .bind(project.name.clone())
        .bind(project.created_at)
        .execute(self.connection())
        .await?;
        self.note_limits(&moved)
    }

    fn note_limits(&mut self, rows: &[AnyRow]) -> Result<(), StoreError> {
        let changed = limits_versions(rows)?;
        self.limits_changed.extend(changed);
        Ok(())
    }
}

/// Projects and how often their limits were changed.
fn limits_versions(rows: &[AnyRow]) -> Result<Vec<(ProjectId, i64)>, StoreError> {
    let mut versions = Vec::with_capacity(rows.len());
    for row in rows {
        let id: String = row.try_get("id")?;
        // A name that this program could not have written is nobody's.
        if let Ok(id) = id.parse() {
            versions.push((id, row.try_get("limits_version")?));
        }
    }
    Ok(versions)
}

async fn limits(connection: &mut AnyConnection, project: &ProjectId) -> Result<Option<Limits>, StoreError> {
    let row = sqlx::query(
        "SELECT plans.doc AS doc, projects.limits_version FROM projects JOIN plans ON plans.id = projects.plan \
         WHERE projects.id = $1",
    )
    .bind(project.as_str().to_owned())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let text: String = row.try_get("doc")?;
    Ok(Some(Limits {
        changes: row.try_get("limits_version")?,
        ..serde_json::from_str(&text)?
    }))
}

/// `None`: a name this program could not have written.
fn project(row: &AnyRow) -> Result<Option<Project>, StoreError> {
    let (id, plan): (String, String) = (row.try_get("id")?, row.try_get("plan")?);
    let (Ok(id), Ok(plan)) = (id.parse(), plan.parse()) else {
        return Ok(None);
    };
    Ok(Some(Project {
        id,
        plan,
        name: row.try_get("name")?,
        created_at: row.try_get("created_at")?,
    }))
}

fn plan(row: &AnyRow) -> Result<Option<Plan>, StoreError> {
    let (id, text): (String, String) = (row.try_get("id")?, row.try_get("doc")?);
    let Ok(id) = id.parse() else { return Ok(None) };
    Ok(Some(Plan {
        id,
        limits: serde_json::from_str(&text)?,
        created_at: row.try_get("created_at")?,
    }))
}
