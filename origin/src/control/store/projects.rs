//! Projects and plans in the store.

use sqlx::{AnyConnection, Row as _};
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

    /// Adds or changes a plan. A change holds for its projects at once.
    pub async fn put_plan(&mut self, id: &PlanId, limits: &Limits, at: Millis) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO plans (id, doc, created_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET doc = excluded.doc",
        )
        .bind(id.as_str().to_owned())
        .bind(serde_json::to_string(limits)?)
        .bind(at)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Adds or changes a project. Its plan has to exist.
    pub async fn put_project(&mut self, project: &Project) -> Result<(), StoreError> {
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
        Ok(())
    }
}

async fn limits(connection: &mut AnyConnection, project: &ProjectId) -> Result<Option<Limits>, StoreError> {
    let row = sqlx::query(
        "SELECT plans.doc AS doc FROM projects JOIN plans ON plans.id = projects.plan WHERE projects.id = $1",
    )
    .bind(project.as_str().to_owned())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let text: String = row.try_get("doc")?;
    Ok(Some(serde_json::from_str(&text)?))
}

/// `None`: a name this program could not have written.
fn project(row: &sqlx::any::AnyRow) -> Result<Option<Project>, StoreError> {
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

fn plan(row: &sqlx::any::AnyRow) -> Result<Option<Plan>, StoreError> {
    let (id, text): (String, String) = (row.try_get("id")?, row.try_get("doc")?);
    let Ok(id) = id.parse() else { return Ok(None) };
    Ok(Some(Plan {
        id,
        limits: serde_json::from_str(&text)?,
        created_at: row.try_get("created_at")?,
    }))
}
