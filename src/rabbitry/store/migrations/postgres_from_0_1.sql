-- An inbox of version 0.1, which had one service in a database. Older workers find no constraint by which they add replies,
-- and wait.
ALTER TABLE inbox ADD COLUMN service text COLLATE "C" NOT NULL DEFAULT 'SERVICE';
ALTER TABLE inbox ALTER COLUMN service DROP DEFAULT;
ALTER TABLE inbox DROP CONSTRAINT inbox_pkey;
ALTER TABLE inbox ADD PRIMARY KEY (command, message_id, service);
-- None starts any more: it would know nothing of what is kept here now.
UPDATE schema_compatibility SET oldest_worker = 2;
