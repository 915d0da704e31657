-- A request may also be for a run of a patch, and may be to end it.
CREATE TABLE event_requests_wider (
    id            TEXT PRIMARY KEY,
    event_id      TEXT NOT NULL,
    request       TEXT NOT NULL CHECK (request IN ('approve', 'reject', 'cancel')),
    argument      TEXT NOT NULL,
    requested_by  TEXT NOT NULL,
    requested_at  BIGINT NOT NULL
);
INSERT INTO event_requests_wider SELECT id, event_id, request, argument, requested_by, requested_at FROM event_requests;
DROP TABLE event_requests;
ALTER TABLE event_requests_wider RENAME TO event_requests;
