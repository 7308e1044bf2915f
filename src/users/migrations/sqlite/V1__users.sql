CREATE TABLE users (
    username TEXT NOT NULL PRIMARY KEY CHECK (octet_length(username) BETWEEN 1 AND 64),
    email TEXT NOT NULL CHECK (octet_length(email) BETWEEN 1 AND 254),
    points INTEGER NOT NULL CHECK (points BETWEEN 0 AND 9007199254740991),
    status TEXT NOT NULL CHECK (status IN ('Bronze', 'Silver', 'Gold'))
) STRICT, WITHOUT ROWID;
