-- The life of a bug: who has it, when it moved on, the release that was to fix it, and everything that people and heald did to it.
ALTER TABLE system_bugs ADD COLUMN assigned_to TEXT NOT NULL DEFAULT '';
ALTER TABLE system_bugs ADD COLUMN last_release TEXT NOT NULL DEFAULT '';
ALTER TABLE system_bugs ADD COLUMN fixed_in_release TEXT NOT NULL DEFAULT '';
ALTER TABLE system_bugs ADD COLUMN analyzed_at BIGINT;
ALTER TABLE system_bugs ADD COLUMN fixed_at BIGINT;
ALTER TABLE system_bugs ADD COLUMN closed_at BIGINT;
ALTER TABLE system_bugs ADD COLUMN reopened_count BIGINT NOT NULL DEFAULT 0;
ALTER TABLE system_bugs ADD COLUMN merged_into TEXT;

CREATE TABLE bug_history (
    id           TEXT PRIMARY KEY,
    bug_id       TEXT NOT NULL REFERENCES system_bugs (id),
    at           BIGINT NOT NULL,
    actor        TEXT NOT NULL,
    action       TEXT NOT NULL,
    from_status  TEXT NOT NULL,
    to_status    TEXT NOT NULL,
    text         TEXT NOT NULL
);
CREATE INDEX bug_history_by_bug ON bug_history (bug_id, at);
