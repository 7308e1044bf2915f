-- For the engine (rabbitry) or a service: a worker that knows none of its migrations from oldest_worker on must not use the
-- database. A migration that older workers cannot live with sets it.
CREATE TABLE compatibility (
    part text PRIMARY KEY,
    oldest_worker bigint NOT NULL
);

-- It may be there: see from_0_1.
CREATE TABLE IF NOT EXISTS inbox (
    service text COLLATE "C" NOT NULL,
    command text COLLATE "C" NOT NULL,
    -- The id's bytes: a text could not hold each of them.
    message_id bytea NOT NULL,
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 16),
    status smallint NOT NULL CHECK (status BETWEEN 100 AND 599),
    reply bytea NOT NULL,
    -- Milliseconds since the Unix epoch.
    created_at bigint NOT NULL,
    PRIMARY KEY (command, message_id, service)
);
-- Finds the oldest, which are to be forgotten.
CREATE INDEX IF NOT EXISTS inbox_by_age ON inbox (created_at);
