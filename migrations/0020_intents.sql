-- An intent on its way into the tables: its one row is what an action waits for. Empty but for a moment; what a crash leaves here is
-- spread over the tables at the next start.
CREATE TABLE intents (
    id    TEXT PRIMARY KEY,
    body  TEXT NOT NULL
);
