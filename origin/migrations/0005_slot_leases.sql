-- Who owns a publish of a stream: primary and backup may be pushed to different origins. A write that names an older
-- generation changes nothing.
CREATE TABLE slot_leases (
    stream_key TEXT   NOT NULL,
    -- primary, backup
    slot       TEXT   NOT NULL,
    owner      TEXT   NOT NULL,
    generation BIGINT NOT NULL,
    -- 0: given back.
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (stream_key, slot)
);
CREATE INDEX slot_leases_by_expiry ON slot_leases (expires_at);
DROP TABLE leases;
