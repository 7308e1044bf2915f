//! A file, line by line, in memory that no line can exhaust.

use std::io::{self, BufRead, Read};

/// A line that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Its number in the file, from 1; empty lines count.
    pub(super) number: u64,
    /// Its bytes without the line break; of a line that is too long, only the beginning, which is too long as well.
    pub(super) text: &'a [u8],
}

/// The lines of a file.
pub(super) struct Lines<R> {
    reader: R,
    max: usize,
    buffer: Vec<u8>,
    number: u64,
    offset: u64,
}

impl<R: BufRead> Lines<R> {
    /// The lines of at most `max` bytes, and the beginnings of longer ones.
    pub(super) fn new(reader: R, max: usize) -> Self {
        Self { reader, max, buffer: Vec::new(), number: 0, offset: 0 }
    }

    /// The next line that holds more than white space.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            if !self.read_line()? {
                return Ok(None);
            }
            if self.number == 1 && self.buffer.starts_with(b"\xEF\xBB\xBF") {
                // Spreadsheet programs begin their files with a byte order mark.
                self.buffer.drain(..3);
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(Some(Line { number: self.number, text: &self.buffer }));
            }
        }
    }

    /// How many bytes were read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads a line into the buffer; `false` at the end.
    fn read_line(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        let limit = (self.max + "\r\n".len()) as u64;
        let mut length = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.buffer)?;
        if length == 0 {
            return Ok(false);
        }
        if length as u64 == limit && !self.buffer.ends_with(b"\n") {
            length += self.reader.skip_until(b'\n')?;
        }
        self.offset += length as u64;
        self.number += 1;
        if self.buffer.pop_if(|last| *last == b'\n').is_some() {
            self.buffer.pop_if(|last| *last == b'\r');
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PAYLOAD_BYTES_MAX;

    fn lines(text: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut lines = Lines::new(text, PAYLOAD_BYTES_MAX);
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push((line.number, line.text.to_vec()));
        }
        assert_eq!(lines.offset(), text.len() as u64);
        found
    }

    fn line(number: u64, text: &str) -> (u64, Vec<u8>) {
        (number, text.into())
    }

    #[test]
    fn lines_end_in_either_way_and_empty_ones_only_count() {
        assert_eq!(lines(b"a\r\n\n \t\r\nb\nc"), [line(1, "a"), line(4, "b"), line(5, "c")]);
        assert_eq!(lines(b""), []);
        assert_eq!(lines(b"\n\n"), []);
        assert_eq!(lines(b"a\rb\n"), [line(1, "a\rb")]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        assert_eq!(lines(b"\xEF\xBB\xBFa\n\xEF\xBB\xBFb"), [line(1, "a"), line(2, "\u{FEFF}b")]);
    }

    #[test]
    fn lines_are_whole_up_to_the_limit_and_longer_ones_are_too_long_and_spoil_no_other() {
        for end in ["\n", "\r\n"] {
            for length in (PAYLOAD_BYTES_MAX - 2..PAYLOAD_BYTES_MAX + 4).chain([3 * PAYLOAD_BYTES_MAX]) {
                let text = "x".repeat(length);
                let found = lines([&text, end, "b", end, &text].concat().as_bytes());
                assert_eq!((found.len(), &found[1]), (3, &line(2, "b")), "{length}");
                for kept in [&found[0].1, &found[2].1] {
                    assert!(kept.len() == length || length > PAYLOAD_BYTES_MAX, "{length}");
                    assert_eq!(kept.len() > PAYLOAD_BYTES_MAX, length > PAYLOAD_BYTES_MAX, "{length}");
                    assert!(kept.len() <= PAYLOAD_BYTES_MAX + 2, "{length}");
                }
            }
        }
    }
}
