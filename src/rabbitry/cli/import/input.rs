//! The file that is imported.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
    sync::Arc,
};

use tokio::sync::mpsc;

use super::{
    chunks::{Chunk, Chunks},
    columns::Columns,
    rows::{Form, Rows},
    target::Target,
};
use crate::{
    cli::{
        Failure,
        files::{FileFormat, is_standard},
        lines::Lines,
        output::note,
    },
    exit,
    limits::PAYLOAD_BYTES_MAX,
};

/// Chunks that are read before there is room for them.
const READ_AHEAD: usize = 4;

/// A file whose header was read.
pub(super) struct Input {
    rows: Rows<Box<dyn BufRead + Send>>,
    /// How many bytes it has, if it is a file.
    pub(super) size: Option<u64>,
}

impl Input {
    /// Opens a file and reads its header.
    pub(super) fn open(
        target: &Arc<Target>,
        file: &Path,
        format: Option<FileFormat>,
    ) -> Result<Self, Failure> {
        let name = shown(file);
        let cannot = |error: io::Error| Failure::new(exit::USAGE, format!("cannot read {name}: {error}"));
        let format = FileFormat::choose(format, file)?;
        let (reader, size): (Box<dyn BufRead + Send>, _) = if is_standard(file) {
            (Box::new(BufReader::new(io::stdin())), None)
        } else {
            let file = File::open(file).map_err(cannot)?;
            let metadata = file.metadata().map_err(cannot)?;
            let size = metadata.is_file().then_some(metadata.len());
            (Box::new(BufReader::new(file)), size)
        };
        let mut lines = Lines::new(reader, PAYLOAD_BYTES_MAX);
        let form = match format {
            FileFormat::Ndjson => Form::Ndjson,
            FileFormat::Csv => Form::Csv(read_header(target, &mut lines, &name, cannot)?),
        };
        Ok(Self { rows: Rows::new(lines, form, Arc::clone(target)), size })
    }

    /// Reads on a thread of its own.
    pub(super) fn read(self) -> mpsc::Receiver<io::Result<Chunk>> {
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        tokio::task::spawn_blocking(move || {
            for chunk in Chunks::new(self.rows) {
                let failed = chunk.is_err();
                // Nobody listens any more when the import has ended early.
                if sender.blocking_send(chunk).is_err() || failed {
                    return;
                }
            }
        });
        receiver
    }
}

fn read_header(
    target: &Target,
    lines: &mut Lines<Box<dyn BufRead + Send>>,
    name: &str,
    cannot: impl Fn(io::Error) -> Failure,
) -> Result<Columns, Failure> {
    let refused = |what: String| Failure::new(exit::USAGE, format!("cannot import {name}: {what}"));
    let header = lines.next().map_err(cannot)?;
    let header =
        header.ok_or_else(|| refused("it is empty; the first line of CSV names the columns".to_owned()))?;
    let columns = Columns::read(target, header.text).map_err(refused)?;
    let ignored = columns.ignored();
    if !ignored.is_empty() {
        note(&format!("ignoring in {name}: {}", ignored.join(", ")));
    }
    Ok(columns)
}

fn shown(file: &Path) -> String {
    if is_standard(file) { "standard input".to_owned() } else { file.display().to_string() }
}
