-- The tables of analysis, alerts, health, jobs, dead letters and the outbox. Same rules as 0001: times are microseconds since 1970,
-- ids are UUIDv7 text, JSON is TEXT, flags are SMALLINT 0/1.

CREATE TABLE ai_fix_suggestions (
    id                      TEXT PRIMARY KEY,
    bug_id                  TEXT NOT NULL REFERENCES system_bugs (id),
    rank                    INTEGER NOT NULL,
    provider                TEXT NOT NULL,
    model                   TEXT NOT NULL,
    root_cause              TEXT NOT NULL,
    root_cause_hypothesis   TEXT NOT NULL,
    bug_classification      TEXT NOT NULL,
    estimated_impact        TEXT NOT NULL,
    fix_title               TEXT NOT NULL,
    fix_description         TEXT NOT NULL,
    fix_approach            TEXT NOT NULL,
    code_diff               TEXT NOT NULL,
    files_affected          TEXT NOT NULL,
    confidence_score        DOUBLE PRECISION NOT NULL CHECK (confidence_score >= 0 AND confidence_score <= 1),
    reasoning               TEXT NOT NULL,
    breaking_changes        TEXT NOT NULL,
    potential_side_effects  TEXT NOT NULL,
    test_cases              TEXT NOT NULL,
    prevention_tips         TEXT NOT NULL,
    status                  TEXT NOT NULL CHECK (status IN ('suggested', 'approved', 'rejected', 'applied', 'superseded')),
    decided_by              TEXT NOT NULL,
    decided_at              BIGINT,
    created_at              BIGINT NOT NULL
);
CREATE INDEX ai_fix_suggestions_by_bug ON ai_fix_suggestions (bug_id, rank);

CREATE TABLE auto_fix_history (
    id                TEXT PRIMARY KEY,
    bug_id            TEXT NOT NULL REFERENCES system_bugs (id),
    suggestion_id     TEXT,
    status            TEXT NOT NULL CHECK (status IN ('applying', 'testing', 'succeeded', 'failed', 'rolled_back')),
    branch            TEXT NOT NULL,
    commit_id         TEXT NOT NULL,
    pull_request_url  TEXT NOT NULL,
    tests_passed      SMALLINT,
    test_output       TEXT NOT NULL,
    error             TEXT NOT NULL,
    performed_by      TEXT NOT NULL,
    started_at        BIGINT NOT NULL,
    deployed_at       BIGINT,
    rolled_back_at    BIGINT,
    ended_at          BIGINT
);
CREATE INDEX auto_fix_history_by_bug ON auto_fix_history (bug_id, started_at);

CREATE TABLE bug_patterns (
    id               TEXT PRIMARY KEY,
    fingerprint      TEXT NOT NULL,
    service_name     TEXT NOT NULL,
    error_type       TEXT NOT NULL,
    pattern          TEXT NOT NULL,
    fix_title        TEXT NOT NULL,
    fix_approach     TEXT NOT NULL,
    code_diff        TEXT NOT NULL,
    suggestion_id    TEXT,
    times_seen       BIGINT NOT NULL CHECK (times_seen >= 0),
    times_fixed      BIGINT NOT NULL CHECK (times_fixed >= 0),
    times_failed     BIGINT NOT NULL CHECK (times_failed >= 0),
    first_seen_at    BIGINT NOT NULL,
    last_seen_at     BIGINT NOT NULL
);
CREATE UNIQUE INDEX bug_patterns_by_fingerprint ON bug_patterns (fingerprint, fix_title);
CREATE INDEX bug_patterns_by_type ON bug_patterns (error_type, last_seen_at);

CREATE TABLE system_alerts (
    id                TEXT PRIMARY KEY,
    group_key         TEXT NOT NULL,
    title             TEXT NOT NULL,
    message           TEXT NOT NULL,
    severity          TEXT NOT NULL CHECK (severity IN ('P0_critical', 'P1_major', 'P2_minor', 'P3_trivial')),
    status            TEXT NOT NULL CHECK (status IN ('open', 'acknowledged', 'resolved')),
    service_name      TEXT NOT NULL,
    environment       TEXT NOT NULL,
    event_id          TEXT,
    bug_id            TEXT,
    occurrence_count  BIGINT NOT NULL,
    escalation_level  INTEGER NOT NULL,
    notified_at       BIGINT,
    next_notify_at    BIGINT,
    acknowledged_by   TEXT NOT NULL,
    acknowledged_at   BIGINT,
    resolved_by       TEXT NOT NULL,
    resolved_at       BIGINT,
    opened_at         BIGINT NOT NULL,
    updated_at        BIGINT NOT NULL
);
CREATE UNIQUE INDEX system_alerts_one_open ON system_alerts (group_key) WHERE status IN ('open', 'acknowledged');
CREATE INDEX system_alerts_by_opened ON system_alerts (opened_at, id);

CREATE TABLE system_health_metrics (
    metric_name   TEXT NOT NULL,
    service_name  TEXT NOT NULL,
    environment   TEXT NOT NULL,
    recorded_at   BIGINT NOT NULL,
    value         DOUBLE PRECISION NOT NULL,
    unit          TEXT NOT NULL,
    samples       BIGINT NOT NULL,
    PRIMARY KEY (metric_name, service_name, environment, recorded_at)
);
CREATE INDEX system_health_metrics_by_time ON system_health_metrics (recorded_at);

CREATE TABLE service_health_checks (
    id            TEXT PRIMARY KEY,
    service_name  TEXT NOT NULL,
    environment   TEXT NOT NULL,
    check_name    TEXT NOT NULL,
    kind          TEXT NOT NULL CHECK (kind IN ('http', 'tcp', 'process', 'command', 'sql')),
    status        TEXT NOT NULL CHECK (status IN ('healthy', 'degraded', 'critical', 'unknown')),
    latency_us    BIGINT NOT NULL,
    detail        TEXT NOT NULL,
    node          TEXT NOT NULL,
    checked_at    BIGINT NOT NULL
);
CREATE INDEX service_health_checks_by_service ON service_health_checks (service_name, checked_at);
CREATE INDEX service_health_checks_by_time ON service_health_checks (checked_at);

-- One row per job; who runs it now, until when that is believed, and when it is due again.
CREATE TABLE cron_job_status (
    job_name          TEXT PRIMARY KEY,
    description       TEXT NOT NULL,
    schedule          TEXT NOT NULL,
    enabled           SMALLINT NOT NULL,
    state             TEXT NOT NULL CHECK (state IN ('idle', 'running')),
    node              TEXT NOT NULL,
    lease_until       BIGINT NOT NULL,
    next_run_at       BIGINT NOT NULL,
    last_started_at   BIGINT,
    last_ended_at     BIGINT,
    last_status       TEXT NOT NULL CHECK (last_status IN ('', 'succeeded', 'failed', 'abandoned')),
    last_error        TEXT NOT NULL,
    last_duration_us  BIGINT NOT NULL,
    run_count         BIGINT NOT NULL,
    failure_count     BIGINT NOT NULL
);

CREATE TABLE cron_execution_log (
    id           TEXT PRIMARY KEY,
    job_name     TEXT NOT NULL,
    node         TEXT NOT NULL,
    status       TEXT NOT NULL CHECK (status IN ('running', 'succeeded', 'failed', 'abandoned')),
    started_at   BIGINT NOT NULL,
    ended_at     BIGINT,
    duration_us  BIGINT NOT NULL,
    output       TEXT NOT NULL,
    error        TEXT NOT NULL
);
CREATE INDEX cron_execution_log_by_job ON cron_execution_log (job_name, started_at);
CREATE INDEX cron_execution_log_by_started ON cron_execution_log (started_at);

CREATE TABLE kafka_dlq_messages (
    id              TEXT PRIMARY KEY,
    topic           TEXT NOT NULL,
    partition_id    INTEGER NOT NULL,
    message_offset  BIGINT NOT NULL,
    message_key     TEXT NOT NULL,
    payload         TEXT NOT NULL,
    headers         TEXT NOT NULL,
    error_message   TEXT NOT NULL,
    service_name    TEXT NOT NULL,
    received_at     BIGINT NOT NULL,
    processed_at    BIGINT,
    related_log_id  TEXT
);
CREATE UNIQUE INDEX kafka_dlq_messages_once ON kafka_dlq_messages (topic, partition_id, message_offset);
CREATE INDEX kafka_dlq_messages_waiting ON kafka_dlq_messages (received_at) WHERE processed_at IS NULL;

CREATE TABLE outbox (
    id            TEXT PRIMARY KEY,
    destination   TEXT NOT NULL,
    topic         TEXT NOT NULL,
    message_key   TEXT NOT NULL,
    payload       TEXT NOT NULL,
    headers       TEXT NOT NULL,
    status        TEXT NOT NULL CHECK (status IN ('pending', 'published', 'dead')),
    attempts      INTEGER NOT NULL,
    last_error    TEXT NOT NULL,
    created_at    BIGINT NOT NULL,
    available_at  BIGINT NOT NULL,
    published_at  BIGINT
);
CREATE INDEX outbox_waiting ON outbox (available_at, id) WHERE status = 'pending';
CREATE INDEX outbox_by_published ON outbox (published_at) WHERE status = 'published';

CREATE TABLE outbox_publisher_stats (
    destination     TEXT NOT NULL,
    window_at       BIGINT NOT NULL,
    published       BIGINT NOT NULL,
    failed          BIGINT NOT NULL,
    dead            BIGINT NOT NULL,
    latency_us_sum  BIGINT NOT NULL,
    latency_us_max  BIGINT NOT NULL,
    PRIMARY KEY (destination, window_at)
);
CREATE INDEX outbox_publisher_stats_by_window ON outbox_publisher_stats (window_at);

-- The nodes that share this store. `fence` grows each time a node joins: a claim with an older number is void.
CREATE TABLE cluster_nodes (
    node          TEXT PRIMARY KEY,
    fence         BIGINT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('alive', 'left', 'lost')),
    host          TEXT NOT NULL,
    pid           BIGINT NOT NULL,
    version       TEXT NOT NULL,
    health        TEXT NOT NULL,
    open_events   BIGINT NOT NULL,
    joined_at     BIGINT NOT NULL,
    heartbeat_at  BIGINT NOT NULL,
    lease_until   BIGINT NOT NULL
);

-- Which node heals which open incident.
CREATE TABLE event_claims (
    event_id    TEXT PRIMARY KEY,
    node        TEXT NOT NULL,
    fence       BIGINT NOT NULL,
    claimed_at  BIGINT NOT NULL
);
CREATE INDEX event_claims_by_node ON event_claims (node, fence);

-- What a person asked of an incident through a node that does not heal it.
CREATE TABLE event_requests (
    id            TEXT PRIMARY KEY,
    event_id      TEXT NOT NULL,
    request       TEXT NOT NULL CHECK (request IN ('approve', 'reject')),
    argument      TEXT NOT NULL,
    requested_by  TEXT NOT NULL,
    requested_at  BIGINT NOT NULL
);

-- Numbers that only grow: fences, and a count of changes by which nodes see that something is new.
CREATE TABLE engine_counters (
    name   TEXT PRIMARY KEY,
    value  BIGINT NOT NULL
);
