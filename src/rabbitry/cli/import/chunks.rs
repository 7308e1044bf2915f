//! Rows become messages. Where a file is cut, and the messages' ids, follow from its content alone, so that a second
//! run sends the same messages and the inbox answers them as it did before.
//!
//! A chunk is a fixed number of rows *of the file*, refused ones included, or less where its lines are so long that they might
//! not fit into a message: a row that one version of the program refuses and another takes does not shift the rows behind it.
//!
//! An id is made of the position of the chunk's first row and a hash of the message. It tells no time, so it never
//! expires, and sent again after the inbox has forgotten it the chunk is executed again: what creates is then refused as
//! existing, and nothing is doubled; what adds is added again.

use std::io::{self, BufRead};

use sha2::{Digest, Sha256};

use super::rows::{RefusedRow, Row, Rows};
use crate::{
    amqp::client::Command,
    limits::{ARRAY_BYTES_MAX, ARRAY_ITEMS_MAX, IMPORT_CHUNK_ROWS, PAYLOAD_BYTES_MAX},
};

/// The most bytes that a row may take in a message: each byte of its line may be escaped by five more, and the names of its
/// fields and their defaults take some room.
const fn bytes_in_message(line: usize) -> usize {
    6 * line + 512
}
const _: () = assert!(IMPORT_CHUNK_ROWS <= ARRAY_ITEMS_MAX);
const _: () = assert!(bytes_in_message(PAYLOAD_BYTES_MAX) < ARRAY_BYTES_MAX);

/// Some rows of the file, in one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The position of its first row in the file, from 0.
    pub(super) first_row: u64,
    /// What is sent.
    pub(super) rows: Vec<Row>,
    /// What cannot be sent.
    pub(super) refused: Vec<RefusedRow>,
    /// How many bytes of the file were read with it.
    pub(super) offset: u64,
}

impl Chunk {
    /// How many rows of the file it stands for.
    pub(super) fn len(&self) -> usize {
        self.rows.len() + self.refused.len()
    }

    /// The first line and the last.
    pub(super) fn lines(&self) -> (u64, u64) {
        let lines = || self.rows.iter().map(|row| row.line).chain(self.refused.iter().map(|row| row.line));
        (lines().min().unwrap_or(0), lines().max().unwrap_or(0))
    }

    /// The message of a command with these payloads; none if there are none.
    pub(super) fn message<'a>(
        &self,
        command: &str,
        payloads: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Command> {
        let body = payloads.collect::<Vec<_>>().join(&b","[..]);
        (!body.is_empty()).then(|| message(command, self.first_row, &[b"[", &body[..], b"]"].concat()))
    }
}

fn message(name: &str, first_row: u64, body: &[u8]) -> Command {
    let mut hash = Sha256::new();
    hash.update(name);
    hash.update([0]);
    hash.update(first_row.to_be_bytes());
    hash.update(body);
    let digest: String = hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    // A person who meets it in a log or a dead letter knows what it belongs to.
    let message_id = format!("import-{first_row:010}-{digest}");
    Command { name: name.to_owned(), body: body.to_vec(), message_id }
}

/// The chunks of a file.
pub(super) struct Chunks<R> {
    rows: Rows<R>,
    next_row: u64,
    /// The first row of the next chunk, for which there was no room.
    left: Option<Result<Row, Box<RefusedRow>>>,
}

impl<R: BufRead> Chunks<R> {
    pub(super) fn new(rows: Rows<R>) -> Self {
        Self { rows, next_row: 0, left: None }
    }

    fn next_in(&mut self) -> io::Result<Option<Result<Row, Box<RefusedRow>>>> {
        match self.left.take() {
            Some(row) => Ok(Some(row)),
            None => self.rows.next(),
        }
    }
}

impl<R: BufRead> Iterator for Chunks<R> {
    type Item = io::Result<Chunk>;

    fn next(&mut self) -> Option<io::Result<Chunk>> {
        let mut chunk = Chunk { first_row: self.next_row, rows: Vec::new(), refused: Vec::new(), offset: 0 };
        let mut room = ARRAY_BYTES_MAX;
        while chunk.len() < IMPORT_CHUNK_ROWS {
            let row = match self.next_in() {
                Ok(Some(row)) => row,
                Ok(None) => break,
                // A cut-off chunk would get an id of its own, and be sent again in whole by the next run.
                Err(error) => return Some(Err(error)),
            };
            let line = row.as_ref().map_or_else(|refused| refused.bytes, |row| row.bytes);
            match room.checked_sub(bytes_in_message(line.min(PAYLOAD_BYTES_MAX))) {
                Some(left) => room = left,
                None => {
                    self.left = Some(row);
                    break;
                }
            }
            match row {
                Ok(row) => chunk.rows.push(row),
                Err(refused) => chunk.refused.push(*refused),
            }
        }
        self.next_row += chunk.len() as u64;
        chunk.offset = self.rows.offset();
        (chunk.len() > 0).then_some(Ok(chunk))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufReader, Read},
        sync::Arc,
    };

    use proptest::prelude::*;

    use super::*;
    use crate::{
        cli::{
            About,
            import::{columns::Columns, rows::Form, target::Target},
            lines::Lines,
        },
        limits::PAYLOAD_BYTES_MAX,
        toy::Toys,
    };

    fn target() -> Arc<Target> {
        Arc::new(Target::new(&[About::of::<Toys>()], "toys.make", Some("toys.look")).unwrap())
    }

    fn create(chunk: &Chunk) -> Option<Command> {
        chunk.message("make", chunk.rows.iter().map(|row| &row.payload[..]))
    }

    fn chunks(file: &str) -> Vec<Chunk> {
        read(file.as_bytes())
    }

    fn read(file: impl BufRead) -> Vec<Chunk> {
        let form = Form::Csv(Columns::read(&target(), b"name,label").unwrap());
        let rows = Rows::new(Lines::new(file, PAYLOAD_BYTES_MAX), form, target());
        Chunks::new(rows).map(Result::unwrap).collect()
    }

    fn ids(chunks: &[Chunk]) -> Vec<Option<String>> {
        chunks.iter().map(|chunk| create(chunk).map(|command| command.message_id)).collect()
    }

    fn file(rows: impl Iterator<Item = usize>) -> String {
        rows.map(|row| format!("user-{row},user-{row}@example.com\n")).collect()
    }

    /// Hands out a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(buffer.len());
            self.0.read(&mut buffer[..length])
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Any file, whatever is in it.
        #[test]
        fn a_file_is_cut_the_same_way_however_it_arrives(
            kinds in prop::collection::vec(0..6u8, 0..1600),
            step in 1..5000usize,
        ) {
            let line = |(index, kind): (usize, &u8)| match kind {
                0 => "\n".to_owned(),
                1 => "\"broken\n".to_owned(),
                2 => "no-address,\r\n".to_owned(),
                _ => file(std::iter::once(index)),
            };
            let file: String = kinds.iter().enumerate().map(line).collect();
            let cut = chunks(&file);
            prop_assert_eq!(&cut, &read(BufReader::new(Slow(file.as_bytes(), step))));
            let rows = kinds.iter().filter(|kind| **kind != 0).count();
            prop_assert_eq!(cut.iter().map(Chunk::len).sum::<usize>(), rows);
            for (index, chunk) in cut.iter().enumerate() {
                prop_assert_eq!(chunk.first_row, (index * IMPORT_CHUNK_ROWS) as u64);
                prop_assert!(chunk.len() == IMPORT_CHUNK_ROWS || index + 1 == cut.len());
            }
        }

        /// A row that is bad keeps its place, so that all other messages stay what they are.
        #[test]
        fn a_bad_row_changes_the_id_of_its_own_chunk_only(bad in 0..1600usize) {
            let good = file(0..1600);
            let mut lines: Vec<_> = good.lines().collect();
            lines[bad] = "\"user,";
            let (before, after) = (ids(&chunks(&good)), ids(&chunks(&lines.join("\n"))));
            for (index, (before, after)) in before.iter().zip(&after).enumerate() {
                prop_assert_eq!(before == after, index != bad / IMPORT_CHUNK_ROWS);
            }
        }
    }

    #[test]
    fn ids_tell_position_and_content_and_nothing_else() {
        let rows = IMPORT_CHUNK_ROWS;
        let cut = chunks(&file(0..2 * rows + 1));
        assert_eq!(cut.iter().map(Chunk::len).collect::<Vec<_>>(), [rows, rows, 1]);
        let found = ids(&cut);
        assert_eq!(found, ids(&chunks(&file(0..2 * rows + 1).replace('\n', "\r\n"))));
        // The id of these rows stays what it is: a change would let files be imported twice.
        assert_eq!(found[2].as_deref(), Some("import-0000001000-3bfcbd71e12aaac94390ba5684d73e1d"));
        // The same rows at another place are another message; so is what another command makes of them.
        let moved = ids(&chunks(&(file(rows..2 * rows) + &file(0..rows))));
        assert!(moved.iter().all(|id| !found.contains(id)));
        let then = cut[0].rows.iter().flat_map(|row| row.then.as_deref());
        let promote = cut[0].message("look", then).unwrap();
        assert_ne!(Some(promote.message_id), found[0]);
        assert!(promote.body.starts_with(br#"[{"name":"user-0"},{"name":"user-1"},"#));
    }

    #[test]
    fn what_has_no_row_is_no_message() {
        let cut = chunks("x\ny\n");
        assert_eq!((cut.len(), cut[0].len(), cut[0].lines()), (1, 2, (1, 2)));
        assert!(create(&cut[0]).is_none());
        assert!(chunks("").is_empty());
    }

    #[test]
    fn rows_that_might_not_fit_into_one_message_become_several() {
        // Each byte is escaped, and the rows are as long as can be.
        let local = "\\\"".repeat(31);
        let domain = format!("{0}.{0}.{0}.com", "d".repeat(61));
        let rows = (0..2 * IMPORT_CHUNK_ROWS).map(|row| {
            let name = format!("{row:0>64}");
            serde_json::json!({"name": name, "label": format!("\"{local}\"@{domain}")}).to_string() + "\n"
        });
        let file: String = rows.collect();
        let lines = Lines::new(file.as_bytes(), PAYLOAD_BYTES_MAX);
        let cut: Vec<_> = Chunks::new(Rows::new(lines, Form::Ndjson, target())).map(Result::unwrap).collect();
        assert!(cut.iter().all(|chunk| chunk.refused.is_empty()));
        assert_eq!(cut.iter().map(Chunk::len).sum::<usize>(), 2 * IMPORT_CHUNK_ROWS);
        assert!(cut.len() > 2);
        for (chunk, next) in cut.iter().zip(&cut[1..]) {
            assert!(create(chunk).unwrap().body.len() <= ARRAY_BYTES_MAX);
            assert_eq!(chunk.first_row + chunk.len() as u64, next.first_row);
        }
    }
}
