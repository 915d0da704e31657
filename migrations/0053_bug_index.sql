-- Figures of bugs go by when they were detected, lists by when they occurred last (./dev check explain).
CREATE INDEX system_bugs_by_detected ON system_bugs (detected_at, id);
CREATE INDEX system_bugs_by_last ON system_bugs (last_occurred_at, id);
