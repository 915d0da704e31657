-- 1: an attempt may still be taken back. It keeps its target, also across a restart and for other nodes, and a restart goes on
-- with it. What is under way when heald is updated is undecided.
ALTER TABLE healing_results ADD COLUMN undecided SMALLINT NOT NULL DEFAULT 0;
UPDATE healing_results SET undecided = 1 WHERE dry_run = 0
    AND (state IN ('started', 'executed') OR (state = 'unknown' AND verified = '') OR rolled_back = 'running')
    AND event_id IN (SELECT id FROM self_heal_events
                     WHERE state IN ('open', 'awaiting_approval', 'healing', 'verifying', 'stabilizing'));
CREATE INDEX healing_results_undecided ON healing_results (id) WHERE undecided = 1;
