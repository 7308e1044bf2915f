//! What is printed: a line for each cell, and a table at the end.

use std::{collections::BTreeMap, fs, time::Duration};

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use tokio::time::Instant;

use crate::{cells::Cell, judge::Verdict, options::Options, store};

pub struct Report {
    began: Instant,
    /// In the order in which they were first run.
    rows: Vec<String>,
    sums: BTreeMap<String, Sum>,
    clean: bool,
}

#[derive(Default)]
struct Sum {
    runs: usize,
    commands: usize,
    repetitions: usize,
    starts: u32,
    /// Violations by what they mean.
    lost: usize,
    doubled: usize,
    not_linearizable: usize,
    other: usize,
    recovery: Duration,
}

impl Sum {
    fn add(&mut self, verdict: &Verdict) {
        self.runs += 1;
        self.commands += verdict.commands;
        self.repetitions += verdict.repetitions;
        self.starts += verdict.starts;
        self.recovery = self.recovery.max(verdict.recovery);
        for violation in &verdict.violations {
            *match violation.check {
                "lost" | "conservation" | "inbox" | "drained" => &mut self.lost,
                "doubled" | "same-replies" | "misuse" | "arrays" => &mut self.doubled,
                "linearizable" => &mut self.not_linearizable,
                _ => &mut self.other,
            } += 1;
        }
    }

    fn cells(&self) -> [String; 9] {
        [
            self.runs.to_string(),
            self.commands.to_string(),
            self.repetitions.to_string(),
            self.starts.to_string(),
            self.lost.to_string(),
            self.doubled.to_string(),
            if self.not_linearizable == 0 {
                "yes".to_owned()
            } else {
                format!("no ({})", self.not_linearizable)
            },
            self.other.to_string(),
            format!("{:.1} s", self.recovery.as_secs_f64()),
        ]
    }
}

impl Report {
    pub fn begin() -> Self {
        Self { began: Instant::now(), rows: Vec::new(), sums: BTreeMap::new(), clean: true }
    }

    pub fn add(&mut self, cell: &Cell, seed: u64, took: Duration, verdict: &Verdict, options: &Options) {
        let name = format!("{}: {}", cell.family, cell.name);
        let outcome = if verdict.violations.is_empty() { "clean" } else { "VIOLATED" };
        println!(
            "{outcome:9} {name:48} seed {seed:<10} {:6} commands, {:5} repeated, recovered in {:4.1} s, took {:4.1} s",
            verdict.commands,
            verdict.repetitions,
            verdict.recovery.as_secs_f64(),
            took.as_secs_f64(),
        );
        if !verdict.violations.is_empty() {
            self.clean = false;
            for violation in &verdict.violations {
                println!("  {}: {}", violation.check, violation.detail);
            }
            let (window, clients) = (options.window().as_secs_f64(), options.clients);
            println!(
                "  again: make faults FAULTS=\"--cell '{name}' --seed {seed} --window {window} --clients {clients}\""
            );
        }
        if !self.sums.contains_key(&name) {
            self.rows.push(name.clone());
        }
        self.sums.entry(name).or_default().add(verdict);
    }

    pub fn mutants_found(&mut self, found: bool) {
        self.clean &= found;
    }

    /// Prints the table; whether everything was clean.
    pub fn end(self, options: &Options, seed: u64) -> bool {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        table.set_header([
            "fault",
            "runs",
            "commands",
            "repetitions",
            "worker starts",
            "lost",
            "doubled",
            "linearizable",
            "other violations",
            "longest recovery",
        ]);
        for name in &self.rows {
            table.add_row([&[name.clone()][..], &self.sums[name].cells()].concat());
        }
        let total = |of: fn(&Sum) -> usize| self.sums.values().map(of).sum::<usize>();
        let (runs, commands, repetitions) =
            (total(|sum| sum.runs), total(|sum| sum.commands), total(|sum| sum.repetitions));
        let text = format!(
            "{table}\n\n{runs} runs, {commands} commands and {repetitions} repetitions of them in {:.1} minutes (seed {seed}, {}, \
             {} workers, {} clients): {} lost, {} doubled, {} histories not linearizable, {} other violations.\n",
            self.began.elapsed().as_secs_f64() / 60.0,
            if store::is_postgres() { "PostgreSQL" } else { "SQLite" },
            options.workers,
            options.clients,
            total(|sum| sum.lost),
            total(|sum| sum.doubled),
            total(|sum| sum.not_linearizable),
            total(|sum| sum.other),
        );
        println!("\n{text}");
        if let Some(path) = &options.report {
            fs::write(path, &text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        }
        self.clean && runs > 0
    }
}
