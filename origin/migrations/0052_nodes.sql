-- Where edges reach the origins of this fleet. Leases name their owners by the same names.
CREATE TABLE nodes (
    name    TEXT   NOT NULL PRIMARY KEY,
    -- Base address of its media: http://10.0.0.5:8081
    url     TEXT   NOT NULL,
    seen_at BIGINT NOT NULL
);
