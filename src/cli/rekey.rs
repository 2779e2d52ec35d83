//! `sft rekey`

use std::process::ExitCode;

use serde_json::json;

use super::args::{ClientOptions, RekeyArgs};
use super::failure::Failure;
use super::offline::{self, Offline};
use super::output::bytes;
use super::verify::{faulty, lines};
use crate::app::storage;
use crate::services::rekey::{self, Report};

/// Runs `sft rekey`.
pub(super) fn run(args: RekeyArgs, before: &ClientOptions) -> ExitCode {
    offline::run(before, args.offline, false, async |offline| reseal(offline).await)
}

async fn reseal(offline: Offline) -> Result<(), Failure> {
    let settings = &offline.settings;
    if !settings.upload_dir.is_dir() {
        let path = settings.upload_dir.display();
        return Err(Failure::new("storage_failed", format!("there is no storage directory {path}"))
            .with_hint("UPLOAD_DIR or --upload-dir says where it is"));
    }
    let (storage, held, opened) = storage::take(settings)?;
    storage::mend(settings, &storage, &opened).await?;
    let report = rekey::rekey(&storage, &offline.stop).await;
    // Until the status is written to its end.
    drop(held);
    let Report { resealed, current, bytes: sealed, bad } = report;
    let output = offline.output;
    output.text_if_any(&lines(&bad))?;
    let text = format!(
        "sealed {resealed} files anew ({}); {current} were under the present key already, {} could not be done",
        bytes(sealed),
        bad.len()
    );
    if offline.stop.is_cancelled() {
        return Err(Failure::interrupted(Some(format!("{text}; the same command goes on from there"))));
    }
    let json = json!({
        "success": bad.is_empty(),
        "resealed": resealed,
        "current": current,
        "bytes": sealed,
        "bad": bad.iter().map(faulty).collect::<Vec<_>>(),
    });
    if bad.is_empty() {
        return output.summary(&text, &json);
    }
    Err(Failure::new("rekey_incomplete", text).with_members(json))
}
