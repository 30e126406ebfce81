-- Plans say how much a project may have; projects own streams and API keys.
-- Types are those that SQLite and PostgreSQL share: TEXT and BIGINT. Times are milliseconds since 1970.
CREATE TABLE plans (
    id         TEXT   NOT NULL PRIMARY KEY,
    doc        TEXT   NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE projects (
    id         TEXT   NOT NULL PRIMARY KEY,
    plan       TEXT   NOT NULL REFERENCES plans (id),
    name       TEXT   NOT NULL,
    created_at BIGINT NOT NULL
);
