//! `sft upload`

use std::time::Instant;

use super::args::UploadArgs;
use super::failure::Failure;
use super::output::{bytes, printable};
use super::progress::Progress;
use super::session::Session;
use crate::client::{Chunking, Retries, Upload};
use crate::domain::FileName;

pub(super) async fn run(args: UploadArgs, session: &Session) -> Result<(), Failure> {
    let own_name = args.file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
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
    let upload = Upload {
        path: args.file,
        name,
        priority: Some(args.priority),
        encrypt: args.encrypt,
        retries: Retries::new(args.retry),
        chunking: Chunking::default(),
    };
    let began = Instant::now();
    let progress = Progress::new(session.output);
    let sent = session.client.upload(&upload, &progress.observer()).await?;
    drop(progress);
    let seconds = began.elapsed().as_secs_f64();
    let speed = (sent.value.size as f64 / seconds.max(0.001)) as u64;
    let text = format!(
        "uploaded {}: {} in {seconds:.1} s ({}/s)\nSHA-256 {}",
        printable(sent.value.filename.as_str()),
        bytes(sent.value.size),
        bytes(speed),
        sent.value.hash
    );
    session.output.summary(&text, &sent.json)
}
