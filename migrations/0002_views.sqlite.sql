-- For people who read the tables directly; times as text, UTC.
CREATE VIEW healing_overview AS
SELECT strategy,
       COUNT(*) AS attempts,
       SUM(CASE WHEN verified = 'succeeded' THEN 1 ELSE 0 END) AS verified,
       SUM(CASE WHEN verified = 'did_not_hold' THEN 1 ELSE 0 END) AS did_not_hold,
       SUM(CASE WHEN state IN ('failed', 'unknown') OR verified = 'failed' THEN 1 ELSE 0 END) AS failed,
       SUM(CASE WHEN rolled_back = 'succeeded' THEN 1 ELSE 0 END) AS rolled_back,
       strftime('%Y-%m-%dT%H:%M:%SZ', MAX(started_at) / 1000000, 'unixepoch') AS last_attempt
FROM healing_results WHERE dry_run = 0 GROUP BY strategy;

CREATE VIEW recent_healing_activity AS
SELECT strftime('%Y-%m-%dT%H:%M:%SZ', e.opened_at / 1000000, 'unixepoch') AS opened,
       e.id AS event_id, e.service_name, e.fingerprint, e.severity, e.state, e.resolution, e.healed_by, e.reason,
       e.occurrence_count,
       (e.healed_at - e.opened_at) / 1000 AS time_to_heal_ms
FROM self_heal_events e
WHERE e.opened_at >= (CAST(strftime('%s', 'now') AS INTEGER) - 86400) * 1000000
ORDER BY e.opened_at DESC;
