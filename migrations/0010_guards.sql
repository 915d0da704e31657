-- What people set to keep heald from acting: kill switches, maintenance windows, change freezes. Rows stay when they are over.
CREATE TABLE healing_holds (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL CHECK (kind IN ('pause', 'maintenance', 'freeze')),
    scope      TEXT NOT NULL CHECK (scope IN ('all', 'service', 'strategy')),
    name       TEXT NOT NULL,
    reason     TEXT NOT NULL,
    actor      TEXT NOT NULL,
    starts_at  BIGINT NOT NULL,
    ends_at    BIGINT,
    lifted_at  BIGINT,
    lifted_by  TEXT NOT NULL
);
CREATE INDEX healing_holds_open ON healing_holds (starts_at) WHERE lifted_at IS NULL;

-- What an attempt costs of the budget, and the harm that was seen after it ('' for none).
ALTER TABLE healing_results ADD COLUMN risk TEXT NOT NULL DEFAULT 'safe';
ALTER TABLE healing_results ADD COLUMN harm TEXT NOT NULL DEFAULT '';
CREATE INDEX self_heal_events_by_target ON self_heal_events (target, opened_at);
