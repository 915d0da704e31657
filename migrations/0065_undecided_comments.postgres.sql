COMMENT ON COLUMN healing_results.undecided IS '1: neither verified nor taken back yet; it keeps its target';
