-- What people decided about kinds of error; wins over every suggestion and is never lost. `canonical` is the id that stands for it;
-- equal to `fingerprint` when it is to stay apart.
CREATE TABLE fingerprint_decisions (
    fingerprint  TEXT PRIMARY KEY,
    canonical    TEXT NOT NULL,
    decided_by   TEXT NOT NULL,
    reason       TEXT NOT NULL,
    decided_at   BIGINT NOT NULL
);
CREATE INDEX fingerprint_decisions_by_canonical ON fingerprint_decisions (canonical);
