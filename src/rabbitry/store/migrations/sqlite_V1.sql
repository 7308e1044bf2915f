-- Tells the database apart from those of other programs: "Rbty".
PRAGMA application_id = 1382184057;

-- For the engine (rabbitry) or a service: a worker that knows none of its migrations from oldest_worker on must not use the
-- database. A migration that older workers cannot live with sets it.
CREATE TABLE compatibility (
    part TEXT PRIMARY KEY,
    oldest_worker INTEGER NOT NULL
) STRICT;

-- A rowid table, as replies are long, and rows in the order of time, so that the oldest need no index to be found. It may be
-- there: see from_0_1.
CREATE TABLE IF NOT EXISTS inbox (
    service TEXT NOT NULL,
    command TEXT NOT NULL,
    -- A UUID as its 16 bytes, which halves the index; any other id as text.
    message_id ANY NOT NULL CHECK (typeof(message_id) = 'text' OR octet_length(message_id) = 16),
    fingerprint BLOB NOT NULL CHECK (octet_length(fingerprint) = 16),
    status INTEGER NOT NULL CHECK (status BETWEEN 100 AND 599),
    reply BLOB NOT NULL,
    -- Milliseconds since the Unix epoch.
    created_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX inbox_by_id ON inbox (command, message_id, service);

-- How far the inbox had come at which time. One is made for each hour (a 168th of the time for which replies are
-- remembered) in which a worker has seen time pass, so the age of a reply is the number of marks behind it, whatever
-- any clock says.
CREATE TABLE inbox_marks (
    number INTEGER PRIMARY KEY,
    last_row INTEGER NOT NULL,
    -- The latest that any worker's clock has shown, in milliseconds since the Unix epoch.
    latest_clock INTEGER NOT NULL
) STRICT;
