-- What became of recordings. A recording outlives its stream: nothing refers to the stream's row.
CREATE TABLE recordings (
    stream_key  TEXT   NOT NULL,
    -- Names of one stream sort by time.
    name        TEXT   NOT NULL,
    project     TEXT   NOT NULL,
    stream_id   TEXT   NOT NULL,
    -- recording, completed, failed, deleting
    state       TEXT   NOT NULL,
    started_at  BIGINT NOT NULL,
    changed_at  BIGINT NOT NULL,
    duration_ms BIGINT NOT NULL,
    bytes       BIGINT NOT NULL,
    message     TEXT,
    -- What viewers need once the stream itself is gone: 1 and the secret if addresses must be signed.
    signed          BIGINT NOT NULL,
    playback_secret TEXT   NOT NULL,
    PRIMARY KEY (stream_key, name)
);

CREATE INDEX recordings_by_stream ON recordings (project, stream_id, name DESC);
CREATE INDEX recordings_by_state ON recordings (state);
