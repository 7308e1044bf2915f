//! Planted mistakes: a suite that does not find them proves nothing.

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use rabbitry::failpoints::MUTANTS;

use crate::{cells, options::Options, run, store};

/// The cells that a mistake is looked for in, in this order, until one finds it.
fn hunting_ground(mutant: &str) -> &'static [&'static str] {
    match mutant {
        "ack-before-commit" => &["killed before commit", "kill storm"],
        "reply-before-commit" => &["copied at any moment", "kill storm", "killed after reply"],
        "array-apart" => &["killed before commit", "killed after commit", "kill storm"],
        "unsynced-commit" => &["commits are synced"],
        "stream-end-swallowed" => &["queue deleted and made again"],
        "ack-over-gap" => &[
            "delivery limit reached",
            "killed mid batch",
            "killed before commit",
            "killed before ack",
            "kill storm",
        ],
        "stale-ack" => &["workers' line reset at a locked store"],
        "suspects-not-alone" => &["delivery limit reached"],
        "locks-unsorted" => &["sessions terminated", "rolling restart"],
        "lost-race-ignored" => &["sessions terminated", "kill storm", "rolling restart"],
        "unknown-commit-failed" => &["answers to commits lost"],
        "nack-ignored" => &["dead-letter queue full"],
        _ => &["acknowledgements lost", "kill storm"],
    }
}

/// Mistakes that are planted only in the store on SQLite.
const OF_SQLITE: [&str; 3] = ["reply-before-commit", "array-apart", "unsynced-commit"];

/// Mistakes that are planted only in the store on PostgreSQL.
const OF_POSTGRES: [&str; 3] = ["locks-unsorted", "lost-race-ignored", "unknown-commit-failed"];

/// How often the cells are gone through.
const ROUNDS: u64 = 3;

/// Mistakes that the short suite plants.
const QUICK: [&str; 2] = ["no-inbox", "ack-before-commit"];

/// Plants every mistake; whether each was found.
pub async fn hunt(options: &Options) -> bool {
    let seed = options.seed();
    let of_the_other = if store::is_postgres() { OF_SQLITE } else { OF_POSTGRES };
    let wanted = MUTANTS.iter().filter(|mutant| !of_the_other.contains(mutant));
    hunt_for(&wanted.copied().collect::<Vec<_>>(), options, seed).await
}

pub async fn quick(options: &Options, seed: u64) -> bool {
    hunt_for(&QUICK, options, seed).await
}

async fn hunt_for(mutants: &[&str], options: &Options, seed: u64) -> bool {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(["mutant", "found", "in cell", "by check", "for example"]);
    let mut escaped = Vec::new();
    for mutant in mutants {
        match find(mutant, options, seed).await {
            Some(row) => table.add_row([&[(*mutant).to_owned(), "yes".to_owned()][..], &row].concat()),
            None => {
                escaped.push(*mutant);
                table.add_row([mutant, "NO", "", "", ""])
            }
        };
    }
    println!(
        "\n{table}\n\n{} mutants, {} found (seed {seed}).",
        mutants.len(),
        mutants.len() - escaped.len()
    );
    if !escaped.is_empty() {
        println!("not found: {}", escaped.join(", "));
    }
    escaped.is_empty()
}

/// The cell, the check and the violation that found it.
async fn find(mutant: &str, options: &Options, seed: u64) -> Option<Vec<String>> {
    let cells = cells::all();
    // A kill has to come at the right moment, so that each is tried with another seed if need be.
    let tries = (0..ROUNDS).flat_map(|round| hunting_ground(mutant).iter().map(move |name| (round, name)));
    for (round, name) in tries {
        let cell = cells.iter().find(|cell| cell.name == *name).unwrap_or_else(|| panic!("no cell {name}"));
        let verdict = run::run(cell, options, seed + round, Some(mutant)).await;
        if let Some(violation) = verdict.violations.first() {
            let mut checks: Vec<_> = verdict.violations.iter().map(|violation| violation.check).collect();
            checks.sort_unstable();
            checks.dedup();
            let example: String = violation.detail.chars().take(120).collect();
            println!("{mutant}: found in {name:?} by {}: {example}", checks.join(", "));
            return Some(vec![(*name).to_owned(), checks.join(", "), example.replace(['|', '\n'], " ")]);
        }
        println!("{mutant}: not found in {name:?}");
    }
    None
}
