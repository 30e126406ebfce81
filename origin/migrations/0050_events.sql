-- What happened, in the order in which it was committed. Whoever writes an event takes the counter's row first and
-- holds it until the commit, so a reader that has seen number n will never see a smaller one appear later.
CREATE TABLE counters (
    name  TEXT   NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('events', 0);

CREATE TABLE events (
    seq        BIGINT NOT NULL PRIMARY KEY,
    id         TEXT   NOT NULL UNIQUE,
    project    TEXT   NOT NULL,
    kind       TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    -- The JSON that webhooks and the feed carry, byte for byte.
    body       TEXT   NOT NULL
);
CREATE INDEX events_by_project ON events (project, seq);
CREATE INDEX events_by_age ON events (created_at);
