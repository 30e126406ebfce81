-- API keys: of the secret only its SHA-256 is kept.
CREATE TABLE api_keys (
    id         TEXT   NOT NULL PRIMARY KEY,
    -- NULL: every project.
    project    TEXT   REFERENCES projects (id),
    name       TEXT   NOT NULL,
    -- SHA-256 of the whole key, lower-case hexadecimal.
    hash       TEXT   NOT NULL UNIQUE,
    -- First characters of the key, for people who look for it in a list.
    prefix     TEXT   NOT NULL,
    -- Separated by spaces.
    scopes     TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX api_keys_by_age ON api_keys (created_at DESC, id DESC);

-- Answers to creating calls that carried an Idempotency-Key.
CREATE TABLE idempotency_keys (
    project      TEXT   NOT NULL,
    key          TEXT   NOT NULL,
    -- SHA-256 of the request's body.
    request_hash TEXT   NOT NULL,
    stream_id    TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (project, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
