//! `sft upload`: one file, or several files and directories.

mod many;
mod names;

use std::time::Instant;

use self::names::Item;
use super::args::UploadArgs;
use super::failure::Failure;
use super::output::{bytes, printable};
use super::progress::Progress;
use super::session::Session;
use crate::client::{Chunked, Chunking, Retries, Upload};
use crate::domain::FileName;

/// What to say to who interrupts it: what has arrived of large files is not sent again.
pub(super) fn on_interrupt(args: &UploadArgs) -> Option<String> {
    let chunking = chunking(args);
    let resumable = args.paths.iter().any(|path| {
        // What can't be looked at isn't sent either.
        std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir() || chunking.applies_to(metadata.len()))
    });
    resumable.then(|| "run the same command again to resume".to_owned())
}

pub(super) async fn run(args: UploadArgs, session: &Session) -> Result<(), Failure> {
    match &args.paths[..] {
        [path] if !path.is_dir() => one(&args, session).await,
        _ if args.filename.is_some() => {
            Err(Failure::usage("--filename names one file; several files and directories keep their names"))
        }
        _ => many::run(&args, session).await,
    }
}

fn chunking(args: &UploadArgs) -> Chunking {
    let which = match (args.chunked, args.whole) {
        (true, _) => Chunked::Always,
        (_, true) => Chunked::Never,
        (false, false) => Chunked::Large,
    };
    Chunking { which, chunk_size: args.chunk_size, connections: args.connections.map(usize::from) }
}

/// The upload of a file, as the options have it.
fn upload(args: &UploadArgs, item: &Item) -> Upload {
    Upload {
        path: item.path.clone(),
        name: item.name.clone(),
        priority: Some(args.priority),
        encrypt: args.encrypt,
        retries: Retries::new(args.retry),
        chunking: chunking(args),
    }
}

async fn one(args: &UploadArgs, session: &Session) -> Result<(), Failure> {
    let path = &args.paths[0];
    let own_name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let name = match &args.filename {
        Some(name) => name.clone(),
        None => FileName::clean(&own_name).map_err(|error| {
            let message =
                format!("{:?} cannot be a name on the server: {error}; give one with --filename", own_name);
            Failure::new("invalid_filename", message)
        })?,
    };
    if args.filename.is_none() && own_name != name.as_str() {
        session.output.note(format_args!("note: the server knows {own_name:?} as {name}"));
    }
    let item = Item { path: path.clone(), name, size: 0 };
    let began = Instant::now();
    let progress = Progress::new(session.output);
    let sent = session.client.upload(&upload(args, &item), &progress.observer()).await?;
    drop(progress);
    let text = format!(
        "uploaded {}: {}\nSHA-256 {}",
        printable(sent.value.filename.as_str()),
        pace(sent.value.size, began),
        sent.value.hash
    );
    session.output.summary(&text, &sent.json)
}

/// So many bytes since then, for a person.
fn pace(size: u64, began: Instant) -> String {
    let seconds = began.elapsed().as_secs_f64();
    let speed = (size as f64 / seconds.max(0.001)) as u64;
    format!("{} in {seconds:.1} s ({}/s)", bytes(size), bytes(speed))
}
