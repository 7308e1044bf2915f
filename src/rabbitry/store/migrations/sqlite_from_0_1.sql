-- An inbox of version 0.1, which had one service in a database. Older workers go on: the new column has a default, and the
-- columns by which they look are the first ones of the index.
ALTER TABLE inbox ADD COLUMN service TEXT NOT NULL DEFAULT 'SERVICE';
DROP INDEX inbox_by_message;
-- That version could leave it when it was killed.
DELETE FROM inbox WHERE command = '';
-- None starts any more: it would know nothing of what is kept here now. It asks only where it finds a newer migration.
INSERT INTO refinery_schema_history VALUES (2, 'taken_over', '2026-11-27T00:00:00Z', '0');
UPDATE schema_compatibility SET oldest_worker = 2;
