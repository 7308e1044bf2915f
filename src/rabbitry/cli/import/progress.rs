//! How far an import is: a bar for a person, a line now and then for a log.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};

use crate::cli::output::asked_for;

/// How often a log gets a line.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// The progress of an import, in bytes of the file, as the number of its rows is not known before its end.
pub(super) struct Progress {
    bar: ProgressBar,
    logs: bool,
    logged: Instant,
    began: Instant,
    /// The file's size, if it has one.
    size: Option<u64>,
    offset: u64,
    rows: u64,
}

impl Progress {
    pub(super) fn begin(size: Option<u64>, verbose: bool) -> Self {
        let (bar, template) = match size {
            // Hidden by itself where standard error is no terminal.
            Some(size) => (ProgressBar::new(size), "{bar:30} {percent:>3} %  {msg}, {eta} left"),
            None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
        };
        let bar = match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        bar.set_message("0 rows");
        let now = Instant::now();
        let logs = verbose && !stderr().is_terminal();
        Self { bar, logs, logged: now, began: now, size, offset: 0, rows: 0 }
    }

    /// Rows were answered.
    pub(super) fn advance(&mut self, rows: u64, offset: u64) {
        self.rows += rows;
        self.offset = offset;
        self.bar.set_position(offset);
        self.bar.set_message(self.rate());
    }

    /// Time has passed.
    pub(super) fn tick(&mut self) {
        self.bar.tick();
        if self.logs && self.logged.elapsed() >= LOG_EVERY {
            self.logged = Instant::now();
            asked_for("progress", &format!("{}{}", self.rate(), self.left()));
        }
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn rate(&self) -> String {
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let rate = (self.rows as f64 / seconds) as u64;
        format!("{} rows, {} a second", HumanCount(self.rows), HumanCount(rate))
    }

    fn left(&self) -> String {
        match self.size {
            Some(size) if self.offset > 0 && size > 0 => {
                let left = size.saturating_sub(self.offset) as f64 / self.offset as f64;
                let left = Duration::from_secs_f64(left * self.began.elapsed().as_secs_f64());
                format!(", {} %, {} left", self.offset * 100 / size, HumanDuration(left))
            }
            _ => String::new(),
        }
    }
}
