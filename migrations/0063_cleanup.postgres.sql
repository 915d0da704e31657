-- The same as before, and what analysis and patches leave behind (sql::cleanup_old_healing_data). A result of other columns needs a new function.
DROP FUNCTION cleanup_old_healing_data(INTERVAL);
CREATE FUNCTION cleanup_old_healing_data(keep INTERVAL DEFAULT INTERVAL '90 days')
RETURNS TABLE (
    deleted_events BIGINT, deleted_results BIGINT, deleted_actions BIGINT,
    deleted_patch_runs BIGINT, deleted_suggestions BIGINT, deleted_analyses BIGINT, deleted_ai_calls BIGINT
) LANGUAGE plpgsql AS $$
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
    DELETE FROM patch_runs WHERE ended_at < before;
    GET DIAGNOSTICS deleted_patch_runs = ROW_COUNT;
    DELETE FROM ai_fix_suggestions s WHERE s.created_at < before AND s.status IN ('rejected', 'superseded')
        AND NOT EXISTS (SELECT 1 FROM patch_runs r WHERE r.bug_id = s.bug_id AND r.suggestion_id = s.id)
        AND NOT EXISTS (SELECT 1 FROM auto_fix_history h WHERE h.bug_id = s.bug_id AND h.suggestion_id = s.id);
    GET DIAGNOSTICS deleted_suggestions = ROW_COUNT;
    DELETE FROM bug_analyses a WHERE a.at < before
        AND EXISTS (SELECT 1 FROM bug_analyses n WHERE n.bug_id = a.bug_id AND (n.at > a.at OR (n.at = a.at AND n.id > a.id)));
    GET DIAGNOSTICS deleted_analyses = ROW_COUNT;
    DELETE FROM ai_calls WHERE at < before;
    GET DIAGNOSTICS deleted_ai_calls = ROW_COUNT;
    RETURN NEXT;
END
$$;
