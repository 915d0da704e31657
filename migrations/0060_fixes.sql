-- Analysis and patches: what models were asked and what that cost, answers that are good for the next time, and the runs of the patch
-- pipeline, each a durable state machine. Times are microseconds since 1970, money is millionths of the configured currency.

-- One row per question to a model, answered or not.
CREATE TABLE ai_calls (
    id               TEXT PRIMARY KEY,
    at               BIGINT NOT NULL,
    day              TEXT NOT NULL,
    purpose          TEXT NOT NULL,
    provider         TEXT NOT NULL,
    model            TEXT NOT NULL,
    bug_id           TEXT NOT NULL,
    outcome          TEXT NOT NULL CHECK (outcome IN ('asked', 'answered', 'invalid', 'refused', 'failed', 'limited')),
    input_tokens     BIGINT NOT NULL,
    cached_tokens    BIGINT NOT NULL,
    output_tokens    BIGINT NOT NULL,
    cost_micros      BIGINT NOT NULL,
    took_us          BIGINT NOT NULL,
    tries            INTEGER NOT NULL,
    redactions       TEXT NOT NULL,
    error            TEXT NOT NULL
);
CREATE INDEX ai_calls_by_day ON ai_calls (day, provider);
CREATE INDEX ai_calls_by_bug ON ai_calls (bug_id, at);

-- Answers by fingerprint, code revision and form of the question: a repeated bug costs nothing.
CREATE TABLE ai_answers (
    answer_key   TEXT PRIMARY KEY,
    fingerprint  TEXT NOT NULL,
    revision     TEXT NOT NULL,
    provider     TEXT NOT NULL,
    model        TEXT NOT NULL,
    answer       TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    used_at      BIGINT NOT NULL,
    uses         BIGINT NOT NULL
);
CREATE INDEX ai_answers_by_use ON ai_answers (used_at);

-- What was found out about a bug, newest last: by a model, by rules, by a person.
CREATE TABLE bug_analyses (
    id                     TEXT PRIMARY KEY,
    bug_id                 TEXT NOT NULL REFERENCES system_bugs (id),
    at                     BIGINT NOT NULL,
    source                 TEXT NOT NULL CHECK (source IN ('model', 'rules', 'cache', 'pattern')),
    provider               TEXT NOT NULL,
    model                  TEXT NOT NULL,
    revision               TEXT NOT NULL,
    root_cause             TEXT NOT NULL,
    root_cause_hypothesis  TEXT NOT NULL,
    bug_classification     TEXT NOT NULL,
    estimated_impact       TEXT NOT NULL,
    prevention_tips        TEXT NOT NULL,
    comparison             TEXT NOT NULL,
    context                TEXT NOT NULL
);
CREATE INDEX bug_analyses_by_bug ON bug_analyses (bug_id, at);

-- Evidence gathered here, by which suggestions are ranked; a model's own confidence never is.
ALTER TABLE ai_fix_suggestions ADD COLUMN source TEXT NOT NULL DEFAULT 'model';
ALTER TABLE ai_fix_suggestions ADD COLUMN edits TEXT NOT NULL DEFAULT '';
ALTER TABLE ai_fix_suggestions ADD COLUMN revision TEXT NOT NULL DEFAULT '';
ALTER TABLE ai_fix_suggestions ADD COLUMN evidence TEXT NOT NULL DEFAULT '{}';
ALTER TABLE ai_fix_suggestions ADD COLUMN evidence_score BIGINT NOT NULL DEFAULT 0;

-- One run of a suggestion through the pipeline. `data` is the machine's state (core/patch_machine.hpp): evidence, intents, what
-- was pushed. `step` is what it does now or waits for, `outcome` how it ended.
CREATE TABLE patch_runs (
    id              TEXT PRIMARY KEY,
    bug_id          TEXT NOT NULL REFERENCES system_bugs (id),
    suggestion_id   TEXT NOT NULL,
    fingerprint     TEXT NOT NULL,
    service_name    TEXT NOT NULL,
    environment     TEXT NOT NULL,
    repository      TEXT NOT NULL,
    revision        TEXT NOT NULL,
    step            TEXT NOT NULL,
    outcome         TEXT NOT NULL CHECK (outcome IN ('', 'held', 'proposed', 'refused', 'failed', 'rejected', 'did_not_hold', 'cancelled')),
    reason          TEXT NOT NULL,
    patch           TEXT NOT NULL,
    patch_hash      TEXT NOT NULL,
    branch          TEXT NOT NULL,
    commit_id       TEXT NOT NULL,
    request_url     TEXT NOT NULL,
    data            TEXT NOT NULL,
    engine_us       BIGINT NOT NULL,
    requested_by    TEXT NOT NULL,
    node            TEXT NOT NULL,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL,
    next_at         BIGINT,
    ended_at        BIGINT
);
CREATE INDEX patch_runs_by_bug ON patch_runs (bug_id, created_at);
CREATE INDEX patch_runs_open ON patch_runs (next_at) WHERE outcome = '';
CREATE INDEX patch_runs_by_created ON patch_runs (created_at, id);

ALTER TABLE auto_fix_history ADD COLUMN run_id TEXT NOT NULL DEFAULT '';
ALTER TABLE auto_fix_history ADD COLUMN held_at BIGINT;
ALTER TABLE auto_fix_history ADD COLUMN verdict TEXT NOT NULL DEFAULT '';

ALTER TABLE bug_patterns ADD COLUMN search TEXT NOT NULL DEFAULT '';
ALTER TABLE bug_patterns ADD COLUMN replacement TEXT NOT NULL DEFAULT '';
ALTER TABLE bug_patterns ADD COLUMN suffix TEXT NOT NULL DEFAULT '';
ALTER TABLE bug_patterns ADD COLUMN prevention_tips TEXT NOT NULL DEFAULT '[]';
