-- What ended lately (a start reads it), and what ended long ago (retention deletes it).
CREATE INDEX self_heal_events_by_closed ON self_heal_events (closed_at);
