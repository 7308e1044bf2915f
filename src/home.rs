//! What `make up` wrote down: where the project's own broker and store are, so that nothing needs exporting.

use std::{
    collections::HashMap,
    env, fs, io,
    path::{Path, PathBuf},
};

/// The folder's name.
const FOLDER: &str = ".rabbitry";
/// The files in it, lines of `KEY=value`: the broker that is up, and the store that was chosen, if it is no file.
const STATE: [&str; 2] = ["state.env", "store.env"];

/// A folder of the project's own broker and data: `$RABBITRY_HOME`, or the nearest `.rabbitry` at or above the working
/// directory or the program.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// Finds the folder, if there is one.
    pub fn find() -> Option<Self> {
        if let Some(named) = env::var_os("RABBITRY_HOME").filter(|value| !value.is_empty()) {
            return Some(Self(PathBuf::from(named)));
        }
        let starts = [env::current_dir(), env::current_exe()];
        let above = |start: PathBuf| {
            let mut folders = start.ancestors().map(|folder| folder.join(FOLDER));
            folders.find(|folder| folder.is_dir())
        };
        starts.into_iter().flatten().find_map(above).map(Self)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether a broker of its own was ever brought up here: its data lie in a folder, or in a volume of Docker's.
    pub fn has_had_a_broker(&self) -> bool {
        ["broker/data", "broker/volume"].iter().any(|data| self.0.join(data).exists())
    }

    /// Reads the state files; empty if nothing was brought up.
    ///
    /// # Errors
    /// If there is a file that cannot be read.
    pub fn state(&self) -> io::Result<HashMap<String, String>> {
        let mut state = HashMap::new();
        for file in STATE {
            match fs::read_to_string(self.0.join(file)) {
                Ok(text) => state.extend(parse(&text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(state)
    }
}

fn parse(text: &str) -> HashMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        .filter(|(key, value)| !key.starts_with('#') && !value.is_empty())
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_that_of_the_broker_and_of_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home(folder.path().to_owned());
        assert!(home.state().unwrap().is_empty());
        fs::write(folder.path().join("state.env"), "AMQP_URL=amqp://a\n").unwrap();
        fs::write(folder.path().join("store.env"), "DATABASE_URL=postgresql://b\n").unwrap();
        let state = home.state().unwrap();
        assert_eq!(
            (state["AMQP_URL"].as_str(), state["DATABASE_URL"].as_str()),
            ("amqp://a", "postgresql://b")
        );
    }

    #[test]
    fn a_home_has_had_a_broker_of_its_own_if_it_has_its_data() {
        for data in ["broker/data/node", "broker/volume"] {
            let folder = tempfile::tempdir().unwrap();
            let home = Home(folder.path().to_owned());
            assert!(!home.has_had_a_broker());
            // All that is there when another broker was used.
            fs::create_dir_all(folder.path().join("broker/log")).unwrap();
            assert!(!home.has_had_a_broker());
            fs::create_dir_all(folder.path().join(data)).unwrap();
            assert!(home.has_had_a_broker());
        }
    }

    #[test]
    fn the_state_file_is_lines_of_key_and_value() {
        let state = parse("# broker\nAMQP_URL=amqp://a:b=c@127.0.0.1:5672/%2f\nBROKER_PID=\n\n");
        assert_eq!(state.get("AMQP_URL").map(String::as_str), Some("amqp://a:b=c@127.0.0.1:5672/%2f"));
        assert_eq!(state.len(), 1);
    }
}
