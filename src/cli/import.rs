//! `sft import`

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::args::{ClientOptions, ImportArgs};
use super::failure::Failure;
use super::offline::{self, Offline};
use super::output::{bytes, printable};
use crate::app::storage;
use crate::services::import::{self, Plan, Report};
use crate::services::keys::Keys;
use crate::store::Layout;
use crate::store::lock::Lock;
use crate::store::status::StatusStore;

/// Runs `sft import`.
pub(super) fn run(args: ImportArgs, before: &ClientOptions) -> ExitCode {
    let options = args.offline.clone();
    offline::run(before, options, false, async |offline| take_over(args, offline).await)
}

async fn take_over(args: ImportArgs, offline: Offline) -> Result<(), Failure> {
    let settings = &offline.settings;
    for (theirs, ours, setting) in
        [(&args.from, &settings.upload_dir, "UPLOAD_DIR"), (&args.status, &settings.log_file, "LOG_FILE")]
    {
        if is_same(theirs, ours) {
            let shown = theirs.display();
            return Err(Failure::usage(format!(
                "{shown} is what is to be taken over: {setting} must be another"
            )));
        }
    }
    let plan = import::plan(&args.from, &args.status);
    let plan = plan.map_err(|error| Failure::new("cannot_read", error.to_string()))?;
    let report = if args.dry_run {
        rehearse(plan, &offline).await?
    } else {
        let (storage, held, opened) = storage::take(settings)?;
        import::resume(&plan, &storage.layout, &storage.status)
            .map_err(|error| Failure::new("storage_failed", error.to_string()))?;
        storage::mend(settings, &storage, &opened).await?;
        let report = import::import(plan, &storage, settings.encryption, &offline.stop).await;
        // Until the status is written to its end.
        drop(held);
        report
    };
    tell(&offline, args.dry_run, &report)
}

async fn rehearse(plan: Plan, offline: &Offline) -> Result<Report, Failure> {
    let settings = &offline.settings;
    let layout = Layout::new(settings.upload_dir.clone(), settings.log_file.clone());
    let lock = Lock::take_to_read(&layout.lock(), layout.root())?;
    let current = settings.encryption_key.as_ref().map(|key| key.as_str());
    let keys = Keys::load(layout.secret_key(), current, &settings.encryption_key_old)
        .map_err(|error| Failure::usage(format!("cannot use the encryption key: {error}")))?;
    let status =
        StatusStore::read_only(&layout).map_err(|error| Failure::new("storage_failed", error.to_string()))?;
    let stop = offline.stop.clone();
    let work = tokio::task::spawn_blocking(move || {
        let report = import::rehearse(plan, &layout, &status, &keys, &stop);
        drop(lock);
        report
    });
    work.await.map_err(|error| Failure::new("internal_error", error.to_string()))
}

fn is_same(theirs: &Path, ours: &Path) -> bool {
    matches!((theirs.canonicalize(), ours.canonicalize()), (Ok(theirs), Ok(ours)) if theirs == ours)
}

fn tell(offline: &Offline, dry_run: bool, report: &Report) -> Result<(), Failure> {
    let output = offline.output;
    let Report { taken, bytes: size, history, present, unchecked, refused } = report;
    let lines = refused.iter().map(|(key, why)| format!("{}: {}: {why}\n", why.code(), printable(key)));
    output.text_if_any(&lines.collect::<String>())?;
    for key in unchecked {
        output.note(format_args!("note: {}: no SHA-256 was recorded to compare it with", printable(key)));
    }
    let text = format!(
        "{} {taken} files ({}) and {history} other records; {present} were here already, {} can't be taken",
        if dry_run { "would take" } else { "took" },
        bytes(*size),
        refused.len()
    );
    if offline.stop.is_cancelled() {
        return Err(Failure::interrupted(Some(format!("{text}; the same command goes on from there"))));
    }
    let json = json!({
        "success": refused.is_empty(),
        "dry_run": dry_run,
        "taken": taken,
        "bytes": size,
        "history": history,
        "present": present,
        "unchecked": unchecked,
        "refused": refused
            .iter()
            .map(|(key, why)| json!({"name": key, "code": why.code(), "error": why.to_string()}))
            .collect::<Vec<_>>(),
    });
    if refused.is_empty() {
        return output.summary(&text, &json);
    }
    Err(Failure::new("import_incomplete", text).with_members(json))
}
