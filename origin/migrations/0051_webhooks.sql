CREATE TABLE webhook_endpoints (
    id          TEXT   NOT NULL PRIMARY KEY,
    project     TEXT   NOT NULL REFERENCES projects (id),
    url         TEXT   NOT NULL,
    description TEXT   NOT NULL,
    -- Separated by spaces: *, stream.*, stream.live, …
    filter      TEXT   NOT NULL,
    -- Deliveries are signed with it, so it is kept as it is.
    secret      TEXT   NOT NULL,
    -- 1: events are delivered. 0: nothing is sent, nothing is queued.
    active      BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL
);
CREATE INDEX webhook_endpoints_by_project ON webhook_endpoints (project, created_at DESC, id DESC);

-- One event for one endpoint.
CREATE TABLE deliveries (
    id            TEXT   NOT NULL PRIMARY KEY,
    endpoint      TEXT   NOT NULL REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    event_seq     BIGINT NOT NULL REFERENCES events (seq) ON DELETE CASCADE,
    -- pending, delivered, failed
    state         TEXT   NOT NULL,
    attempts      BIGINT NOT NULL,
    -- Tries go on for a day after this.
    since         BIGINT NOT NULL,
    next_at       BIGINT NOT NULL,
    -- Until then one origin is trying: nobody else does.
    lease_until   BIGINT NOT NULL,
    redelivery_of TEXT,
    created_at    BIGINT NOT NULL
);
CREATE INDEX deliveries_due ON deliveries (state, endpoint, next_at);
CREATE INDEX deliveries_by_age ON deliveries (endpoint, created_at DESC, id DESC);
CREATE INDEX deliveries_by_event ON deliveries (event_seq);

-- What became of each try.
CREATE TABLE delivery_attempts (
    delivery TEXT   NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    attempt  BIGINT NOT NULL,
    at       BIGINT NOT NULL,
    ms       BIGINT NOT NULL,
    -- NULL: there was no answer.
    status   BIGINT,
    error    TEXT,
    PRIMARY KEY (delivery, attempt)
);
