//! The names of moments and mutants: what the tests may ask for. They are there in every build, so that the tests can be
//! compiled with it; no program that is built without the feature uses them.

/// An enum whose variants have names, and the list of these.
macro_rules! named {
    ($(#[$about:meta])* $kind:ident, $all:ident: $($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $kind {
            $($(#[$doc])* $variant,)+
        }

        #[doc = concat!("The names of every [`", stringify!($kind), "`].")]
        pub const $all: &[&str] = &[$($name),+];

        impl $kind {
            /// What the variables call it.
            pub fn name(self) -> &'static str {
                $all[self as usize]
            }

            /// The one of this name.
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

named! {
    /// A place in the worker's code that can be made to fail.
    Moment, MOMENTS:
    /// In a store's transaction, when a command has been applied and before the next one is.
    MidBatch = "mid_batch",
    /// All writes of a batch are done, and not committed.
    BeforeCommit = "before_commit",
    /// The writes of a batch are durable; nobody knows yet. An error is a commit whose outcome is not known.
    AfterCommit = "after_commit",
    /// A batch is answered, and no reply of it sent.
    BeforeReply = "before_reply",
    /// The replies of a batch are written to the socket.
    AfterReply = "after_reply",
    /// Copies are confirmed by the dead-letter queue. Only batches with a dead letter pass here.
    AfterSetAside = "after_set_aside",
    /// Everything is done but the acknowledgement.
    BeforeAck = "before_ack",
    /// A batch is acknowledged.
    AfterAck = "after_ack",
    /// The write-ahead log is about to be cut back.
    BeforeCheckpoint = "before_checkpoint",
    /// A transaction of the schema's migration is about to be committed; an error rolls it back.
    InMigration = "in_migration",
}

named! {
    /// A mistake that somebody could make in the worker's code.
    Mutant, MUTANTS:
    /// A batch is acknowledged before it is handed to the store.
    AckBeforeCommit = "ack-before-commit",
    /// The store answers, and commits 50 ms later: replies and acknowledgements are ahead of it.
    ReplyBeforeCommit = "reply-before-commit",
    /// Message ids are neither looked up nor remembered.
    NoInbox = "no-inbox",
    /// Ids are not kept apart by command.
    InboxKeyWithoutCommand = "inbox-key-without-command",
    /// Another content under a known id gets the old reply.
    FingerprintIgnored = "fingerprint-ignored",
    /// A command that was executed in time is told after its deadline that it was not.
    DeadlineBeforeInbox = "deadline-before-inbox",
    /// The effects of a batch with an array are committed before its inbox rows are.
    ArrayApart = "array-apart",
    /// Replies are forgotten at once.
    PurgeTooEarly = "purge-too-early",
    /// A commit does not wait for the disk. Nothing but a power cut, or counting calls of fsync, tells.
    UnsyncedCommit = "unsynced-commit",
    /// A consumer that the broker cancelled is not missed.
    StreamEndSwallowed = "stream-end-swallowed",
    /// An acknowledgement of several covers deliveries that nobody has handled.
    AckOverGap = "ack-over-gap",
    /// A message that a worker had in hand when it lost its connection is acknowledged when it comes again, as if it had
    /// been handled.
    StaleAck = "stale-ack",
    /// A message that was delivered before is handled together with others.
    SuspectsNotAlone = "suspects-not-alone",
    /// A dead letter that the broker did not take is acknowledged all the same.
    NackIgnored = "nack-ignored",
    /// Rows are locked in another order by each session.
    LocksUnsorted = "locks-unsorted",
    /// That another worker has inserted a row first is not noticed.
    LostRaceIgnored = "lost-race-ignored",
    /// A commit whose outcome is not known is taken for one that failed.
    UnknownCommitFailed = "unknown-commit-failed",
}
