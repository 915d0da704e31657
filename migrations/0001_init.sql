-- The first schema. Points in time are BIGINT microseconds since 1970-01-01 UTC, durations end in _us, ids are UUIDv7 text,
-- JSON is TEXT, flags are SMALLINT 0/1: the subset that SQLite and PostgreSQL read alike (D7).

-- One row per kind of error. The public id is the first 16 hex digits of the digest.
CREATE TABLE error_fingerprints (
    id                TEXT PRIMARY KEY,
    digest            TEXT NOT NULL,
    mechanism         SMALLINT NOT NULL,
    service_name      TEXT NOT NULL,
    environment       TEXT NOT NULL,
    log_level         TEXT NOT NULL,
    error_type        TEXT NOT NULL,
    pattern           TEXT NOT NULL,
    stack_signature   TEXT NOT NULL,
    severity          TEXT NOT NULL CHECK (severity IN ('P0_critical', 'P1_major', 'P2_minor', 'P3_trivial')),
    occurrence_count  BIGINT NOT NULL CHECK (occurrence_count >= 0),
    first_seen_at     BIGINT NOT NULL,
    last_seen_at      BIGINT NOT NULL,
    last_release      TEXT NOT NULL
);
CREATE INDEX error_fingerprints_by_last_seen ON error_fingerprints (last_seen_at, id);
CREATE INDEX error_fingerprints_by_service ON error_fingerprints (service_name);

-- How often, exactly: one row per fingerprint and bucket; resolution is 'minute', 'hour' or 'day'.
CREATE TABLE fingerprint_counts (
    fingerprint  TEXT NOT NULL,
    resolution   TEXT NOT NULL CHECK (resolution IN ('minute', 'hour', 'day')),
    bucket_at    BIGINT NOT NULL,
    count        BIGINT NOT NULL,
    PRIMARY KEY (fingerprint, resolution, bucket_at)
);
CREATE INDEX fingerprint_counts_by_bucket ON fingerprint_counts (resolution, bucket_at);

-- Samples of the errors themselves (all are counted above; not each is kept).
CREATE TABLE log_entries (
    id              TEXT PRIMARY KEY,
    fingerprint     TEXT NOT NULL,
    service_name    TEXT NOT NULL,
    environment     TEXT NOT NULL,
    log_level       TEXT NOT NULL,
    message         TEXT NOT NULL,
    error_type      TEXT NOT NULL,
    stack_trace     TEXT NOT NULL,
    context         TEXT NOT NULL,
    timestamp       BIGINT NOT NULL,
    received_at     BIGINT NOT NULL,
    http_status     INTEGER NOT NULL,
    component       TEXT NOT NULL,
    request_id      TEXT NOT NULL,
    workspace_id    TEXT NOT NULL,
    trace_id        TEXT NOT NULL,
    release         TEXT NOT NULL,
    host            TEXT NOT NULL,
    source          TEXT NOT NULL,
    represents      BIGINT NOT NULL,
    related_bug_id  TEXT
);
CREATE INDEX log_entries_by_fingerprint ON log_entries (fingerprint, received_at);
CREATE INDEX log_entries_by_received ON log_entries (received_at);
CREATE INDEX log_entries_by_bug ON log_entries (related_bug_id) WHERE related_bug_id IS NOT NULL;

-- Where each source was read up to; written in the transaction of the batch it belongs to.
CREATE TABLE ingest_offsets (
    source       TEXT PRIMARY KEY,
    device       BIGINT NOT NULL,
    inode        BIGINT NOT NULL,
    byte_offset  BIGINT NOT NULL,
    head_hash    TEXT NOT NULL,
    updated_at   BIGINT NOT NULL
);

-- Keys of batches already taken, so that a delivery repeated by its sender counts once.
CREATE TABLE ingest_batches (
    batch_key    TEXT PRIMARY KEY,
    received_at  BIGINT NOT NULL,
    records      BIGINT NOT NULL
);
CREATE INDEX ingest_batches_by_received ON ingest_batches (received_at);

-- What was taken in, by source: accepted == stored + refused, checkable by anyone.
CREATE TABLE ingest_totals (
    source       TEXT PRIMARY KEY,
    lines        BIGINT NOT NULL,
    records      BIGINT NOT NULL,
    below_level  BIGINT NOT NULL,
    malformed    BIGINT NOT NULL,
    truncated    BIGINT NOT NULL,
    self         BIGINT NOT NULL,
    joined       BIGINT NOT NULL,
    bytes        BIGINT NOT NULL
);

-- An incident: a fingerprint that triggered, and what became of it.
CREATE TABLE self_heal_events (
    id                TEXT PRIMARY KEY,
    fingerprint       TEXT NOT NULL,
    service_name      TEXT NOT NULL,
    environment       TEXT NOT NULL,
    target            TEXT NOT NULL,
    severity          TEXT NOT NULL,
    trigger_name      TEXT NOT NULL,
    state             TEXT NOT NULL CHECK (state IN ('open', 'awaiting_approval', 'healing', 'verifying', 'stabilizing',
                          'healed', 'held', 'did_not_hold', 'unverified', 'escalated', 'suppressed', 'closed')),
    resolution        TEXT NOT NULL CHECK (resolution IN ('', 'auto', 'approved', 'manual', 'self_resolved')),
    reason            TEXT NOT NULL,
    occurrence_count  BIGINT NOT NULL,
    first_event_at    BIGINT NOT NULL,
    opened_at         BIGINT NOT NULL,
    claimed_at        BIGINT,
    action_at         BIGINT,
    healed_at         BIGINT,
    hold_until        BIGINT,
    closed_at         BIGINT,
    updated_at        BIGINT NOT NULL,
    healed_by         TEXT NOT NULL,
    bug_id            TEXT,
    incident          TEXT NOT NULL,
    decision          TEXT NOT NULL
);
CREATE UNIQUE INDEX self_heal_events_one_open ON self_heal_events (fingerprint, environment)
    WHERE state IN ('open', 'awaiting_approval', 'healing', 'verifying', 'stabilizing');
CREATE INDEX self_heal_events_by_opened ON self_heal_events (opened_at, id);
CREATE INDEX self_heal_events_by_state ON self_heal_events (state, opened_at);

-- One attempt: a strategy tried on an incident. Written as 'started' before anything is done (D4).
CREATE TABLE healing_results (
    id               TEXT PRIMARY KEY,
    event_id         TEXT NOT NULL REFERENCES self_heal_events (id),
    fingerprint      TEXT NOT NULL,
    service_name     TEXT NOT NULL,
    target           TEXT NOT NULL,
    strategy         TEXT NOT NULL,
    version          TEXT NOT NULL,
    build            TEXT NOT NULL,
    rank             INTEGER NOT NULL,
    priority         BIGINT NOT NULL,
    confidence       DOUBLE PRECISION NOT NULL,
    score            DOUBLE PRECISION NOT NULL,
    idempotent       SMALLINT NOT NULL,
    dry_run          SMALLINT NOT NULL,
    state            TEXT NOT NULL CHECK (state IN ('started', 'executed', 'succeeded', 'failed', 'declined', 'unknown',
                         'cancelled')),
    verified         TEXT NOT NULL CHECK (verified IN ('', 'succeeded', 'failed', 'unknown', 'did_not_hold')),
    rolled_back      TEXT NOT NULL CHECK (rolled_back IN ('', 'running', 'succeeded', 'failed')),
    request          TEXT NOT NULL,
    text             TEXT NOT NULL,
    detail           TEXT NOT NULL,
    evidence         TEXT NOT NULL,
    started_at       BIGINT NOT NULL,
    ended_at         BIGINT,
    verified_at      BIGINT
);
CREATE INDEX healing_results_by_event ON healing_results (event_id, started_at);
CREATE INDEX healing_results_by_started ON healing_results (started_at);

-- One effect of an attempt (D3), with how to take it back.
CREATE TABLE healing_actions (
    id              TEXT PRIMARY KEY,
    result_id       TEXT NOT NULL REFERENCES healing_results (id),
    event_id        TEXT NOT NULL,
    phase           TEXT NOT NULL CHECK (phase IN ('execute', 'verify', 'rollback', 'undo')),
    step            BIGINT NOT NULL,
    kind            TEXT NOT NULL,
    summary         TEXT NOT NULL,
    parameters      TEXT NOT NULL,
    capability      TEXT NOT NULL,
    changes_world   SMALLINT NOT NULL,
    undoable        SMALLINT NOT NULL,
    undo            TEXT NOT NULL,
    undoes_step     BIGINT NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('begun', 'done', 'failed', 'skipped', 'undone')),
    result          TEXT NOT NULL,
    error           TEXT NOT NULL,
    started_at      BIGINT NOT NULL,
    duration_us     BIGINT NOT NULL
);
CREATE UNIQUE INDEX healing_actions_by_result ON healing_actions (result_id, phase, step);
CREATE INDEX healing_actions_by_event ON healing_actions (event_id, started_at);

CREATE TABLE system_bugs (
    id                 TEXT PRIMARY KEY,
    bug_code           TEXT NOT NULL UNIQUE,
    fingerprint        TEXT NOT NULL,
    title              TEXT NOT NULL,
    severity           TEXT NOT NULL CHECK (severity IN ('P0_critical', 'P1_major', 'P2_minor', 'P3_trivial')),
    bug_type           TEXT NOT NULL,
    status             TEXT NOT NULL CHECK (status IN ('detected', 'analyzed', 'fix_suggested', 'approved', 'applying', 'testing',
                           'fixed', 'failed', 'rejected', 'closed', 'reopened')),
    service_name       TEXT NOT NULL,
    environment        TEXT NOT NULL,
    error_type         TEXT NOT NULL,
    message            TEXT NOT NULL,
    stack_trace        TEXT NOT NULL,
    occurrence_count   BIGINT NOT NULL,
    first_occurred_at  BIGINT NOT NULL,
    last_occurred_at   BIGINT NOT NULL,
    detected_at        BIGINT NOT NULL,
    updated_at         BIGINT NOT NULL,
    opened_by          TEXT NOT NULL,
    related_log_ids    TEXT NOT NULL
);
CREATE INDEX system_bugs_by_fingerprint ON system_bugs (fingerprint, detected_at);
CREATE INDEX system_bugs_by_status ON system_bugs (status, detected_at);

-- The last number given out per day: bug codes have no gaps and no repeats.
CREATE TABLE bug_codes (
    day   TEXT PRIMARY KEY,
    last  BIGINT NOT NULL
);

-- What people changed about strategies at run time; wins over the configuration file.
CREATE TABLE strategy_settings (
    strategy    TEXT PRIMARY KEY,
    priority    BIGINT,
    enabled     SMALLINT,
    autonomy    TEXT CHECK (autonomy IN ('off', 'shadow', 'approve', 'auto')),
    floor       DOUBLE PRECISION,
    updated_at  BIGINT NOT NULL,
    updated_by  TEXT NOT NULL
);

-- Small durable facts of the engine: the kill switch, pauses.
CREATE TABLE engine_state (
    name        TEXT PRIMARY KEY,
    value       TEXT NOT NULL,
    updated_at  BIGINT NOT NULL
);

-- Every mutating request and every action. Each row's hash covers the row before it, so that a change or a gap shows.
CREATE TABLE audit_log (
    seq        BIGINT PRIMARY KEY,
    at         BIGINT NOT NULL,
    actor      TEXT NOT NULL,
    action     TEXT NOT NULL,
    subject    TEXT NOT NULL,
    detail     TEXT NOT NULL,
    previous   TEXT NOT NULL,
    hash       TEXT NOT NULL
);
