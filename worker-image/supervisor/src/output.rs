//! What executors print: cut into lines, logged with the task's id, the last of it kept for the error of a task that
//! ends its executor.

use std::collections::VecDeque;

use uuid::Uuid;

/// A line that grows longer is logged in pieces of this size.
const LINE_MAX: usize = 8 * 1024;
/// How much of a task's last lines is kept.
const KEPT_LINES: usize = 20;
const KEPT_BYTES: usize = 4 * 1024;

/// The output of one executor.
#[derive(Debug)]
pub(crate) struct Output {
    slot: u32,
    task: Option<Uuid>,
    partial: Vec<u8>,
    last: VecDeque<String>,
    last_bytes: usize,
}

impl Output {
    pub(crate) fn new(slot: u32) -> Self {
        Self {
            slot,
            task: None,
            partial: Vec::new(),
            last: VecDeque::new(),
            last_bytes: 0,
        }
    }

    /// What comes from here on is of this task.
    pub(crate) fn begin(&mut self, task: Uuid) {
        self.end_line();
        self.task = Some(task);
        self.last.clear();
        self.last_bytes = 0;
    }

    /// Takes what was read.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= LINE_MAX {
                self.end_line();
            }
        }
    }

    /// The last lines of the task, the unfinished one included.
    pub(crate) fn last_lines(&mut self) -> String {
        self.end_line();
        let lines: Vec<_> = self.last.iter().map(String::as_str).collect();
        lines.join("\n")
    }

    fn end_line(&mut self) {
        if self.partial.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(&self.partial);
        let line = text.trim_end_matches(['\n', '\r']);
        match self.task {
            Some(task) => tracing::info!(target: "output", %task, slot = self.slot, "{line}"),
            None => tracing::info!(target: "output", slot = self.slot, "{line}"),
        }
        let start = line.len().saturating_sub(KEPT_BYTES);
        let start = (start..=line.len())
            .find(|position| line.is_char_boundary(*position))
            .unwrap_or(line.len());
        let line = line[start..].to_owned();
        self.last_bytes += line.len();
        self.last.push_back(line);
        while self.last.len() > KEPT_LINES || self.last_bytes > KEPT_BYTES {
            let Some(first) = self.last.pop_front() else {
                break;
            };
            self.last_bytes -= first.len();
        }
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_the_task_are_kept_and_the_unfinished_one_with_them() {
        let mut output = Output::new(0);
        output.begin(Uuid::nil());
        for number in 0..30 {
            output.take(format!("line {number}\n").as_bytes());
        }
        output.take(b"and th");
        output.take(b"en");
        let lines = output.last_lines();
        assert!(
            lines.starts_with("line 11\n") && lines.ends_with("line 29\nand then"),
            "{lines}"
        );
    }

    #[test]
    fn what_an_earlier_task_printed_is_not_shown_as_this_ones() {
        let mut output = Output::new(0);
        output.begin(Uuid::nil());
        output.take(b"secret of the first\nunfinished");
        output.begin(Uuid::from_u128(1));
        output.take(b"second\n");
        assert_eq!(output.last_lines(), "second");
    }

    #[test]
    fn a_flood_without_a_newline_stays_small() {
        let mut output = Output::new(0);
        for _ in 0..1000 {
            output.take("é".repeat(1000).as_bytes());
        }
        assert!(output.last_lines().len() <= KEPT_BYTES);
        assert!(output.partial.capacity() <= 4 * LINE_MAX);
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_well_as_can_be() {
        let mut output = Output::new(0);
        output.take(b"\xff\xfe ok\r\n");
        assert_eq!(output.last_lines(), "\u{fffd}\u{fffd} ok");
    }
}
