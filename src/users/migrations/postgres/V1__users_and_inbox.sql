-- One row. A worker that knows no schema version from oldest_worker on must not use the database; a migration that
-- older workers cannot live with raises it.
CREATE TABLE schema_compatibility (
    one_row integer PRIMARY KEY CHECK (one_row = 1),
    oldest_worker bigint NOT NULL
);
INSERT INTO schema_compatibility VALUES (1, 1);

-- Ordered by bytes, whatever the database's locale is: pages and locks follow this order. Room is left in each page, so
-- that a change of points or status stays in it and touches no index.
CREATE TABLE users (
    username text COLLATE "C" PRIMARY KEY CHECK (octet_length(username) BETWEEN 1 AND 64),
    email text NOT NULL CHECK (octet_length(email) BETWEEN 1 AND 254),
    points bigint NOT NULL CHECK (points BETWEEN 0 AND 9007199254740991),
    status text NOT NULL CHECK (status IN ('Bronze', 'Silver', 'Gold'))
) WITH (fillfactor = 80);

CREATE TABLE inbox (
    command text COLLATE "C" NOT NULL,
    -- The id's bytes: a text could not hold each of them.
    message_id bytea NOT NULL,
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 16),
    status smallint NOT NULL CHECK (status BETWEEN 100 AND 599),
    reply bytea NOT NULL,
    -- Milliseconds since the Unix epoch.
    created_at bigint NOT NULL,
    PRIMARY KEY (command, message_id)
);
-- Finds the oldest, which are to be forgotten.
CREATE INDEX inbox_by_age ON inbox (created_at);
