-- An inbox of version 0.1, which had one service in a database. Older workers find no constraint by which they add replies,
-- and wait.
ALTER TABLE inbox ADD COLUMN service text COLLATE "C" NOT NULL DEFAULT 'SERVICE';
ALTER TABLE inbox ALTER COLUMN service DROP DEFAULT;
ALTER TABLE inbox DROP CONSTRAINT inbox_pkey;
ALTER TABLE inbox ADD PRIMARY KEY (command, message_id, service);
-- None starts any more: it would know nothing of what is kept here now. It asks only where it finds a newer migration.
INSERT INTO refinery_schema_history VALUES (2, 'taken_over', '2026-11-27T00:00:00Z', '0');
UPDATE schema_compatibility SET oldest_worker = 2;
