-- What people were asked and what they said, bound to the hash of what they were shown. Times are microseconds since 1970.
CREATE TABLE approvals (
    id            TEXT PRIMARY KEY,
    kind          TEXT NOT NULL,
    subject       TEXT NOT NULL,
    summary       TEXT NOT NULL,
    bound         TEXT NOT NULL,
    digest        TEXT NOT NULL,
    needed        INTEGER NOT NULL CHECK (needed >= 1),
    state         TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'rejected', 'expired', 'voided', 'used')),
    reason        TEXT NOT NULL,
    votes         TEXT NOT NULL,
    requested_at  BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL,
    ended_at      BIGINT
);
CREATE INDEX approvals_by_subject ON approvals (kind, subject, requested_at);
CREATE INDEX approvals_by_requested ON approvals (requested_at, id);
CREATE UNIQUE INDEX approvals_one_open ON approvals (kind, subject) WHERE state IN ('pending', 'approved');

-- Signed links, each good for one answer by one person. The signature itself is not kept.
CREATE TABLE approval_links (
    id           TEXT PRIMARY KEY,
    approval_id  TEXT NOT NULL REFERENCES approvals (id),
    decision     TEXT NOT NULL CHECK (decision IN ('approve', 'reject')),
    actor        TEXT NOT NULL,
    expires_at   BIGINT NOT NULL,
    used_at      BIGINT
);
CREATE INDEX approval_links_by_expiry ON approval_links (expires_at);
