-- When what a project may have was last changed (another plan, or the plan itself), and how often: the origins that share
-- the database look at it, and let their streams know.
ALTER TABLE projects ADD COLUMN limits_version BIGINT NOT NULL DEFAULT 0;
ALTER TABLE projects ADD COLUMN limits_changed_at BIGINT NOT NULL DEFAULT 0;
CREATE INDEX projects_by_change ON projects (limits_changed_at);
