-- A database of version 0.1: what pg_dump wrote of it, without the schema's name, and as if its replies were given now.
CREATE TABLE inbox (
    command text NOT NULL COLLATE "C",
    message_id bytea NOT NULL,
    fingerprint bytea NOT NULL,
    status smallint NOT NULL,
    reply bytea NOT NULL,
    created_at bigint NOT NULL,
    CONSTRAINT inbox_fingerprint_check CHECK ((octet_length(fingerprint) = 16)),
    CONSTRAINT inbox_status_check CHECK (((status >= 100) AND (status <= 599)))
);
CREATE TABLE refinery_schema_history (
    version integer NOT NULL,
    name character varying(255),
    applied_on character varying(255),
    checksum character varying(255)
);
CREATE TABLE schema_compatibility (
    one_row integer NOT NULL,
    oldest_worker bigint NOT NULL,
    CONSTRAINT schema_compatibility_one_row_check CHECK ((one_row = 1))
);
CREATE TABLE users (
    username text NOT NULL COLLATE "C",
    email text NOT NULL,
    points bigint NOT NULL,
    status text NOT NULL,
    CONSTRAINT users_email_check CHECK (((octet_length(email) >= 1) AND (octet_length(email) <= 254))),
    CONSTRAINT users_points_check CHECK (((points >= 0) AND (points <= '9007199254740991'::bigint))),
    CONSTRAINT users_status_check CHECK ((status = ANY (ARRAY['Bronze'::text, 'Silver'::text, 'Gold'::text]))),
    CONSTRAINT users_username_check CHECK (((octet_length(username) >= 1) AND (octet_length(username) <= 64)))
)
WITH (fillfactor='80');
INSERT INTO inbox (command, message_id, fingerprint, status, reply, created_at) VALUES ('create', '\x6d6164652d616e6e', '\x5bb97d0a3966060f46c95f2072974009', 201, '\x7b22757365726e616d65223a22616e6e222c22656d61696c223a22616e6e406578616d706c652e636f6d222c22706f696e7473223a3132302c22737461747573223a2242726f6e7a65227d', 1795756266763);
INSERT INTO inbox (command, message_id, fingerprint, status, reply, created_at) VALUES ('create', '\x33663262396331652d356434612d346530622d396331642d326133623463356436653766', '\x138018af91fe0d8f214bbb7551f01cc1', 201, '\x7b22757365726e616d65223a22626f62222c22656d61696c223a22626f62406578616d706c652e636f6d222c22706f696e7473223a302c22737461747573223a2242726f6e7a65227d', 1795756266785);
INSERT INTO inbox (command, message_id, fingerprint, status, reply, created_at) VALUES ('award', '\x7061792d646179', '\xf2d95e7284d3fc677dda3ccb4b5e4bc5', 200, '\x7b22757365726e616d65223a22616e6e222c22656d61696c223a22616e6e406578616d706c652e636f6d222c22706f696e7473223a3134352c22737461747573223a2242726f6e7a65227d', 1795756266806);
INSERT INTO inbox (command, message_id, fingerprint, status, reply, created_at) VALUES ('promote', '\x70726f6d6f746564', '\xa5fd68be2c4485e4c7975d89a5390f79', 200, '\x7b22757365726e616d65223a22616e6e222c22656d61696c223a22616e6e406578616d706c652e636f6d222c22706f696e7473223a3134352c22737461747573223a22476f6c64227d', 1795756266828);
INSERT INTO inbox (command, message_id, fingerprint, status, reply, created_at) VALUES ('award', '\x746f6f2d6d756368', '\xff7e093c423aa0aa9a8e2f023ae19421', 409, '\x7b2274797065223a2275726e3a72616262697472793a70726f626c656d3a696e73756666696369656e745f706f696e7473222c227469746c65223a2254686520757365722068617320746f6f2066657720706f696e7473222c22737461747573223a3430392c2264657461696c223a22626f6220686173203020706f696e74732c202d3520776f756c64206c656176652074686520626f756e64206f662030222c22636f6465223a22696e73756666696369656e745f706f696e7473222c22726574727961626c65223a66616c73657d', 1795756266846);
INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES (1, 'users_and_inbox', '2026-11-27T05:11:06.70641451Z', '5018975892172508215');
INSERT INTO schema_compatibility (one_row, oldest_worker) VALUES (1, 1);
INSERT INTO users (username, email, points, status) VALUES ('bob', 'bob@example.com', 0, 'Bronze');
INSERT INTO users (username, email, points, status) VALUES ('ann', 'ann@example.com', 145, 'Gold');
ALTER TABLE ONLY inbox
    ADD CONSTRAINT inbox_pkey PRIMARY KEY (command, message_id);
ALTER TABLE ONLY refinery_schema_history
    ADD CONSTRAINT refinery_schema_history_pkey PRIMARY KEY (version);
ALTER TABLE ONLY schema_compatibility
    ADD CONSTRAINT schema_compatibility_pkey PRIMARY KEY (one_row);
ALTER TABLE ONLY users
    ADD CONSTRAINT users_pkey PRIMARY KEY (username);
CREATE INDEX inbox_by_age ON inbox USING btree (created_at);
