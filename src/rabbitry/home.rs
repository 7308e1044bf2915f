//! What `make up` wrote down: where the project's own broker and store are, so that nothing needs exporting.

use std::{
    collections::HashMap,
    env, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

use crate::config::ConfigError;

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
    ///
    /// # Errors
    /// [`ConfigError`] if `RABBITRY_HOME` names a folder that is not there, or the one that was found could be written by
    /// somebody else: on a shared machine that would redirect commands, and what they hold.
    pub fn find() -> Result<Option<Self>, ConfigError> {
        if let Some(named) = env::var_os("RABBITRY_HOME").filter(|value| !value.is_empty()) {
            let home = Self(PathBuf::from(named));
            return if home.0.is_dir() { Ok(Some(home)) } else { Err(home.missing()) };
        }
        let starts = [env::current_dir(), env::current_exe()];
        let above = |start: PathBuf| {
            let mut folders = start.ancestors().map(|folder| folder.join(FOLDER));
            folders.find(|folder| folder.is_dir())
        };
        let found = starts.into_iter().flatten().find_map(above).map(Self);
        found.map(|home| home.check_owner().map(|()| home)).transpose()
    }

    fn missing(&self) -> ConfigError {
        let folder = self.0.display();
        ConfigError::new(format!(
            "RABBITRY_HOME names {folder}, which is no folder; `make up` makes it, or leave RABBITRY_HOME out"
        ))
    }

    fn check_owner(&self) -> Result<(), ConfigError> {
        let files = STATE.iter().map(|file| self.0.join(file)).filter(|file| file.exists());
        for path in [self.0.clone()].into_iter().chain(files) {
            let found = fs::metadata(&path)
                .map_err(|error| ConfigError::new(format!("cannot look at {}: {error}", path.display())))?;
            if !is_trusted(found.uid(), found.mode(), geteuid().as_raw()) {
                return Err(ConfigError::new(format!(
                    "{} is not used, as others than you may write it (owner: user {}, mode: {:o}); name it with RABBITRY_HOME \
                     if it is right, or see to it that only you or root can write it",
                    path.display(),
                    found.uid(),
                    found.mode() & 0o777
                )));
            }
        }
        Ok(())
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

/// As git does since CVE-2022-24765.
fn is_trusted(owner: u32, mode: u32, user: u32) -> bool {
    (owner == user || owner == 0) && mode & 0o022 == 0
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
    fn what_others_may_write_is_not_trusted() {
        assert!(is_trusted(1000, 0o40755, 1000) && is_trusted(0, 0o40755, 1000));
        for (owner, mode) in [(1001, 0o40755), (1000, 0o40775), (1000, 0o40757), (0, 0o41777)] {
            assert!(!is_trusted(owner, mode, 1000), "{owner} {mode:o}");
        }
    }

    #[test]
    fn the_state_file_is_lines_of_key_and_value() {
        let state = parse("# broker\nAMQP_URL=amqp://a:b=c@127.0.0.1:5672/%2f\nBROKER_PID=\n\n");
        assert_eq!(state.get("AMQP_URL").map(String::as_str), Some("amqp://a:b=c@127.0.0.1:5672/%2f"));
        assert_eq!(state.len(), 1);
    }
}
