//! `sft watch`

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::args::WatchArgs;
use super::failure::Failure;
use super::output::{Output, bytes, duration, printable};
use super::session::Session;
use crate::client::{Next, Told, TransferStatus};

/// Running transfers that are shown at once; of more, how many.
const ROWS: usize = 20;
const BAR: usize = 20;

pub(super) async fn run(args: WatchArgs, session: &Session) -> Result<(), Failure> {
    let mut watch = session.client.watch(args.name).await?;
    let mut screen = Screen::new(session.output);
    loop {
        match watch.next().await? {
            Next::Told(told) => screen.show(&told)?,
            Next::Lost(error, wait) => screen.note(&format!(
                "{}. Trying again in {:.0} s",
                printable(&error.to_string()),
                wait.as_secs_f64()
            )),
        }
    }
}

/// Rows of running transfers on a terminal, and a line on standard output for each that began or ended.
struct Screen {
    output: Output,
    rows: MultiProgress,
    running: HashMap<String, ProgressBar>,
    /// Below them, how many more there are; whether it is shown.
    more: (ProgressBar, bool),
    /// Transfers of the first snapshot are the past: they are shown if they run.
    greeted: bool,
}

impl Screen {
    fn new(output: Output) -> Self {
        let hidden = output.quiet || output.json;
        let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let rows = MultiProgress::with_draw_target(target);
        let more = (row(), false);
        Self { output, rows, running: HashMap::new(), more, greeted: false }
    }

    fn show(&mut self, told: &Told) -> Result<(), Failure> {
        match told.event.as_str() {
            "transfer_update" | "status_update" => match told.data.get("transfers") {
                Some(Value::Object(transfers)) => {
                    // What ended while nobody was connected was told of one by one.
                    let first = !std::mem::replace(&mut self.greeted, true);
                    for transfer in transfers.values() {
                        self.transfer(transfer, first || !is_running(transfer))?;
                    }
                    Ok(())
                }
                _ => self.transfer(&told.data, false),
            },
            "error" => {
                let message = told.data.get("message").and_then(Value::as_str);
                self.note(&format!("note: {}", printable(message.unwrap_or("the server reports an error"))));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A new state of a transfer; `past`: it is not news.
    fn transfer(&mut self, data: &Value, past: bool) -> Result<(), Failure> {
        let Ok(transfer) = serde_json::from_value::<TransferStatus>(data.clone()) else { return Ok(()) };
        if self.output.json {
            return self.output.json_line(data);
        }
        let id = data.get("id").and_then(Value::as_str).unwrap_or(&transfer.filename).to_owned();
        if is_running(data) {
            self.advance(id, &transfer);
            return Ok(());
        }
        if let Some(row) = self.running.remove(&id) {
            row.finish_and_clear();
            self.rows.remove(&row);
            self.count();
        } else if past {
            return Ok(());
        }
        let line = line(&transfer);
        self.rows.suspend(|| self.output.stream_line(&line))
    }

    fn advance(&mut self, id: String, transfer: &TransferStatus) {
        let count = self.running.len();
        let row = self.running.entry(id).or_insert_with(|| {
            let row = row();
            if count < ROWS { self.rows.add(row) } else { row }
        });
        row.set_message(line(transfer));
        self.count();
    }

    fn count(&mut self) {
        let hidden = self.running.len().saturating_sub(ROWS);
        let (row, shown) = &mut self.more;
        if hidden > 0 {
            if !std::mem::replace(shown, true) {
                self.rows.add(row.clone());
            }
            row.set_message(format!("… and {hidden} more"));
        } else if std::mem::take(shown) {
            self.rows.remove(row);
        }
    }

    fn note(&self, note: &str) {
        self.rows.suspend(|| self.output.note(note));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nothing left to do about a terminal that is gone.
        let _ = self.rows.clear();
    }
}

fn is_running(data: &Value) -> bool {
    !matches!(data.get("status").and_then(Value::as_str), Some("completed" | "failed" | "cancelled"))
}

fn row() -> ProgressBar {
    let row = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    row.set_style(
        ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    row
}

/// A transfer in one line: columns of fixed width, the name last.
fn line(transfer: &TransferStatus) -> String {
    let running = !matches!(transfer.status.as_str(), "completed" | "failed" | "cancelled");
    let filled = (transfer.progress.clamp(0.0, 100.0) / 100.0 * BAR as f64) as usize;
    let bar = if transfer.total_bytes.is_some() || transfer.progress > 0.0 {
        format!("[{}{}] {:>3.0}%", "=".repeat(filled), " ".repeat(BAR - filled), transfer.progress)
    } else {
        " ".repeat(BAR + 7)
    };
    let of = transfer.total_bytes.map(|total| format!(" of {}", bytes(total))).unwrap_or_default();
    let moved = format!("{}{of}", bytes(transfer.transferred_bytes));
    let speed = transfer.speed.filter(|speed| *speed > 0.0).map(|speed| format!("{}/s", bytes(speed as u64)));
    let left =
        transfer.eta.filter(|_| running).map(|eta| duration(Duration::from_secs_f64(eta.max(0.0)).as_secs()));
    let direction = if transfer.direction.as_deref() == Some("download") { "down" } else { "up" };
    let error = transfer.error.as_deref().map(|error| format!(": {}", printable(error))).unwrap_or_default();
    format!(
        "{:11} {direction:4} {bar}  {moved:>24}  {:>14}  {:>6}  {}{error}",
        printable(&transfer.status),
        speed.unwrap_or_default(),
        left.unwrap_or_default(),
        printable(&transfer.filename),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_what_is_known_and_no_more() {
        let line = |extra: Value| {
            let mut members = json!({"filename": "a\u{1b}b", "status": "uploading", "progress": 50, "speed": 1_048_576,
                "eta": 90, "transferred_bytes": 512, "total_bytes": 1024, "direction": "upload"});
            members.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            super::line(&serde_json::from_value(members).unwrap())
        };
        assert_eq!(
            line(json!({})),
            "uploading   up   [==========          ]  50%         512 B of 1.00 KiB      1.00 MiB/s   1m30s  a\\u{1b}b"
        );
        assert_eq!(
            line(json!({"total_bytes": null, "progress": 0, "eta": null, "speed": 0})),
            format!("uploading   up   {:27}  {:>24}  {:>14}  {:>6}  a\\u{{1b}}b", "", "512 B", "", "")
        );
        let failed =
            line(json!({"status": "failed", "error": "the client hung up", "direction": "download"}));
        assert!(
            failed.starts_with("failed      down ") && failed.ends_with("a\\u{1b}b: the client hung up"),
            "{failed}"
        );
        assert!(!failed.contains("1m30s"), "{failed}");
    }
}
