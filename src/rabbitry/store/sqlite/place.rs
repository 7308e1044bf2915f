//! Where a database lies: paths, permissions, and file systems that cannot carry it.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{
    service::Unavailable,
    store::{OpenError, sqlite::write_lock::beside},
};

/// A database file, by its real path.
#[derive(Debug, Clone)]
pub(super) struct Place(PathBuf);

/// Tells a file from another one that has taken its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Place {
    /// Finds the real path, makes the directories that are missing, and refuses what cannot carry a database.
    pub(super) fn prepare(path: &Path) -> Result<Self, OpenError> {
        let path = std::path::absolute(path).map_err(|error| failed("find", path, &error))?;
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(is_directory(&path));
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| failed("make the directory", directory, &error))?;
        refuse_network_file_system(directory)?;
        // Two names of one file (links) must lead to one set of lock files.
        let real = match fs::canonicalize(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::canonicalize(directory).map(|directory| directory.join(name))
            }
            found => found,
        };
        let real = real.map_err(|error| failed("find", &path, &error))?;
        if real.is_dir() { Err(is_directory(&real)) } else { Ok(Self(real)) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes an empty database that only its owner can read, as it will hold e-mail addresses; SQLite gives the files
    /// beside it the same mode. Nothing happens if there is one.
    ///
    /// To be called under the write lock: closing a file drops all of this process's POSIX locks on it, so that it
    /// must not be opened while SQLite has it open.
    pub(super) fn create(&self) -> Result<(), OpenError> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.0) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // SQLite would open a file that cannot be written, and each write would fail.
                let writable = OpenOptions::new().write(true).open(&self.0);
                writable.map(drop).map_err(|error| failed("open", &self.0, &error))
            }
            made => made.map(drop).map_err(|error| failed("create", &self.0, &error)),
        }
    }

    /// Which file lies there now.
    pub(super) fn identity(&self) -> io::Result<Identity> {
        identity(&self.0)
    }

    /// What tells the write-ahead log from another one of its name.
    pub(super) fn wal_identity(&self) -> io::Result<Identity> {
        identity(&beside(&self.0, "-wal"))
    }

    /// The size of the write-ahead log in bytes; 0 if there is none.
    pub(super) fn wal_bytes(&self) -> u64 {
        fs::metadata(beside(&self.0, "-wal")).map_or(0, |found| found.len())
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|found| Identity { device: found.dev(), inode: found.ino() })
}

fn is_directory(path: &Path) -> OpenError {
    let path = path.display();
    OpenError::Refused(format!("{path} is a directory; name a file in it, such as {path}/users.db"))
}

/// What was attempted, with what, and what to do: an error that somebody has to mend is refused, any other may pass.
pub(super) fn failed(attempt: &str, path: &Path, error: &io::Error) -> OpenError {
    use ErrorKind::{
        AlreadyExists, InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound,
        PermissionDenied, ReadOnlyFilesystem,
    };
    let what = format!("cannot {attempt} {}: {error}", path.display());
    match error.kind() {
        PermissionDenied | ReadOnlyFilesystem => OpenError::Refused(format!(
            "{what}; choose a path that this user may write, or change the owner of its directory"
        )),
        NotADirectory | AlreadyExists | IsADirectory | InvalidFilename | InvalidInput | NotFound => {
            OpenError::Refused(format!("{what}; choose another path"))
        }
        _ => OpenError::Unavailable(Unavailable(what.into())),
    }
}

#[cfg(target_os = "linux")]
fn refuse_network_file_system(directory: &Path) -> Result<(), OpenError> {
    let found = rustix::fs::statfs(directory)
        .map_err(|error| failed("examine the file system of", directory, &error.into()))?;
    // The kind is a number of 32 bits, sign-extended on some architectures.
    match unsuitable((found.f_type as u64 & 0xFFFF_FFFF) as u32) {
        None => Ok(()),
        Some(kind) => Err(OpenError::Refused(format!(
            "{} lies on {kind}: locks and shared memory do not reliably work there, and the database would be \
             damaged; choose a local disk, or PostgreSQL for workers on several machines",
            directory.display()
        ))),
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_network_file_system(_directory: &Path) -> Result<(), OpenError> {
    Ok(())
}

/// File systems that several machines share, or that a program stands behind. Of the latter (FUSE) some are local,
/// but sshfs, s3fs, virtiofs and the mounts of container desktops cannot be told from them by their number, and a
/// refusal costs less than a damaged database.
#[cfg(any(target_os = "linux", test))]
fn unsuitable(kind: u32) -> Option<&'static str> {
    Some(match kind {
        0x6969 => "a network file system (NFS)",
        0x517B | 0xFF53_4D42 | 0xFE53_4D42 => "a network file system (SMB)",
        0x6573_5546 => "a file system in user space (FUSE: sshfs, s3fs, virtiofs and others)",
        0x0102_1997 => "a network file system (9p)",
        0x5346_414F | 0x6B41_4653 => "a network file system (AFS)",
        0x7375_7245 => "a network file system (Coda)",
        0x564C => "a network file system (NCP)",
        0x00C3_6400 => "a network file system (Ceph)",
        0x0BD0_0BD0 => "a network file system (Lustre)",
        0x4750_4653 => "a network file system (GPFS)",
        0x1983_0326 => "a network file system (BeeGFS)",
        0x2003_0528 => "a network file system (OrangeFS)",
        0x0116_1970 => "a shared-disk file system (GFS2)",
        0x7461_636F => "a shared-disk file system (OCFS2)",
        0x786F_4256 => "a shared folder of a virtual machine (vboxsf)",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn refusal(result: Result<Place, OpenError>) -> String {
        match result {
            Err(OpenError::Refused(sentence)) => sentence,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn network_file_systems_are_told_from_local_ones() {
        let network = [0x6969, 0xFE53_4D42, 0xFF53_4D42, 0x517B, 0x6573_5546, 0x0102_1997, 0x00C3_6400];
        // ext4, xfs, btrfs, tmpfs, zfs, overlay, f2fs.
        let local = [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x2FC1_2FC1, 0x794C_7630, 0xF2F5_2010];
        assert!(network.into_iter().all(|kind| unsuitable(kind).is_some()));
        assert!(local.into_iter().all(|kind| unsuitable(kind).is_none()));
    }

    #[test]
    fn missing_directories_are_made_and_links_lead_to_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::prepare(&dir.path().join("a/b/users.db")).unwrap();
        place.create().unwrap();
        let link = dir.path().join("link.db");
        std::os::unix::fs::symlink(place.path(), &link).unwrap();
        assert_eq!(Place::prepare(&link).unwrap().path(), place.path());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(place.path()), 0o600);
        assert_eq!(mode(&dir.path().join("a")), 0o700);
    }

    #[test]
    fn what_is_no_place_for_a_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(refusal(Place::prepare(dir.path())).contains("is a directory; name a file in it"));
        assert!(refusal(Place::prepare(Path::new("/"))).contains("is a directory"));
        fs::write(dir.path().join("file"), "").unwrap();
        let below = dir.path().join("file/users.db");
        assert!(refusal(Place::prepare(&below)).contains("cannot make the directory"));
        let proc = refusal(Place::prepare(Path::new("/proc/rabbitry/users.db")));
        assert!(proc.contains("cannot make the directory /proc/rabbitry"), "{proc}");
    }

    #[test]
    fn a_file_that_took_the_name_of_another_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::prepare(&dir.path().join("users.db")).unwrap();
        place.create().unwrap();
        let before = place.identity().unwrap();
        assert_eq!(place.identity().unwrap(), before);
        fs::rename(place.path(), dir.path().join("moved.db")).unwrap();
        place.create().unwrap();
        assert_ne!(place.identity().unwrap(), before);
    }
}
