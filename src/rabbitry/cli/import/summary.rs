//! What an import came to.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use indicatif::HumanCount;
use serde::Serialize;

use super::{flight::Answered, target::Target};
use crate::cli::{
    Failure,
    output::{Format, print, table},
};

/// Rows by outcome. Those that were under way when an import ended early are in none of the numbers.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct Summary {
    /// Rows whose outcome is known.
    pub(super) rows: u64,
    /// Those whose command has succeeded.
    pub(super) done: u64,
    /// Rows that were answered before, as they had been sent before: what happened then is counted again.
    pub(super) repeated: u64,
    /// Those whose second command has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) then_done: Option<u64>,
    /// Refused rows by code.
    pub(super) refused: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refused_file: Option<PathBuf>,
    /// Whether the file was read to its end and every row answered.
    pub(super) complete: bool,
    seconds: f64,
    rows_per_second: f64,
}

impl Summary {
    pub(super) fn of(target: &Target) -> Self {
        Self { then_done: target.then.as_ref().map(|_| 0), ..Self::default() }
    }

    pub(super) fn add(&mut self, answered: &Answered) {
        self.rows += answered.rows;
        self.done += answered.done;
        if let Some(done) = &mut self.then_done {
            *done += answered.then_done;
        }
        self.repeated += answered.repeated;
        for row in &answered.refused {
            *self.refused.entry(row.code.clone()).or_default() += 1;
        }
    }

    pub(super) fn all_refused(&self) -> u64 {
        self.refused.values().sum()
    }

    pub(super) fn took(&mut self, elapsed: Duration) {
        self.seconds = elapsed.as_secs_f64();
        self.rows_per_second = self.rows as f64 / self.seconds.max(f64::EPSILON);
    }

    pub(super) fn print(&self, format: Format, target: &Target) -> Result<(), Failure> {
        match format {
            Format::Json => print(&String::from_utf8_lossy(&crate::service::to_json(self))),
            Format::Table => print(&self.for_people(target)),
        }
    }

    fn for_people(&self, target: &Target) -> String {
        let mut table = table(&["OUTCOME", "ROWS"]);
        let mut line = |outcome: String, rows| {
            table.add_row([outcome, HumanCount(rows).to_string()]);
        };
        line(format!("{} done", target.command.name), self.done);
        if let (Some(then), Some(done)) = (&target.then, self.then_done) {
            line(format!("{} done", then.command.name), done);
        }
        for (code, rows) in &self.refused {
            line(format!("refused: {code}"), *rows);
        }
        line("all rows answered".to_owned(), self.rows);
        if self.repeated > 0 {
            line("  of them sent and answered before".to_owned(), self.repeated);
        }
        format!("{table}\nin {:.1} s: {:.0} rows a second", self.seconds, self.rows_per_second)
    }
}
