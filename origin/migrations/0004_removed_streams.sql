-- Streams that were removed a while ago, so that the other origins of a fleet hear of it. Forgotten after an hour.
CREATE TABLE removed_streams (
    stream_key TEXT   NOT NULL PRIMARY KEY,
    removed_at BIGINT NOT NULL
);
CREATE INDEX removed_streams_by_age ON removed_streams (removed_at);
