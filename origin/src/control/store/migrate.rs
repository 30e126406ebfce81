//! The schema, in numbered steps that are part of the program. A step that was released is never changed: add a new one.
//!
//! 0001–0049 belong to streams, keys and leases, 0050–0099 to events and webhooks.

use sqlx::{
    SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};

/// Version, name, statements. Both databases run the same text.
const STEPS: &[(i64, &str, &str)] = &[
    (1, "projects", include_str!("../../../migrations/0001_projects.sql")),
    (2, "streams", include_str!("../../../migrations/0002_streams.sql")),
    (3, "api keys", include_str!("../../../migrations/0003_api_keys.sql")),
    (
        4,
        "removed streams",
        include_str!("../../../migrations/0004_removed_streams.sql"),
    ),
    (
        5,
        "slot leases",
        include_str!("../../../migrations/0005_slot_leases.sql"),
    ),
    (6, "secrets", include_str!("../../../migrations/0006_secrets.sql")),
    (
        7,
        "limits changes",
        include_str!("../../../migrations/0007_limits_changes.sql"),
    ),
    (
        20,
        "recordings",
        include_str!("../../../migrations/0020_recordings.sql"),
    ),
    (
        21,
        "thumbnails",
        include_str!("../../../migrations/0021_thumbnails.sql"),
    ),
    (50, "events", include_str!("../../../migrations/0050_events.sql")),
    (51, "webhooks", include_str!("../../../migrations/0051_webhooks.sql")),
    (52, "nodes", include_str!("../../../migrations/0052_nodes.sql")),
];

pub(super) fn migrator() -> Migrator {
    let steps = STEPS.iter().map(|(version, name, sql)| {
        Migration::new(
            *version,
            (*name).into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    let mut migrator = Migrator::with_migrations(steps.collect());
    // A database that a newer program has opened stays usable for this one: steps only add.
    migrator.set_ignore_missing(true);
    migrator
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_distinct_numbers_in_order() {
        assert!(STEPS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
