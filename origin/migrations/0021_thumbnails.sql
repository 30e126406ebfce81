-- 1: the recording has a track of thumbnails.
ALTER TABLE recordings ADD COLUMN thumbnails BIGINT NOT NULL DEFAULT 0;
