-- Ordered by bytes, whatever the database's locale is: pages and locks follow this order. Room is left in each page, so
-- that a change of points or status stays in it and touches no index.
CREATE TABLE users (
    username text COLLATE "C" PRIMARY KEY CHECK (octet_length(username) BETWEEN 1 AND 64),
    email text NOT NULL CHECK (octet_length(email) BETWEEN 1 AND 254),
    points bigint NOT NULL CHECK (points BETWEEN 0 AND 9007199254740991),
    status text NOT NULL CHECK (status IN ('Bronze', 'Silver', 'Gold'))
) WITH (fillfactor = 80);
