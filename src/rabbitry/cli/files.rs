//! What an export writes and an import reads.

use std::path::Path;

use clap::ValueEnum;

use super::Failure;
use crate::exit;

/// The form of such a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FileFormat {
    /// A header line that names the columns, then an entity a line
    Csv,
    /// A JSON object a line
    #[value(alias = "jsonl")]
    Ndjson,
}

impl FileFormat {
    /// The format that was named, or else the one that the file's name tells; standard input and output are CSV.
    pub(super) fn choose(named: Option<Self>, file: &Path) -> Result<Self, Failure> {
        if let Some(format) = named {
            return Ok(format);
        }
        let extension = file.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("csv") => Ok(Self::Csv),
            Some("ndjson" | "jsonl") => Ok(Self::Ndjson),
            _ if is_standard(file) => Ok(Self::Csv),
            _ => Err(Failure::new(
                exit::USAGE,
                format!(
                    "the name {} does not tell whether it is CSV or NDJSON; add --format csv or --format ndjson",
                    file.display()
                ),
            )),
        }
    }
}

/// Whether `-` was named: standard input, or standard output.
pub(super) fn is_standard(file: &Path) -> bool {
    file == Path::new("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_tells_the_format_unless_it_is_named() {
        let choose = |named, file: &str| FileFormat::choose(named, Path::new(file)).ok();
        assert_eq!(choose(None, "a.csv"), Some(FileFormat::Csv));
        assert_eq!(choose(None, "A.CSV"), Some(FileFormat::Csv));
        assert_eq!(choose(None, "a.csv.ndjson"), Some(FileFormat::Ndjson));
        assert_eq!(choose(None, "a.jsonl"), Some(FileFormat::Ndjson));
        assert_eq!(choose(None, "-"), Some(FileFormat::Csv));
        assert_eq!(choose(Some(FileFormat::Ndjson), "a.csv"), Some(FileFormat::Ndjson));
        assert_eq!(choose(None, "a.txt"), None);
        assert_eq!(choose(None, "csv"), None);
    }
}
