//! Results: tables for people, JSON for programs.

use std::{
    io::{IsTerminal, Write, stdout},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use comfy_table::{CellAlignment, Table, presets};
use rustix::termios::tcgetwinsize;
use serde_json::{Value, json};

use super::Failure;
use crate::{
    exit,
    telemetry::report,
    users::{commands::list::Page, user::User},
};

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
pub fn report_failure(failure: &Failure) {
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

/// Prints a successful answer: a user, a page, or an array of results.
pub(super) fn print_answer(format: Format, body: &[u8]) -> Result<(), Failure> {
    if format == Format::Table {
        if let Ok(user) = serde_json::from_slice::<User>(body) {
            return print_table(&users_table(&[user]));
        }
        if let Ok(page) = serde_json::from_slice::<Page>(body) {
            print_table(&users_table(&page.users))?;
            if let Some(next) = page.next {
                note(&format!("there are more: rabbitry list --after {next}"));
            }
            return Ok(());
        }
        if let Ok(value) = serde_json::from_slice::<Value>(body) {
            return print(&format!("{value:#}"));
        }
    }
    print(&String::from_utf8_lossy(body))
}

/// Prints a line; a reader that has gone away is not an error worth a word.
pub(super) fn print(line: &str) -> Result<(), Failure> {
    writeln!(stdout().lock(), "{line}").map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::new(exit::OK, ""),
        _ => Failure::new(exit::INTERNAL, format!("cannot write to standard output: {error}")),
    })
}

fn users_table(users: &[User]) -> Table {
    let mut table = table(&["USERNAME", "EMAIL", "POINTS", "STATUS"]);
    if let Some(points) = table.column_mut(2) {
        points.set_cell_alignment(CellAlignment::Right);
    }
    for user in users {
        let points = user.points.get().to_string();
        table.add_row([user.username.as_str(), user.email.as_str(), &points, &format!("{:?}", user.status)]);
    }
    table
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
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Text that somebody else wrote, fit for a terminal: what could steer it is replaced.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
