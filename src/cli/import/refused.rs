//! The file of refused rows: it can be mended and imported.

use std::{
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

use super::rows::RefusedRow;
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

/// Writes refused rows as they come.
pub(super) struct RefusedFile {
    path: PathBuf,
    writer: csv::Writer<BufWriter<File>>,
    rows: u64,
}

impl RefusedFile {
    /// Begins the file anew.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        let mut writer = csv::Writer::from_writer(BufWriter::new(File::create(&path)?));
        writer.write_record(["line", "username", "email", "points", "code", "detail"])?;
        Ok(Self { path, writer, rows: 0 })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn write(&mut self, row: &RefusedRow) -> io::Result<()> {
        let line = row.line.to_string();
        let points = row.fields.points.as_deref().unwrap_or_default();
        let fields =
            [&line, &row.fields.username, &row.fields.email, points, &row.code, &row.detail].map(one_line);
        self.writer.write_record(fields)?;
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
    use crate::cli::import::columns::{Columns, Fields};

    fn row(username: &str, points: Option<&str>) -> RefusedRow {
        let fields = Fields {
            username: username.to_owned(),
            email: "a@b.c".to_owned(),
            points: points.map(Into::into),
        };
        RefusedRow { line: 7, fields, code: "invalid".to_owned(), detail: "no, \"never\"".to_owned() }
    }

    #[test]
    fn the_file_can_be_imported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("refused.csv");
        let mut file = RefusedFile::create(path.clone()).unwrap();
        for row in [row("a\n\"b,", None), row("", Some("x"))] {
            file.write(&row).unwrap();
        }
        file.finish().unwrap();
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let columns = Columns::read(lines[0].as_bytes()).unwrap();
        let fields = columns.fields(lines[1]).0;
        assert_eq!((fields.username.as_str(), fields.points), ("a \"b,", None));
        assert_eq!(columns.fields(lines[2]).0, row("", Some("x")).fields);
        assert!(lines[2].ends_with(r#"invalid,"no, ""never""""#));
    }

    #[test]
    fn nothing_refused_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("refused.csv");
        fs::write(&path, "of an earlier run").unwrap();
        RefusedFile::create(path.clone()).unwrap().finish().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn the_file_stands_beside_the_input() {
        assert_eq!(default_path(Path::new("a/users.csv")), Path::new("a/users.csv.refused.csv"));
        assert_eq!(default_path(Path::new("-")), Path::new("import.refused.csv"));
    }
}
