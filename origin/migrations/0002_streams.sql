-- A stream is one JSON document; the columns beside it are what it is found, ordered and counted by.
CREATE TABLE streams (
    id         TEXT   NOT NULL PRIMARY KEY,
    project    TEXT   NOT NULL REFERENCES projects (id),
    stream_key TEXT   NOT NULL UNIQUE,
    status     TEXT   NOT NULL,
    -- Lower-case name, id, key and client user id, for `q`.
    search     TEXT   NOT NULL,
    -- Goes up with every write; the entity tag.
    version    BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    doc        TEXT   NOT NULL
);

-- Listing: newest first, ids break ties. `search` stands in the index so that looking for a word reads no documents.
CREATE INDEX streams_by_age ON streams (project, created_at DESC, id DESC, search);
CREATE INDEX streams_by_status ON streams (project, status, created_at DESC, id DESC);
-- What changed lately, for those who follow.
CREATE INDEX streams_by_change ON streams (updated_at);

-- How many streams a project has of each status: counting rows takes longer the more there are. In slots, so that writers
-- of one project rarely wait for each other; the sum is what counts.
CREATE TABLE stream_counts (
    project TEXT   NOT NULL,
    status  TEXT   NOT NULL,
    slot    BIGINT NOT NULL,
    n       BIGINT NOT NULL,
    PRIMARY KEY (project, status, slot)
);

-- Who owns a stream's publish. A write that names an older generation changes nothing.
CREATE TABLE leases (
    stream_key TEXT   NOT NULL PRIMARY KEY,
    owner      TEXT   NOT NULL,
    generation BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
