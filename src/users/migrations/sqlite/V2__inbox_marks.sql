-- How far the inbox had come at which time. One is made for each hour (a 168th of the time for which replies are
-- remembered) in which a worker has seen time pass, so the age of a reply is the number of marks behind it, whatever
-- any clock says.
CREATE TABLE inbox_marks (
    number INTEGER PRIMARY KEY,
    last_row INTEGER NOT NULL,
    -- The latest that any worker's clock has shown, in milliseconds since the Unix epoch.
    latest_clock INTEGER NOT NULL
) STRICT;
-- An earlier version could leave it when it was killed.
DELETE FROM inbox WHERE command = '';
