//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use wildmatch::WildMatch;

use crate::cells::Cell;

/// Breaks workers, broker, store and lines on purpose, and checks that nothing is lost or done twice
#[derive(Debug, Parser)]
pub struct Options {
    /// Only cells whose `family: name` is like this (* and ?)
    #[arg(long, value_name = "PATTERN", default_value = "*")]
    pub cell: String,
    /// What is random follows from it; without one it is taken from the clock
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How long each fault lasts, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 4.0)]
    pub window: f64,
    /// Workers of a cell
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub workers: usize,
    /// Clients of a cell
    #[arg(long, value_name = "N", default_value_t = 48)]
    pub clients: usize,
    /// A few short cells of each family, and two mutants
    #[arg(long)]
    pub quick: bool,
    /// Random cells for so long
    #[arg(long, value_name = "MINUTES")]
    pub soak: Option<f64>,
    /// Plant mistakes in the workers, one after another, and see that each is found
    #[arg(long)]
    pub mutants: bool,
    /// Plant this mistake in every cell's workers
    #[arg(long, value_name = "NAME")]
    pub mutant: Option<String>,
    /// Write the table to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Ignored; `cargo bench` and `cargo test` pass it
    #[arg(long, hide = true)]
    bench: bool,
}

pub enum Mode {
    Matrix,
    Soak(Duration),
    Mutants,
}

impl Options {
    pub fn mode(&self) -> Mode {
        match self.soak {
            Some(minutes) => Mode::Soak(Duration::from_secs_f64(minutes * 60.0)),
            None if self.mutants => Mode::Mutants,
            None => Mode::Matrix,
        }
    }

    pub fn window(&self) -> Duration {
        Duration::from_secs_f64(if self.quick { 2.0 } else { self.window })
    }

    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000))
    }

    pub fn wants(&self, cell: &Cell) -> bool {
        let name = format!("{}: {}", cell.family, cell.name);
        (!self.quick || cell.quick) && WildMatch::new(&self.cell).matches(&name)
    }
}
