//! Results: tables for people, JSON for programs.

use std::io::{IsTerminal, Write, stdout};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use super::Failure;
use crate::{
    exit,
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
        if json || !stdout().is_terminal() { Self::Json } else { Self::Table }
    }
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
                eprintln!("there are more: rabbitry list --after {next}");
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

/// Prints a table without the padding at the ends of its lines.
pub(super) fn print_table(table: &Table) -> Result<(), Failure> {
    table.lines().try_for_each(|line| print(line.trim_end()))
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
