-- The rung of each strategy on each class of error, as the ladder or a person set it; steps themselves are in the audit log.
CREATE TABLE trust_rungs (
    strategy     TEXT NOT NULL,
    error_class  TEXT NOT NULL,
    rung         TEXT NOT NULL CHECK (rung IN ('off', 'shadow', 'approve', 'auto')),
    by_hand      SMALLINT NOT NULL,
    fell         SMALLINT NOT NULL,
    reason       TEXT NOT NULL,
    set_by       TEXT NOT NULL,
    since        BIGINT NOT NULL,
    PRIMARY KEY (strategy, error_class)
);

-- The class of error that an attempt was for: service and kind ("cart/network"); '' before this version.
ALTER TABLE healing_results ADD COLUMN error_class TEXT NOT NULL DEFAULT '';
-- 'control': it was left alone for a while, to see what recovers by itself; '' else.
ALTER TABLE self_heal_events ADD COLUMN arm TEXT NOT NULL DEFAULT '';
-- What a person said of it afterwards: 'right', 'false_positive' (nothing was wrong) or ''.
ALTER TABLE self_heal_events ADD COLUMN review TEXT NOT NULL DEFAULT '';
