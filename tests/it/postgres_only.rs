//! What only the store on PostgreSQL does; what every store does is in the store contract.

mod faults;
mod open;
mod round_trips;
mod workers;

use crate::support::{database::Database, postgres::Own};

impl Database {
    /// Changes the database behind the store's back.
    fn change(&self, sql: &str) {
        self.meddle("", sql);
    }

    fn text(&self, sql: &str) -> String {
        self.rows(sql)[0][0].clone()
    }
}

/// The URL with one more parameter.
fn with(url: &str, name: &str, value: &str) -> String {
    let mut url = url::Url::parse(url).unwrap();
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    url.query_pairs_mut().clear();
    for (other, text) in pairs.iter().filter(|(other, _)| other != name) {
        url.query_pairs_mut().append_pair(other, text);
    }
    let before = pairs.iter().find(|(other, _)| other == name && name == "options");
    let value = before.map_or(value.to_owned(), |(_, before)| format!("{before} {value}"));
    url.query_pairs_mut().append_pair(name, &value);
    // The server takes %20 for a space, and a plus as it is.
    url.as_str().replace('+', "%20")
}

fn own_database(properties: &str) -> Database {
    Database::of(Own::database(properties))
}
