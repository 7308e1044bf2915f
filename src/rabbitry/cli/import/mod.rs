//! `rabbitry import`: a command for each row of a file.
//!
//! ```text
//! file ─► lines ─► rows ─► chunks ─► flight ─► summary, refused file
//!         (a thread of its own)      (messages under way, answers in the order of the file)
//! ```
//!
//! A second run of the same file sends the same messages with the same ids ([`chunks`]), and the inbox gives the same
//! answers, so an import can be interrupted at any moment and run again: nothing is repeated, and what was done
//! counts as done. Nothing is kept but what is under way, whatever the length of the file.

mod chunks;
mod columns;
mod csv_row;
mod flight;
mod input;
mod progress;
mod refused;
mod rows;
mod summary;
mod target;

use std::{
    future::Future,
    io,
    num::NonZeroUsize,
    path::PathBuf,
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::HumanCount;
use tokio::{signal::ctrl_c, sync::mpsc, time::interval};

use super::{
    About, Failure, Producer,
    files::{FileFormat, is_standard},
    output::Format,
    send::warn_if_nobody_consumes,
};
use crate::{
    exit,
    limits::{IMPORT_CHUNK_ROWS, IMPORT_IN_FLIGHT},
};
use chunks::Chunk;
use flight::{Answered, Flight, Sender, Unanswered};
use input::Input;
use progress::Progress;
use refused::RefusedFile;
use summary::Summary;
use target::Target;

/// How often the progress is looked at.
const TICK: Duration = Duration::from_millis(200);

/// Send a command for each row of a CSV or NDJSON file.
///
/// CSV begins with a line that names the command's fields, in any order; NDJSON has an object with these members a line. A row is
/// a line. What an export wrote can be imported: columns that the command does not take are ignored; so can a file of refused
/// rows, once it is mended.
///
/// A row that is refused holds up no other: it is written, with its line, a code and the reason, to a file of refused
/// rows. Rows about the same key are executed in the order of the file.
///
/// It is safe to interrupt an import and to run it again: the messages' ids follow from the content, so the second run
/// repeats nothing and counts as done what was done. Workers remember that for 7 days. After it what creates is refused as
/// existing, and nothing is doubled; a command that adds would add again.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The service and the command, for instance users.create
    pub(super) command: String,
    /// The file; `-` is standard input
    file: PathBuf,
    /// How the file is written [default: as its name ends, .csv, .ndjson or .jsonl; standard input: csv]
    #[arg(long, value_enum)]
    format: Option<FileFormat>,
    /// A command of the same service to send for each row that succeeded, for instance users.promote; it takes its fields
    /// from the row
    #[arg(long, value_name = "COMMAND")]
    then: Option<String>,
    /// Where refused rows go, as CSV; those of an earlier import are replaced, and no other file [default: the file's
    /// name and .refused.csv; for standard input import.refused.csv]
    #[arg(long, value_name = "FILE")]
    refused: Option<PathBuf>,
    #[arg(
        long,
        default_value_t = default_in_flight(),
        value_name = "N",
        help = format!("How many messages are under way at a time; each holds {IMPORT_CHUNK_ROWS} rows")
    )]
    in_flight: NonZeroUsize,
    /// Where there is no terminal for a progress bar, tell the progress every few seconds
    #[arg(long, short)]
    verbose: bool,
}

fn default_in_flight() -> NonZeroUsize {
    NonZeroUsize::new(IMPORT_IN_FLIGHT).unwrap_or(NonZeroUsize::MIN)
}

/// Imports a file.
pub(super) async fn run<'a, C: Future<Output = Result<Producer<'a>, Failure>>>(
    services: &[About],
    args: ImportArgs,
    connect: impl FnOnce() -> C,
    format: Format,
) -> Result<(), Failure> {
    let target = Target::new(services, &args.command, args.then.as_deref());
    let target = Arc::new(target.map_err(|error| Failure::new(exit::USAGE, error))?);
    let input = Input::open(&target, &args.file, args.format)?;
    let mut interruption = pin!(ctrl_c());
    let producer = tokio::select! {
        producer = prepare(connect(), &target) => producer?,
        _ = &mut interruption => {
            return Err(Failure::new(exit::INTERRUPTED, "interrupted before anything was sent"));
        }
    };
    // It takes the place of that of an earlier run, which is still of use while nothing can be sent.
    let refused = create_refused_file(&args, &target)?;
    let sender =
        Sender { client: producer.client.clone(), timeout: producer.timeout, target: Arc::clone(&target) };
    let mut import = Import {
        flight: Flight::new(sender, args.in_flight.get()),
        progress: Progress::begin(input.size, args.verbose),
        refused,
        summary: Summary::of(&target),
        failure: None,
        last_line: 0,
    };
    let began = Instant::now();
    let ended = import.run(input.read(), interruption).await;
    let interrupted = ended.as_ref().is_err_and(|failure| failure.code == exit::INTERRUPTED);
    let result = import.end(ended, began.elapsed(), &target, format);
    if !interrupted {
        producer.client.close().await;
    }
    result
}

/// Connects, and looks whether the commands have their queues.
async fn prepare<'a>(
    connect: impl Future<Output = Result<Producer<'a>, Failure>>,
    target: &Target,
) -> Result<Producer<'a>, Failure> {
    let producer = connect.await?;
    for command in [Some(target.command), target.then.as_ref().map(|then| then.command)].into_iter().flatten()
    {
        let checked = warn_if_nobody_consumes(&producer, command.name).await;
        checked.map_err(|error| Failure::of_call(&error, None))?;
    }
    Ok(producer)
}

fn create_refused_file(args: &ImportArgs, target: &Target) -> Result<RefusedFile, Failure> {
    let path = args.refused.clone().unwrap_or_else(|| refused::default_path(&args.file));
    if is_standard(&path) {
        let message = "--refused takes the name of a file, not `-`; standard output is for the summary";
        return Err(Failure::new(exit::USAGE, message));
    }
    if refused::is_same(&args.file, &path) {
        let message = format!("--refused names the file that is imported, {}; name another", path.display());
        return Err(Failure::new(exit::USAGE, message));
    }
    RefusedFile::create(target, path.clone()).map_err(|error| {
        let message = format!(
            "cannot write refused rows to {}: {error}; name another file with --refused",
            path.display()
        );
        Failure::new(exit::USAGE, message)
    })
}

/// An import under way.
struct Import {
    flight: Flight,
    progress: Progress,
    refused: RefusedFile,
    summary: Summary,
    /// Why nothing more is sent.
    failure: Option<Failure>,
    last_line: u64,
}

impl Import {
    /// Sends chunks and takes answers, until all is done or nothing more can be.
    async fn run<T>(
        &mut self,
        mut chunks: mpsc::Receiver<io::Result<Chunk>>,
        mut interruption: Pin<&mut impl Future<Output = T>>,
    ) -> Result<(), Failure> {
        let mut ticks = interval(TICK);
        let mut next: Option<Chunk> = None;
        let mut all_read = false;
        loop {
            if let Some(chunk) = next.take_if(|chunk| self.flight.takes(chunk)) {
                self.last_line = chunk.lines().1;
                self.flight.send(chunk);
            }
            let reads = !all_read && next.is_none() && self.failure.is_none();
            if self.flight.is_empty() && !reads && (next.is_none() || self.failure.is_some()) {
                return self.failure.take().map_or(Ok(()), Err);
            }
            tokio::select! {
                biased;
                _ = &mut interruption => return Err(self.interrupted()),
                _ = ticks.tick() => self.progress.tick(),
                Some(outcome) = self.flight.next() => match outcome {
                    Ok(answered) => self.settle(&answered)?,
                    Err(unanswered) => self.give_up(unanswered, &mut next),
                },
                chunk = chunks.recv(), if reads => match chunk {
                    Some(Ok(chunk)) => next = Some(chunk),
                    Some(Err(error)) => self.failure = Some(unreadable(&error)),
                    None => all_read = true,
                },
            }
        }
    }

    fn settle(&mut self, answered: &Answered) -> Result<(), Failure> {
        for row in &answered.refused {
            self.refused.write(row).map_err(|error| unwritable(&self.refused, &error))?;
        }
        self.summary.add(answered);
        self.progress.advance(answered.rows, answered.offset);
        Ok(())
    }

    /// Sends nothing more, as the next would fare no better; what is under way is waited for.
    fn give_up(&mut self, unanswered: Unanswered, next: &mut Option<Chunk>) {
        *next = None;
        let Unanswered { lines: (first, last), failure } = unanswered;
        let advice = "run the same import again, what was done is not repeated";
        let message = format!("lines {first} to {last} have no answer: {}; {advice}", failure.message);
        // A broker that has gone away has taken messages along whose outcome is not known.
        let code = if failure.code == exit::UNAVAILABLE { exit::TRY_AGAIN } else { failure.code };
        self.failure.get_or_insert(Failure::new(code, message));
    }

    fn interrupted(&self) -> Failure {
        let message = format!(
            "interrupted after {} rows; of those under way (up to line {}) the outcome is not known; run the same import again: what was done is not repeated",
            HumanCount(self.summary.rows),
            self.last_line
        );
        Failure::new(exit::INTERRUPTED, message)
    }

    /// Tells what it came to. Does not wait for anything.
    fn end(
        mut self,
        ended: Result<(), Failure>,
        elapsed: Duration,
        target: &Target,
        format: Format,
    ) -> Result<(), Failure> {
        self.progress.end();
        let written = self.refused.finish().map_err(|error| unwritable(&self.refused, &error));
        let refused = self.summary.all_refused();
        self.summary.complete = ended.is_ok() && written.is_ok();
        self.summary.refused_file = (refused > 0).then(|| self.refused.path().to_owned());
        self.summary.took(elapsed);
        self.summary.print(format, target)?;
        ended?;
        written?;
        if refused == 0 {
            return Ok(());
        }
        let message = format!(
            "{} of {} rows were refused; they stand with their reasons in {}",
            HumanCount(refused),
            HumanCount(self.summary.rows),
            self.refused.path().display()
        );
        Err(Failure::new(exit::REFUSED, message))
    }
}

fn unreadable(error: &io::Error) -> Failure {
    let message =
        format!("cannot read on: {error}; what was read is imported, run the same import again for the rest");
    Failure::new(exit::TRY_AGAIN, message)
}

fn unwritable(refused: &RefusedFile, error: &io::Error) -> Failure {
    let path = refused.path().display();
    let message = format!(
        "cannot write refused rows to {path}: {error}; make room and run the same import again, it repeats nothing"
    );
    Failure::new(exit::TRY_AGAIN, message)
}
