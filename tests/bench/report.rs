//! Tables for people, JSON for machines.

use std::{fmt::Write, fs, path::Path};

use anyhow::Result;
use serde::Serialize;

use crate::{
    import::Import,
    interval::Median,
    pairs::{Figures, Row},
    store,
    work::Command,
};

/// What the worker is to reach beside the echo. An aim is met when the interval reaches it.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Aim {
    ThroughputAtLeast(f64),
    P50AtMost(f64),
}

impl Aim {
    fn of(row: &Row) -> Option<Self> {
        match (row.command, row.in_flight) {
            (Command::Create, 64) => Some(Self::ThroughputAtLeast(0.80)),
            // A server has its round trips: for it there is one aim.
            _ if store::name() != store::SQLITE => None,
            (Command::Create, 1) => Some(Self::P50AtMost(1.6)),
            (Command::Get, 1) => Some(Self::P50AtMost(1.2)),
            (Command::Create, 256) => Some(Self::ThroughputAtLeast(0.80)),
            (Command::Get, 64 | 256) => Some(Self::ThroughputAtLeast(0.90)),
            _ => None,
        }
    }

    fn is_met(self, row: &Row) -> bool {
        match self {
            Self::ThroughputAtLeast(ratio) => row.throughput.high >= ratio,
            Self::P50AtMost(ratio) => row.p50.low <= ratio,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Report {
    reference: &'static str,
    store: &'static str,
    pairs: usize,
    window_ms: u128,
    cores: usize,
    rows: Vec<Judged>,
    import: Option<Import>,
}

#[derive(Serialize)]
struct Judged {
    #[serde(flatten)]
    row: Row,
    aim: Option<Aim>,
    met: Option<bool>,
}

impl Report {
    pub(crate) fn new(plan: &crate::pairs::Plan, rows: Vec<Row>, import: Option<Import>) -> Self {
        let against_echo = matches!(plan.reference, crate::side::Reference::Echo);
        let judge = |row: Row| {
            let aim = Aim::of(&row).filter(|_| against_echo);
            Judged { met: aim.map(|aim| aim.is_met(&row)), aim, row }
        };
        Self {
            reference: plan.reference.name(),
            store: store::name(),
            pairs: plan.pairs,
            window_ms: plan.window.as_millis(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            rows: rows.into_iter().map(judge).collect(),
            import,
        }
    }

    pub(crate) fn all_aims_are_met(&self) -> bool {
        self.rows.iter().all(|row| row.met != Some(false))
    }

    /// Writes `bench.md` and `bench.json`; returns the Markdown.
    pub(crate) fn write(&self, folder: &Path) -> Result<String> {
        fs::create_dir_all(folder)?;
        let markdown = self.markdown();
        fs::write(folder.join("bench.md"), &markdown)?;
        fs::write(folder.join("bench.json"), serde_json::to_string_pretty(self)?)?;
        Ok(markdown)
    }

    fn markdown(&self) -> String {
        let other = self.reference;
        let server = if self.store == store::SQLITE { "" } else { " / database" };
        let mut text = format!(
            "| command | in flight | {other} req/s | worker req/s | ratio [95 %] | {other} p50 / p99 ms \
             | worker p50 / p99 ms | p50 ratio [95 %] | CPU µs per command: {other} / worker / broker{server} \
             | others % of a core | aim |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n"
        );
        for judged in &self.rows {
            line(&mut text, judged);
        }
        let _ = write!(
            text,
            "\n{}, {} pairs of windows of {} ms in turn, {} cores; ratios are medians of the pairs with the interval of \
             their order statistics{}; req/s are medians, p50 and p99 those of all commands. \"Others\" are steal and \
             foreign processes; pairs that lost more than half a core to them were measured again, as often in all as \
             there are pairs.\n",
            self.store,
            self.pairs,
            self.window_ms,
            self.cores,
            self.reached()
        );
        if let Some(import) = &self.import {
            let _ = writeln!(text, "\n{import}");
        }
        text
    }

    /// Few pairs give no interval of 95 %.
    fn reached(&self) -> String {
        match self.rows.first() {
            Some(judged) if judged.row.p50.confidence < 0.95 => {
                format!(" (of {:.0} %, for want of pairs)", judged.row.p50.confidence * 100.0)
            }
            _ => String::new(),
        }
    }
}

fn line(text: &mut String, Judged { row, aim, met }: &Judged) {
    let Row { reference, worker, .. } = row;
    let disturbed = match row.disturbed {
        0 => String::new(),
        count => format!(" ({count} disturbed)"),
    };
    let aim = match aim {
        None => String::new(),
        Some(Aim::ThroughputAtLeast(ratio)) => format!("ratio ≥ {ratio:.2}: "),
        Some(Aim::P50AtMost(ratio)) => format!("p50 ≤ {ratio:.1} ×: "),
    };
    let server = match worker.store_us {
        0.0 => String::new(),
        store_us => format!(" / {store_us:.0}"),
    };
    let met = match met {
        None => "",
        Some(true) => "met",
        Some(false) => "**missed**",
    };
    let _ = writeln!(
        text,
        "| {} | {} | {:.0} | {:.0} | {} | {} | {} | {} | {:.0} / {:.0} / {:.0}{server} | {:.0}{disturbed} | {aim}{met} |",
        row.command.name(),
        row.in_flight,
        reference.per_second,
        worker.per_second,
        ratio(row.throughput),
        latency(reference),
        latency(worker),
        ratio(row.p50),
        reference.cpu_us,
        worker.cpu_us,
        worker.broker_us,
        f64::midpoint(reference.steal + reference.foreign, worker.steal + worker.foreign) * 100.0,
    );
}

fn ratio(Median { median, low, high, .. }: Median) -> String {
    format!("**{median:.2}** [{low:.2}..{high:.2}]")
}

fn latency(figures: &Figures) -> String {
    format!("{:.2} / {:.2}", figures.p50_us as f64 / 1000.0, figures.p99_us as f64 / 1000.0)
}
