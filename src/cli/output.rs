//! What the commands write: data to standard output, everything else to standard error.

use std::fmt::Display;
use std::io::{self, Write};

use serde_json::Value;

use super::failure::Failure;

/// How a command was asked to write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    /// JSON instead of text.
    pub(super) json: bool,
    /// No notes and no summaries.
    pub(super) quiet: bool,
    /// Standard output is taken by the content of a file.
    pub(super) stdout_is_taken: bool,
}

impl Output {
    /// Writes data as text, which is left out with `--json`.
    pub(super) fn text(&self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { self.write(text) }
    }

    /// Writes data as text, if there is some.
    pub(super) fn text_if_any(&self, text: &str) -> Result<(), Failure> {
        if text.is_empty() { Ok(()) } else { self.text(text) }
    }

    /// Writes a summary of what was done, as text, or as JSON with `--json`.
    pub(super) fn summary(&self, text: &str, json: &Value) -> Result<(), Failure> {
        match (self.json, self.quiet) {
            (true, _) => self.json(json),
            (false, true) => Ok(()),
            (false, false) => self.write(text),
        }
    }

    /// Writes a summary of what was done in part; its JSON is that of the failure.
    pub(super) fn text_unless_quiet(&self, text: &str) -> Result<(), Failure> {
        if self.quiet { Ok(()) } else { self.text(text) }
    }

    /// Writes the one JSON document, if `--json` asks for it.
    pub(super) fn json(&self, json: &Value) -> Result<(), Failure> {
        if self.json { self.write(&format!("{json:#}")) } else { Ok(()) }
    }

    /// Tells the user something that is not data.
    pub(super) fn note(&self, note: impl Display) {
        if !self.quiet {
            // Nowhere is left to say that standard error is closed.
            let _ = writeln!(io::stderr(), "{note}");
        }
    }

    /// Tells of one of several things that went wrong.
    pub(super) fn error(&self, error: impl Display) {
        let _ = writeln!(io::stderr(), "{error}");
    }

    /// Tells what went wrong.
    pub(super) fn failure(&self, failure: &Failure) {
        if failure.is_silent() {
            return;
        }
        if self.json {
            // There is nothing left to do about an output that cannot be written to.
            let _ = self.write(&format!("{:#}", failure.to_json()));
        } else {
            let _ = writeln!(io::stderr(), "{failure}");
        }
    }

    /// Writes one of many lines of data.
    ///
    /// # Errors
    /// Also where who reads has seen enough: there is no use in going on.
    pub(super) fn stream_line(&self, text: &str) -> Result<(), Failure> {
        line(io::stdout().lock(), text).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::silent(),
            _ => Failure::new("output_failed", format!("cannot write the output: {error}")),
        })
    }

    /// Writes one of many JSON documents, in a line of its own.
    ///
    /// # Errors
    /// As [`Output::stream_line`].
    pub(super) fn json_line(&self, json: &Value) -> Result<(), Failure> {
        self.stream_line(&json.to_string())
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        let written = if self.stdout_is_taken {
            line(io::stderr().lock(), text)
        } else {
            line(io::stdout().lock(), text)
        };
        written.or_else(|error| match error.kind() {
            // `sft status | head -1`: who reads has seen enough.
            io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(Failure::new("output_failed", format!("cannot write the output: {error}"))),
        })
    }
}

fn line(mut output: impl Write, text: &str) -> io::Result<()> {
    output.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        output.write_all(b"\n")?;
    }
    output.flush()
}

/// Text from elsewhere, made safe for a terminal: what could move its cursor or turn the direction is shown as `\u{…}`.
pub(super) fn printable(text: &str) -> String {
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || turns(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

/// Bytes for a person: `1.21 KiB`.
pub(super) fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

/// Whole seconds for a person: `42s`, `3m07s`, `5h00m`, `2d03h`.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days}d{:02}h", hours % 24),
        () if hours > 0 => format!("{hours}h{:02}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m{:02}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

/// Rows as aligned columns, the first row being the head. The last column is not padded, so that it is the place for text
/// whose width on the screen is not known. A column is aligned to the right if `right` says so.
pub(super) fn table(rows: &[Vec<String>], right: &[bool]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            match (column + 1 == columns, right.get(column)) {
                (true, _) => text.push_str(cell),
                (false, Some(true)) => text.extend([padding.as_str(), cell, "  "]),
                (false, _) => text.extend([cell.as_str(), padding.as_str(), "  "]),
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["STATUS", "SIZE", "NAME"], ["completed", "1", "日本"], ["failed", "12345", "a"]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
        let shown = "STATUS      SIZE  NAME\ncompleted      1  日本\nfailed     12345  a\n";
        assert_eq!(table(&rows, &[false, true, false]), shown);
    }

    #[test]
    fn a_name_cannot_write_to_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n\u{202e}c é 日"), "a\\u{1b}[2Jb\\u{a}\\u{202e}c é 日");
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, shown) in
            [(0, "0s"), (59, "59s"), (187, "3m07s"), (18_000, "5h00m"), (183_600, "2d03h")]
        {
            assert_eq!(duration(seconds), shown);
        }
    }
}
