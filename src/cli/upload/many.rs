//! Several files under one progress bar: what fails with one of them does not keep the others.

use std::path::{Path, PathBuf};
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};

use super::names::{self, Found, Item};
use super::{chunking, pace, upload};
use crate::cli::args::UploadArgs;
use crate::cli::failure::Failure;
use crate::cli::output::printable;
use crate::cli::progress::Progress;
use crate::cli::session::Session;
use crate::client::{Answer, Uploaded};

/// Small files on their way at once. Large ones go one after the other: each has several connections by itself.
const AT_ONCE: usize = 4;

/// What became of a file.
type Ended<'a> = (&'a Item, Result<Answer<Uploaded>, Failure>);

pub(super) async fn run(args: &UploadArgs, session: &Session) -> Result<(), Failure> {
    let paths = args.paths.clone();
    let found = tokio::task::spawn_blocking(move || names::find(&paths));
    let found = found.await.map_err(|error| Failure::new("internal_error", error.to_string()))??;
    for path in &found.skipped {
        let path = printable(&path.display().to_string());
        session.output.note(format_args!("note: {path} is no regular file, and is left out"));
    }
    let began = Instant::now();
    let progress = Progress::over(session.output, found.items.iter().map(|item| item.size).sum());
    let mut ended = Vec::with_capacity(found.items.len());
    let chunking = chunking(args);
    let (large, small): (Vec<&Item>, Vec<&Item>) =
        found.items.iter().partition(|item| chunking.applies_to(item.size));
    let at_once = args.connections.map_or(AT_ONCE, usize::from);
    send(args, session, &progress, small, at_once, &mut ended).await;
    send(args, session, &progress, large, 1, &mut ended).await;
    drop(progress);
    tell(session, &found, ended, began)
}

/// Sends these files, so many at once, until all are through or none can be any more.
async fn send<'a>(
    args: &UploadArgs,
    session: &Session,
    progress: &Progress,
    items: Vec<&'a Item>,
    at_once: usize,
    ended: &mut Vec<Ended<'a>>,
) {
    let mut waiting = items.into_iter();
    let mut running = FuturesUnordered::new();
    loop {
        let hopeless = ended.iter().any(|(_, outcome)| outcome.as_ref().is_err_and(Failure::concerns_all));
        while running.len() < at_once {
            let Some(item) = waiting.next() else { break };
            if hopeless {
                let failure = Failure::new("not_tried", "not tried, for the same would happen");
                ended.push((item, Err(failure)));
                continue;
            }
            running.push(async move {
                let observer = progress.observer_of(item.name.as_str());
                let sent = session.client.upload(&upload(args, item), &observer).await;
                (item, sent.map_err(Failure::from))
            });
        }
        match running.next().await {
            None => return,
            Some(done) => ended.push(done),
        }
    }
}

fn tell(session: &Session, found: &Found, mut ended: Vec<Ended<'_>>, began: Instant) -> Result<(), Failure> {
    ended.sort_by(|(one, _), (other, _)| one.path.cmp(&other.path));
    let mut results = Vec::with_capacity(ended.len() + found.failed.len());
    let (mut count, mut size) = (0, 0);
    let mut failed: Vec<(&PathBuf, &Failure)> = Vec::new();
    for (item, outcome) in &ended {
        match outcome {
            Ok(sent) => {
                count += 1;
                size += sent.value.size;
                results.push(success(&item.path, sent));
            }
            Err(failure) => failed.push((&item.path, failure)),
        }
    }
    failed.extend(found.failed.iter().map(|(path, failure)| (path, failure)));
    for (path, failure) in &failed {
        results.push(failure_of(path, failure));
        if !session.output.json {
            session.output.error(format_args!("{}: {failure}", printable(&path.display().to_string())));
        }
    }
    let total = count + failed.len();
    let json = json!({"success": failed.is_empty(), "total_files": total, "successful": count,
        "failed": failed.len(), "results": results});
    let text = format!("uploaded {count} of {total} files: {}", pace(size, began));
    if failed.is_empty() {
        return session.output.summary(&text, &json);
    }
    session.output.text_unless_quiet(&text)?;
    let message = format!("{} of {total} files have not been uploaded", failed.len());
    Err(Failure::new("files_failed", message).with_members(json))
}

fn success(path: &Path, sent: &Answer<Uploaded>) -> Value {
    let value = &sent.value;
    json!({"path": path.display().to_string(), "filename": value.filename, "status": "success",
        "hash": value.hash, "size": value.size, "encryption": value.encryption})
}

fn failure_of(path: &Path, failure: &Failure) -> Value {
    let mut json = failure.to_json();
    if let Some(members) = json.as_object_mut() {
        members.remove("success");
        members.insert("path".to_owned(), json!(path.display().to_string()));
        members.insert("status".to_owned(), json!("failed"));
    }
    json
}
