//! `rabbitry export`: all that a service keeps, page by page, to a file.

use std::{
    collections::HashMap,
    fs,
    io::{self, BufWriter, IsTerminal, Write, stdout},
    path::{Path, PathBuf},
};

use clap::Args;
use indicatif::{HumanCount, ProgressBar};
use serde_json::{Map, Value, json, value::RawValue};
use tempfile::NamedTempFile;

use super::{
    About, Failure, Producer,
    files::{FileFormat, is_standard},
    output::{note, text_of},
    send::warn_if_nobody_consumes,
};
use crate::{amqp::client::Command, exit, limits::LIST_LIMIT_MAX};

/// Write all that a service keeps to a CSV or NDJSON file.
///
/// It comes in the order of keys, in pages of 1,000; what is created or changed meanwhile may be there or not. A file gets its
/// name when it is whole. It can be imported again: columns that the command does not take are ignored.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Whose
    pub(super) service: String,
    /// The file; `-` is standard output
    #[arg(default_value = "-")]
    file: PathBuf,
    /// How to write it [default: as the file's name ends, .csv, .ndjson or .jsonl; standard output: csv]
    #[arg(long, value_enum)]
    format: Option<FileFormat>,
}

/// A page as the worker wrote it. Entities are passed on without being judged: what was stored under other rules is one too.
struct Page {
    entities: Vec<Box<RawValue>>,
    next: Option<Box<RawValue>>,
}

impl Page {
    fn read(about: &About, body: &[u8]) -> serde_json::Result<Self> {
        let mut members: HashMap<&str, &RawValue> = serde_json::from_slice(body)?;
        let entities = members
            .remove(about.table)
            .ok_or_else(|| serde::de::Error::custom(format!("it has no member {:?}", about.table)))?;
        let next = members.remove("next").map(ToOwned::to_owned);
        Ok(Self { entities: serde_json::from_str(entities.get())?, next })
    }
}

/// Exports all entities.
pub(super) async fn run(producer: Producer<'_>, args: ExportArgs) -> Result<(), Failure> {
    let about = producer.about;
    let list = about.commands.iter().find(|command| command.pages).ok_or_else(|| {
        Failure::new(
            exit::USAGE,
            format!("the {} service has no command that lists what it keeps", about.name),
        )
    })?;
    let format = FileFormat::choose(args.format, &args.file)?;
    let output = Output::open(&args.file).map_err(|error| {
        let failure = unwritable(&args.file, &error);
        // The command line names where no file can be.
        Failure { code: exit::USAGE, ..failure }
    })?;
    let checked = warn_if_nobody_consumes(&producer, list.name).await;
    checked.map_err(|error| Failure::of_call(&error, None))?;
    let mut writer = Writer::new(output, format, about).map_err(|error| unwritable(&args.file, &error))?;
    let bar = progress(&args.file);
    let mut after = None;
    loop {
        let page = page(&producer, list.name, after.as_deref()).await?;
        writer.write(&page.entities).map_err(|error| unwritable(&args.file, &error))?;
        bar.inc(page.entities.len() as u64);
        bar.set_message(format!("{} {}", HumanCount(bar.position()), about.table));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    writer.finish().map_err(|error| unwritable(&args.file, &error))?;
    producer.client.close().await;
    if !is_standard(&args.file) {
        note(&format!("{} {} are in {}", HumanCount(bar.position()), about.table, args.file.display()));
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

async fn page(producer: &Producer<'_>, list: &str, after: Option<&RawValue>) -> Result<Page, Failure> {
    let mut payload = json!({"limit": LIST_LIMIT_MAX});
    if let Some(after) = after {
        payload["after"] = json!(after);
    }
    let command = Command::new(list, payload.to_string());
    let answer = producer.client.call(&command, producer.timeout).await;
    let answer = answer.map_err(|error| producer.failure(&error, &command))?;
    if let Some(problem) = answer.problem() {
        return Err(Failure::of_problem(answer.status, &problem));
    }
    Page::read(producer.about, &answer.body).map_err(|error| {
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
    Csv { writer: Box<csv::Writer<Output>>, columns: Vec<&'static str> },
    Ndjson(BufWriter<Output>),
}

impl Writer {
    fn new(output: Output, format: FileFormat, about: &About) -> io::Result<Self> {
        match format {
            FileFormat::Ndjson => Ok(Self::Ndjson(BufWriter::new(output))),
            FileFormat::Csv => {
                let columns: Vec<_> = (about.columns)().into_iter().map(|(name, _)| name).collect();
                let mut writer = csv::Writer::from_writer(output);
                // The header is there also if there is nothing else.
                writer.write_record(&columns).map_err(plain)?;
                Ok(Self::Csv { writer: Box::new(writer), columns })
            }
        }
    }

    fn write(&mut self, entities: &[Box<RawValue>]) -> io::Result<()> {
        for entity in entities {
            match self {
                Self::Csv { writer, columns } => {
                    let entity: Map<String, Value> = serde_json::from_str(entity.get())?;
                    let fields =
                        columns.iter().map(|column| entity.get(*column).map_or_else(String::new, text_of));
                    writer.write_record(fields).map_err(plain)?;
                }
                Self::Ndjson(writer) => {
                    writer.write_all(entity.get().as_bytes())?;
                    writer.write_all(b"\n")?;
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> io::Result<()> {
        let output = match self {
            Self::Csv { writer, .. } => (*writer).into_inner().map_err(csv::IntoInnerError::into_error)?,
            Self::Ndjson(writer) => writer.into_inner().map_err(io::IntoInnerError::into_error)?,
        };
        output.finish()
    }
}
