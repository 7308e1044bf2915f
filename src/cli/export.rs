//! `rabbitry export`: all users, page by page, to a file.

use std::{
    fs,
    io::{self, BufWriter, IsTerminal, Write, stdout},
    path::{Path, PathBuf},
};

use clap::Args;
use indicatif::{HumanCount, ProgressBar};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tempfile::NamedTempFile;

use super::{
    Failure, Producer,
    files::{FileFormat, is_standard},
    output::note,
    send::warn_if_nobody_consumes,
};
use crate::{amqp::client::Command, exit, limits::LIST_LIMIT_MAX};

/// Write all users to a CSV or NDJSON file.
///
/// Users come by username, in pages of 1,000; users that are created or changed meanwhile may be there or not. A file
/// gets its name when it is whole. It can be imported again; a status is then earned anew by promotion.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The file; `-` is standard output
    #[arg(default_value = "-")]
    file: PathBuf,
    /// How to write it [default: as the file's name ends, .csv, .ndjson or .jsonl; standard output: csv]
    #[arg(long, value_enum)]
    format: Option<FileFormat>,
}

/// A page as the worker wrote it. Users are passed on without being judged: what was stored under other rules is a user
/// too.
#[derive(Deserialize)]
struct Page {
    users: Vec<User>,
    next: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct User {
    username: String,
    email: String,
    points: u64,
    status: String,
}

/// Exports all users.
pub(super) async fn run(producer: Producer, args: ExportArgs) -> Result<(), Failure> {
    let format = FileFormat::choose(args.format, &args.file)?;
    let output = Output::open(&args.file).map_err(|error| {
        let failure = unwritable(&args.file, &error);
        // The command line names where no file can be.
        Failure { code: exit::USAGE, ..failure }
    })?;
    let checked = warn_if_nobody_consumes(&producer, "list").await;
    checked.map_err(|error| Failure::of_call(&error, None))?;
    let mut writer = Writer::new(output, format).map_err(|error| unwritable(&args.file, &error))?;
    let bar = progress(&args.file);
    let mut after = None;
    loop {
        let page = page(&producer, after.as_deref()).await?;
        writer.write(&page.users).map_err(|error| unwritable(&args.file, &error))?;
        bar.inc(page.users.len() as u64);
        bar.set_message(format!("{} users", HumanCount(bar.position())));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    writer.finish().map_err(|error| unwritable(&args.file, &error))?;
    producer.client.close().await;
    if !is_standard(&args.file) {
        note(&format!("{} users are in {}", HumanCount(bar.position()), args.file.display()));
    }
    Ok(())
}

/// A bar on the terminal, unless the users themselves go there.
fn progress(file: &Path) -> ProgressBar {
    if is_standard(file) && stdout().is_terminal() {
        ProgressBar::hidden()
    } else {
        ProgressBar::new_spinner()
    }
}

async fn page(producer: &Producer, after: Option<&str>) -> Result<Page, Failure> {
    let mut payload = json!({"limit": LIST_LIMIT_MAX});
    if let Some(after) = after {
        payload["after"] = after.into();
    }
    let command = Command::new("list", payload.to_string());
    let answer = producer.client.call(&command, producer.timeout).await;
    let answer = answer.map_err(|error| Failure::of_call(&error, Some(&command)))?;
    if let Some(problem) = answer.problem() {
        return Err(Failure::of_problem(answer.status, &problem));
    }
    serde_json::from_slice(&answer.body).map_err(|error| {
        Failure::new(exit::INTERNAL, format!("the answer to {payload} cannot be read: {error}"))
    })
}

fn unwritable(file: &Path, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        // A reader that has gone away is not an error worth a word.
        return Failure::new(exit::OK, "");
    }
    let name = if is_standard(file) { "standard output".to_owned() } else { file.display().to_string() };
    Failure::new(exit::INTERNAL, format!("cannot write the export to {name}: {error}"))
}

/// What failed below the csv crate, whose own conversion hides what kind of failure it was.
fn plain(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// Where an export goes.
enum Output {
    Standard,
    /// What is there already and no file, such as a pipe.
    Special(fs::File),
    File {
        unnamed: NamedTempFile,
        path: PathBuf,
    },
}

impl Output {
    fn open(file: &Path) -> io::Result<Self> {
        if is_standard(file) {
            return Ok(Self::Standard);
        }
        if fs::metadata(file).is_ok_and(|found| !found.is_file()) {
            return Ok(Self::Special(fs::OpenOptions::new().write(true).open(file)?));
        }
        // A link stays, and what it leads to is replaced.
        let path = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Nobody else may read it, as it holds addresses.
        let unnamed = tempfile::Builder::new().prefix(".rabbitry-export-").tempfile_in(folder)?;
        Ok(Self::File { unnamed, path })
    }

    fn finish(self) -> io::Result<()> {
        let Self::File { unnamed, path } = self else { return Ok(()) };
        unnamed.as_file().sync_all()?;
        unnamed.persist(path).map(drop).map_err(|error| error.error)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Standard => stdout().write(bytes),
            Self::Special(file) => file.write(bytes),
            Self::File { unnamed, .. } => unnamed.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Standard => stdout().flush(),
            Self::Special(file) => file.flush(),
            Self::File { unnamed, .. } => unnamed.flush(),
        }
    }
}

enum Writer {
    Csv(Box<csv::Writer<Output>>),
    Ndjson(BufWriter<Output>),
}

impl Writer {
    fn new(output: Output, format: FileFormat) -> io::Result<Self> {
        match format {
            FileFormat::Ndjson => Ok(Self::Ndjson(BufWriter::new(output))),
            FileFormat::Csv => {
                // The header is there also if there is no user.
                let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(output);
                writer.write_record(["username", "email", "points", "status"]).map_err(plain)?;
                Ok(Self::Csv(Box::new(writer)))
            }
        }
    }

    fn write(&mut self, users: &[User]) -> io::Result<()> {
        for user in users {
            match self {
                Self::Csv(writer) => writer.serialize(user).map_err(plain)?,
                Self::Ndjson(writer) => {
                    serde_json::to_writer(&mut *writer, user)?;
                    writer.write_all(b"\n")?;
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> io::Result<()> {
        let output = match self {
            Self::Csv(writer) => (*writer).into_inner().map_err(csv::IntoInnerError::into_error)?,
            Self::Ndjson(writer) => writer.into_inner().map_err(io::IntoInnerError::into_error)?,
        };
        output.finish()
    }
}
