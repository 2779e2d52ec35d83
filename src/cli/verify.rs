//! `sft verify`

use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::{ClientOptions, VerifyArgs};
use super::failure::Failure;
use super::offline::{self, Offline};
use super::output::{bytes, printable};
use crate::domain::FileName;
use crate::services::keys::Keys;
use crate::services::reading::Fault;
use crate::services::verify::{self, Report};
use crate::store::Layout;
use crate::store::lock::Lock;

/// Runs `sft verify`.
pub(super) fn run(args: VerifyArgs, before: &ClientOptions) -> ExitCode {
    offline::run(before, args.offline, false, async |offline| check(args.names, offline).await)
}

async fn check(names: Vec<FileName>, offline: Offline) -> Result<(), Failure> {
    let settings = &offline.settings;
    let layout = Layout::new(settings.upload_dir.clone(), settings.log_file.clone());
    let unusable = |error: &dyn std::fmt::Display| {
        let path = settings.upload_dir.display();
        Failure::new("storage_failed", format!("cannot use the storage directory {path}: {error}"))
    };
    let lock = Lock::take_to_read(&layout.lock(), layout.root()).map_err(Failure::from)?;
    if lock.is_none() {
        return Err(
            unusable(&"no server has ever used it").with_hint("UPLOAD_DIR or --upload-dir says where it is")
        );
    }
    let current = settings.encryption_key.as_ref().map(|key| key.as_str());
    let keys = Keys::load(layout.secret_key(), current, &settings.encryption_key_old)
        .map_err(|error| Failure::usage(format!("cannot use the encryption key: {error}")))?;
    let stop = offline.stop.clone();
    let work = tokio::task::spawn_blocking(move || {
        let report = verify::verify(&layout, keys.get().as_deref(), &names, &stop);
        drop(lock);
        report
    });
    let report = work.await.map_err(|error| Failure::new("internal_error", error.to_string()))?;
    let report = report.map_err(|error| unusable(&error))?;
    if offline.stop.is_cancelled() {
        return Err(Failure::interrupted(None));
    }
    tell(&offline, &report)
}

fn tell(offline: &Offline, report: &Report) -> Result<(), Failure> {
    let output = offline.output;
    let Report { good, bytes: read, bad, unfinished } = report;
    if *unfinished {
        output.note("note: the server ended in the middle of an upload; the next start of a server mends what is left of it");
    }
    let lines =
        bad.iter().map(|(name, fault)| format!("{}: {}: {fault}\n", fault.code(), printable(name.as_str())));
    output.text_if_any(&lines.collect::<String>())?;
    let (checked, bad_count) = (good + bad.len(), bad.len());
    let text = format!("verified {checked} files ({}): {good} good, {bad_count} bad", bytes(*read));
    let json = json!({
        "success": bad.is_empty(),
        "checked": checked,
        "good": good,
        "bytes": read,
        "bad": bad.iter().map(faulty).collect::<Vec<_>>(),
    });
    if bad.is_empty() {
        return output.summary(&text, &json);
    }
    Err(Failure::new("verification_failed", text).with_members(json))
}

/// A line for each bad file.
pub(super) fn lines(bad: &[(FileName, Fault)]) -> String {
    bad.iter()
        .map(|(name, fault)| format!("{}: {}: {fault}\n", fault.code(), printable(name.as_str())))
        .collect()
}

/// A bad file for programs.
pub(super) fn faulty((name, fault): &(FileName, Fault)) -> Value {
    json!({"filename": name, "code": fault.code(), "error": fault.to_string()})
}
