COMMENT ON TABLE event_requests IS 'What people want of an incident or of a run of a patch, on its way to the node that has it';
COMMENT ON COLUMN event_requests.id IS 'UUIDv7';
COMMENT ON COLUMN event_requests.event_id IS 'self_heal_events.id or patch_runs.id';
COMMENT ON COLUMN event_requests.request IS 'What was asked';
COMMENT ON COLUMN event_requests.argument IS 'The body of the request as JSON';
COMMENT ON COLUMN event_requests.requested_by IS 'Who';
COMMENT ON COLUMN event_requests.requested_at IS 'Microseconds since 1970-01-01 UTC';
