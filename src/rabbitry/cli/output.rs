//! Results: tables for people, JSON for programs.

use std::{
    io::{IsTerminal, Write, stdout},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use comfy_table::{CellAlignment, Table, presets};
use rustix::termios::tcgetwinsize;
use serde_json::{Value, json};

use super::{About, Failure};
use crate::{exit, service::entity::Type, telemetry::report};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Format {
    pub(super) fn choose(json: bool) -> Self {
        IS_JSON.store(json, Ordering::Relaxed);
        if json || !stdout().is_terminal() { Self::Json } else { Self::Table }
    }
}

/// Whether `--json` is given. Standard error then is for programs too: one line of JSON if the program fails, and else
/// nothing but what `--verbose` asks for. Output that is merely piped may still be watched by a person.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Tells a person something beside the result.
pub(super) fn note(text: &str) {
    if !IS_JSON.load(Ordering::Relaxed) {
        report(format_args!("rabbitry: {text}"));
    }
}

/// Tells what `--verbose` asks for beside the result.
pub(super) fn asked_for(what: &str, text: &str) {
    if IS_JSON.load(Ordering::Relaxed) {
        report(json!({what: text}));
    } else {
        report(format_args!("{what}: {text}"));
    }
}

/// Reports why the program did not do what it was asked for: a sentence for people, one line of JSON for programs.
pub(super) fn report_failure(failure: &Failure) {
    if failure.message.is_empty() {
        return;
    }
    if !IS_JSON.load(Ordering::Relaxed) {
        return report(format_args!("rabbitry: {}", failure.message));
    }
    let mut object = json!({"error": failure.message, "exit": failure.code});
    if let Some(problem) = &failure.problem {
        object["problem"] = problem.clone();
    }
    report(object);
}

/// A time in seconds, with no more of them than a person wants to read.
pub(super) fn for_people(time: Duration) -> String {
    let tenths = (time.as_secs_f64() * 10.0).round() / 10.0;
    format!("{tenths} s")
}

/// Prints a successful answer: what the service keeps as a table, anything else as JSON.
pub(super) fn print_answer(about: &About, format: Format, body: &[u8]) -> Result<(), Failure> {
    let value = match serde_json::from_slice::<Value>(body) {
        Ok(value) if format == Format::Table => value,
        _ => return print(&String::from_utf8_lossy(body)),
    };
    let columns = (about.columns)();
    if is_entity(&columns, &value) {
        return print_table(&entities(&columns, std::slice::from_ref(&value)));
    }
    match value.get(about.table).and_then(Value::as_array) {
        Some(page) if page.iter().all(|value| is_entity(&columns, value)) => {
            print_table(&entities(&columns, page))?;
            if let Some(next) = value.get("next") {
                note(&format!("there are more: rabbitry {} list --after {}", about.name, text_of(next)));
            }
            Ok(())
        }
        _ => print(&format!("{value:#}")),
    }
}

fn is_entity(columns: &[(&str, Type)], value: &Value) -> bool {
    value.as_object().is_some_and(|object| {
        object.len() == columns.len() && columns.iter().all(|(name, _)| object.contains_key(*name))
    })
}

fn entities(columns: &[(&str, Type)], entities: &[Value]) -> Table {
    let header: Vec<_> = columns.iter().map(|(name, _)| name.to_uppercase()).collect();
    let mut table = table(&header);
    for (index, (_, kind)) in columns.iter().enumerate() {
        if let (Type::Integer, Some(column)) = (kind, table.column_mut(index)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for entity in entities {
        table.add_row(columns.iter().map(|(name, _)| printable(&text_of(&entity[*name]))));
    }
    table
}

/// A value as it stands in a table or in a file: a text without quotes, and nothing for `null`.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Prints a line; a reader that has gone away is not an error worth a word.
pub(super) fn print(line: &str) -> Result<(), Failure> {
    writeln!(stdout().lock(), "{line}").map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::new(exit::OK, ""),
        _ => Failure::new(exit::INTERNAL, format!("cannot write to standard output: {error}")),
    })
}

/// Prints a table.
pub(super) fn print_table(table: &Table) -> Result<(), Failure> {
    print(&lines_of(table))
}

/// A table without the padding at the ends of its lines; on a terminal no line is longer than that is wide, as a table whose
/// lines are broken cannot be read. So what is cut off stands last.
pub(super) fn lines_of(table: &Table) -> String {
    let width = tcgetwinsize(stdout()).ok().map(|size| usize::from(size.ws_col)).filter(|width| *width > 0);
    let lines: Vec<_> = table.lines().map(|line| cut_to(line.trim_end(), width)).collect();
    lines.join("\n")
}

fn cut_to(line: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if line.chars().count() > width => line.chars().take(width - 1).chain(['…']).collect(),
        _ => line.to_owned(),
    }
}

/// `1 command`, `2 commands`.
pub(super) fn counted(count: impl Into<u64>, what: &str) -> String {
    let count = count.into();
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// An empty table in the style of this program.
pub(super) fn table(header: &[impl AsRef<str>]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(AsRef::as_ref));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Text that somebody else wrote, fit for a terminal: what could steer it is replaced.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
