//! The file of refused rows: it can be mended and imported.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufRead, BufReader, BufWriter, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{rows::RefusedRow, target::Target};
use crate::cli::files::is_standard;

/// Where refused rows go unless it is said.
pub(super) fn default_path(input: &Path) -> PathBuf {
    if is_standard(input) {
        return PathBuf::from("import.refused.csv");
    }
    let mut path = input.as_os_str().to_owned();
    path.push(".refused.csv");
    path.into()
}

/// Whether two names lead to one file, be it by links.
pub(super) fn is_same(input: &Path, refused: &Path) -> bool {
    let input = if is_standard(input) { Path::new("/dev/stdin") } else { input };
    let identity = |file| fs::metadata(file).map(|found| (found.dev(), found.ino())).ok();
    identity(input).is_some_and(|input| identity(refused) == Some(input))
}

/// Whether a file is there that was not written by an earlier import: it may be somebody's only copy.
fn is_foreign(header: &[&str], path: &Path) -> io::Result<bool> {
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    // What was named may be a device.
    if !found.is_file() || found.len() == 0 {
        return Ok(false);
    }
    let header = header.join(",");
    let mut line = Vec::new();
    BufReader::new(File::open(path)?.take(header.len() as u64 + 2)).read_until(b'\n', &mut line)?;
    Ok(line.trim_ascii_end() != header.as_bytes())
}

/// The columns: the row's line, its fields, and why it was refused.
fn header(target: &Target) -> Vec<&str> {
    let fields = target.fields.iter().map(|field| field.name.as_str());
    ["line"].into_iter().chain(fields).chain(["code", "detail"]).collect()
}

/// An empty file that nobody else may read, as it may hold what is not for everybody.
fn private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // It may have been there; what was named may be a device.
    if file.metadata()?.is_file() {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Writes refused rows as they come.
pub(super) struct RefusedFile {
    path: PathBuf,
    writer: csv::Writer<BufWriter<File>>,
    rows: u64,
    fields: usize,
}

impl RefusedFile {
    /// Begins the file anew, if it is one of refused rows.
    pub(super) fn create(target: &Target, path: PathBuf) -> io::Result<Self> {
        let header = header(target);
        if is_foreign(&header, &path)? {
            return Err(io::Error::other("it holds something else than refused rows"));
        }
        let mut writer = csv::Writer::from_writer(BufWriter::new(private(&path)?));
        writer.write_record(&header)?;
        Ok(Self { path, writer, rows: 0, fields: target.fields.len() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn write(&mut self, row: &RefusedRow) -> io::Result<()> {
        let line = row.line.to_string();
        let field = |index| row.fields.get(index).and_then(Option::as_deref).unwrap_or_default();
        let fields = (0..self.fields).map(field);
        let all = [line.as_str()].into_iter().chain(fields).chain([row.code.as_str(), &row.detail]);
        self.writer.write_record(all.map(one_line))?;
        self.rows += 1;
        Ok(())
    }

    /// Writes out what is buffered; a file without a row is removed.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        // What was named may be a device.
        if self.rows == 0 && fs::metadata(&self.path)?.is_file() {
            fs::remove_file(&self.path)?;
        }
        Ok(())
    }
}

/// A row is a line, in this file too.
fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{About, import::columns::Columns},
        toy::Toys,
    };

    fn target() -> Target {
        Target::new(&[About::of::<Toys>()], "toys.make", None).unwrap()
    }

    fn row(name: &str, count: Option<&str>) -> RefusedRow {
        let fields = vec![Some(name.to_owned()), Some("a@b.c".to_owned()), count.map(Into::into)];
        RefusedRow {
            line: 7,
            fields,
            code: "invalid".to_owned(),
            detail: "no, \"never\"".to_owned(),
            bytes: 9,
        }
    }

    #[test]
    fn the_file_can_be_imported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("refused.csv");
        let mut file = RefusedFile::create(&target(), path.clone()).unwrap();
        for row in [row("a\n\"b,", None), row("", Some("x"))] {
            file.write(&row).unwrap();
        }
        file.finish().unwrap();
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let columns = Columns::read(&target(), lines[0].as_bytes()).unwrap();
        let fields = columns.fields(lines[1]).0;
        assert_eq!(fields, ["a \"b,", "a@b.c", ""].map(|text| Some(text.to_owned())));
        assert_eq!(columns.fields(lines[2]).0, row("", Some("x")).fields);
        assert!(lines[2].ends_with(r#"invalid,"no, ""never""""#));
    }

    #[test]
    fn nobody_else_may_read_refused_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("refused.csv");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let mut file = RefusedFile::create(&target(), path.clone()).unwrap();
        assert_eq!(mode(), 0o600);
        file.write(&row("ann", None)).unwrap();
        file.finish().unwrap();
        // One of an earlier import.
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        drop(RefusedFile::create(&target(), path.clone()).unwrap());
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn nothing_refused_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("refused.csv");
        for earlier in ["", "line,name,label,count,code,detail\r\n7,ann,,,invalid,no\r\n"] {
            fs::write(&path, earlier).unwrap();
            RefusedFile::create(&target(), path.clone()).unwrap().finish().unwrap();
            assert!(!path.exists());
        }
    }

    #[test]
    fn what_holds_no_refused_rows_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        for text in [&b"of mine"[..], b"\n", b"line,name,label,count,code,detail,more\n", &[0xff; 9]] {
            fs::write(&path, text).unwrap();
            assert!(RefusedFile::create(&target(), path.clone()).is_err());
            assert_eq!(fs::read(&path).unwrap(), text);
        }
        assert!(RefusedFile::create(&target(), "/dev/null".into()).is_ok());
    }

    #[test]
    fn the_file_stands_beside_the_input() {
        assert_eq!(default_path(Path::new("a/users.csv")), Path::new("a/users.csv.refused.csv"));
        assert_eq!(default_path(Path::new("-")), Path::new("import.refused.csv"));
    }
}
