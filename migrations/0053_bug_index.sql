-- Lists and figures of bugs go by when they were detected (./dev check explain).
CREATE INDEX system_bugs_by_detected ON system_bugs (detected_at, id);
