-- Each node looks at every heartbeat for runs that a lost node has left.
CREATE INDEX patch_runs_unended ON patch_runs (node) WHERE ended_at IS NULL;
-- What retention deletes, oldest first.
CREATE INDEX patch_runs_by_end ON patch_runs (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX ai_calls_by_time ON ai_calls (at);
CREATE INDEX bug_analyses_by_time ON bug_analyses (at);
CREATE INDEX ai_fix_suggestions_dropped ON ai_fix_suggestions (created_at) WHERE status IN ('rejected', 'superseded');
