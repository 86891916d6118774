-- Requests that were answered. The position is the number of bytes recorded up to and including the entry, so entries are
-- in order of age and the ends of the table tell how many bytes it holds.
CREATE TABLE ledger (
    position       BIGINT NOT NULL PRIMARY KEY,
    method         TEXT   NOT NULL,
    request_key    TEXT   NOT NULL,
    digest         BYTEA  NOT NULL,
    result         BYTEA  NOT NULL,
    recorded_at_ms BIGINT NOT NULL,
    UNIQUE (method, request_key)
);
