-- The figures that GET /api/v1/healing/stats gives, for people who have SQL. Percentiles are the value at rank round(p * (n - 1)), as there;
-- times in ms. tests/unit/store_figures_test.cpp compares the two.
CREATE FUNCTION get_healing_stats(from_at TIMESTAMPTZ DEFAULT now() - INTERVAL '24 hours', to_at TIMESTAMPTZ DEFAULT now())
RETURNS TABLE (
    incidents BIGINT, healed BIGINT, did_not_hold BIGINT, escalated BIGINT, self_resolved BIGINT,
    auto_heal_rate DOUBLE PRECISION, held_rate DOUBLE PRECISION, escalation_rate DOUBLE PRECISION,
    attempts BIGINT, verified_attempts BIGINT, action_success_rate DOUBLE PRECISION,
    detection_lag_p50_ms DOUBLE PRECISION, mtta_p50_ms DOUBLE PRECISION, mttm_p50_ms DOUBLE PRECISION,
    mttr_p50_ms DOUBLE PRECISION, mttr_p95_ms DOUBLE PRECISION, mttr_p99_ms DOUBLE PRECISION
) LANGUAGE sql STABLE AS $$
    WITH bounds AS (
        SELECT (EXTRACT(EPOCH FROM from_at) * 1000000)::BIGINT AS low, (EXTRACT(EPOCH FROM to_at) * 1000000)::BIGINT AS high
    ), e AS (
        SELECT state, resolution, GREATEST(0, opened_at - first_event_at) AS lag, claimed_at - opened_at AS claimed,
               action_at - opened_at AS acted,
               CASE WHEN state IN ('healed', 'held') THEN healed_at - opened_at END AS repaired
        FROM self_heal_events, bounds WHERE opened_at >= low AND opened_at < high
    ), n AS (
        SELECT COUNT(*) AS total,
               COUNT(*) FILTER (WHERE state IN ('healed', 'held')) AS good,
               COUNT(*) FILTER (WHERE state IN ('healed', 'held') AND resolution = 'auto') AS auto,
               COUNT(*) FILTER (WHERE state = 'did_not_hold') AS back,
               COUNT(*) FILTER (WHERE state IN ('escalated', 'suppressed')) AS up,
               COUNT(*) FILTER (WHERE resolution = 'self_resolved') AS alone,
               array_agg(lag ORDER BY lag) AS lags,
               array_agg(claimed ORDER BY claimed) FILTER (WHERE claimed IS NOT NULL) AS claims,
               array_agg(acted ORDER BY acted) FILTER (WHERE acted IS NOT NULL) AS acts,
               array_agg(repaired ORDER BY repaired) FILTER (WHERE repaired IS NOT NULL) AS repairs
        FROM e
    ), a AS (
        SELECT COUNT(*) AS total, COUNT(*) FILTER (WHERE verified = 'succeeded') AS verified
        FROM healing_results, bounds WHERE dry_run = 0 AND started_at >= low AND started_at < high
    )
    SELECT n.total, n.good, n.back, n.up, n.alone,
           n.auto::DOUBLE PRECISION / NULLIF(n.total - n.alone, 0),
           n.good::DOUBLE PRECISION / NULLIF(n.good + n.back, 0),
           n.up::DOUBLE PRECISION / NULLIF(n.total, 0),
           a.total, a.verified, a.verified::DOUBLE PRECISION / NULLIF(a.total, 0),
           lags[FLOOR(0.50 * (cardinality(lags) - 1) + 0.5)::INT + 1] / 1000.0,
           claims[FLOOR(0.50 * (cardinality(claims) - 1) + 0.5)::INT + 1] / 1000.0,
           acts[FLOOR(0.50 * (cardinality(acts) - 1) + 0.5)::INT + 1] / 1000.0,
           repairs[FLOOR(0.50 * (cardinality(repairs) - 1) + 0.5)::INT + 1] / 1000.0,
           repairs[FLOOR(0.95 * (cardinality(repairs) - 1) + 0.5)::INT + 1] / 1000.0,
           repairs[FLOOR(0.99 * (cardinality(repairs) - 1) + 0.5)::INT + 1] / 1000.0
    FROM n, a
$$;

-- Deletes incidents that ended longer than `keep` ago, with their attempts and effects. The audit log is never shortened.
CREATE FUNCTION cleanup_old_healing_data(keep INTERVAL DEFAULT INTERVAL '90 days')
RETURNS TABLE (deleted_events BIGINT, deleted_results BIGINT, deleted_actions BIGINT) LANGUAGE plpgsql AS $$
DECLARE
    before BIGINT := (EXTRACT(EPOCH FROM now() - keep) * 1000000)::BIGINT;
BEGIN
    PERFORM pg_advisory_xact_lock(1212498251, hashtext(current_schema()));
    CREATE TEMPORARY TABLE IF NOT EXISTS cleanup_old_events (id TEXT PRIMARY KEY) ON COMMIT DROP;
    TRUNCATE cleanup_old_events;
    INSERT INTO cleanup_old_events SELECT id FROM self_heal_events
        WHERE closed_at < before AND state IN ('held', 'did_not_hold', 'unverified', 'escalated', 'suppressed', 'closed');
    DELETE FROM healing_actions a USING cleanup_old_events o WHERE a.event_id = o.id;
    GET DIAGNOSTICS deleted_actions = ROW_COUNT;
    DELETE FROM healing_results r USING cleanup_old_events o WHERE r.event_id = o.id;
    GET DIAGNOSTICS deleted_results = ROW_COUNT;
    DELETE FROM self_heal_events e USING cleanup_old_events o WHERE e.id = o.id;
    GET DIAGNOSTICS deleted_events = ROW_COUNT;
    RETURN NEXT;
END
$$;
