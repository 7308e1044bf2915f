-- Tells the database apart from those of other programs: "Rbty".
PRAGMA application_id = 1382184057;

-- One row. A worker that knows no schema version from oldest_worker on must not use the database; a migration that
-- older workers cannot live with raises it.
CREATE TABLE schema_compatibility (
    one_row INTEGER PRIMARY KEY CHECK (one_row = 1),
    oldest_worker INTEGER NOT NULL
) STRICT;
INSERT INTO schema_compatibility VALUES (1, 1);

CREATE TABLE users (
    username TEXT NOT NULL PRIMARY KEY CHECK (octet_length(username) BETWEEN 1 AND 64),
    email TEXT NOT NULL CHECK (octet_length(email) BETWEEN 1 AND 254),
    points INTEGER NOT NULL CHECK (points BETWEEN 0 AND 9007199254740991),
    status TEXT NOT NULL CHECK (status IN ('Bronze', 'Silver', 'Gold'))
) STRICT, WITHOUT ROWID;

-- A rowid table, as replies are long, and rows in the order of time, so that the oldest need no index to be found.
CREATE TABLE inbox (
    command TEXT NOT NULL,
    -- A UUID as its 16 bytes, which halves the index; any other id as text.
    message_id ANY NOT NULL CHECK (typeof(message_id) = 'text' OR octet_length(message_id) = 16),
    fingerprint BLOB NOT NULL CHECK (octet_length(fingerprint) = 16),
    status INTEGER NOT NULL CHECK (status BETWEEN 100 AND 599),
    reply BLOB NOT NULL,
    -- Milliseconds since the Unix epoch.
    created_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX inbox_by_message ON inbox (command, message_id);
