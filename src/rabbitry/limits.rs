//! Every limit of the wire contract and of the engine, in one place; the README lists them.

use std::time::Duration;

/// Largest body of one command, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Largest body of an array of commands, in bytes. The project's broker takes messages of up to 2 MiB.
pub const ARRAY_BYTES_MAX: usize = 1024 * 1024;
/// Most commands in one array; one that returns several things counts as so many.
pub const ARRAY_ITEMS_MAX: usize = 1000;
/// Bytes of problems in the reply to an array, after which they are told in short. With a success for each item that
/// keeps the reply below the 2 MiB that the project's broker takes; a larger one would close the channel of all replies.
pub const ARRAY_PROBLEMS_BYTES_MAX: usize = 512 * 1024;
/// Most entities in one page of `list`.
pub const LIST_LIMIT_MAX: u16 = 1000;
/// Entities in one page of `list` when the command does not say.
pub const LIST_LIMIT_DEFAULT: u16 = 100;
/// Longest property of a message (AMQP 0-9-1, 4.2.5.3: short strings), in bytes.
pub const SHORT_STRING_MAX: usize = 255;
/// Longest text about one problem, in bytes: it may quote what the sender wrote.
pub const DETAIL_MAX: usize = 500;
/// Longest header of a trace context that is echoed, in bytes (W3C Trace Context, 3.3.1.5: at least 512).
pub const TRACE_CONTEXT_MAX: usize = 512;
/// Largest table of headers that a dead letter keeps, in bytes. It has to fit into one frame (131,072 bytes by
/// default) together with the reason.
pub const DEAD_LETTER_HEADERS_MAX: usize = 64 * 1024;

/// Commands in one transaction, unless configured.
pub const BATCH_MAX: u16 = 256;
/// Bytes of bodies after which a batch is cut, so that arrays do not make a transaction that holds up other writers.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
/// How long a caller of the CLI waits for the outcome, unless it says.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an import waits for the outcome of one message, unless it is told: workers may be restarted meanwhile.
pub const IMPORT_TIMEOUT: Duration = Duration::from_secs(300);
/// Rows in one message of an import. Message ids follow from it: with another number, a second run of a file would
/// not be recognised.
pub const IMPORT_CHUNK_ROWS: usize = 500;
/// Messages of an import that are under way at a time, unless it is told.
pub const IMPORT_IN_FLIGHT: usize = 16;
/// How far ahead of a worker's clock the moment may lie at which an id was made (of a `UUIDv7`, which tells it).
pub const ID_AHEAD_MAX: Duration = Duration::from_secs(10 * 60);
/// Difference between a worker's clock and the store's from which on it is warned of.
pub const CLOCKS_APART: Duration = Duration::from_secs(5 * 60);
/// Time to reach and open a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of a publisher's pool.
pub const POOL_SIZE: usize = 2;
/// Messages that a client publishes without a confirm at a time.
pub const CONFIRM_WINDOW: usize = 1024;
/// How long a client waits for a first reply before it sends the same command again; the time doubles with
/// each silence.
pub const RESEND_AFTER: Duration = Duration::from_secs(5);
/// The longest that a client waits for a reply before it sends the same command again.
pub const RESEND_AFTER_MAX: Duration = Duration::from_secs(60);
/// Seconds between heartbeats, unless the broker's URL says otherwise: a dead peer is noticed after two of them.
pub const HEARTBEAT_SECONDS: u16 = 10;
/// Direct replies that wait until it is known whether their nodes can be reached.
pub const DIRECT_WAITING: usize = 1024;
/// How long a node gets no direct replies after one of them has closed the connection; doubled each time.
pub const DIRECT_BLOCK: Duration = Duration::from_secs(1);
/// The longest that a node gets no direct replies.
pub const DIRECT_BLOCK_MAX: Duration = Duration::from_secs(10 * 60);
/// Nodes of direct replies that a worker keeps in mind.
pub const DIRECT_NODES_MAX: usize = 256;
/// How long acknowledgements wait for the replies before them to be written.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a dead letter may take to be confirmed before the broker is left to move the message.
pub const DEAD_LETTER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the broker may take to let a queue be consumed, before its neighbours go on without it.
pub const CONSUME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a worker may take to open the channels and consumers of a session, before it ends it and opens another. Longer
/// than [`CONSUME_TIMEOUT`], which names the queue.
pub const SESSION_OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Stack of each thread, in bytes, of which memory is taken only for what is used: headers are read by recursion, and
/// the deepest that fit into a frame of 131,072 bytes have some 26,000 levels. (Tried: half of it is enough.)
pub const STACK_BYTES: usize = 64 * 1024 * 1024;
/// How long no worker of another store may be there before a worker that waited for them begins: longer than the pauses
/// between their attempts to connect.
pub const OTHER_STORE_GRACE: Duration = Duration::from_secs(10);
/// How long closing a channel or a connection may take before it is dropped.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a batch is kept for a store that does not answer. Three times as long lies below the broker's consumer
/// timeout (30 minutes), at which the broker would close the channel: a delivery waits for the batch that commits, for
/// the one that was read meanwhile, and for its own.
pub const STORE_PATIENCE: Duration = Duration::from_secs(9 * 60);
/// How long a store may take to say whether it is there.
pub const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// Deliveries of a message from which on it is suspected of killing workers, and handled alone.
pub const SUSPECT_DELIVERY_COUNT: i64 = 2;
/// Unsuspected successes after which a queue is consumed at full speed again.
pub const QUARANTINE_SUCCESSES: u32 = 32;
/// Time without a delivery after which a queue is consumed at full speed again.
pub const QUARANTINE_IDLE: Duration = Duration::from_secs(2);
/// Time for one request to the broker's management API.
pub const MANAGEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer of the management API that is read, in bytes.
pub const MANAGEMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Dead letters that are looked at, unless the command line says otherwise: all of them are held at the broker.
pub const DEAD_LETTERS_LOOKED_AT: u32 = 1000;
/// Most dead letters that can be looked at: each 16 of them take a channel, of which a connection has 2047.
pub const DEAD_LETTERS_LOOKED_AT_MAX: u32 = 20_000;
/// Dead letters that are sent again without a confirm at a time.
pub const REQUEUE_WINDOW: usize = 64;
