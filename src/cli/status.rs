//! `sft status`

use super::args::StatusArgs;
use super::failure::Failure;
use super::output::{bytes, duration, printable, table};
use super::session::Session;
use crate::client::{StatusPage, TransferStatus};

pub(super) async fn run(args: StatusArgs, session: &Session) -> Result<(), Failure> {
    match &args.file {
        Some(name) => {
            let answer = session.client.transfer(name).await?;
            session.output.text(&one(&answer.value))?;
            session.output.json(&answer.json)
        }
        None => {
            let answer = session.client.status().await?;
            session.output.text(&all(&answer.value))?;
            session.output.json(&answer.json)
        }
    }
}

/// All that is known of one transfer, a line each; what is not known has no line.
fn one(transfer: &TransferStatus) -> String {
    let text = |text: &Option<String>| text.as_deref().map(printable);
    let rows = [
        ("name", Some(printable(&transfer.filename))),
        ("status", Some(printable(&transfer.status))),
        ("direction", text(&transfer.direction)),
        ("progress", Some(format!("{:.0}%", transfer.progress))),
        ("bytes", Some(size(transfer))),
        (
            "speed",
            transfer.speed.filter(|speed| *speed > 0.0).map(|speed| format!("{}/s", bytes(speed as u64))),
        ),
        ("time left", eta(transfer)),
        ("SHA-256", text(&transfer.checksum)),
        ("encrypted", Some(if transfer.encryption { "yes" } else { "no" }.to_owned())),
        ("priority", Some(transfer.priority.to_string())),
        ("client", text(&transfer.client_id).or_else(|| text(&transfer.client_ip))),
        ("retries", Some(transfer.retry_count).filter(|count| *count > 0).map(|count| count.to_string())),
        ("created", text(&transfer.created_at)),
        ("updated", text(&transfer.updated_at)),
        ("error", text(&transfer.error)),
    ];
    let rows: Vec<Vec<String>> =
        rows.into_iter().filter_map(|(label, value)| Some(vec![format!("{label}:"), value?])).collect();
    table(&rows, &[])
}

/// A line for each transfer, and what waits.
fn all(page: &StatusPage) -> String {
    if page.transfers.is_empty() && page.queue.is_empty() {
        return "no transfers yet\n".to_owned();
    }
    let mut rows =
        vec![["STATUS", "DONE", "SIZE", "SPEED", "LEFT", "UPDATED", "NAME"].map(str::to_owned).to_vec()];
    for transfer in &page.transfers {
        let running = !matches!(transfer.status.as_str(), "completed" | "failed" | "cancelled");
        let speed = transfer.speed.filter(|_| running).map(|speed| format!("{}/s", bytes(speed as u64)));
        // To the second: the rest is in `--file` and `--json`.
        let updated = transfer.updated_at.as_deref().unwrap_or_default().chars().take(19).collect::<String>();
        rows.push(vec![
            printable(&transfer.status),
            format!("{:.0}%", transfer.progress),
            transfer.total_bytes.map(bytes).unwrap_or_default(),
            speed.unwrap_or_default(),
            eta(transfer).filter(|_| running).unwrap_or_default(),
            printable(&updated).replace('T', " "),
            printable(&transfer.filename),
        ]);
    }
    let mut text = table(&rows, &[false, true, true, true, true, false, false]);
    let shown = page.transfers.len() as u64;
    if let Some(all) = page.metadata.total_transfers.filter(|all| *all > shown) {
        text.push_str(&format!("{shown} of {all} transfers\n"));
    }
    if !page.queue.is_empty() {
        let mut rows = vec![vec!["PRIORITY".to_owned(), "WAITING".to_owned()]];
        rows.extend(
            page.queue.iter().map(|waiting| vec![waiting.priority.to_string(), printable(&waiting.filename)]),
        );
        text.push('\n');
        text.push_str(&table(&rows, &[true, false]));
    }
    text
}

fn size(transfer: &TransferStatus) -> String {
    match transfer.total_bytes {
        Some(total) if total == transfer.transferred_bytes => format!("{total} ({})", bytes(total)),
        Some(total) => format!("{} of {total} ({})", transfer.transferred_bytes, bytes(total)),
        None => transfer.transferred_bytes.to_string(),
    }
}

fn eta(transfer: &TransferStatus) -> Option<String> {
    transfer.eta.filter(|seconds| *seconds > 0.0).map(|seconds| duration(seconds as u64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn transfer(extra: serde_json::Value) -> TransferStatus {
        let mut members = json!({"filename": "a b.txt", "status": "uploading", "progress": 50, "speed": 1024,
            "eta": 90, "transferred_bytes": 512, "total_bytes": 1024, "updated_at": "2026-11-23T08:00:00.5Z"});
        members.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(members).unwrap()
    }

    #[test]
    fn the_table_has_a_line_for_each_transfer_and_the_queue() {
        let page: StatusPage = serde_json::from_value(json!({
            "transfers": [], "queue": [{"filename": "q", "priority": 9}], "metadata": {"total_transfers": 5}
        }))
        .unwrap();
        let page = StatusPage {
            transfers: vec![
                transfer(json!({})),
                transfer(json!({"status": "completed", "progress": 100, "filename": "x\u{1b}y"})),
            ],
            ..page
        };
        let lines = [
            "STATUS     DONE      SIZE       SPEED   LEFT  UPDATED              NAME",
            "uploading   50%  1.00 KiB  1.00 KiB/s  1m30s  2026-11-23 08:00:00  a b.txt",
            "completed  100%  1.00 KiB                     2026-11-23 08:00:00  x\\u{1b}y",
            "2 of 5 transfers",
            "",
            "PRIORITY  WAITING",
            "       9  q",
        ];
        assert_eq!(all(&page).lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn nothing_yet_is_said_in_words() {
        let page = serde_json::from_value(json!({"transfers": [], "queue": [], "metadata": {}})).unwrap();
        assert_eq!(all(&page), "no transfers yet\n");
    }

    #[test]
    fn one_transfer_has_a_line_for_each_thing_that_is_known() {
        let shown = one(&transfer(json!({"error": "the client hung up", "status": "failed"})));
        assert!(shown.starts_with("name:       a b.txt\nstatus:     failed\nprogress:   50%\n"), "{shown}");
        assert!(shown.contains("\nbytes:      512 of 1024 (1.00 KiB)\n"), "{shown}");
        assert!(shown.ends_with("\nerror:      the client hung up\n"), "{shown}");
        assert!(!shown.contains("SHA-256"), "{shown}");
    }
}
